"""What may move to another account, and what may not; both counted right."""

from __future__ import annotations

from dataclasses import replace

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
    told,
)


def _diversion(message: NewMessage, n: int = 0, home: LaneId | None = LANE) -> Diversion:
    return Diversion(message.id, n, LANE, OTHER_LANE, home, "backup", "from first: it is off")


async def test_what_waits_moves_with_an_event_and_is_sent_there_only(store: Database) -> None:
    token = await begin(store)
    message = make_message("b@y.test", "c@y.test")
    await store.enqueue(message)
    found, place = await store.divertible(LANE, None, 10)
    assert ([(one.n, one.recipient, one.home) for one in found], place) == (
        [(0, "b@y.test", None), (1, "c@y.test", None)],
        None,
    )
    assert await store.divert([_diversion(message)], NOON) == 1
    assert await store.claim(claim_of(message, token)) == (1,)  # the first is no longer there to claim
    assert await store.claim(claim_of(message, token, 0, lane=OTHER_LANE)) == (0,)
    view = await store.message(message.id)
    assert view is not None
    events = [(event.kind, event.n, event.account, event.detail) for event in view.events if event.kind == "rerouted"]
    assert events == [("rerouted", 0, "backup", "from first: it is off")]
    assert await told(store) == await counted(store)


async def test_what_is_away_is_found_and_comes_home(store: Database) -> None:
    await begin(store)
    messages = [make_message(), make_message()]
    for message in messages:
        await store.enqueue(message)
    await store.divert([_diversion(messages[0]), _diversion(messages[1], home=None)], NOON)
    (away,) = await store.away(LANE, None, 10)
    assert (away.message_id, away.lane, away.home) == (messages[0].id, OTHER_LANE, LANE)
    assert await store.away(LANE, (away.message_id, away.n), 10) == []
    home = Diversion(away.message_id, 0, OTHER_LANE, LANE, None, "first", "well again")
    assert await store.divert([home], NOON) == 1
    assert await store.away(LANE, None, 10) == []
    assert await told(store) == await counted(store)


async def test_what_a_relay_may_have_does_not_move(store: Database) -> None:
    token = await begin(store)
    sending, unknown, doubted, held, ended = (make_message() for _ in range(5))
    for message in (sending, unknown, doubted, held, ended):
        await store.enqueue(message)
    await store.claim(claim_of(doubted, token))
    token = (await store.recover(NOON))[0]
    for message in (sending, unknown, ended):
        await store.claim(claim_of(message, token))
    await store.complete(attempt_of(unknown, token, result_of(0, S.DEFERRED, NOON, unknown=True)))
    await store.complete(attempt_of(ended, token, result_of(0, S.DELIVERED)))
    await store.hold(Selection(message_id=held.id), NOON)
    assert await store.divertible(LANE, None, 10) == ([], None)
    assert await store.divert([_diversion(m) for m in (sending, unknown, doubted, held, ended)], NOON) == 0
    assert await told(store) == await counted(store)


async def test_a_walk_over_what_waits_goes_on_where_it_was(store: Database) -> None:
    messages = [replace(make_message(), named=n == 3) for n in range(5)]
    for message in messages:
        await store.enqueue(message)
    seen: list[WaitingDelivery] = []
    place: Place | None = None
    while True:
        found, place = await store.divertible(LANE, place, 2)
        seen += found
        if place is None:
            break
    assert [one.message_id for one in seen] == [message.id for message in messages]
    assert [one.named for one in seen] == [False, False, False, True, False]
    assert await store.head(messages[0].id) == messages[0].content.head
    assert await store.head(make_message().id) == b""
