"""How much slower an account goes after its relay complained, and how it comes back (SPEC section 2.8)."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: The pause between two messages after a first complaint about the rate, and the longest.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 60.0

#: Seconds without a complaint after which the pause is halved, and after which one connection more is tried.
HALVED_AFTER = 60.0
GROWN_AFTER = 600.0

#: Complaints within so many seconds are one: what was under way when the first came could not know of it.
ONE_COMPLAINT = 5.0


@dataclass(frozen=True, slots=True)
class Slowdown:
    """`pause`: seconds between two messages; `connections`: most of them (0: as the account says). The other two are
    the monotonic seconds from which the next step back is counted."""

    pause: float = 0.0
    connections: int = 0
    pause_since: float = 0.0
    connections_since: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.pause or self.connections)

    def slower(self, now: float) -> Slowdown:
        """After a complaint about the rate: twice the pause."""
        if self.pause and now < self.pause_since + max(ONE_COMPLAINT, self.pause):
            return self
        return replace(self, pause=min(self.pause * 2 or FIRST_PAUSE, LONGEST_PAUSE), pause_since=now)

    def fewer(self, now: float, most: int) -> Slowdown:
        """After a complaint about connections: one less of `most`, or of those allowed now, but never none."""
        if self.connections and now < self.connections_since + ONE_COMPLAINT:
            return self
        return replace(self, connections=max(1, (self.connections or most) - 1), connections_since=now)

    def back(self, now: float, most: int) -> Slowdown:
        """What is left of it at `now`; `most` is what the account says of connections."""
        pause, pause_since = self.pause, self.pause_since
        while pause and now >= pause_since + HALVED_AFTER:
            pause, pause_since = (pause / 2 if pause / 2 >= FIRST_PAUSE else 0.0), pause_since + HALVED_AFTER
        connections, connections_since = self.connections, self.connections_since
        while connections and now >= connections_since + GROWN_AFTER:
            connections = connections + 1 if connections + 1 < most else 0
            connections_since += GROWN_AFTER
        return Slowdown(pause, connections, pause_since, connections_since)

    def next_step(self) -> float:
        """When `back` gives something else than now, in monotonic seconds."""
        steps = [self.pause_since + HALVED_AFTER] if self.pause else []
        steps += [self.connections_since + GROWN_AFTER] if self.connections else []
        return min(steps)
