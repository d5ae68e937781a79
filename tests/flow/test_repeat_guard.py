"""The repeat guard: from which message on an application's mail is held, what says so, and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from postroom.model.application import RepeatGuard
from postroom.model.circuit import Circuit
from postroom.queue.why import Sending, explain
from postroom.store import Selection

from .conftest import Room


def _guard(room: Room, count: int = 3, within: timedelta = timedelta(minutes=10)) -> None:
    room.application = replace(room.application, repeat_guard=RepeatGuard(count=count, within=within))


async def test_the_nth_with_the_same_recipient_and_body_is_held_until_it_is_released(room: Room) -> None:
    _guard(room)
    for _ in range(2):
        await room.until(await room.submit(head=b"From: a@x.test\r\nSubject: some\r\n\r\n"), "delivered")
    await room.until(await room.submit(body=b"something else\r\n"), "delivered")
    await room.until(await room.submit("other@y.test"), "delivered")
    message = await room.submit("B@Y.test", "new@y.test")
    await room.until(message, "held", "delivered")
    view = await room.store.message(message)
    told = explain(
        view, view.deliveries[0], room.accounts[0], Circuit(), sending=Sending(), running=True, now=room.clock.time
    )
    assert told.reason == (
        "the repeat guard of application 'erp' holds it: number 3 or more with the same recipient and body within 10m"
    )
    assert told.command.startswith("postroom queue release ")
    assert await room.until_event("repeat_guard") == told.reason
    assert await room.store.release(Selection(message_id=message), room.clock.time) == 1
    room.scheduler.look()
    await room.until(message, "delivered", "delivered")


async def test_it_counts_within_its_time_and_goes_on_holding_what_goes_on_coming(room: Room) -> None:
    _guard(room, within=timedelta(seconds=100))
    expected = [*["delivered"] * 2, *["held"] * 3]
    for state in expected:
        await room.until(await room.submit(), state)
        room.clock.advance(timedelta(seconds=40))
    room.clock.advance(timedelta(seconds=61))
    await room.until(await room.submit(), "delivered")


async def test_another_application_is_another(room: Room) -> None:
    _guard(room)
    for _ in range(2):
        await room.submit()
    other = replace(room.application, id=2, name="shop")
    room.applications.append(other)
    room.admission.follow()
    await room.until(await room.submit(application=other), "delivered")
    await room.until(await room.submit(), "held")


async def test_what_a_person_sends_again_is_not_held(room: Room) -> None:
    _guard(room, count=2)
    first = await room.submit()
    await room.until(await room.submit(resubmits=first), "delivered")
