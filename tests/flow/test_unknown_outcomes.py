"""End of data written and no reply: tried again later, marked, and held at the third time."""

from __future__ import annotations

from datetime import timedelta

from postroom.model.outcome import NotSent, Unknown

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


async def test_what_was_not_begun_goes_again_at_once_uncounted_and_unmarked(room: Room) -> None:
    room.transports["relay1"].answers.append(NotSent(remote_host="relay.test"))
    message = await room.submit()
    (row,) = await room.until(message, "delivered")
    assert not row.may_be_sent_twice
    view = await room.store.message(message)
    assert [attempt.outcome for attempt in view.attempts] == ["delivered"]
    assert len(room.transports["relay1"].sent) == 2
