"""`postroom queue` and `postroom why`: what waits, what became of it, and changing that by hand."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..errors import Fault, InvalidInput, NotFound
from ..model.quantity import duration_in_words, parse_duration
from ..model.queue import DeliveryState
from .connection import GatewayClient, ask, run
from .options import AsJson, Data
from .output import plain, print_fields, print_json, print_table

app = typer.Typer(help="The queue: deliveries, one for each recipient of a message.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The message; `last` is the newest.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Messages; `last` is the newest.")]
State = Annotated[
    list[DeliveryState] | None,
    typer.Option("--state", metavar="STATE", help="Deliveries in this state; may be repeated."),
]
Account = Annotated[str, typer.Option("--account", metavar="NAME", help="Deliveries of this account.")]
All = Annotated[bool, typer.Option("--all", help="All that the command may move.")]
Number = Annotated[int | None, typer.Option("-n", metavar="NUMBER", help="One delivery of the message alone, from 0.")]

_LIST = ("id", "n", "state", "recipient", "account", "tries", "accepted", "due", "said")
_DELIVERIES = ("n", "recipient", "state", "account", "tries", "due", "window_ends", "gives_up", "reply")
_ATTEMPTS = ("n", "number", "started", "account", "outcome", "sent_to", "remote_host", "command", "reply", "advice")
_MESSAGE = (
    "id", "accepted", "door", "application", "peer", "reverse_path", "subject", "tag", "header_message_id",
    "size_bytes", "resubmits",
)  # fmt: skip


@app.command("list")
def list_deliveries(
    state: State = None,
    account: Account = "",
    recipient: Annotated[str, typer.Option(metavar="ADDRESS", help="To this address, or one that begins so.")] = "",
    domain: Annotated[str, typer.Option(metavar="NAME", help="To this domain, or one that begins so.")] = "",
    sender: Annotated[str, typer.Option(metavar="ADDRESS", help="From this address, or one that begins so.")] = "",
    message_id: Annotated[
        str, typer.Option(metavar="ID", help="With this id (ours, or the Message-ID), or one that begins so.")
    ] = "",
    application: Annotated[str, typer.Option(metavar="NAME", help="From this application.")] = "",
    tag: Annotated[str, typer.Option(metavar="WORD", help="With this tag.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="Accepted then or later: 2026-11-20, or 2d (ago).")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Accepted before.")] = "",
    subject: Annotated[
        str, typer.Option(metavar="WORDS", help="With all these words in the subject, or beginnings as in inv*.")
    ] = "",
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=1000, help="At most so many.")] = 50,
    after: Annotated[
        str, typer.Option("--after", "--cursor", metavar="TEXT", help="Go on where the page before ended.")
    ] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, the newest message first."""
    given = {"account": account, "recipient": recipient, "domain": domain, "sender": sender, "message_id": message_id}
    given |= {"application": application, "tag": tag, "since": since, "until": until, "subject": subject}
    given["cursor"] = after
    parameters = [(name, value) for name, value in given.items() if value]
    parameters += [("limit", str(limit)), *(("state", one.value) for one in state or ())]
    answer = ask(data, "GET", "/v1/deliveries", parameters=parameters)
    if as_json:
        print_json(answer)
        return
    rows = [row | {"id": row["message_id"], "said": row["reply"]} for row in answer["deliveries"]]
    print_table(_LIST, rows, empty="no deliveries")
    if answer["next"]:
        typer.echo(f"more: --after {answer['next']}")


@app.command("show")
def show_message(
    message_id: Id,
    content: Annotated[bool, typer.Option("--content", help="Print the message itself as it was stored.")] = False,
    transcript: Annotated[
        bool, typer.Option("--transcript", help="Print what was said in the attempts that failed, without content.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show a message: its deliveries, every attempt and what happened."""

    async def work(client: GatewayClient) -> Any:
        path = f"/v1/messages/{await _resolved(client, message_id)}"
        return await client.ask("GET", path), await client.ask("GET", f"{path}/content") if content else b""

    message, raw = run(data, work)
    if content:
        sys.stdout.buffer.write(raw)
    elif as_json:
        print_json(message)
    elif transcript:
        _print_transcripts(message["attempts"])
    else:
        print_fields({name: message[name] for name in _MESSAGE})
        if message["connection"]:
            typer.echo("\nconnection of its own")
            print_fields(message["connection"])
        typer.echo("\ndeliveries")
        print_table(_DELIVERIES, message["deliveries"])
        for one in message["deliveries"]:
            for mark in one["marks"]:
                typer.echo(f"{plain(one['recipient'])}: {plain(mark)}")
        _print_as_sent(message["deliveries"])
        typer.echo("\nattempts")
        print_table(_ATTEMPTS, message["attempts"])
        typer.echo("\nevents")
        print_table(("at", "kind", "n", "account", "detail"), message["events"])


def _print_as_sent(deliveries: list[Any]) -> None:
    """What accounts change, each once with the numbers of its deliveries."""
    numbers: dict[tuple[str, ...], list[int]] = {}
    for one in deliveries:
        if lines := as_sent_lines(one["as_sent"]):
            numbers.setdefault(tuple(lines), []).append(one["n"])
    for (heading, *changes), of in numbers.items():
        typer.echo(f"\n{heading} (delivery {', '.join(map(str, of))}):")
        for change in changes:
            typer.echo(f"  {change}")


def as_sent_lines(told: dict[str, Any] | None) -> list[str]:
    """A heading, and a line for each thing that the account changes; nothing where it changes nothing."""
    if told is None:
        return []
    if told["why"]:
        return [f"as sent by account {plain(told['account'])}: not known", plain(told["why"])]
    lines = [
        f"{one['field']}: {plain(one['before']) or '(none)'} -> {plain(one['after']) or '(none)'}"
        for one in told["rewrites"]
    ]
    lines += [
        f"DKIM signature: {one['domain']}, selector {one['selector']} ({one['algorithm']})"
        for one in told["signatures"]
    ]
    tense = "would be sent" if told["tense"] == "would" else "was sent"
    return [f"{tense} by account {plain(told['account'])} so", *lines] if lines else []


def _print_transcripts(attempts: list[Any]) -> None:
    said = [one for one in attempts if one["transcript"]]
    for one in said:
        typer.echo(f"{one['started']} {one['account']}")
        for line in one["transcript"].split("\n"):
            typer.echo(f"  {plain(line)}")
    if not said:
        typer.echo("no attempt failed")


async def _resolved(client: GatewayClient, message_id: str) -> str:
    if message_id != "last":
        return message_id
    page = await client.ask("GET", "/v1/deliveries", parameters=[("limit", "1")])
    if not page["deliveries"]:
        raise NotFound(Fault("id", "there is no message yet", "`postroom send` makes one"))
    newest: str = page["deliveries"][0]["message_id"]
    return newest


def why(message_id: Id, data: Data = None, as_json: AsJson = False) -> None:
    """Say what each delivery of a message waits for, until when, and the command that would release it."""

    async def work(client: GatewayClient) -> Any:
        return await client.ask("GET", f"/v1/messages/{await _resolved(client, message_id)}/why")

    answer = run(data, work)
    if as_json:
        print_json(answer)
        return
    for one in answer["deliveries"]:
        typer.echo(f"{one['recipient']} is {one['state']} (account {one['account']})")
        final = DeliveryState(one["state"]).is_final
        shown = {"because": one["reason"], "since" if final else "until": one["until"], "note": "; ".join(one["marks"])}
        shown |= {"advice": one["advice"], "command": one["command"], "next try": one["next_try"]}
        shown |= {"window ends": _window(one), "gives up": one["gives_up"]}
        print_fields({f"  {name}": value for name, value in shown.items()})
        for place, line in enumerate(as_sent_lines(one["as_sent"])):
            typer.echo(f"    {line}" if place else f"  {line}:")


def _window(one: dict[str, Any]) -> str:
    """Until when it is tried, or what is left where the window stands still."""
    if one["stands_still"]:
        return f"stands still, with {duration_in_words(parse_duration(one['window_left']))} left"
    return one["window_ends"] or ""


def _change(
    verb: str, ids: list[str] | None, n: int | None, every: bool, account: str, state: Any, data: Any, as_json: bool
) -> None:
    """Do `verb` to the messages named, or to all deliveries of a choice."""
    _report(verb, _asked(verb, ids, n, every, account, state, data, {}), as_json)


def _asked(
    verb: str,
    ids: list[str] | None,
    n: int | None,
    every: bool,
    account: str,
    state: Any,
    data: Any,
    how: dict[str, Any],
) -> list[Any]:
    """The answers; `how` are further parameters of the verb."""
    if not ids and not (every or account or state):
        raise InvalidInput(Fault("id", "nothing is named", "name messages, or --all, --account NAME, --state STATE"))
    if ids and (every or account or state):
        raise InvalidInput(Fault("id", "messages and a choice are named", "name the one or the other"))
    if n is not None and len(ids or ()) != 1:
        raise InvalidInput(Fault("-n", "is the number of a delivery of one message", "name one message"))
    parameters = [(name, str(value)) for name, value in (how if n is None else how | {"n": n}).items()]

    async def work(client: GatewayClient) -> list[Any]:
        if not ids:
            choice = {"account": account, "states": [one.value for one in state or ()]} | how
            return [await client.ask("POST", f"/v1/queue/{verb}", choice)]
        named = [await _resolved(client, one) for one in ids]
        return [await client.ask("POST", f"/v1/messages/{one}/{verb}", parameters=parameters) for one in named]

    answers: list[Any] = run(data, work)
    return answers


def _report(verb: str, answers: list[Any], as_json: bool) -> None:
    if as_json:
        print_json({"moved": sum(one["moved"] for one in answers), "results": answers})
        return
    for one in answers:
        if one.get("resubmitted_as"):
            typer.echo(f"{one['id']} has ended; sent again as {one['resubmitted_as']}")
    moved = sum(one["moved"] for one in answers)
    typer.echo(f"{moved} {'delivery' if moved == 1 else 'deliveries'}: {verb}")


@app.command("cancel")
def cancel(
    ids: Ids = None,
    n: Number = None,
    every: All = False,
    account: Account = "",
    state: State = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Cancel deliveries that have not ended and are not being sent."""
    _change("cancel", ids, n, every, account, state, data, as_json)


@app.command("retry")
def retry(
    ids: Ids = None,
    n: Number = None,
    every: All = False,
    account: Account = "",
    state: State = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Try deferred deliveries now; a message that has ended is sent again, as a new one, to those it did not reach."""
    _change("retry", ids, n, every, account, state, data, as_json)


@app.command("hold")
def hold(
    ids: Ids = None,
    n: Number = None,
    every: All = False,
    account: Account = "",
    state: State = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Hold deliveries that wait, until they are released."""
    _change("hold", ids, n, every, account, state, data, as_json)


@app.command("release")
def release(
    ids: Ids = None,
    n: Number = None,
    every: All = False,
    account: Account = "",
    state: State = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Release deliveries that are held."""
    _change("release", ids, n, every, account, state, data, as_json)


@app.command("reroute")
def reroute(
    ids: Ids = None,
    n: Number = None,
    to: Annotated[str, typer.Option(metavar="NAME", help="To this account; else by the routes of today.")] = "",
    every: All = False,
    account: Account = "",
    state: State = None,
    senders: Annotated[
        str, typer.Option(metavar="PATTERNS", help="Of a choice: from these addresses alone, as in *@example.org.")
    ] = "",
    recipients: Annotated[str, typer.Option(metavar="PATTERNS", help="Of a choice: to these addresses alone.")] = "",
    may_duplicate: Annotated[
        bool, typer.Option("--may-duplicate", help="Also what a relay may have already: it may arrive twice.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Move deliveries that wait or are held to another account, or where they would go if they came today."""
    if ids and (senders or recipients):
        raise InvalidInput(Fault("id", "messages and a choice are named", "name the one or the other"))
    given = {"to": to, "senders": senders, "recipients": recipients, "may_duplicate": may_duplicate}
    how: dict[str, Any] = {name: value for name, value in given.items() if value}
    every = every or bool(senders or recipients)
    answers = _asked("reroute", ids, n, every, account, state, data, how)
    _report("reroute", answers, as_json)
    if as_json:
        return
    for answer in answers:
        for name, count in answer["accounts"].items():
            typer.echo(f"  to {name}: {count}")
        for reason, count in answer["left"].items():
            typer.echo(f"  not moved: {count}: {plain(reason)}")
        for warning in answer["warnings"]:
            typer.echo(f"warning: {plain(warning)}", err=True)
        if not answer["moved"] and not answer["left"]:
            typer.echo("  nothing of that choice waits or is held")
