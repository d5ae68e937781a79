"""`postroom events`: what happened, and what happens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .connection import GatewayClient, run
from .options import AsJson, Data
from .output import plain, print_json

#: How long one request waits for events, and how long its answer may take.
_WAIT = "30s"
_PATIENCE_SECONDS = 60.0


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    message: Annotated[str, typer.Option("--message", metavar="ID", help="Of this message.")] = "",
    account: Annotated[str, typer.Option("--account", metavar="NAME", help="Of this account.")] = "",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="As bounced, account.asleep, or all of account.")
    ] = None,
    after: Annotated[str, typer.Option("--after", metavar="TEXT", help="On from this cursor; else the newest.")] = "",
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=1000, help="At most so many at once.")] = 50,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened: every change of a delivery, of accounts, applications and settings.

    With --follow and --json each event is one line.
    """
    parameters = [(name, value) for name, value in (("message", message), ("account", account)) if value]
    parameters += [("limit", str(limit)), *(("kind", one) for one in kind or ())]

    async def work(client: GatewayClient) -> None:
        page = await _page(client, parameters, after)
        if not follow:
            _print_page(page, as_json)
            return
        while True:
            _print_lines(page["events"], as_json)
            if page["at_end"] and not client.is_running:
                typer.echo(f"the gateway is not running; go on with --after {page['next']}", err=True)
                return
            page = await _page(client, [*parameters, ("wait", _WAIT)], page["next"])

    run(data, work)


async def _page(client: GatewayClient, parameters: Sequence[tuple[str, str]], after: str) -> dict[str, Any]:
    """The next page that holds something, or the end."""
    while True:
        asked = [*parameters, *([("after", after)] if after else [])]
        page: dict[str, Any] = await client.ask(
            "GET", "/v1/events", parameters=asked, patience_seconds=_PATIENCE_SECONDS
        )
        if page["events"] or page["at_end"]:
            return page
        after = page["next"]


def _print_page(page: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(page)
        return
    _print_lines(page["events"], as_json=False)
    if not page["events"]:
        typer.echo("no events")
    elif not page["at_end"]:
        typer.echo(f"more: --after {page['next']}")


def _print_lines(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    for row in rows:
        if as_json:
            typer.echo(json.dumps(row, ensure_ascii=False))
            continue
        message = row["message_id"] or ""
        number = "" if row["n"] is None else f"/{row['n']}"
        words = [row["at"], row["kind"], message + number, row["account"], plain(row["detail"])]
        typer.echo("  ".join(word for word in words if word))
