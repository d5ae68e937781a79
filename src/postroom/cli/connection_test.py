"""`postroom accounts test`: the connection of an account, saved or not, stage by stage as it goes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ..accounts.fields import ACCOUNT_FIELDS
from ..errors import Fault, InvalidInput
from .connection import GatewayClient, run
from .options import AsJson, Data, option_word, quoted, read_text, with_fields
from .output import plain, print_json
from .passwords import add_password

#: Exit status where a stage failed.
FAILED = 1

_MARKS = {"passed": "ok", "warning": "note", "failed": "FAILED", "skipped": "-"}

#: Facts that are shown of each stage, in this order.
_SHOWN = (
    "mailbox", "addresses", "address", "version", "cipher", "flow", "server", "issuer", "cloud", "audience",
    "application", "user", "roles", "scopes", "granted", "expires", "greeting", "extensions", "mechanism", "offered",
    "hosts", "selectors", "records", "result", "included", "lookups", "policy", "record", "reply",
)  # fmt: skip


@with_fields(ACCOUNT_FIELDS, leave_out={"name"})
def test(
    fields: dict[str, Any],
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="The account; without it, the options say what to test.")
    ] = "",
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="A recipient to ask about.")] = "",
    sender: Annotated[
        str, typer.Option("--from", metavar="ADDRESS", help="The sender; else as whom the account sends.")
    ] = "",
    send: Annotated[bool, typer.Option("--send", help="Send one real message to the recipient.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Test the account that a TOML file defines.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    transcript: Annotated[bool, typer.Option("--transcript", help="Print what is said, as it is said.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Test a connection: each stage with its time and, where it fails, what to do; no mail is sent without --send.

    The options that `accounts add` has try the account with other values, or one that is not saved; nothing is kept.
    """
    if file is not None:
        fields = _of_file(file, name) | fields
        name = ""
    if not name and not fields:
        raise InvalidInput(Fault("NAME", "there is none", "name an account, or say with options what to test"))
    add_password(fields, password_stdin, needed=not name)
    path = f"/v1/accounts/{quoted(name)}/test" if name else "/v1/accounts/test"
    body = {"to": to, "from": sender, "send": send, "fields": fields}

    async def work(client: GatewayClient) -> dict[str, Any]:
        result: dict[str, Any] = {}
        async for event in client.follow(path, body):
            if event["event"] == "result":
                result = event
            elif not as_json:
                _print_event(event, transcript=transcript, name=name)
        return result

    result = run(data, work)
    if as_json:
        print_json({key: value for key, value in result.items() if key != "event"})
    else:
        for note in result["notes"]:
            typer.echo(f"\n{note}")
        typer.echo(f"\n{result['account']}: " + ("passed" if result["passed"] else "failed"))
    if not result["passed"]:
        raise typer.Exit(FAILED)


def _of_file(path: Path, name: str) -> dict[str, Any]:
    """The fields of the one account in a file, or of the one called `name`; secrets in clear, if they stand there."""
    import tomllib

    try:
        document = tomllib.loads(read_text(path, "--file"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(Fault("--file", f"is not TOML: {error}", "mend that line")) from None
    found = document.get("accounts", [document])
    chosen = [one for one in found if not name or str(one.get("name", "")).lower() == name.lower()]
    if len(chosen) != 1:
        known = ", ".join(str(one.get("name", "")) for one in found)
        raise InvalidInput(Fault("--file", f"has {len(chosen)} such accounts of: {known}", "name one of them"))
    return {key: value for key, value in chosen[0].items() if key not in ("format", "secrets")}


def _print_event(event: dict[str, Any], *, transcript: bool, name: str) -> None:
    if event["event"] == "said" and transcript:
        typer.echo(f"    {plain(event['line'])}")
    if event["event"] != "stage":
        return
    time = f"{event['milliseconds']:.0f} ms" if event["outcome"] != "skipped" else ""
    told = plain(event["detail"]) or _facts(event["facts"])
    typer.echo(f"{_MARKS[event['outcome']]:<7} {event['stage']:<10} {time:>9}  {told}".rstrip())
    if event["outcome"] in ("failed", "warning"):
        for one in event["advice"]:
            _print_advice(one, name)


def _print_advice(advice: dict[str, Any], name: str) -> None:
    typer.echo(f"        cause: {plain(advice['cause'])}")
    typer.echo(f"        do:    {plain(advice['advice'])}")
    if advice.get("record"):
        typer.echo(f"        DNS:   {plain(advice['record'])}")
    if advice["change"]:
        words = [word for field, value in advice["change"].items() for word in _option(field, value)]
        command = ["postroom", "accounts", "edit", name, *words] if name else words
        typer.echo(f"        {'run' if name else 'try'}:   {shlex.join(command)}")
    if advice.get("command"):
        typer.echo(f"        run:   {shlex.join(map(plain, advice['command']))}")


def _option(field: str, value: str) -> list[str]:
    """The option of `accounts edit` that sets it; without a value it goes back to its default."""
    return [option_word(ACCOUNT_FIELDS[field]), value] if value else ["--reset", field]


def _facts(facts: dict[str, Any]) -> str:
    shown = []
    for key in _SHOWN:
        value = facts.get(key)
        if isinstance(value, dict):
            value = list(value)
        if value not in (None, "", []):
            shown.append(
                plain(value) if key in ("mailbox", "address", "greeting", "reply") else f"{key} {plain(value)}"
            )
    return "; ".join(shown)
