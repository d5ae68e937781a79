"""Named points at which the process ends itself as a crash would, for tests of what is left (docs/reliability.md).

POSTROOM_CRASH_AT=point:nth ends it with status 137 when `point` is reached for the nth time; without the variable a
point is a call that does nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

VARIABLE = "POSTROOM_CRASH_AT"

#: As a process that was killed.
EXIT_STATUS = 137

#: Where each point is (RELIABILITY section 2).
POINTS = {
    "A1": "a part of a content has been read",
    "A2": "the end of data has been read and nothing is committed",
    "A3": "the last chunk of a body is committed, its message is not",
    "A4": "the message is committed and its 250 is not written",
    "A5": "the 250 is written",
    "D1": "a claim is committed and nothing of the message is written",
    "D2": "the envelope is answered and nothing of the content is written",
    "D3": "a part of the content is written",
    "D4": "the end of data is written and not answered",
    "D5": "the reply to the end of data is read and not committed",
    "D6": "an outcome is committed",
    "D7": "a failure is committed and its report is not",
    "D8": "within the transaction of a migration",
    "D8-keys": "the new key is kept and what the old one sealed is not sealed anew",
}


def _pass(point: str) -> None:
    """A point of a process that shall live."""


class Trap:
    """Ends the process when `point` is reached for the `nth` time."""

    def __init__(self, point: str, nth: int) -> None:
        self._point = point
        self._left = nth

    def reach(self, point: str) -> None:
        """End here, if this is it."""
        if self._is_it(point):
            _end()

    def written(self, point: str) -> None:
        """End as soon as what was handed to the loop for writing has left the process."""
        if self._is_it(point):
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, loop.call_soon, _end)  # uvloop writes when its turn ends

    def _is_it(self, point: str) -> bool:
        if point != self._point:
            return False
        self._left -= 1
        return not self._left


def _end() -> None:
    os._exit(EXIT_STATUS)


def trap(wanted: str) -> Trap | None:
    """The trap that the value `wanted` of the variable sets; SystemExit where it names no point."""
    point, _, nth = wanted.partition(":")
    if not wanted:
        return None
    if point not in POINTS or not (nth or "1").isdecimal():
        raise SystemExit(f"{VARIABLE}: {wanted!r} is no point and number, as in D4:2 (points: {', '.join(POINTS)})")
    return Trap(point, int(nth or "1"))


_set = trap(os.environ.get(VARIABLE, ""))

#: Called at each point with its name.
reach: Callable[[str], None] = _set.reach if _set is not None else _pass

#: Called behind what was written.
written: Callable[[str], None] = _set.written if _set is not None else _pass
