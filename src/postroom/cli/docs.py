"""`postroom docs`: reference pages in Markdown, generated from the declarations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

app = typer.Typer(help="Reference pages in Markdown.", no_args_is_help=True)


@app.command("settings")
def settings() -> None:
    """Every setting with its default."""
    from ..config import Effect, Settings

    shown = {Effect.AT_ONCE: "at once", Effect.AT_START: "start", Effect.OF_THE_MACHINE: "machine"}
    typer.echo(_SETTINGS_HEAD)
    for entry in Settings.describe():
        default = f"`{entry.default}`" if entry.default else ""
        environment = f"`{entry.environment}`" if entry.environment else ""
        words = entry.description.replace("|", "\\|")
        cells = (f"`{entry.name}`", entry.form, default, environment, shown[entry.effect], words)
        typer.echo(f"| {' | '.join(cells)} |")


_SETTINGS_HEAD = """# Settings

Written by `make docs` from `postroom/config`. The environment wins over the TOML file (`postroom.toml` in the data
folder, or the file that `POSTROOM_CONFIG` names), the file over what is stored in the database, that over the default.
Durations are written as in `500ms`, `60s`, `5m`, `2h`, `3d`, sizes as in `25MiB`; a bare number is refused. `smtp.x` is
`x` under `[smtp]` in the file, `smtp.listeners[].x` a key of an entry of `[[smtp.listeners]]`; in the environment the
list is given as JSON. `POSTROOM_KEYS` holds the keys that seal secrets; without it they lie in the file `keys` of the
data folder.

`postroom settings set NAME VALUE` (or `PATCH /v1/settings`) stores a setting in the database; it takes effect without a
restart (*at once*) or at the next start (*start*). What belongs to the machine (*machine*) comes from file or
environment only, and counts from the next start. `postroom settings list` shows each value with where it comes from;
one that file or environment gives is locked: it is refused for change elsewhere. SIGHUP reads the file again.

| setting | form | default | environment | takes effect | meaning |
| --- | --- | --- | --- | --- | --- |"""


@app.command("commands")
def commands() -> None:
    """Every command with its options."""
    from . import app as whole

    typer.echo("# Commands\n\nWritten by `make docs` from `postroom/cli`. Every command takes `--help`.")
    command = typer.main.get_command(whole)
    for name, one in _leaves(command, "postroom"):
        typer.echo(f"\n## {name}\n\n{(one.help or '').strip()}\n")
        arguments = [p for p in one.params if p.param_type_name == "argument"]
        shown = " ".join(p.metavar or p.name.upper() for p in arguments)
        typer.echo(f"    {' '.join(filter(None, (name, shown, '[OPTIONS]')))}\n")
        typer.echo("| option | meaning |\n| --- | --- |")
        for parameter in one.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                typer.echo(f"| {_option(parameter)} | {_cell(parameter.help or '')} |")


def _option(parameter: Any) -> str:
    words = "`, `".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {_cell(parameter.metavar or 'VALUE')}"
    return f"`{words}`{value}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, one in inner.items():
        yield from _leaves(one, f"{name} {word}")
