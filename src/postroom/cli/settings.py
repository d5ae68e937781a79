"""`postroom settings`: what is set, where it comes from, and changing it while the gateway runs."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from .connection import ask
from .options import AsJson, Data
from .output import plain, print_fields, print_json, print_table

app = typer.Typer(help="Settings: what is set, and where that comes from.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The setting, as in `smtp.max_recipients`.")]


@app.command("list")
def list_settings(data: Data = None, as_json: AsJson = False) -> None:
    """List all settings; a locked one can be changed in file or environment only."""
    answer = ask(data, "GET", "/v1/settings")
    if as_json:
        print_json(answer)
        return
    rows = [
        {"setting": one["name"], "value": _written(one["value"]), "from": one["origin"], "locked": _locked(one)}
        for one in answer["settings"]
    ]
    print_table(("setting", "value", "from", "locked"), rows)


@app.command("show")
def show_setting(name: Name, data: Data = None, as_json: AsJson = False) -> None:
    """Show a setting: its value, its default, and when a change takes effect."""
    _print(ask(data, "GET", _path(name)), as_json)


@app.command("set")
def set_setting(
    name: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value, as in `30d`, `off`, `postmaster@x.org`.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Set a setting, without a restart."""
    (changed,) = ask(data, "PATCH", "/v1/settings", {name: value})["settings"]
    _print(changed, as_json)


@app.command("reset")
def reset_setting(name: Name, data: Data = None, as_json: AsJson = False) -> None:
    """Go back to the default of a setting."""
    _print(ask(data, "DELETE", _path(name)), as_json)


def _print(setting: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(setting)
        return
    print_fields(
        {
            "setting": setting["name"],
            "value": _written(setting["value"]) or "(empty)",
            "from": setting["origin"],
            "locked": _locked(setting),
            "takes effect": setting["effect"],
            "default": setting["default"],
            "form": setting["form"],
            "environment": setting["environment"],
            "meaning": setting["description"],
        }
    )


def _locked(setting: dict[str, Any]) -> str:
    return "locked" if setting["is_locked"] else ""


def _written(value: Any) -> str:
    """As it would be given to `set`."""
    return plain(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _path(name: str) -> str:
    return f"/v1/settings/{quote(name, safe='')}"
