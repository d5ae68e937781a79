"""With a batch interval mail leaves in beats: what is due at one is sent, and nothing between two."""

from __future__ import annotations

from datetime import timedelta

from postroom.model.outcome import Deferred, Scope
from postroom.model.queue import LaneId
from postroom.model.reply import Reply
from postroom.store import Selection

from .conftest import Room, relay

MINUTE = timedelta(minutes=1)
LATER = Deferred(reply=Reply(451, ("later",), "4.2.0", "RCPT"), status="4.2.0", reason="later", scope=Scope.MESSAGE)


async def settled(room: Room) -> None:
    """Until everything that was begun so far has been written, and lanes have looked."""
    for _ in range(20):
        await room.store.record("settled")
        await room.store.due(LaneId(1), room.clock.now(), 1)


def sent(room: Room) -> int:
    """How many transactions left."""
    return sum(len(transport.sent) for transport in room.transports.values())


async def test_mail_waits_for_the_beat(room: Room) -> None:
    room.scheduler.batch(5 * MINUTE)
    room.clock.advance(timedelta(seconds=1))  # what is accepted at the very moment of a beat goes with it
    first = [await room.submit() for _ in range(3)]
    await settled(room)
    room.clock.advance(4 * MINUTE)
    await settled(room)
    assert sent(room) == 0
    room.clock.advance(MINUTE)
    for one in first:
        await room.until(one, "delivered")
    late = await room.submit()
    await settled(room)
    assert await room.states(late) == ["queued"]
    room.clock.advance(5 * MINUTE)
    await room.until(late, "delivered")


async def test_more_than_fits_into_memory_leaves_in_one_beat_and_what_comes_meanwhile_does_not(room: Room) -> None:
    room.scheduler.batch(5 * MINUTE)
    first = [await room.submit(*(f"{n}.{k}@y.test" for k in range(60))) for n in range(8)]
    room.clock.advance(5 * MINUTE)
    room.clock.advance(timedelta(seconds=1))
    meanwhile = await room.submit()
    for one in first:
        await room.until(one, *["delivered"] * 60)
    await settled(room)
    assert await room.states(meanwhile) == ["queued"]


async def test_a_retry_and_what_a_person_wants_now_wait_for_the_beat_too(room: Room) -> None:
    room.transports["relay1"].answers.append(LATER)
    deferred = await room.submit()
    await room.until(deferred, "deferred")
    room.scheduler.batch(5 * MINUTE)
    room.clock.advance(2 * MINUTE)  # the next try is due
    await settled(room)
    assert sent(room) == 1
    await room.store.retry(Selection(message_id=deferred), room.clock.now())
    room.scheduler.look()
    await settled(room)
    assert sent(room) == 1
    room.clock.advance(3 * MINUTE)
    await room.until(deferred, "delivered")


async def test_without_an_interval_all_leaves_at_once_again(room: Room) -> None:
    room.scheduler.batch(5 * MINUTE)
    waiting = await room.submit()
    await settled(room)
    room.scheduler.batch(timedelta(0))
    await room.until(waiting, "delivered")
    await room.until(await room.submit(), "delivered")
    room.clock.advance(20 * MINUTE)
    assert room.scheduler.beats.next_from(room.clock.now()) is None


async def test_a_new_account_keeps_time(room: Room) -> None:
    room.scheduler.batch(5 * MINUTE)
    room.clock.advance(timedelta(seconds=1))  # what is accepted at the very moment of a beat goes with it
    room.accounts.insert(0, relay(2))
    room.scheduler.follow(room.accounts)
    waiting = await room.submit()
    await settled(room)
    assert sent(room) == 0
    room.clock.advance(5 * MINUTE)
    await room.until(waiting, "delivered")
    assert len(room.transports["relay2"].sent) == 1


async def test_a_beat_while_sending_is_off_sends_nothing(room: Room) -> None:
    room.scheduler.batch(5 * MINUTE)
    room.scheduler.pause(True)
    waiting = await room.submit()
    room.clock.advance(11 * MINUTE)
    await settled(room)
    assert sent(room) == 0
    room.scheduler.pause(False)  # it was due at the last beat
    await room.until(waiting, "delivered")


async def test_when_the_next_beat_is(room: Room) -> None:
    room.scheduler.batch(5 * MINUTE)
    beats, began = room.scheduler.beats, room.clock.now()
    room.clock.advance(MINUTE)
    assert beats.next_from(room.clock.now()) == began + 5 * MINUTE
    assert beats.next_from(began + 5 * MINUTE) == began + 5 * MINUTE
    assert beats.next_from(began + 6 * MINUTE) == began + 10 * MINUTE
    assert beats.next_from(began) is None
