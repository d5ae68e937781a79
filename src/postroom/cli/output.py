"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer


def print_json(value: Any) -> None:
    """`value` as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def plain(value: Any) -> str:
    """`value` in one line, without control characters: subjects and replies come from strangers."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "".join(ch if ch.isprintable() else " " for ch in str(value))


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, empty: str = "none") -> None:
    """Rows under their columns; a column is as wide as its widest value, the last one as it comes."""
    lines = [[plain(row.get(column)) for column in columns] for row in rows]
    if not lines:
        typer.echo(empty)
        return
    head = [column.replace("_", " ") for column in columns]
    widths = [max(len(line[at]) for line in (head, *lines)) for at in range(len(columns))]
    for line in (head, *lines):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(values: Mapping[str, Any]) -> None:
    """Names and values under each other; what is empty is left out."""
    shown = {name.replace("_", " "): plain(value) for name, value in values.items()}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        if value:
            typer.echo(f"{name.ljust(width)}  {value}")
