"""The messages of one lane that wait in memory for a slot, in the order in which they go (SPEC section 2.8).

Urgent ones first; of the others four normal ones, then a bulk one; within a class the flows (applications, campaigns)
take turns, so that nobody waits behind another's backlog.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque

from ..model.account import Account
from ..model.queue import DueMessage, FlowId, MessageId, PriorityClass
from ..policy.staging import StagingGuard
from ..store import InHand

#: What is kept in memory; the rest stays in the store until there is room. For urgent ones there is as much again.
READY_BYTES = 16 * 1024 * 1024
READY_MESSAGES = 2000

#: Ready messages below which more are loaded.
LOAD_BELOW = 50

#: So many normal messages go for each bulk one while both wait.
NORMAL_PER_BULK = 4

#: A class and a flow of it.
Strand = tuple[PriorityClass, FlowId]

_URGENT, _NORMAL, _BULK = PriorityClass  # an enum's member costs a look-up each time


class Ready:
    """A queue of messages by class and flow. What was taken out stays *in hand* until `leave`.

    `guard` divides each message that is added: who may get it, and whose copy is redirected. Both are never sent
    together; `clear` comes before it changes.
    """

    #: What brings a connection of its own, where it waits apart.
    own: Ready | None = None

    #: Whether all recipients of a message go together, also when it is tried again.
    is_whole = False

    def __init__(self) -> None:
        self.guard: StagingGuard | None = None
        self._flows: tuple[OrderedDict[FlowId, deque[DueMessage]], ...] = tuple(OrderedDict() for _ in PriorityClass)
        self._in_hand: set[tuple[MessageId, int]] = set()
        self._by_strand: dict[Strand, int] = {}
        self._since_bulk = 0
        self._bytes = 0
        self.count = 0

    def follow(self, guard: StagingGuard | None) -> None:
        """Divide by `guard` what is added from now on."""
        self.guard = guard

    def most(self, account: Account) -> int:
        """To how many recipients a message of `account` may go at once."""
        return account.recipients_per_transaction

    def fitted(self, room: int, ever: int) -> int:
        """For how many recipients `next` should be asked, where limits leave `room` now and `ever` at best; 0: wait."""
        return room

    def clear(self) -> None:
        """Forget what waits here; what was taken out stays in hand."""
        for flows in self._flows:
            for queue in flows.values():
                for message in queue:
                    self.leave(message)
            flows.clear()
        self.count = self._bytes = 0

    def is_full(self, priority: PriorityClass) -> bool:
        """Whether no more of this class should be kept in memory."""
        rooms = 2 if priority is _URGENT else 1  # a backlog leaves room for what is urgent
        return self.count >= READY_MESSAGES * rooms or self._bytes >= READY_BYTES * rooms

    def has_room_for(self, message: DueMessage) -> bool:
        """Whether it may be kept in memory."""
        return not self.is_full(message.priority)

    def is_shut(self, strand: Strand) -> bool:
        """Whether no more of a strand should be read, of which some waits here: its room apart from others' is full."""
        return False

    @property
    def runs_low(self) -> bool:
        """Whether little waits here."""
        return self.count < LOAD_BELOW

    def add(self, message: DueMessage) -> None:
        """Behind the others of its flow."""
        for part in (message,) if self.guard is None else divided(message, self.guard):
            self._enter(part)
            flows = self._flows[part.priority]
            queue = flows.get(part.flow)
            if queue is None:
                queue = flows[part.flow] = deque()
            queue.append(part)

    def _enter(self, message: DueMessage) -> None:
        for delivery in message.deliveries:
            self._in_hand.add((message.id, delivery.n))
        strand = (message.priority, message.flow)
        self._by_strand[strand] = self._by_strand.get(strand, 0) + len(message.deliveries)
        self.count += 1
        self._bytes += _weight(message)

    def next(self, most: int) -> DueMessage | None:
        """Take out what goes next, with at most `most` recipients: the others go with the next turn of its flow.

        All whose copy is redirected go together: it has one recipient.
        """
        flows = self._turn()
        if flows is None:
            return None
        flow, queue = next(iter(flows.items()))
        message = self.foremost_of(queue, most)
        if queue:
            flows.move_to_end(flow)
        else:
            del flows[flow]
        return message

    def foremost_of(self, queue: deque[DueMessage], most: int) -> DueMessage:
        """Take out of `queue` what is its first message, or the first `most` recipients of it."""
        message = queue[0]
        if len(message.deliveries) > most and not self.redirects(message):
            queue[0] = dataclasses.replace(message, deliveries=message.deliveries[most:])
            return dataclasses.replace(message, deliveries=message.deliveries[:most])
        queue.popleft()
        self._left(message)
        return message

    def redirects(self, message: DueMessage) -> bool:
        """Whether the copy of a message that was divided is redirected."""
        return self.guard is not None and self.guard.redirects(message.deliveries[0].recipient)

    def _left(self, message: DueMessage) -> None:
        self.count -= 1
        self._bytes -= _weight(message)

    def _turn(self) -> OrderedDict[FlowId, deque[DueMessage]] | None:
        urgent, normal, bulk = self._flows
        if urgent:
            return urgent
        if bulk and (not normal or self._since_bulk >= NORMAL_PER_BULK):
            self._since_bulk = 0
            return bulk
        if normal:
            self._since_bulk += 1
            return normal
        return None

    def leave(self, message: DueMessage) -> bool:
        """What was taken out is no longer in hand: its outcome is durable, or it was not claimed. Whether that lets
        another one go."""
        for delivery in message.deliveries:
            self._in_hand.discard((message.id, delivery.n))
        strand = (message.priority, message.flow)
        left = self._by_strand[strand] - len(message.deliveries)
        if left:
            self._by_strand[strand] = left
        else:
            del self._by_strand[strand]
        return False

    @property
    def may_go(self) -> bool:
        """Whether `next` has anything to give."""
        return self.count > 0

    def has(self, message: DueMessage) -> bool:
        """Whether it waits here or is in hand."""
        return (message.id, message.deliveries[0].n) in self._in_hand

    def in_hand(self) -> InHand:
        """What waits here or is in hand, as it is now."""
        return InHand(deliveries=frozenset(self._in_hand), counts=dict(self._by_strand), whole=self.is_whole)

    @property
    def foremost(self) -> PriorityClass:
        """The most urgent class of which anything waits here; the last one where nothing does."""
        return next((priority for priority in PriorityClass if self._flows[priority]), _BULK)

    def waits(self, strand: Strand) -> bool:
        """Whether any message of the strand waits here."""
        priority, flow = strand
        return flow in self._flows[priority]


def divided(message: DueMessage, guard: StagingGuard) -> tuple[DueMessage, ...]:
    """The part for those who may get the message, and the part that is redirected; neither is empty."""
    redirected = frozenset(d.n for d in message.deliveries if guard.redirects(d.recipient))
    if not redirected or len(redirected) == len(message.deliveries):
        return (message,)
    parts = ([d for d in message.deliveries if (d.n in redirected) is which] for which in (False, True))
    return tuple(dataclasses.replace(message, deliveries=tuple(part)) for part in parts)


def _weight(message: DueMessage) -> int:
    body = message.content.body
    return len(message.content.head) + (len(body) if isinstance(body, bytes) else 0)
