"""Named points at which the process ends itself as a crash would, for tests of what is left (docs/reliability.md).

POSTROOM_CRASH_AT=point:nth ends it with status 137 when `point` is reached for the nth time; without the variable a
point is a call that does nothing. At the points of FAULTS nothing ends: there two operations in a row fail, since the
store tries one again by itself.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable

VARIABLE = "POSTROOM_CRASH_AT"

#: As a process that was killed.
EXIT_STATUS = 137

#: Where each point is (RELIABILITY section 2).
POINTS = {
    "A1": "a part of a content has been read",
    "A2": "the end of data has been read, the rows are written and not committed",
    "A3": "a chunk of a body is committed (at last the last one), its message is not",
    "A4": "the message is committed and its 250 is not written",
    "A5": "the 250 is written",
    "D1": "a claim is committed and nothing of the message is written",
    "D2": "the envelope is answered and nothing of the content is written",
    "D3": "a part of the content is written",
    "D4": "the end of data is written and not answered",
    "D5": "the reply to the end of data is read and not given to the store",
    "D6": "an outcome is committed",
    "D7-notice": "a failure is written, that it is to be reported is not, and nothing is committed",
    "D7": "a failure is committed and its report is not",
    "D7-report": "what is to be reported is removed, the report is not written, and nothing is committed",
    "D8": "a step of a migration is done and nothing is committed",
    "D8-purge": "what retention takes of some messages is removed and nothing is committed",
    "D8-content": "the content of some messages, which goes before their records, is removed and not committed",
    "D8-vacuum": "some free pages are given back and nothing is committed",
    "D8-keys": "a key rotation has written the file, has put it in place, has sealed anew and not committed",
    "R1": "a token endpoint has answered, and its tokens are not committed",
    "R2": "new tokens are committed, and not used",
}

#: Where an operation fails instead, and how.
FAULTS = {
    "O1-body": "no room for chunks of a body",
    "O1-wal": "no room in the write-ahead log at a commit",
    "O1-checkpoint": "no room in the database at a checkpoint",
    "O2": "the fsync of a commit fails",
}

#: A power cut is where A5 is; what was not synced is then taken away by the test.
ALIASES = {"O3": "A5"}

_WANTED = re.compile(r"([A-Z][0-9](?:-[a-z]+)?)(?::([1-9][0-9]{0,8}))?")


def _pass(point: str, transport: asyncio.WriteTransport | None = None) -> None:
    """A point of a process that shall live."""


def _holds(point: str) -> bool:
    """A point at which nothing fails."""
    return False


class Trap:
    """Ends the process when `point` is reached for the `nth` time, or lets what is done there fail."""

    def __init__(self, point: str, nth: int) -> None:
        self._point = point
        self._left = nth

    def reach(self, point: str) -> None:
        """End here, if this is it."""
        if self._is_it(point):
            _end()

    def written(self, point: str, transport: asyncio.WriteTransport | None = None) -> None:
        """End as soon as what was handed to the loop for writing has left the process: all of it for a `transport`."""
        if self._is_it(point):
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, loop.call_soon, _end_when_empty, transport)  # uvloop writes at a turn's end

    def fails(self, point: str) -> bool:
        """Whether what is done here shall fail."""
        return self._is_it(point) or (point == self._point and self._left == -1)

    def _is_it(self, point: str) -> bool:
        if point != self._point:
            return False
        self._left -= 1
        return not self._left


def _end_when_empty(transport: asyncio.WriteTransport | None) -> None:
    if transport is not None and transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(0.001, _end_when_empty, transport)
    else:
        _end()


def _end() -> None:
    os._exit(EXIT_STATUS)


def trap(wanted: str) -> Trap | None:
    """The trap that the value `wanted` of the variable sets; SystemExit where it names no point."""
    if not wanted:
        return None
    found = _WANTED.fullmatch(wanted)
    if found is None or found[1] not in POINTS | FAULTS | ALIASES:
        names = ", ".join(POINTS | FAULTS | ALIASES)
        raise SystemExit(f"{VARIABLE}: {wanted!r} is no point and number, as in D4:2 (points: {names})")
    return Trap(ALIASES.get(found[1], found[1]), int(found[2] or "1"))


_set = trap(os.environ.get(VARIABLE, ""))

#: Called at each point with its name.
reach: Callable[[str], None] = _set.reach if _set is not None else _pass

#: Called behind what was written, to the transport where all of it matters.
written: Callable[[str, asyncio.WriteTransport | None], None] = _set.written if _set is not None else _pass

#: Called before what may fail: whether it shall.
fails: Callable[[str], bool] = _set.fails if _set is not None else _holds
