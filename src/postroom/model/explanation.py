"""What a message waits for, in words for the person who asks `why`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .queue import DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What is ahead of one delivery: its next try, the end of its retry window, and when it is given up.

    `window_ends` is None while the window stands still (and where none counts); `window_left` is what is left of it.
    """

    next_try: datetime | None = None
    window_ends: datetime | None = None
    window_left: timedelta | None = None
    stands_still: bool = False
    gives_up: datetime | None = None


#: Of what has ended.
NOTHING_AHEAD = Times()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One delivery: what it waits for (or how it ended), until when, what to do, and the command that does it.

    `marks` say what is not known of it: whether the relay has it, or has it twice; `times` what is ahead of it.
    """

    n: int
    recipient: str
    state: DeliveryState
    account: str
    reason: str
    until: datetime | None = None
    advice: str = ""
    command: str = ""
    marks: tuple[str, ...] = ()
    times: Times = NOTHING_AHEAD
