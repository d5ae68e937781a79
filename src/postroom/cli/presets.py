"""`postroom accounts presets` and `propose`: what is known of providers."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from ..errors import Fault, InvalidInput
from .connection import GatewayClient, ask
from .options import AsJson, Data
from .output import plain, print_fields, print_json, print_table

_COLUMNS = ("name", "title", "relay", "security", "regions")


def list_presets(
    name: Annotated[str, typer.Argument(metavar="[PRESET]", help="One of them, whole.")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the presets: providers whose host, port, encryption and limits an account can be filled in with."""
    answer = ask(data, "GET", f"/v1/presets/{_quoted(name)}" if name else "/v1/presets")
    if as_json:
        print_json(answer)
    elif name:
        _print_preset(answer)
    else:
        print_table(_COLUMNS, [_row(preset) for preset in answer["presets"]], empty="no presets")


def _row(preset: dict[str, Any]) -> dict[str, Any]:
    fields = preset["fields"]
    relay = f"{fields.get('host', '')}:{fields['port']}" if "port" in fields else fields.get("kind", "")
    regions = list(preset["regions"])
    few = regions if len(regions) < 6 else [*regions[:4], "..."]
    return preset | {"relay": relay, "security": fields.get("security", ""), "regions": plain(few)}


def _print_preset(preset: dict[str, Any]) -> None:
    typer.echo(f"{preset['name']}: {preset['title']}\n")
    shown = {name.replace("_", " "): value for name, value in preset["fields"].items()}
    print_fields(shown | {"user name": preset["user"], "regions": plain(list(preset["regions"]))})
    for note in preset["notes"]:
        typer.echo(f"- {note}")
    typer.echo(f"\nits own page: {preset['at']}\nto add it: postroom accounts add NAME {_options(_added(preset))}")


def _added(preset: dict[str, Any]) -> dict[str, Any]:
    fields = {"preset": preset["name"]}
    if preset["regions"] and not preset["region"]:
        fields["preset_region"] = "REGION"
    if preset["user"] and "username" not in preset["fields"]:
        fields["username"] = "USER"
    return fields


def propose(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="The e-mail address that is to send.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Propose accounts that an e-mail address could send by: by its domain, its MX, and what the domain says (SRV)."""
    answer = ask(data, "GET", "/v1/proposals", parameters=[("address", address)])
    if as_json:
        print_json(answer)
        return
    if not answer["proposals"]:
        typer.echo(f"nobody knows how {answer['address']} sends: ask who runs its mail for host, port and login")
    for one in answer["proposals"]:
        typer.echo(f"{one['title']}, as {one['because']}")
        for note in one["notes"]:
            typer.echo(f"- {note}")
        typer.echo(f"  postroom accounts add NAME {_options(one['fields'])}\n")


async def proposed(client: GatewayClient, address: str, *, may_ask: bool) -> dict[str, Any]:
    """The fields proposed for `address`; where that is unsure a person is asked.

    Raises:
        InvalidInput: nothing is known, or nobody can be asked which it is.
    """
    answer = await client.ask("GET", "/v1/proposals", parameters=[("address", address)])
    found: list[dict[str, Any]] = answer["proposals"]
    if not found:
        raise InvalidInput(Fault("--for-address", f"nobody knows how {address} sends", "give --host and --port"))
    if answer["sure"]:
        typer.echo(f"{found[0]['title']}, as {found[0]['because']}", err=True)
        return dict(found[0]["fields"])
    if not may_ask:
        ways = "; or ".join(_options(one["fields"]) for one in found)
        raise InvalidInput(Fault("--for-address", f"it is not sure how {address} sends", f"say it: {ways}"))
    typer.echo(f"It is not sure how {address} sends:", err=True)
    for number, one in enumerate(found, 1):
        typer.echo(f"{number}. {one['title']}, as {one['because']} ({_options(one['fields'])})", err=True)
        for note in one["notes"]:
            typer.echo(f"   - {note}", err=True)
    chosen: int = typer.prompt("Which", type=int, err=True)
    if not 0 < chosen <= len(found):
        raise InvalidInput(Fault("--for-address", f"{chosen} is none of them", f"choose from 1 to {len(found)}"))
    return dict(found[chosen - 1]["fields"])


def _options(fields: dict[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in fields.items())


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")
