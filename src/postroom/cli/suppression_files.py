"""`postroom suppressions import` and `export`: the list as CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Fault, GatewayError, InvalidInput
from ..model.suppression import SuppressionSource
from ..suppressions.entries import parse_entry
from .account_files import write_file
from .connection import GatewayClient, run
from .options import AsJson, Data, read_text
from .output import print_json

#: Entries that one request brings or asks for.
STEP = 1000
MOST_FAULTS = 20

_FIELDS = ("entry", "reason", "expires")
_EXPORTED = (*_FIELDS, "source", "created")
#: What an export of the list may have beside: it is for people.
_PASSED_OVER = frozenset({"source", "created", "kind", "message_id", "expired"})
#: Names of the first column in the lists of others.
_ENTRY_NAMES = frozenset({"entry", "address", "domain", "email", "recipient"})
_MEND = f"name the columns {', '.join(_FIELDS)}; only the first is needed"


class FileFormat(StrEnum):
    """How entries stand in a file."""

    CSV = "csv"
    JSONL = "jsonl"


Row = dict[str, str]

Format = Annotated[
    FileFormat | None, typer.Option("--format", help="csv, or jsonl: a JSON object a line. Else by the file's name.")
]


def import_suppressions(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file; - is standard input.")],
    file_format: Format = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Of entries without one.")] = "",
    expires: Annotated[str, typer.Option(metavar="TIME", help="Of entries without one: as in 90d, 2027-01-31.")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Put the entries of a file on the list: columns or keys entry, reason and expires.

    Every line is read before anything is done, and nothing is done unless all of them can be. Many entries go in steps.
    """
    rows = _read(read_text(file, "FILE").removeprefix("\ufeff"), file_format or _format_of(file))
    given = _checked(rows, {"reason": reason, "expires": expires})
    if not given:
        raise InvalidInput(Fault("FILE", f"{file} has no entries", _MEND))
    answer = run(data, lambda client: _send(client, given))
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"imported {answer['entries']} entries, {answer['new']} of them new")


def _format_of(file: Path) -> FileFormat:
    return FileFormat.JSONL if file.suffix.lower() in (".jsonl", ".ndjson", ".json") else FileFormat.CSV


async def _send(client: GatewayClient, given: Sequence[Row]) -> dict[str, int]:
    total = {"entries": 0, "new": 0}
    for start in range(0, len(given), STEP):
        try:
            step = await client.ask("POST", "/v1/suppressions/import", {"entries": given[start : start + STEP]})
        except GatewayError:
            typer.echo(f"{start} lines of the file are on the list; give the whole file once more", err=True)
            raise
        for name in total:
            total[name] += step[name]
    return total


def _checked(rows: Iterator[tuple[int, Row]], defaults: Row) -> list[Row]:
    """The rows with what they lack.

    Raises:
        InvalidInput: some can't be read; the first faults, each with its line.
    """
    given: list[Row] = []
    faults: list[Fault] = []
    now = datetime.now(UTC)
    for line, row in rows:
        one = {name: row.get(name, "").strip() or defaults.get(name, "") for name in _FIELDS}
        try:
            parse_entry(one["entry"], one["reason"], one["expires"], SuppressionSource.IMPORT, now, f"line {line}, ")
        except InvalidInput as error:
            faults += error.faults
            if len(faults) >= MOST_FAULTS:
                faults.append(Fault("FILE", "there may be more", "nothing was imported"))
                break
        given.append(one)
    if faults:
        raise InvalidInput(faults)
    return given


def _read(text: str, file_format: FileFormat) -> Iterator[tuple[int, Row]]:
    return _json_lines(text) if file_format is FileFormat.JSONL else _csv_rows(text)


def _csv_rows(text: str) -> Iterator[tuple[int, Row]]:
    """Rows with their lines; the first one names the columns where it has no entry."""
    lines = csv.reader(io.StringIO(text), strict=True)
    names: Sequence[str] = _FIELDS
    is_first = True
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if is_first and cells[0].strip().lower() in _ENTRY_NAMES | set(_FIELDS):
                names = _names(cells, lines.line_num)
            elif len(cells) > len(names):
                fault = f"has {len(cells)} columns instead of {len(names)}"
                raise InvalidInput(Fault(f"line {lines.line_num}", fault, 'quote what holds a comma: "a, b"'))
            else:
                yield lines.line_num, dict(zip(names, cells, strict=False))
            is_first = False
    except csv.Error as error:
        raise InvalidInput(Fault(f"line {lines.line_num}", f"is no CSV: {error}", _MEND)) from None


def _names(cells: Sequence[str], line: int) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    names = ["entry" if name in _ENTRY_NAMES else name for name in names]
    _refuse_unknown(names, line)
    if names.count("entry") != 1:
        raise InvalidInput(Fault(f"line {line}", "names no column for the entry, or several", _MEND))
    return names


def _refuse_unknown(names: Sequence[str], line: int) -> None:
    unknown = [name for name in names if name not in _FIELDS and name not in _PASSED_OVER]
    if unknown:
        raise InvalidInput(Fault(f"line {line}", f"{unknown[0]!r} is not known", _MEND))


def _json_lines(text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(Fault(f"line {number}", f"is no JSON: {error}", "write one object a line")) from None
        if not isinstance(row, dict):
            raise InvalidInput(Fault(f"line {number}", "is no object", 'write {"entry": "ann@example.org"}'))
        _refuse_unknown(list(row), number)
        known = {name: row[name] for name in _FIELDS if row.get(name) is not None}
        for name, value in known.items():
            if not isinstance(value, str):
                raise InvalidInput(Fault(f"line {number}, {name}", f"{value!r} is no text", "write it in quotes"))
        yield number, known


def export_suppressions(
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there, for its owner alone.")] = None,
    file_format: Format = None,
    show_all: Annotated[bool, typer.Option("--all", help="Also what has expired.")] = False,
    data: Data = None,
) -> None:
    """Write the list as CSV or JSON lines, as import reads it."""
    written = file_format or (_format_of(output) if output is not None else FileFormat.CSV)
    lines = _LINES[written]
    pages: list[str] = [lines([dict(zip(_EXPORTED, _EXPORTED, strict=True))])] if written is FileFormat.CSV else []
    keep = pages.append if output is not None else partial(typer.echo, nl=False)
    if output is None and pages:
        keep(pages[0])

    async def work(client: GatewayClient) -> int:
        count, cursor = 0, ""
        while True:
            given = [("limit", str(STEP)), *([("cursor", cursor)] if cursor else [])]
            answer = await client.ask("GET", "/v1/suppressions", parameters=given)
            rows = [row for row in answer["suppressions"] if show_all or not row["expired"]]
            keep(lines(rows))
            count, cursor = count + len(rows), answer["next"]
            if not cursor:
                return count

    count = run(data, work)
    if output is not None:
        write_file(output, "".join(pages))
        typer.echo(f"wrote {count} entries to {output}")


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row[name] or "" for name in _EXPORTED] for row in rows)
    return text.getvalue()


def _as_json_lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps({name: row[name] for name in _EXPORTED}, ensure_ascii=False)}\n" for row in rows)


_LINES: dict[FileFormat, Callable[[Sequence[dict[str, Any]]], str]] = {
    FileFormat.CSV: _as_csv,
    FileFormat.JSONL: _as_json_lines,
}
