"""One statement for many rows, declared once; a driver fills it in."""

from __future__ import annotations

#: The most rows that one statement of placeholders takes.
MOST = 32


class Rows:
    """`before` + the rows + `after`; `types` has a letter for each column: b octets, t text, i whole number.

    Python's driver of SQLite gives up the interpreter lock at each step of a statement and must win it back from a busy
    loop, so many rows in one step cost much less than `executemany`. Texts exist for 1 to 32 rows, so that the driver's
    cache of prepared statements always hits.
    """

    __slots__ = ("after", "before", "texts", "types", "width")

    def __init__(self, before: str, types: str, after: str = "") -> None:
        self.before = before
        self.types = types
        self.width = len(types)
        self.after = after
        row = f"({','.join('?' * self.width)})"
        self.texts = tuple(f"{before}VALUES {','.join([row] * count)}{after}" for count in range(MOST + 1))
