"""The messages of a lane some of which bring a connection of their own: these wait apart, and hold up no others.

A target of such connections has half of their share at most, as a domain of direct delivery has of a lane's.
"""

from __future__ import annotations

from collections.abc import Callable

from ..model.queue import DueMessage, PriorityClass
from ..policy.staging import StagingGuard
from ..store import InHand
from .ready import Ready, Strand
from .ready_by_domain import ReadyByDomain


class ReadyByTarget(ReadyByDomain):
    """A queue of messages by where their own connections lead; `connections` says how many there may be."""

    def _place(self, message: DueMessage, recipient: str) -> str:
        """See `ReadyByDomain._place`: redirected copies go to the same target, apart from the others."""
        connection = message.connection
        target = connection.target if connection is not None else ""
        return f"@{target}" if self.guard is not None and self.guard.redirects(recipient) else target


class ReadyWithOwn(Ready):
    """A queue that keeps what brings a connection in `own`, and gives the rest."""

    def __init__(self, connections: Callable[[], int]) -> None:
        super().__init__()
        self.own = self._apart = ReadyByTarget(connections)

    def follow(self, guard: StagingGuard | None) -> None:
        """See `Ready.follow`."""
        super().follow(guard)
        self._apart.follow(guard)

    def clear(self) -> None:
        """See `Ready.clear`."""
        super().clear()
        self._apart.clear()

    def has_room_for(self, message: DueMessage) -> bool:
        """See `Ready.has_room_for`."""
        if message.connection is not None:
            return self._apart.has_room_for(message)
        return super().has_room_for(message)

    def is_shut(self, strand: Strand) -> bool:
        """See `Ready.is_shut`."""
        return self._apart.waits(strand) and self._apart.is_full(strand[0])

    def add(self, message: DueMessage) -> None:
        """See `Ready.add`."""
        if message.connection is not None:
            self._apart.add(message)
        else:
            super().add(message)

    def leave(self, message: DueMessage) -> bool:
        """See `Ready.leave`."""
        return self._apart.leave(message) if message.connection is not None else super().leave(message)

    def has(self, message: DueMessage) -> bool:
        """See `Ready.has`."""
        return self._apart.has(message) if message.connection is not None else super().has(message)

    def in_hand(self) -> InHand:
        """See `Ready.in_hand`."""
        rest, own = super().in_hand(), self._apart.in_hand()
        if not own.deliveries:
            return rest
        counts = dict(rest.counts)
        for strand, count in own.counts.items():
            counts[strand] = counts.get(strand, 0) + count
        shut = frozenset(filter(self.is_shut, own.counts))
        return InHand(deliveries=rest.deliveries | own.deliveries, counts=counts, shut=shut)

    @property
    def foremost(self) -> PriorityClass:
        """See `Ready.foremost`."""
        return min(super().foremost, self._apart.foremost)

    def waits(self, strand: Strand) -> bool:
        """See `Ready.waits`."""
        return super().waits(strand) or self._apart.waits(strand)
