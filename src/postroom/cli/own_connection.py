"""The file of `postroom send --connection`: fields of an account that one message overrides, in TOML or JSON."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import typer

from ..errors import Fault, InvalidInput
from .options import read_text

OPTION = "--connection"

ConnectionFile = typer.Option(
    OPTION, metavar="FILE", help="Over a connection of its own: the file's fields, in TOML or JSON; - reads it."
)

_MEND = 'write TOML as in `host = "smtp.example.org"`, or a JSON object'


def read_connection(file: Path) -> str:
    """What the file says, as JSON in ASCII; `-` is standard input. A file with a secret that others may read is warned
    of.

    Raises:
        InvalidInput: it can't be read, or is neither.
    """
    text = read_text(file, OPTION)
    fields = _parsed(text)
    if str(file) != "-" and _is_open_to_others(file) and any("password" in name and fields[name] for name in fields):
        typer.echo(f"warning: {file} holds a password and others may read it: chmod 600 {file}", err=True)
    try:
        return json.dumps(fields)
    except TypeError:  # a date of TOML, which no field is
        raise InvalidInput(Fault(OPTION, "holds a date or time", "write each value as text, number or true")) from None


def _parsed(text: str) -> dict[str, Any]:
    read = json.loads if text.lstrip().startswith("{") else tomllib.loads
    try:
        found = read(text)
    except ValueError as error:
        raise InvalidInput(Fault(OPTION, f"can't be read: {error}", _MEND)) from None
    if list(found) == ["connection"] and isinstance(found["connection"], dict):
        found = found["connection"]  # a table of that name
    fields: dict[str, Any] = found
    return fields


def _is_open_to_others(file: Path) -> bool:
    return bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
