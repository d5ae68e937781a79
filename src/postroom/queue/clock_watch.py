"""Whether the time of day may be believed when mail would end, or be removed, because of its age.

The time of day can jump: a wrong battery clock at boot, a hand that slips, a machine that was suspended. A clock that
is believed at once would end the whole queue in one moment. So a jump ahead is doubted for a day: mail is sent as ever,
and nothing ends or goes because of its age. Timers run on the monotonic clock and see no jump.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from ..model.clock import Clock

_log = structlog.get_logger()

#: What clocks may differ by between two looks: they are slewed, and tick a little differently.
TOLERANCE = timedelta(minutes=1)

#: How long the time of day is doubted after a jump ahead, by the monotonic clock.
DOUBT = timedelta(days=1)

#: After a silence longer than that, a start can't tell a rest from a jump.
SILENCE = timedelta(days=1)

_NOTHING = timedelta(0)
_DOUBTED = "nothing ends or is removed for its age within a day"


class ClockWatch:
    """Compares the time of day with the monotonic clock; to be asked often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen, self._seen_monotonic = clock.now(), clock.monotonic()
        self._ahead = _NOTHING  # by jumps that are doubted
        self._doubted_until = 0.0
        self._jumped = _NOTHING

    def was_last_seen(self, moment: datetime | None) -> None:
        """At a start: when something was last done here."""
        if moment is None:
            return
        if moment - self._seen > TOLERANCE:
            self._jumped = self._seen - moment
            self._jump(self._jumped)
        elif self._seen - moment > SILENCE:
            self._ahead = self._seen - moment
            self._doubted_until = self._clock.monotonic() + DOUBT.total_seconds()
            _log.info("silent_until_now", since=moment.isoformat(), what=_DOUBTED)

    def is_believed(self) -> bool:
        """Whether things may end because of their age now."""
        self.look()
        if self._ahead and self._clock.monotonic() >= self._doubted_until:
            self._ahead = _NOTHING
            _log.warning("clock_believed", what="ages count again by the time of day")
        return not self._ahead

    def look(self) -> None:
        """Compare the clocks."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        jump = now - self._seen - timedelta(seconds=monotonic - self._seen_monotonic)
        self._seen, self._seen_monotonic = now, monotonic
        if abs(jump) > TOLERANCE:
            self._jumped += jump
            self._jump(jump)

    @property
    def jumped(self) -> timedelta:
        """By how much the time of day has jumped that nobody has `dealt_with`; ahead is positive."""
        return self._jumped

    def dealt_with(self, jump: timedelta) -> None:
        """What a jump has put far away is brought back."""
        self._jumped -= jump

    def _jump(self, jump: timedelta) -> None:
        self._ahead += jump
        if self._ahead <= TOLERANCE:
            self._ahead = _NOTHING
        else:
            self._doubted_until = self._clock.monotonic() + DOUBT.total_seconds()
        what = f"set it right if it is wrong; {_DOUBTED}" if self._ahead else "waits go on as they were"
        _log.warning("clock_jumped", seconds=jump.total_seconds(), what=what)
