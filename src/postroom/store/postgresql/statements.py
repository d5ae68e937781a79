"""The store's statements in psycopg's words, and columns of values as arrays in PostgreSQL's binary form.

Many rows are one statement with an array for each column, whatever their number: prepared once, and as fast as COPY.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper

from ..rows import Rows

_BYTEA, _INT8, _TEXT = 17, 20, 25
_BYTEA_ARRAY, _TEXT_ARRAY, _INT8_ARRAY = 1001, 1009, 1016
_NAMES = {"b": "bytea", "t": "text", "i": "bigint"}

#: PostgreSQL's text cannot hold it; the character that stands for what cannot be shown takes its place.
_NUL, _SHOWN = "\x00", "\ufffd"

_PLACE = re.compile(r"\?|(?<![:\w]):([a-z_]+)\b|%")


@cache
def translated(sql: str) -> bytes:
    """`?` and `:name` as psycopg writes them."""

    def place(found: re.Match[str]) -> str:
        if found[0] == "%":
            return "%%"
        return f"%({found[1]})s" if found[1] else "%s"

    return _PLACE.sub(place, sql).encode()


@cache
def text_of(rows: Rows) -> bytes:
    """The statement for any number of rows."""
    arrays = ", ".join(f"%s::{_NAMES[kind]}[]" for kind in rows.types)
    return translated(rows.before) + f"SELECT * FROM unnest({arrays})".encode() + translated(rows.after)


class _Array(bytes):
    """A column in binary form."""


class _OctetsArray(_Array):
    pass


class _TextArray(_Array):
    pass


class _NumberArray(_Array):
    pass


def columns(types: str, values: Sequence[Any]) -> list[_Array]:
    """The columns of rows that stand one after the other in `values`; raises DataError for what no column takes."""
    width = len(types)
    try:
        return [_COLUMNS[kind](values[place::width]) for place, kind in enumerate(types)]
    except (AttributeError, TypeError, ValueError, struct.error) as error:
        raise psycopg.DataError(f"a value cannot be stored: {error}") from error


def _numbers(values: Sequence[Any]) -> _Array:
    if None in values:
        return _NumberArray(_packed(_INT8, (v if v is None else v.to_bytes(8, "big", signed=True) for v in values)))
    pairs = [part for value in values for part in (8, value)]
    return _NumberArray(_head(_INT8, len(values)) + struct.pack(">" + "iq" * len(values), *pairs))


def _texts(values: Sequence[Any]) -> _Array:
    return _TextArray(_packed(_TEXT, (v if v is None else _text(v) for v in values)))


def _octets(values: Sequence[Any]) -> _Array:
    return _OctetsArray(_packed(_BYTEA, values))


def _text(value: str) -> bytes:
    return (value.replace(_NUL, _SHOWN) if _NUL in value else value).encode()


def _packed(oid: int, values: Iterable[bytes | None]) -> bytes:
    parts = [b""]
    count = 0
    for value in values:
        count += 1
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts.append(len(value).to_bytes(4, "big"))
            parts.append(value)
    parts[0] = _head(oid, count)
    return b"".join(parts)


def _head(oid: int, count: int) -> bytes:
    # One dimension; may have NULLs; element type; length; the first index is 1 (array_recv in PostgreSQL's source).
    return struct.pack(">iiIii", 1, 1, oid, count, 1)


_COLUMNS = {"b": _octets, "t": _texts, "i": _numbers}


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Array) -> Buffer:
        return obj


class _OctetsArrayDumper(_ArrayDumper):
    oid = _BYTEA_ARRAY


class _TextArrayDumper(_ArrayDumper):
    oid = _TEXT_ARRAY


class _NumberArrayDumper(_ArrayDumper):
    oid = _INT8_ARRAY


class _TextDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT

    def dump(self, obj: str) -> Buffer:
        return _text(obj)


def adapt(context: AdaptContext) -> None:
    """Teach a connection these arrays, and one type for all texts and one for all numbers: so a statement is prepared
    once, whatever the values."""
    adapters = context.adapters
    assert adapters is not None
    adapters.register_dumper(str, _TextDumper)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(_OctetsArray, _OctetsArrayDumper)
    adapters.register_dumper(_TextArray, _TextArrayDumper)
    adapters.register_dumper(_NumberArray, _NumberArrayDumper)
