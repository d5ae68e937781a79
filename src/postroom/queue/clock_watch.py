"""Whether the time of day may be believed when mail would end, or be removed, because of its age.

The time of day can jump: a wrong battery clock at boot, a hand that slips, a machine that was suspended. A clock that
is believed at once would end the whole queue in one moment. So a jump ahead is doubted for a day: mail is sent as ever,
and nothing ends or goes because of its age. Timers run on the monotonic clock and see no jump.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from ..model.clock import Clock
from ..store import QueueStore, Silence

_log = structlog.get_logger()

#: What clocks may differ by between two looks: they are slewed, and tick a little differently.
TOLERANCE = timedelta(minutes=1)

#: How long the time of day is doubted after a jump ahead, by the monotonic clock.
DOUBT = timedelta(days=1)

#: After a silence longer than that, a start can't tell a rest from a jump.
SILENCE = timedelta(days=1)

#: Two clocks are read in so short a time, or again: the process can be stopped between them.
AT_ONCE_SECONDS = 1.0

_NOTHING = timedelta(0)
_DOUBTED = "nothing ends or is removed for its age within a day"


@dataclass(frozen=True, slots=True)
class Jumps:
    """How far the time of day has jumped, in all, each way. What jumps back and ahead is not the same as no jump: what
    was reckoned between them is wrong."""

    ahead: timedelta = _NOTHING
    back: timedelta = _NOTHING

    def __bool__(self) -> bool:
        return bool(self.ahead or self.back)


class ClockWatch:
    """Compares the time of day with the monotonic clock; to be asked often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen, self._seen_monotonic = self._read()
        self._ahead = _NOTHING  # by jumps that are doubted
        self._doubted_until = 0.0
        self._jumps = Jumps()

    async def remember(self, store: QueueStore) -> None:
        """At a start: learn from what is on record of the time before it."""
        silence = await store.last_silence(self._seen - DOUBT, self._seen + TOLERANCE)
        if silence is not None:
            self.was_silent(silence)

    def was_silent(self, silence: Silence) -> None:
        """Judge the last time in which nothing happened here: a jump back, a jump ahead, or a rest that looks like one.

        What came after a jump ahead is on record with times that are ahead, so a doubt outlives a start.
        """
        if silence.until is None and silence.since - self._seen > TOLERANCE:
            self._jump(self._seen - silence.since)
            return
        until = silence.until or self._seen
        left = DOUBT - (self._seen - until)
        if until - silence.since > SILENCE and left > _NOTHING:
            self._ahead = until - silence.since
            self._doubted_until = self._seen_monotonic + left.total_seconds()
            _log.info("silent_until_now", since=silence.since.isoformat(), what=_DOUBTED)

    def is_believed(self) -> bool:
        """Whether things may end because of their age now: at a time of day that was read before this call."""
        self.look()
        if self._ahead and self._seen_monotonic >= self._doubted_until:
            self._ahead = _NOTHING
            _log.warning("clock_believed", what="ages count again by the time of day")
        return not self._ahead

    def look(self) -> None:
        """Compare the clocks."""
        now, monotonic = self._read()
        jump = now - self._seen - timedelta(seconds=monotonic - self._seen_monotonic)
        self._seen, self._seen_monotonic = now, monotonic
        if abs(jump) > TOLERANCE:
            self._jump(jump)

    @property
    def jumps(self) -> Jumps:
        """Those that nobody has `dealt_with`."""
        return self._jumps

    def dealt_with(self, jumps: Jumps) -> None:
        """What these have put far away is brought back."""
        self._jumps = Jumps(self._jumps.ahead - jumps.ahead, self._jumps.back - jumps.back)

    def _read(self) -> tuple[datetime, float]:
        while True:
            before, now, after = self._clock.monotonic(), self._clock.now(), self._clock.monotonic()
            if after - before < AT_ONCE_SECONDS:
                return now, after

    def _jump(self, jump: timedelta) -> None:
        self._jumps = Jumps(self._jumps.ahead + max(jump, _NOTHING), self._jumps.back - min(jump, _NOTHING))
        self._ahead += jump
        if self._ahead <= TOLERANCE:
            self._ahead = _NOTHING
        elif jump > _NOTHING:
            self._doubted_until = self._seen_monotonic + DOUBT.total_seconds()
        what = f"set it right if it is wrong; {_DOUBTED}" if self._ahead else "waits go on as they were"
        _log.warning("clock_jumped", seconds=jump.total_seconds(), what=what)
