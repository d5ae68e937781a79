"""A refusal for now is tried again by the schedule, counted, and ends as expired when the window is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from postroom.model.outcome import Bounced, Deferred
from postroom.model.queue import MessageId, PriorityClass
from postroom.model.reply import Reply
from postroom.queue import loader

from .conftest import Room

LATER = Deferred(status="4.2.0", reason="greylisted", reply=Reply(450, ("greylisted",), "4.2.0", "RCPT"))


async def test_each_try_comes_when_its_step_has_passed_and_no_earlier(room: Room) -> None:
    room.transports["relay1"].answers.extend([LATER, LATER])
    message = await room.submit()
    for step, tries in ((60, 1), (300, 2)):
        (row,) = await room.until(message, "deferred")
        while row.tries < tries:
            (row,) = await room.rows(message)
        assert row.due == room.clock.time + timedelta(seconds=step)
        assert row.reply == "450 4.2.0 greylisted"
        room.clock.advance(timedelta(seconds=step - 1))
        assert len(room.transports["relay1"].sent) == tries
        room.clock.advance(timedelta(seconds=1))
        if tries == 1:
            await room.store.until(lambda: _tried(room, 2))
    (row,) = await room.until(message, "delivered")
    assert len(room.transports["relay1"].sent) == 3
    view = await room.store.message(message)
    assert [attempt.outcome for attempt in view.attempts] == ["deferred", "deferred", "delivered"]


async def _tried(room: Room, times: int) -> bool:
    return len(room.transports["relay1"].sent) >= times


async def test_when_the_next_try_would_come_after_the_window_the_delivery_expires(room: Room) -> None:
    room.transports["relay1"].answers.append(LATER)
    message = await room.submit()
    await room.until(message, "deferred")
    room.transports["relay1"].answers.append(LATER)
    room.clock.advance(timedelta(days=2))
    (row,) = await room.until(message, "expired")
    assert row.ended == room.clock.time


async def test_a_refusal_for_good_ends_the_delivery_at_once(room: Room) -> None:
    refusal = Bounced(status="5.1.1", reason="no such user", reply=Reply(550, ("no such user",), "5.1.1", "RCPT"))
    room.transports["relay1"].answers.append(refusal)
    message = await room.submit()
    (row,) = await room.until(message, "bounced")
    assert (row.status, row.reply) == ("5.1.1", "550 5.1.1 no such user")
    room.clock.advance(timedelta(days=3))
    assert len(room.transports["relay1"].sent) == 1


class Busy:
    """The relay is busy: what comes due becomes ready, and has no slot."""

    def __init__(self, room: Room) -> None:
        self._transport = room.transports["relay1"]
        self._transport.in_use += self._transport.capacity
        self._looked = asyncio.Event()
        whole = room.store.next_due

        async def next_due(*arguments: Any) -> Any:
            due = await whole(*arguments)
            asyncio.get_running_loop().call_soon(self._looked.set)
            return due

        room.store.next_due = next_due

    async def until_loaded(self) -> None:
        """Until the lane has loaded what is due."""
        await self._looked.wait()
        self._looked.clear()

    def end(self) -> None:
        """There are slots again."""
        for _ in range(self._transport.capacity):
            self._transport.give_back()


async def put_off(room: Room, recipient: str, priority: PriorityClass = PriorityClass.NORMAL) -> MessageId:
    """A message that waits for its second try, due in a minute."""
    room.transports["relay1"].answers.append(LATER)
    message = await room.submit(recipient, priority=priority)
    await room.until(message, "deferred")
    return message


async def test_a_try_that_is_due_a_second_after_another_comes_in_its_second(room: Room) -> None:
    first = await put_off(room, "first@y.test")
    room.clock.advance(timedelta(seconds=1))
    second = await put_off(room, "second@y.test")
    busy = Busy(room)
    room.clock.advance(timedelta(seconds=59))
    await busy.until_loaded()
    assert 1.0 in room.clock.waiting
    room.clock.advance(timedelta(seconds=1))
    await busy.until_loaded()
    busy.end()
    await room.until(first, "delivered")
    await room.until(second, "delivered")


async def test_what_is_urgent_is_tried_in_its_second_beside_a_backlog(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "LOAD_LIMIT", 4)
    sent = room.transports["relay1"].sent
    urgent = [await put_off(room, "u0@y.test", PriorityClass.URGENT)]
    room.clock.advance(timedelta(seconds=1))
    urgent.append(await put_off(room, "u1@y.test", PriorityClass.URGENT))
    busy = Busy(room)
    backlog = [await room.submit(f"b{n}@y.test") for n in range(6)]
    room.clock.advance(timedelta(seconds=59))
    await busy.until_loaded()
    assert 1.0 in room.clock.waiting
    room.clock.advance(timedelta(seconds=1))
    await busy.until_loaded()
    busy.end()
    for message in (*urgent, *backlog):
        await room.until(message, "delivered")
    order = [transaction.envelope.recipients[0] for transaction in sent[2:]]
    assert order == ["u0@y.test", "u1@y.test", *(f"b{n}@y.test" for n in range(6))]
