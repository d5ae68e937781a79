"""What `due` brings: a share for each flow, a part for bulk mail, nothing that is in hand, and what is left."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from postroom.model.queue import FlowId, PriorityClass
from postroom.store import Due, InHand
from postroom.store.database import Database
from tests.contract.store.examples import LANE, NOON, begin, make_message

URGENT, NORMAL, BULK = PriorityClass


def _flows(due: Due) -> Counter[tuple[PriorityClass, int]]:
    return Counter((message.priority, message.flow) for message in due.messages)


async def test_each_flow_has_its_share_whatever_the_backlog_of_another(store: Database) -> None:
    for n in range(30):
        await store.enqueue(make_message(application_id=1, at=NOON + timedelta(microseconds=n)))
    for n in range(3):
        await store.enqueue(make_message(application_id=2, at=NOON + timedelta(seconds=1 + n)))
    due = await store.due(LANE, NOON + timedelta(minutes=1), 10)
    assert _flows(due) == {(NORMAL, 1): 5, (NORMAL, 2): 3}
    assert due.more == {(NORMAL, FlowId(1))}
    assert not due.unseen & {URGENT, NORMAL}


async def test_bulk_comes_beside_a_backlog_of_normal_ones_and_after_none_of_urgent_ones(store: Database) -> None:
    for _ in range(30):
        await store.enqueue(make_message(priority=NORMAL))
        await store.enqueue(make_message(priority=BULK))
    due = await store.due(LANE, NOON, 10)
    assert _flows(due) == {(NORMAL, 3): 8, (BULK, 3): 2}
    for _ in range(30):
        await store.enqueue(make_message(priority=URGENT))
    due = await store.due(LANE, NOON, 10)
    assert _flows(due) == {(URGENT, 3): 10}
    assert due.unseen == {NORMAL, BULK}


async def test_what_is_in_hand_is_left_out_and_takes_nobodys_place(store: Database) -> None:
    messages = [make_message("b@y.test", "c@y.test", at=NOON + timedelta(microseconds=n)) for n in range(4)]
    for message in messages:
        await store.enqueue(message)
    held = InHand(
        deliveries=frozenset({(messages[0].id, 0), (messages[0].id, 1), (messages[1].id, 0)}),
        counts={(NORMAL, FlowId(3)): 3},
    )
    due = await store.due(LANE, NOON + timedelta(seconds=1), 3, held)
    found = [(message.id, [d.n for d in message.deliveries]) for message in due.messages]
    # Of three deliveries a part is kept for bulk mail, so two; the second recipient of the second message first.
    assert next(pair for pair in found if pair[1]) == (messages[1].id, [1])
    assert all((identity, n) not in held.deliveries for identity, numbers in found for n in numbers)
    assert due.more == {(NORMAL, FlowId(3))}


async def test_the_next_time_is_the_earliest_of_all_flows(store: Database) -> None:
    await begin(store)
    for flow, minutes in ((1, 9), (2, 4), (5, 7)):
        await store.enqueue(make_message(application_id=flow, at=NOON + timedelta(minutes=minutes)))
    assert await store.next_due(LANE, [NORMAL], NOON) == NOON + timedelta(minutes=4)
    assert await store.next_due(LANE, [NORMAL], NOON + timedelta(minutes=4)) == NOON + timedelta(minutes=7)
    assert await store.next_due(LANE, [BULK], NOON) is None


async def test_a_lane_that_wants_messages_whole_gets_all_of_the_last_one(store: Database) -> None:
    many = [make_message(*[f"{n}@y.test" for n in range(7)], at=NOON + timedelta(microseconds=n)) for n in range(3)]
    for message in many:
        await store.enqueue(message)
    due = await store.due(LANE, NOON + timedelta(seconds=1), 10, InHand(whole=True))
    assert [(message.id, len(message.deliveries)) for message in due.messages] == [(m.id, 7) for m in many[:2]]
    assert due.more == {(NORMAL, FlowId(3))}
