"""The beats of the batch interval: only what is due at a beat is sent, until the next one (SPEC section 3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from ..model.clock import Clock, Timer


class Beats:
    """Beats every so often, from the moment that it is told to; `on_beat` is given the time, or None: no beats."""

    def __init__(self, clock: Clock, on_beat: Callable[[datetime | None], None]) -> None:
        self._clock = clock
        self._on_beat = on_beat
        self._interval = timedelta(0)
        self._timer: Timer | None = None
        self.last: datetime | None = None

    @property
    def interval(self) -> timedelta:
        """How often; zero: there are none."""
        return self._interval

    def every(self, interval: timedelta) -> None:
        """Beat now and then every `interval`; zero: end."""
        self.stop()
        self._interval = interval
        if interval:
            self._beat()
        else:
            self.last = None
            self._on_beat(None)

    def stop(self) -> None:
        """No further beat."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def next_from(self, due: datetime) -> datetime | None:
        """The first beat to come at which something that is due then is sent; None: it waits for none."""
        if self.last is None or due <= self.last:
            return None
        return self.last + -((self.last - due) // self._interval) * self._interval

    def _beat(self) -> None:
        self.last = self._clock.now()
        self._timer = self._clock.call_later(self._interval.total_seconds(), self._beat)
        self._on_beat(self.last)
