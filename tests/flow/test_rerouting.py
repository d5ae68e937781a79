"""Mail that a person moves to another account: sent there and there only, whatever was under way."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest

from postroom.model.account import Account, Fallback
from postroom.model.outcome import Deferred, Outcome, Remedy, Scope, Unknown
from postroom.model.queue import LaneId, MessageId
from postroom.queue.rerouting import IS_THERE, MAY_HAVE_IT, NAMES_ITS_ACCOUNT, NO_APPLICATION, Rerouter
from postroom.store import Due, Selection
from postroom.transports import AccountUnavailable, Transaction

from .conftest import OK, Room, relay

DOWN = Deferred(status="4.4.1", reason="connection refused", scope=Scope.ACCOUNT, remedy=Remedy.SLEEP)
GREYLISTED = Deferred(status="4.7.1", reason="greylisted", scope=Scope.MESSAGE)
LOST = Unknown(status="4.4.2", reason="the end of data was written and no reply came")


@pytest.fixture
def rerouter(room: Room) -> Rerouter:
    """Moves mail of the room."""
    return Rerouter(room.store, room.clock, room.directory, room.scheduler.lane)


def _use(room: Room, *accounts: Account) -> None:
    room.accounts[:] = accounts
    room.scheduler.follow(room.accounts)


def _sent(room: Room, number: int) -> list[str]:
    return [r for one in room.transports[f"relay{number}"].sent for r in one.envelope.recipients]


async def _lanes(room: Room, message: MessageId) -> list[int]:
    return [row.lane for row in await room.rows(message)]


async def test_mail_of_an_account_that_is_down_leaves_by_the_one_that_is_named(room: Room, rerouter: Rerouter) -> None:
    _use(room, relay(1, fallback=Fallback.NONE), relay(2))
    room.transports["relay1"].answers.extend([AccountUnavailable(DOWN)] * 5)
    waits = [await room.submit(f"{n}@y.test") for n in range(3)]
    await room.until_event("account.asleep")
    done = await rerouter.reroute(Selection(lane=LaneId(1)), room.accounts[1], may_duplicate=False)
    assert (done.moved, done.left) == ({"relay2": 3}, {})
    for message in waits:
        await room.until(message, "delivered")
    assert (sorted(_sent(room, 2)), _sent(room, 1)) == (["0@y.test", "1@y.test", "2@y.test"], [])
    room.transports["relay1"].answers.clear()
    room.clock.advance(timedelta(minutes=10))
    await room.until(await room.submit("new@y.test"), "delivered")
    assert _sent(room, 1) == ["new@y.test"]  # the old account sends on, and nothing that was moved


async def test_what_was_put_off_is_tried_at_once(room: Room, rerouter: Rerouter) -> None:
    _use(room, relay(1), relay(2))
    room.transports["relay1"].answers.append(GREYLISTED)
    message = await room.submit()
    await room.until(message, "deferred")
    await rerouter.reroute(Selection(message_id=message), room.accounts[1], may_duplicate=False)
    await room.until(message, "delivered")
    assert (_sent(room, 1), _sent(room, 2)) == (["b@y.test"], ["b@y.test"])
    assert await room.until_event("rerouted") == "from relay1, by hand"


async def test_each_message_arrives_once_while_all_of_them_are_moved(room: Room, rerouter: Rerouter) -> None:
    _use(room, relay(1), relay(2))
    room.transports["relay1"].capacity = 2
    gate = asyncio.Event()

    async def slowly(transaction: Transaction) -> Sequence[Outcome]:
        await gate.wait()
        return [OK] * len(transaction.envelope.recipients)

    room.transports["relay1"].answers.extend([slowly] * 10)
    messages = [await room.submit(f"{n}@y.test") for n in range(40)]
    moving = asyncio.ensure_future(rerouter.reroute(Selection(), room.accounts[1], may_duplicate=False))
    later = [await room.submit(f"{n}@y.test") for n in range(40, 50)]
    gate.set()
    done = await moving
    for message in (*messages, *later):
        await room.until(message, "delivered")
    assert sorted(chain(_sent(room, 1), _sent(room, 2))) == sorted(f"{n}@y.test" for n in range(50))
    assert len(_sent(room, 1)) >= 2  # what was being sent stayed
    assert done.moved["relay2"] == len(_sent(room, 2)) > 0


async def test_what_waited_for_longer_than_the_window_on_an_account_that_was_off_is_tried_again_by_the_other(
    room: Room, rerouter: Rerouter
) -> None:
    _use(room, relay(1, enabled=False, fallback=Fallback.NONE), relay(2))
    message = await room.submit()
    room.clock.advance(timedelta(days=3))
    room.transports["relay2"].answers.append(GREYLISTED)
    await rerouter.reroute(Selection(message_id=message), room.accounts[1], may_duplicate=False)
    await room.until(message, "deferred")
    room.clock.advance(timedelta(minutes=2))
    await room.until(message, "delivered")
    assert _sent(room, 2) == ["b@y.test", "b@y.test"]


@pytest.mark.parametrize("named", [True, False])
async def test_what_all_has_moved_is_not_counted_among_what_stays(room: Room, rerouter: Rerouter, named: bool) -> None:
    _use(room, relay(1))
    room.scheduler.pause(True)
    for n in range(10):
        await room.submit(f"{n}@y.test")
    _use(room, relay(1, recipient_patterns=("*@z.test",)), relay(2))
    done = await rerouter.reroute(Selection(), room.accounts[1] if named else None, may_duplicate=False)
    assert (done.moved, done.left) == ({"relay2": 10}, {})
    done = await rerouter.reroute(Selection(), room.accounts[1] if named else None, may_duplicate=False)
    assert (done.moved, done.left) == ({}, {IS_THERE: 10})


async def _lost_twice(room: Room, message: MessageId, number: int) -> None:
    """The account tries it twice, and no reply comes."""
    for tries in (1, 2):

        async def tried(tries: int = tries) -> bool:
            return [(row.tries, row.state.value) for row in await room.rows(message)] == [(tries, "deferred")]

        await room.store.until(tried)
        if tries == 1:
            room.clock.advance(timedelta(minutes=2))
    assert len(_sent(room, number)) == 2


@pytest.fixture
def busy(room: Room) -> asyncio.Event:
    """While it is not set, the one connection of relay1 sends nothing that follows the first message."""
    gate = asyncio.Event()

    async def slowly(transaction: Transaction) -> Sequence[Outcome]:
        await gate.wait()
        return [OK] * len(transaction.envelope.recipients)

    room.transports["relay1"].capacity = 1
    room.transports["relay1"].answers.extend([slowly, LOST])
    return gate


async def test_what_comes_back_is_held_at_the_third_try_without_an_answer(
    room: Room, rerouter: Rerouter, busy: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(room, relay(1), relay(2))
    room.transports["relay2"].answers.extend([LOST, LOST])
    await room.submit("first@y.test")
    reading, read_on, due = asyncio.Event(), asyncio.Event(), room.store.due

    async def slow_due(lane: LaneId, *args: Any) -> Due:
        found: Due = await due(lane, *args)
        if lane == 1 and found.messages:
            reading.set()
            await read_on.wait()
        return found

    message = await room.submit()
    monkeypatch.setattr(room.store, "due", slow_due, raising=False)
    lane = room.scheduler.lane(LaneId(1))
    assert lane is not None
    lane.forget()  # and the store is read again
    await reading.wait()
    selection = Selection(message_id=message)
    await rerouter.reroute(selection, room.accounts[1], may_duplicate=False)
    await _lost_twice(room, message, 2)
    await rerouter.reroute(selection, room.accounts[0], may_duplicate=True)
    read_on.set()
    busy.set()
    await room.until(message, "held")


async def test_what_came_home_and_is_moved_away_again_is_held_at_the_third_try_without_an_answer(
    room: Room, rerouter: Rerouter, busy: asyncio.Event
) -> None:
    _use(room, relay(1), relay(2))
    await room.submit("first@y.test")
    _use(room, relay(2, fall_back_after=timedelta(0), enabled=False), relay(1))
    message = await room.submit()
    await room.until_event("account.fell_back")
    room.transports["relay2"].answers.extend([LOST, LOST])
    _use(room, relay(2, fall_back_after=timedelta(0)), relay(1))
    await room.until_event("account.came_home")
    await _lost_twice(room, message, 2)
    await rerouter.reroute(Selection(message_id=message), room.accounts[1], may_duplicate=True)
    busy.set()
    await room.until(message, "held")


async def test_without_a_name_mail_goes_where_it_would_go_today(room: Room, rerouter: Rerouter) -> None:
    _use(room, relay(1))
    room.scheduler.pause(True)
    moves, stays = await room.submit("b@y.test"), await room.submit("c@z.test")
    named = await room.submit("b@y.test", account="relay1")
    gone = await room.submit("b@y.test", application=dataclasses.replace(room.application, id=9))
    _use(room, relay(2, recipient_patterns=("*@y.test",)), relay(1))
    done = await rerouter.reroute(Selection(), None, may_duplicate=False)
    assert done.moved == {"relay2": 1}
    assert done.left == {IS_THERE: 1, NAMES_ITS_ACCOUNT: 1, NO_APPLICATION: 1}
    assert [await _lanes(room, one) for one in (moves, stays, named, gone)] == [[2], [1], [1], [1]]
    room.scheduler.pause(False)
    await room.until(moves, "delivered")
    assert _sent(room, 2) == ["b@y.test"]


async def test_what_fell_back_belongs_to_the_account_that_a_person_names(room: Room, rerouter: Rerouter) -> None:
    _use(room, relay(1, fall_back_after=timedelta(0)), relay(2), relay(3))
    room.transports["relay1"].answers.append(AccountUnavailable(DOWN))
    room.transports["relay2"].answers.append(GREYLISTED)
    message = await room.submit()
    await room.until(message, "deferred")
    assert await _lanes(room, message) == [2]
    assert (await rerouter.reroute(Selection(message_id=message), None, may_duplicate=False)).left == {IS_THERE: 1}
    done = await rerouter.reroute(Selection(message_id=message), room.accounts[1], may_duplicate=False)
    assert done.moved == {"relay2": 1}
    assert await room.store.away(LaneId(1), None, 10) == []  # it does not go home any more
    await room.until(message, "delivered")
    assert (_sent(room, 1), _sent(room, 2)) == ([], ["b@y.test", "b@y.test"])


async def test_what_a_relay_may_have_stays_unless_a_duplicate_is_accepted(room: Room, rerouter: Rerouter) -> None:
    _use(room, relay(1), relay(2))
    room.transports["relay1"].answers.append(LOST)
    message = await room.submit()
    await room.until(message, "deferred")
    selection = Selection(message_id=message)
    done = await rerouter.reroute(selection, room.accounts[1], may_duplicate=False)
    assert (done.moved, done.left) == ({}, {MAY_HAVE_IT: 1})
    done = await rerouter.reroute(selection, room.accounts[1], may_duplicate=True)
    assert done.moved == {"relay2": 1}
    await room.until(message, "delivered")
    assert _sent(room, 2) == ["b@y.test"]


async def test_an_account_that_the_application_was_not_given_does_not_take_its_mail(
    room: Room, rerouter: Rerouter
) -> None:
    _use(room, relay(1), relay(2))
    room.application = dataclasses.replace(room.application, accounts=("relay1",))
    room.scheduler.pause(True)
    message = await room.submit()
    done = await rerouter.reroute(Selection(message_id=message), room.accounts[1], may_duplicate=False)
    assert (done.moved, list(done.left)) == ({}, ["application erp was not given account relay2"])
    assert await _lanes(room, message) == [1]


async def test_held_mail_moves_and_stays_held(room: Room, rerouter: Rerouter) -> None:
    _use(room, relay(1), relay(2))
    room.scheduler.pause(True)
    message = await room.submit("b@y.test", "c@y.test")
    await room.store.hold(Selection(message_id=message), room.clock.now())
    await rerouter.reroute(Selection(message_id=message, n=1), room.accounts[1], may_duplicate=False)
    assert await _lanes(room, message) == [1, 2]
    room.scheduler.pause(False)
    await room.store.release(Selection(message_id=message), room.clock.now())
    room.scheduler.look()
    await room.until(message, "delivered", "delivered")
    assert (_sent(room, 1), _sent(room, 2)) == (["b@y.test"], ["c@y.test"])
