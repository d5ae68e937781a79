"""`postroom send`: a message composed from its parts, or raw."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ..errors import Fault, InvalidInput
from ..model.queue import DeliveryState
from .connection import GatewayClient, run
from .options import AsJson, Data
from .output import print_json, print_table
from .own_connection import read_connection

#: Exit status of `--wait`: something was not delivered; it has not ended yet (EX_TEMPFAIL).
NOT_DELIVERED = 1
NOT_ENDED = 75

_READ_BYTES = 256 * 1024
_SHORTEST_LOOK, _LONGEST_LOOK = 0.05, 1.0
_SENT = frozenset({DeliveryState.DELIVERED, DeliveryState.CAPTURED})

Addresses = list[str] | None


def send(
    sender: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="ADDRESS",
            help="The sender, also as 'Ann <ann@example.org>'; else the application's address or the account's.",
        ),
    ] = "",
    to: Annotated[Addresses, typer.Option("--to", metavar="ADDRESS", help="A recipient; may be repeated.")] = None,
    cc: Annotated[Addresses, typer.Option("--cc", metavar="ADDRESS", help="A recipient of a copy.")] = None,
    bcc: Annotated[
        Addresses, typer.Option("--bcc", metavar="ADDRESS", help="A recipient whom the others don't see.")
    ] = None,
    subject: Annotated[str, typer.Option("--subject", metavar="TEXT", help="The subject.")] = "",
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="The plain text; - reads it.")] = None,
    html: Annotated[
        str | None, typer.Option("--html", metavar="TEXT", help="The HTML; shows images as cid:NAME.")
    ] = None,
    attach: Annotated[
        list[Path] | None, typer.Option("--attach", metavar="FILE", help="A file beside the text.")
    ] = None,
    inline: Annotated[list[Path] | None, typer.Option("--inline", metavar="FILE", help="An image of the HTML.")] = None,
    raw: Annotated[str, typer.Option("--raw", metavar="FILE", help="A whole message (RFC 5322); - reads it.")] = "",
    account: Annotated[str, typer.Option("--account", metavar="NAME", help="Through this account.")] = "",
    application: Annotated[str, typer.Option("--application", metavar="NAME", help="As this application.")] = "local",
    tag: Annotated[str, typer.Option("--tag", metavar="WORD", help="A word by which the message is found again.")] = "",
    priority: Annotated[
        str, typer.Option("--priority", metavar="urgent|normal|bulk", help="Its class; urgent is a right.")
    ] = "",
    retry_schedule: Annotated[
        str, typer.Option("--retry-schedule", metavar="SCHEDULE", help="Waits between its tries, as in 1m, 5m*2, 1h.")
    ] = "",
    retry_window: Annotated[
        str, typer.Option("--retry-window", metavar="DURATION", help="How long it is tried, as in 2h or 5d.")
    ] = "",
    give_up: Annotated[
        str, typer.Option("--give-up", metavar="DURATION", help="The age at which it expires, as in 1d.")
    ] = "",
    connection: Annotated[
        Path | None,
        typer.Option(
            "--connection",
            metavar="FILE",
            help="Over a connection of its own, of TOML or JSON; - reads it.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every delivery has ended or is held.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Send a message and print its id; it is durable by then."""
    parameters = [("application", application)]
    given = {"account": account, "tag": tag, "priority": priority}
    given |= {"retry_schedule": retry_schedule, "retry_window": retry_window, "give_up": give_up}
    parameters += [(name, value) for name, value in given.items() if value]
    _refuse_two_readers({"--raw": raw, "--text": text, "--connection": connection})
    headers = {} if connection is None else {"Postroom-Connection": read_connection(connection)}
    composed = {"subject": subject, "text": text, "html": html, "attach": attach, "inline": inline}
    if raw:
        _refuse_parts(composed)
        parameters += _envelope(sender, [*(to or ()), *(cc or ()), *(bcc or ())], from_header=True)
    else:
        parameters += _envelope("", [*(to or ()), *(cc or ()), *(bcc or ())], from_header=False)
        parts = _parts(to or [], cc or [], composed)

    async def work(client: GatewayClient) -> tuple[dict[str, Any], dict[str, Any] | None]:
        content = _read_raw(raw) if raw else await _composed(client, sender, parameters, parts)
        accepted = await client.ask("POST", "/v1/messages", parameters=parameters, raw=content, headers=headers)
        if not as_json:
            typer.echo(accepted["id"])
        accepted["delivering"] = client.is_running
        if not (wait and client.is_running):
            return accepted, None
        return accepted, await _ended(client, accepted["id"])

    accepted, ended = run(data, work)
    _report(accepted, ended, wait, as_json)


async def _composed(
    client: GatewayClient, sender: str, parameters: list[tuple[str, str]], parts: dict[str, Any]
) -> bytes:
    """The message of `parts`, from whom the gateway says; the parameters with what that adds to them."""
    given = dict(reversed(parameters))  # of several recipients the first
    asked = {name: given.get(name, "") for name in ("application", "account", "to")} | {"from": sender}
    answer = await client.ask("GET", "/v1/messages/sender", parameters=list(asked.items()))
    content = _compose(answer, parts)
    parameters.append(("from", answer["from"]["address"]))
    if not content.isascii():  # an address in its header is not: nothing else of it ever is
        parameters.append(("smtputf8", "true"))
    return content


def _refuse_parts(composed: dict[str, Any]) -> None:
    """A raw message is whole."""
    if used := [f"--{name}" for name, value in composed.items() if value]:
        raise InvalidInput(Fault("--raw", f"goes without {', '.join(used)}", "a raw message holds them itself"))


def _refuse_two_readers(given: dict[str, object]) -> None:
    """Standard input is read once."""
    readers = [option for option, value in given.items() if str(value) == "-"]
    if len(readers) > 1:
        raise InvalidInput(Fault(readers[-1], f"is standard input, as {readers[0]} is", "give one of them by name"))


def _report(accepted: dict[str, Any], ended: dict[str, Any] | None, wait: bool, as_json: bool) -> None:
    states = {DeliveryState(row["state"]) for row in ended["deliveries"]} if ended else set()
    if as_json:
        print_json(accepted | ({"deliveries": ended["deliveries"]} if ended else {}))
    elif ended:
        print_table(("recipient", "state", "account", "reply"), ended["deliveries"])
    if not accepted["delivering"]:
        typer.echo("it is kept, and waits until the gateway runs: postroom serve", err=True)
        if wait:
            raise typer.Exit(NOT_ENDED)
    if not all(state.is_final for state in states):
        raise typer.Exit(NOT_ENDED)
    if states - _SENT:
        raise typer.Exit(NOT_DELIVERED)


async def _ended(client: GatewayClient, message_id: str) -> dict[str, Any]:
    """The message once nothing more happens to it by itself; what defers it is told on the way."""
    told = set()
    pause = _SHORTEST_LOOK
    while True:
        message: dict[str, Any] = await client.ask("GET", f"/v1/messages/{message_id}")
        rows = message["deliveries"]
        for row in rows:
            news = (row["n"], row["tries"], row["reply"])
            if row["state"] == DeliveryState.DEFERRED and news not in told:
                told.add(news)
                typer.echo(f"{row['recipient']} is deferred until {row['due']}: {row['reply']}", err=True)
        if all(DeliveryState(row["state"]).is_final or row["state"] == DeliveryState.HELD for row in rows):
            return message
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_LOOK)


def _envelope(sender: str, recipients: list[str], *, from_header: bool) -> list[tuple[str, str]]:
    from ..mime.typed import typed_mailbox

    if not recipients and not from_header:
        raise InvalidInput(Fault("--to", "there is no recipient", "name one, as in --to ann@example.org"))
    try:
        parameters = [("to", typed_mailbox(one).address) for one in recipients]
        if sender == "<>":
            return [*parameters, ("from", "")]
        return [*parameters, *([("from", typed_mailbox(sender).address)] if sender else [])]
    except ValueError as error:
        raise InvalidInput(Fault("address", str(error), "write ann@example.org or 'Ann <ann@example.org>'")) from None


def _parts(to: list[str], cc: list[str], parts: dict[str, Any]) -> dict[str, Any]:
    """What the message is made of, but for its sender."""
    from ..mime.compose import Attachment, InlineImage
    from ..mime.typed import typed_mailbox

    text = sys.stdin.read() if parts["text"] == "-" else parts["text"]
    images = [(path, *_read_file(path, "--inline")) for path in parts["inline"] or ()]
    files = [(path, *_read_file(path, "--attach")) for path in parts["attach"] or ()]
    return {
        "to": tuple(map(typed_mailbox, to)),
        "cc": tuple(map(typed_mailbox, cc)),
        "subject": parts["subject"],
        "text": text if text is not None or parts["html"] is not None else "",
        "html": parts["html"],
        "images": tuple(
            InlineImage(content_id=path.name, media_type=kind, content=octets, file_name=path.name)
            for path, octets, kind in images
        ),
        "attachments": tuple(
            Attachment(file_name=path.name, content=octets, media_type=kind) for path, octets, kind in files
        ),
    }


def _compose(who: dict[str, Any], parts: dict[str, Any]) -> bytes:
    """The message of `parts` from whom the gateway says."""
    import os
    import uuid
    from datetime import UTC, datetime

    from ..mime.address import Mailbox
    from ..mime.compose import ComposedMessage, compose

    sender = Mailbox(**who["from"])
    message = ComposedMessage(sender=sender, reply_to=tuple(Mailbox(**one) for one in who["reply_to"]), **parts)
    message_id = f"<{uuid.uuid4()}@{sender.address.rpartition('@')[2]}>"
    try:
        return compose(message, date=datetime.now(UTC), message_id=message_id, boundary_seed=os.urandom(16))
    except ValueError as error:
        raise InvalidInput(Fault("message", str(error), "mend that value")) from None


def _read_file(path: Path, option: str) -> tuple[bytes, str]:
    """The file's octets and its media type, by its name."""
    import mimetypes

    try:
        octets = path.read_bytes()
    except OSError as error:
        raise InvalidInput(Fault(option, f"{path} can't be read: {error.strerror}", "name a file")) from None
    kind, encoding = mimetypes.guess_type(path.name)
    if kind is None or encoding is not None or kind.startswith(("message/", "multipart/")):
        kind = "application/octet-stream"
    return octets, kind


async def _read_raw(name: str) -> AsyncIterator[bytes]:
    try:
        source: IO[bytes] = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: ASYNC230
    except OSError as error:
        raise InvalidInput(Fault("--raw", f"{name} can't be read: {error.strerror}", "name a file, or -")) from None
    with source:
        while chunk := source.read(_READ_BYTES):
            yield chunk
