"""The messages of one lane that wait in memory for a slot, in the order in which they go (SPEC section 2.8).

Urgent ones first; of the others four normal ones, then a bulk one; within a class the flows (applications, campaigns)
take turns, so that nobody waits behind another's backlog.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque
from collections.abc import Set

from ..model.queue import DueMessage, FlowId, MessageId, PriorityClass

#: What is kept in memory; the rest stays in the store until there is room. For urgent ones there is as much again.
READY_BYTES = 16 * 1024 * 1024
READY_MESSAGES = 2000

#: So many normal messages go for each bulk one while both wait.
NORMAL_PER_BULK = 4

#: A class and a flow of it.
Strand = tuple[PriorityClass, FlowId]

_URGENT, _NORMAL, _BULK = PriorityClass  # an enum's member costs a look-up each time


class Ready:
    """A queue of messages by class and flow. Messages taken out stay *in hand* until `leave`."""

    def __init__(self) -> None:
        self._flows: tuple[OrderedDict[FlowId, deque[DueMessage]], ...] = tuple(OrderedDict() for _ in PriorityClass)
        self._in_hand: dict[MessageId, int] = {}  # and how many parts of it there are
        self._by_strand: dict[Strand, int] = {}
        self._since_bulk = 0
        self._bytes = 0
        self.count = 0

    def is_full(self, priority: PriorityClass) -> bool:
        """Whether no more of this class should be kept in memory."""
        rooms = 2 if priority is _URGENT else 1  # a backlog leaves room for what is urgent
        return self.count >= READY_MESSAGES * rooms or self._bytes >= READY_BYTES * rooms

    def add(self, message: DueMessage) -> None:
        """Behind the others of its flow."""
        self._in_hand[message.id] = self._in_hand.get(message.id, 0) + 1
        strand = (message.priority, message.flow)
        self._by_strand[strand] = self._by_strand.get(strand, 0) + 1
        flows = self._flows[message.priority]
        queue = flows.get(message.flow)
        if queue is None:
            queue = flows[message.flow] = deque()
        queue.append(message)
        self.count += 1
        self._bytes += _weight(message)

    def next(self, most: int) -> DueMessage | None:
        """Take out what goes next, with at most `most` recipients: the others go with the next turn of its flow."""
        flows = self._turn()
        if flows is None:
            return None
        flow, queue = next(iter(flows.items()))
        message = queue[0]
        if len(message.deliveries) > most:
            queue[0] = dataclasses.replace(message, deliveries=message.deliveries[most:])
            message = dataclasses.replace(message, deliveries=message.deliveries[:most])
            self._in_hand[message.id] += 1
            self._by_strand[message.priority, flow] += 1
        else:
            queue.popleft()
            self.count -= 1
            self._bytes -= _weight(message)
        if queue:
            flows.move_to_end(flow)
        else:
            del flows[flow]
        return message

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

    def leave(self, message: DueMessage) -> None:
        """It is no longer in hand: its outcome is durable, or it was not claimed."""
        parts = self._in_hand[message.id] - 1
        if parts:
            self._in_hand[message.id] = parts
        else:
            del self._in_hand[message.id]
        strand = (message.priority, message.flow)
        left = self._by_strand[strand] - 1
        if left:
            self._by_strand[strand] = left
        else:
            del self._by_strand[strand]

    def has(self, message_id: MessageId) -> bool:
        """Whether it waits here or is in hand."""
        return message_id in self._in_hand

    @property
    def ids(self) -> Set[MessageId]:
        """The messages that wait here or are in hand."""
        return self._in_hand.keys()

    def in_hand(self) -> dict[Strand, int]:
        """How many wait here or are in hand, by class and flow."""
        return dict(self._by_strand)

    def waits(self, strand: Strand) -> bool:
        """Whether any message of the strand waits here."""
        priority, flow = strand
        return flow in self._flows[priority]


def _weight(message: DueMessage) -> int:
    body = message.content.body
    return len(message.content.head) + (len(body) if isinstance(body, bytes) else 0)
