"""A refusal for now is tried again by the schedule, counted, and ends as expired when the window is over."""

from __future__ import annotations

from datetime import timedelta

from postroom.model.outcome import Bounced, Deferred
from postroom.model.reply import Reply

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
