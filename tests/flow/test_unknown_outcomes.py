"""End of data written and no reply: tried again later, marked, and held at the third time."""

from __future__ import annotations

from datetime import timedelta

from postroom.model.outcome import NotSent, Unknown
from postroom.model.queue import LaneId
from postroom.store import Selection

from .conftest import Room

LOST = Unknown(status="4.4.2", reason="no reply to the end of data", remote_host="relay.test")


async def test_the_third_unknown_puts_the_delivery_on_hold(room: Room) -> None:
    room.transports["relay1"].answers.extend([LOST] * 3)
    message = await room.submit()

    async def unknowns(count: int) -> bool:
        (row,) = await room.rows(message)
        return row.unknowns == count

    for count in (1, 2):
        await room.store.until(lambda count=count: unknowns(count))
        assert await room.states(message) == ["deferred"]
        room.clock.advance(timedelta(hours=1))
    (row,) = await room.until(message, "held")
    assert "may have it" in row.reply
    room.clock.advance(timedelta(days=1))
    assert len(room.transports["relay1"].sent) == 3


async def test_what_a_relay_may_have_is_not_sure_for_being_released(room: Room) -> None:
    """It goes to no other account by itself, and is held again at the third unknown more."""
    room.transports["relay1"].answers.extend([LOST] * 6)
    message = await room.submit()
    for held_at in (3, 6):
        while (await room.states(message)) != ["held"]:
            room.clock.advance(timedelta(hours=1))
            await room.store.record("an hour later")
        (row,) = await room.rows(message)
        assert (row.unknowns, len(room.transports["relay1"].sent)) == (held_at, held_at)
        assert await room.store.release(Selection(message_id=message), room.clock.now()) == 1
        assert (await room.store.divertible(LaneId(1), None, 10))[0] == []
        room.scheduler.look()
    await room.until(message, "delivered")


async def test_what_was_not_begun_goes_again_at_once_uncounted_and_unmarked(room: Room) -> None:
    room.transports["relay1"].answers.append(NotSent(remote_host="relay.test"))
    message = await room.submit()
    (row,) = await room.until(message, "delivered")
    assert not row.may_be_sent_twice
    view = await room.store.message(message)
    assert [attempt.outcome for attempt in view.attempts] == ["delivered"]
    assert len(room.transports["relay1"].sent) == 2
