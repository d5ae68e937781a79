"""What people look at: pages by key, filters, one message, counts, events."""

from __future__ import annotations

import pytest

from postroom.model.ids import new_message_id
from postroom.model.queue import DeliveryState, MessageId, PriorityClass
from postroom.store import DeliveryFilter, Selection, lists
from postroom.store.database import Database
from tests.contract.store.examples import (
    HEAD,
    LANE,
    NOON,
    OTHER_LANE,
    begin,
    make_message,
    result_of,
    sent,
    told,
)

S = DeliveryState


async def test_a_page_is_newest_first_and_goes_on_where_the_last_ended(store: Database) -> None:
    messages = [make_message("b@example.net", "c@example.net", "d@example.net") for _ in range(3)]
    for message in messages:
        await store.enqueue(message)
    expected = [(message.id, n) for message in reversed(messages) for n in range(3)]
    seen: list[tuple[MessageId, int]] = []
    wanted = DeliveryFilter(limit=4)
    while page := await store.deliveries(wanted):
        seen.extend((row.message_id, row.n) for row in page)
        wanted = DeliveryFilter(limit=4, after=seen[-1])
    assert seen == expected


async def test_a_row_says_what_lists_show(store: Database) -> None:
    message = make_message(priority=PriorityClass.BULK)
    await store.enqueue(message)
    (row,) = await store.deliveries(DeliveryFilter())
    assert (row.message_id, row.n, row.recipient, row.state, row.lane) == (
        message.id,
        0,
        "b@example.net",
        "queued",
        LANE,
    )
    assert (row.priority, row.tries, row.unknowns, row.may_be_sent_twice) == (PriorityClass.BULK, 0, 0, False)
    assert (row.due, row.window_from, row.accepted, row.ended) == (NOON, NOON, NOON, None)
    assert (row.status, row.reply, row.reverse_path, row.subject) == ("", "", "a@example.org", "été")
    assert row.size_bytes == message.content.size_bytes


@pytest.mark.parametrize("sorted_up_to", [0, 20_000])
async def test_all_conditions_of_a_filter_hold(
    store: Database, monkeypatch: pytest.MonkeyPatch, sorted_up_to: int
) -> None:
    monkeypatch.setattr(lists, "_SORTED", sorted_up_to)
    token = await begin(store)
    queued = make_message("Ann@Example.net", "bob@example.net", sender="100%_sure@example.org")
    other = make_message("ann@example.com", lane=OTHER_LANE)
    bounced = make_message("ann@example.net")
    await store.enqueue(queued)
    await store.enqueue(other)
    await sent(store, token, bounced, result_of(0, S.BOUNCED))
    await store.hold(Selection(message_id=queued.id, n=1), NOON)

    async def found(**wanted: object) -> list[tuple[bytes, int]]:
        rows = await store.deliveries(DeliveryFilter(**wanted))  # type: ignore[arg-type]
        return [(row.message_id, row.n) for row in rows]

    assert await found(states=(S.QUEUED,)) == [(other.id, 0), (queued.id, 0)]
    assert await found(states=(S.QUEUED,), lane=LANE) == [(queued.id, 0)]
    assert await found(states=(S.DEFERRED, S.QUEUED), lane=OTHER_LANE) == [(other.id, 0)]
    assert await found(states=(S.HELD, S.BOUNCED)) == [(bounced.id, 0), (queued.id, 1)]
    assert await found(states=(S.HELD, S.QUEUED)) == [(other.id, 0), (queued.id, 0), (queued.id, 1)]
    assert await found(states=(S.SENDING,)) == []
    assert await found(recipient="ann@example.net") == [(bounced.id, 0), (queued.id, 0)]
    assert await found(recipient="ANN@") == [(bounced.id, 0), (other.id, 0), (queued.id, 0)]
    assert await found(recipient="%") == []
    assert await found(sender="100%_") == [(queued.id, 0), (queued.id, 1)]
    assert await found(sender="100__") == []


async def test_a_message_tells_all_that_was_accepted(store: Database) -> None:
    first = make_message()
    message = make_message(resubmits=first.id)
    await store.enqueue(message)
    view = await store.message(message.id)
    assert view is not None
    assert (view.id, view.resubmits, view.door, view.application) == (message.id, first.id, "smtp", "shop")
    assert (view.reverse_path, view.eight_bit, view.smtputf8, view.accepted) == ("a@example.org", True, False, NOON)
    assert (view.subject, view.header_message_id, view.peer) == ("été", message.header_message_id, "192.0.2.7")
    assert (view.priority, view.size_bytes) == (PriorityClass.NORMAL, len(HEAD) + len(message.content.body))  # type: ignore[arg-type]


async def test_what_is_not_there_is_none(store: Database) -> None:
    nobody = new_message_id(1, bytes(10))
    assert await store.message(nobody) is None
    assert await store.content(nobody) is None


async def test_counts_follow_every_move(store: Database) -> None:
    token = await begin(store)
    assert await store.counts() == {}
    await store.enqueue(make_message("b@example.net", "c@example.net"))
    await sent(store, token, make_message(lane=OTHER_LANE))
    assert await told(store) == {(LANE, "queued"): 2, (OTHER_LANE, "delivered"): 1}
    await store.hold(Selection(), NOON)
    assert await told(store) == {(LANE, "held"): 2, (OTHER_LANE, "delivered"): 1}
