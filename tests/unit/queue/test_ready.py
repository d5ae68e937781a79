"""The order in which messages in memory go: classes, turns of flows, and what is in hand."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from postroom.model.content import Content
from postroom.model.queue import DueDelivery, DueMessage, FlowId, LaneId, MessageId, PriorityClass
from postroom.queue.ready import READY_MESSAGES, Ready
from postroom.store import InHand

URGENT, NORMAL, BULK = PriorityClass


def message(n: int, priority: PriorityClass = NORMAL, flow: int = 1, recipients: int = 1) -> DueMessage:
    """A message with number `n`."""
    return DueMessage(
        id=MessageId(n.to_bytes(16, "big")),
        lane=LaneId(1),
        priority=priority,
        reverse_path="a@x.test",
        eight_bit=False,
        smtputf8=False,
        window_from=datetime(2026, 1, 1, tzinfo=UTC),
        accepted=datetime(2026, 1, 1, tzinfo=UTC),
        deliveries=tuple(DueDelivery(i, f"r{i}@y.test") for i in range(recipients)),
        content=Content(b"head", b"body"),
        flow=FlowId(flow),
    )


def taken(ready: Ready, most: int = 100) -> list[DueMessage]:
    """Everything, in the order in which it goes."""
    found = []
    while (one := ready.next(most)) is not None:
        found.append(one)
    return found


def filled(*messages: DueMessage) -> Ready:
    """With these in it, added in this order."""
    ready = Ready()
    for one in messages:
        ready.add(one)
    return ready


def test_urgent_goes_first_and_four_normal_ones_for_each_bulk_one() -> None:
    messages = [message(n, BULK) for n in range(3)] + [message(n, NORMAL) for n in range(10, 20)]
    ready = filled(*messages, message(99, URGENT))
    order = [one.priority for one in taken(ready)]
    assert order == [URGENT, *[NORMAL] * 4, BULK, *[NORMAL] * 4, BULK, *[NORMAL] * 2, BULK]


def test_flows_take_turns_whatever_their_backlog() -> None:
    ready = filled(*[message(n, flow=1) for n in range(100)], message(200, flow=2), message(201, flow=2))
    assert [one.flow for one in taken(ready)][:5] == [1, 2, 1, 2, 1]


def test_one_flow_keeps_its_order() -> None:
    ready = filled(*[message(n) for n in range(10)])
    assert [one.id for one in taken(ready)] == [message(n).id for n in range(10)]


def test_recipients_over_the_most_go_with_the_next_turn() -> None:
    ready = filled(message(1, recipients=5), message(2, flow=2))
    order = [(one.id[-1], len(one.deliveries)) for one in taken(ready, most=2)]
    assert order == [(1, 2), (2, 1), (1, 2), (1, 1)]


def test_each_delivery_is_in_hand_until_it_has_left() -> None:
    ready = filled(message(1, recipients=2))
    first, second = taken(ready, most=1)
    ready.leave(first)
    assert (ready.has(first), ready.has(second)) == (False, True)
    assert ready.in_hand() == InHand(deliveries=frozenset({(second.id, 1)}), counts={(NORMAL, FlowId(1)): 1})
    ready.leave(second)
    assert ready.in_hand() == InHand()


def test_a_backlog_leaves_room_for_what_is_urgent() -> None:
    ready = filled(*[message(n) for n in range(READY_MESSAGES)])
    assert ready.is_full(NORMAL)
    assert not ready.is_full(URGENT)


@given(st.lists(st.tuples(st.sampled_from(PriorityClass), st.integers(1, 4), st.integers(1, 5)), max_size=60))
def test_nothing_is_lost_and_nobody_waits_for_more_than_one_turn_of_each_other_flow(
    rows: list[tuple[PriorityClass, int, int]],
) -> None:
    messages = [message(n, *row) for n, row in enumerate(rows)]
    ready = filled(*messages)
    order = taken(ready, most=2)
    sent = Counter((one.id, delivery.n) for one in order for delivery in one.deliveries)
    assert sent == Counter((one.id, delivery.n) for one in messages for delivery in one.deliveries)
    for priority in PriorityClass:
        flows = [one.flow for one in order if one.priority is priority]
        for place, flow in enumerate(flows):
            since = flows[place + 1 :][: flows[place + 1 :].index(flow)] if flow in flows[place + 1 :] else []
            assert max(Counter(since).values(), default=0) <= 1
    assert ready.count == 0
    for one in order:
        ready.leave(one)
    assert ready.in_hand() == InHand()
