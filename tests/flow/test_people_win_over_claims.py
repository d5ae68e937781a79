"""Cancel, hold, the master switch and a disabled account: what is not being sent yet is not sent."""

from __future__ import annotations

import asyncio
import dataclasses

from postroom.model.queue import DeliveryState
from postroom.store import Selection

from .conftest import Room


async def test_what_was_cancelled_before_its_claim_is_never_sent(room: Room) -> None:
    room.scheduler.pause(True)
    message = await room.submit()
    other = await room.submit("c@y.test")
    assert await room.store.cancel(Selection(message_id=message), room.clock.now()) == 1
    room.scheduler.pause(False)
    await room.until(other, "delivered")
    assert await room.states(message) == ["cancelled"]
    assert [t.envelope.recipients for t in room.transports["relay1"].sent] == [("c@y.test",)]


async def test_one_cancelled_recipient_leaves_the_others(room: Room) -> None:
    room.scheduler.pause(True)
    message = await room.submit("b@y.test", "c@y.test", "d@y.test")
    await room.store.cancel(Selection(message_id=message, n=1), room.clock.now())
    room.scheduler.pause(False)
    await room.until(message, "delivered", "cancelled", "delivered")
    (sent,) = room.transports["relay1"].sent
    assert sent.envelope.recipients == ("b@y.test", "d@y.test")


async def test_held_mail_waits_for_its_release(room: Room) -> None:
    room.scheduler.pause(True)
    message = await room.submit()
    assert await room.store.hold(Selection(message_id=message), room.clock.now()) == 1
    room.scheduler.pause(False)
    other = await room.submit()
    await room.until(other, "delivered")
    assert await room.states(message) == ["held"]
    assert await room.store.release(Selection(states=(DeliveryState.HELD,)), room.clock.now()) == 1
    room.scheduler.look()
    await room.until(message, "delivered")


async def test_mail_for_a_disabled_account_waits_until_it_is_enabled(room: Room) -> None:
    room.accounts[0] = dataclasses.replace(room.accounts[0], revision=2, enabled=False)
    room.scheduler.follow(room.accounts)
    message = await room.submit()
    await asyncio.sleep(0)
    assert room.transports["relay1"].sent == []
    room.accounts[0] = dataclasses.replace(room.accounts[0], revision=3, enabled=True)
    room.scheduler.follow(room.accounts)
    await room.until(message, "delivered")
