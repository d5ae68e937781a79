"""One statement for many rows.

Python's driver gives up the interpreter lock at each step of a statement and must win it back from a busy loop, so
many rows in one step cost much less than `executemany`. Texts exist for 1 to 32 rows, so that the driver's cache of
prepared statements always hits.
"""

from __future__ import annotations

import sqlite3
from typing import Any

MOST = 32


class Rows:
    """`before` + placeholders of `width` columns for each row + `after`."""

    __slots__ = ("_texts", "width")

    def __init__(self, before: str, width: int, after: str = "") -> None:
        row = f"({','.join('?' * width)})"
        self.width = width
        self._texts = tuple(f"{before}{','.join([row] * count)}{after}" for count in range(MOST + 1))

    def run(self, raw: sqlite3.Connection, values: list[Any], ahead: tuple[Any, ...] = ()) -> int:
        """Execute for all rows, given one after the other in `values` (`ahead`: values that `before` asks for); how
        many rows were changed."""
        before = raw.total_changes
        step = MOST * self.width
        if len(values) <= step and not ahead:
            raw.execute(self._texts[len(values) // self.width], values)
        else:
            for start in range(0, len(values), step):
                part = values[start : start + step]
                raw.execute(self._texts[len(part) // self.width], [*ahead, *part])
        return raw.total_changes - before

    def returned(self, raw: sqlite3.Connection, values: list[Any]) -> list[Any]:
        """As `run`, for a statement with RETURNING: its rows."""
        rows: list[Any] = []
        step = MOST * self.width
        for start in range(0, len(values), step):
            part = values[start : start + step]
            rows.extend(raw.execute(self._texts[len(part) // self.width], part).fetchall())
        return rows
