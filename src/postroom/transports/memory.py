"""What is remembered of destinations for a while: that they fail, and what their hosts taught."""

from __future__ import annotations

from collections import OrderedDict

from ..model.clock import Clock
from ..model.outcome import Bounced, Deferred
from .smtp_outcomes import Lesson

#: How long it is remembered what a destination taught.
LESSON_SECONDS = 3600.0

#: Destinations of which something is remembered.
MOST_REMEMBERED = 5000


class Destination:
    """What is known of one domain, or of one host."""

    __slots__ = ("failure", "most_recipients", "plain", "tls", "until")

    def __init__(self) -> None:
        self.failure: Bounced | Deferred | None = None  # of the last attempt, while another would fail as well
        self.plain = False
        self.tls = False
        self.most_recipients: int | None = None
        self.until = 0.0

    def learn(self, lesson: Lesson) -> None:
        """Treat it as `lesson` says."""
        self.plain |= lesson.plain
        self.tls |= lesson.tls
        if lesson.most_recipients:
            self.most_recipients = min(self.most_recipients or lesson.most_recipients, lesson.most_recipients)


class Memory:
    """Of so many destinations, each for its time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[str, Destination] = OrderedDict()

    def find(self, name: str) -> Destination | None:
        """What is known of `name`."""
        found = self._known.get(name)
        if found is not None and found.until <= self._clock.monotonic():
            del self._known[name]
            return None
        return found

    def keep(self, name: str, seconds: float) -> Destination:
        """What is known of `name`, remembered so long from now on."""
        found = self.find(name) or Destination()
        found.until = self._clock.monotonic() + seconds
        self._known[name] = found
        self._known.move_to_end(name)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found

    def forget(self, name: str) -> None:
        """Nothing is known of it."""
        self._known.pop(name, None)
