"""What a person moves to another account: what waits or is held, and at their word what a relay may have."""

from __future__ import annotations

from datetime import timedelta

from postroom.model.queue import DeliveryState as S
from postroom.model.queue import LaneId, NewMessage
from postroom.store import Diversion, Place, Selection, WaitingDelivery
from postroom.store.database import Database
from tests.contract.store.examples import (
    LANE,
    NOON,
    OTHER_LANE,
    attempt_of,
    begin,
    claim_of,
    counted,
    make_message,
    result_of,
    states,
    told,
)

LATER = NOON + timedelta(hours=1)


def _to(message: NewMessage, lane: LaneId = OTHER_LANE, origin: LaneId = LANE, n: int = 0) -> Diversion:
    return Diversion(message.id, n, origin, lane, None, "backup", "from first, by hand")


async def test_what_was_deferred_is_due_at_once_and_what_is_held_stays_held(store: Database) -> None:
    token = await begin(store)
    queued, deferred, held = (make_message() for _ in range(3))
    for message in (queued, deferred, held):
        await store.enqueue(message)
    await store.claim(claim_of(deferred, token))
    await store.complete(attempt_of(deferred, token, result_of(0, S.DEFERRED, NOON + timedelta(hours=4))))
    await store.hold(Selection(message_id=held.id), NOON)
    assert await store.reroute([_to(m) for m in (queued, deferred, held)], LATER, even_unsure=False) == 3
    assert [await states(store, m) for m in (queued, deferred, held)] == [["queued"], ["queued"], ["held"]]
    due = (await store.due(OTHER_LANE, LATER, 10)).messages
    assert {message.id for message in due} == {queued.id, deferred.id}
    assert await store.claim(claim_of(deferred, token)) == ()  # the old account has nothing to claim any more
    assert await store.claim(claim_of(deferred, token, lane=OTHER_LANE)) == (0,)
    view = await store.message(held.id)
    assert view is not None
    assert [(e.kind, e.n, e.account, e.detail) for e in view.events][-1] == (
        "rerouted", 0, "backup", "from first, by hand",
    )  # fmt: skip
    assert await told(store) == await counted(store)


async def test_the_retry_window_begins_with_the_move(store: Database) -> None:
    token = await begin(store)
    queued, deferred, stays = (make_message() for _ in range(3))
    for message in (queued, deferred, stays):
        await store.enqueue(message)
    await store.claim(claim_of(deferred, token))
    await store.complete(attempt_of(deferred, token, result_of(0, S.DEFERRED, NOON + timedelta(hours=4))))
    await store.reroute([_to(queued), _to(deferred)], LATER, even_unsure=False)
    due = {message.id: message for message in (await store.due(OTHER_LANE, LATER, 10)).messages}
    assert [due[m.id].window_from for m in (queued, deferred)] == [LATER, LATER]
    assert [due[m.id].accepted for m in (queued, deferred)] == [NOON, NOON]
    (other,) = (await store.due(LANE, LATER, 10)).messages
    assert other.window_from == NOON


async def test_a_claim_wins_and_what_has_ended_stays(store: Database) -> None:
    token = await begin(store)
    sending, ended, cancelled = (make_message() for _ in range(3))
    for message in (sending, ended, cancelled):
        await store.enqueue(message)
    for message in (sending, ended):
        await store.claim(claim_of(message, token))
    await store.complete(attempt_of(ended, token))
    await store.cancel(Selection(message_id=cancelled.id), NOON)
    assert await store.reroute([_to(m) for m in (sending, ended, cancelled)], NOON, even_unsure=True) == 0
    for message in (sending, ended, cancelled):
        assert await store.selected(Selection(message_id=message.id), None, 10) == ([], None)
    assert await told(store) == await counted(store)


async def test_what_a_relay_may_have_moves_only_where_that_is_accepted(store: Database) -> None:
    token = await begin(store)
    unknown, doubted = make_message(), make_message()
    for message in (unknown, doubted):
        await store.enqueue(message)
    await store.claim(claim_of(doubted, token))
    token = (await store.recover(NOON))[0]
    await store.claim(claim_of(unknown, token))
    await store.complete(attempt_of(unknown, token, result_of(0, S.DEFERRED, NOON, unknown=True)))
    found, _ = await store.selected(Selection(lane=LANE), None, 10)
    assert {(one.message_id, one.is_sure) for one in found} == {(unknown.id, False), (doubted.id, False)}
    both = [_to(unknown), _to(doubted)]
    assert await store.reroute(both, NOON, even_unsure=False) == 0
    assert await store.reroute(both, NOON, even_unsure=True) == 2
    view = await store.message(doubted.id)
    assert view is not None
    assert view.deliveries[0].may_be_sent_twice
    assert await told(store) == await counted(store)


async def test_a_diverted_delivery_becomes_the_accounts_own(store: Database) -> None:
    await begin(store)
    message = make_message()
    await store.enqueue(message)
    away = Diversion(message.id, 0, LANE, OTHER_LANE, LANE, "backup", "from first: it is off")
    assert await store.divert([away], NOON) == 1
    assert await store.reroute([_to(message, origin=OTHER_LANE)], NOON, even_unsure=False) == 1
    assert await store.away(LANE, None, 10) == []
    assert await told(store) == await counted(store)


async def test_a_walk_meets_what_waits_then_what_is_held_each_once(store: Database) -> None:
    messages = [make_message("b@y.test", "c@y.test") for _ in range(5)]
    elsewhere = make_message(lane=OTHER_LANE)
    for message in (*messages, elsewhere):
        await store.enqueue(message)
    for message in messages[1:4]:
        await store.hold(Selection(message_id=message.id, n=1), NOON)
    seen: list[WaitingDelivery] = []
    place: Place | None = None
    while True:
        found, place = await store.selected(Selection(lane=LANE), place, 2)
        seen += found
        if place is None:
            break
    expected = {(m.id, n, "held" if n and m in messages[1:4] else "queued") for m in messages for n in (0, 1)}
    assert len(seen) == len(expected)
    assert {(one.message_id, one.n, one.state.value) for one in seen} == expected
    (one,), _ = await store.selected(Selection(message_id=messages[0].id, n=1), None, 10)
    assert (one.recipient, one.lane) == ("c@y.test", LANE)
