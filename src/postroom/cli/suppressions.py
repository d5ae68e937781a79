"""`postroom suppressions`: addresses and domains that mail is not sent to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ..model.suppression import SuppressionSource
from ..suppressions.entries import parse_entry
from .connection import GatewayClient, ask, run
from .options import AsJson, Data, quoted
from .output import print_fields, print_json, print_table
from .suppression_files import export_suppressions, import_suppressions

app = typer.Typer(
    help="The suppression list: addresses and domains that mail is not sent to, for applications that apply it.",
    no_args_is_help=True,
)

app.command("import")(import_suppressions)
app.command("export")(export_suppressions)

Entry = Annotated[str, typer.Argument(metavar="ENTRY", help="An address, or a domain: every address at it.")]
Entries = Annotated[list[str], typer.Argument(metavar="ENTRY...", help="Addresses, or domains: every address at it.")]

_COLUMNS = ("entry", "kind", "source", "created", "expires", "reason")


@app.command("list")
def list_suppressions(
    prefix: Annotated[str, typer.Argument(metavar="[BEGINNING]", help="Entries that begin so.")] = "",
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=1000, help="At most so many.")] = 50,
    after: Annotated[str, typer.Option("--after", metavar="TEXT", help="Go on where the page before ended.")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the entries in their order, those that have expired too."""
    given = {"prefix": prefix, "cursor": after, "limit": str(limit)}
    answer = ask(data, "GET", "/v1/suppressions", parameters=[(name, value) for name, value in given.items() if value])
    if as_json:
        print_json(answer)
        return
    rows = [row | {"expires": told_expiry(row)} for row in answer["suppressions"]]
    print_table(_COLUMNS, rows, empty="no entries")
    if answer["next"]:
        typer.echo(f"more: --after {answer['next']}")


def told_expiry(row: dict[str, Any]) -> str:
    """When an entry expires, as tables show it."""
    if not row["expires"]:
        return "never"
    return f"{row['expires']} (expired)" if row["expired"] else str(row["expires"])


@app.command("show")
def show_suppression(entry: Entry, data: Data = None, as_json: AsJson = False) -> None:
    """Show an entry: why it is there, since when and until when."""
    answer = ask(data, "GET", _path(entry))
    if as_json:
        print_json(answer)
    else:
        answer["expires"] = told_expiry(answer)
        print_fields({name: value for name, value in answer.items() if name != "expired"})


@app.command("add")
def add_suppression(
    entries: Entries,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, in one line.")] = "",
    expires: Annotated[str, typer.Option(metavar="TIME", help="As in 90d, or 2027-01-31; else it never does.")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Put entries on the list, in the place of those that are there; they apply to the next message."""
    given: dict[str, Any] = {"reason": reason, "expires": expires}
    for entry in entries:  # all of them can be read, or none is added
        parse_entry(entry, reason, expires, SuppressionSource.BY_HAND, datetime.now(UTC))

    async def work(client: GatewayClient) -> list[Any]:
        return [await client.ask("POST", "/v1/suppressions", {"entry": entry, **given}) for entry in entries]

    added = run(data, work)
    if as_json:
        print_json({"added": added})
        return
    for one in added:
        until = f" until {one['expires']}" if one["expires"] else ""
        typer.echo(f"added {one['kind']} {one['entry']}{until}: {one['reason']}")


@app.command("remove")
def remove_suppression(entries: Entries, data: Data = None, as_json: AsJson = False) -> None:
    """Take entries off the list; mail that ended by them stays ended."""

    async def work(client: GatewayClient) -> None:
        for method in ("GET", "DELETE"):  # all of them are there, or none is removed
            for entry in entries:
                await client.ask(method, _path(entry))

    run(data, work)
    if as_json:
        print_json({"removed": entries})
        return
    for entry in entries:
        typer.echo(f"removed {entry}")


def _path(entry: str) -> str:
    return f"/v1/suppressions/{quoted(entry)}"
