"""Times at which the retry windows of all deliveries stand still, because sending is off (SPEC section 2.8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

_NOTHING = timedelta(0)

#: Pauses that were over before are forgotten: no retry window is longer.
REMEMBERED = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Standstill:
    """Pauses in the order of time, none over another; the last may have no end yet (None)."""

    pauses: tuple[tuple[datetime, datetime | None], ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether everything stands still now."""
        return bool(self.pauses) and self.pauses[-1][1] is None

    def begun(self, now: datetime) -> Standstill:
        """With a pause from now on, unless there is one already."""
        return self if self.is_on else Standstill((*self.pauses, (now, None)))

    def ended(self, now: datetime, forget_before: datetime) -> Standstill:
        """With the pause ended; those that were over before `forget_before` are left out."""
        ended = [(since, max(since, now) if until is None else until) for since, until in self.pauses]
        return Standstill(tuple((since, until) for since, until in ended if until > forget_before))

    def turned(self, is_on: bool, now: datetime) -> Standstill:
        """As `begun` or `ended`; what was over a year ago and more is forgotten."""
        return self.begun(now) if is_on else self.ended(now, now - REMEMBERED) if self.is_on else self

    def joined(self, other: Standstill) -> Standstill:
        """The times at which this one or the other stands still."""
        joined: list[tuple[datetime, datetime | None]] = []
        for since, until in sorted((*self.pauses, *other.pauses), key=lambda pause: pause[0]):
            if joined and (joined[-1][1] is None or since <= joined[-1][1]):
                last = joined[-1][1]
                joined[-1] = (joined[-1][0], None if last is None or until is None else max(last, until))
            else:
                joined.append((since, until))
        return Standstill(tuple(joined))

    def between(self, start: datetime, end: datetime) -> timedelta:
        """How much of the time from `start` to `end` stood still."""
        return sum((until - since for since, until in self._within(start, end)), _NOTHING)

    def began(self, window: timedelta, now: datetime) -> datetime:
        """When a window of that length began which is over just now."""
        start = now - window
        for since, until in reversed(list(self._within(datetime.min.replace(tzinfo=now.tzinfo), now))):
            if until < start:  # what began as a pause did has had as much time as what began at its end
                break
            start -= until - since
        return start

    def _within(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        for since, until in self.pauses:
            first, last = max(since, start), min(until or end, end)
            if first < last:
                yield first, last


#: Nothing ever stood still.
NEVER = Standstill()
