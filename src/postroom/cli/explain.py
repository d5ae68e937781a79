"""`postroom explain`: which account a message would take, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .connection import ask
from .options import AsJson, Data
from .output import print_json


def explain(
    recipient: Annotated[list[str], typer.Option("--to", metavar="ADDRESS", help="To whom; may be repeated.")],
    sender: Annotated[
        str, typer.Option("--from", metavar="ADDRESS", help="From whom; empty: the application's own address.")
    ] = "",
    application: Annotated[str, typer.Option(metavar="NAME", help="The application that sends it.")] = "local",
    header: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="A field of its header; may be repeated.")
    ] = None,
    account: Annotated[str, typer.Option(metavar="NAME", help="The account that it names.")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Explain which account a message would take, as whom, within which limits, and why no other; nothing is sent."""
    order = {
        "application": application,
        "sender": sender,
        "recipients": recipient,
        "header": "\n".join(header or ()),
        "account": account,
    }
    answer = ask(data, "POST", "/v1/explain", order)
    if as_json:
        print_json(answer)
    else:
        for one in answer["recipients"]:
            _show(one)
    if any(not one["account"] for one in answer["recipients"]):
        raise typer.Exit(1)


def _show(one: dict[str, Any]) -> None:
    if one["account"]:
        typer.echo(f"{one['recipient']}: goes by account {one['account']}, since {one['reason']}")
    else:
        typer.echo(f"{one['recipient']}: is refused: {one['reason']}")
    if one["redirected_to"]:
        typer.echo(f"  redirected to {one['redirected_to']} by the staging guard")
    if one["waits"]:
        until = f" (until {one['until']})" if one["until"] else ""
        typer.echo(f"  waits: {one['waits']}{until}")
    if one["takes_over"]:
        typer.echo(f"  if that fails for long: {one['takes_over']} takes over")
    for change in one["rewrites"]:
        typer.echo(f"  rewritten: {change['field']}: {change['before'] or '(none)'} -> {change['after']}")
    for made in one["signatures"]:
        typer.echo(f"  signed: {made['domain']}, selector {made['selector']} ({made['algorithm']})")
    for limit in one["limits"]:
        typer.echo(f"  limit: {limit}")
    for over in one["passed_over"]:
        typer.echo(f"  not {over['account']}: {over['reason']}")
