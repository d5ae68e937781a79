"""Named points at which the process ends itself as a crash would, for tests of what is left (docs/reliability.md).

POSTROOM_CRASH_AT=point:nth ends it with status 137 when `point` is reached for the nth time; without the variable a
point is a call that does nothing.
"""

from __future__ import annotations

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


def _reach(point: str) -> None:
    """`point` was reached."""


def arm(wanted: str) -> Callable[[str], None]:
    """What `reach` shall be for the value `wanted` of the variable; SystemExit where it names no point."""
    if not wanted:
        return _reach
    point, _, nth = wanted.partition(":")
    if point not in POINTS or not (nth or "1").isdecimal():
        raise SystemExit(f"{VARIABLE}: {wanted!r} is no point and number, as in D4:2 (points: {', '.join(POINTS)})")
    left = int(nth or "1")

    def crash(reached: str) -> None:
        nonlocal left
        if reached == point:
            left -= 1
            if not left:
                os._exit(EXIT_STATUS)

    return crash


#: Called at each point with its name.
reach: Callable[[str], None] = arm(os.environ.get(VARIABLE, ""))
