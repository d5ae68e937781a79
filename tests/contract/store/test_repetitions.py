"""The repeat guard: counted with the message, so that neither a batch nor a restart forgets one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from postroom.model.queue import DeliveryState, NewMessage, RepeatCheck
from postroom.store import Selection
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import LANE, NOON, begin, claim_of, make_message

ONE, TWO = b"1" * 16, b"2" * 16


def _checked(message: NewMessage, *digests: bytes, now: int = 5, most: int = 3) -> NewMessage:
    return replace(message, repeats=RepeatCheck(digests, most, now, now, now + 100, "the repeat guard holds it"))


async def test_the_nth_is_held_and_what_is_another_is_not(store: Database, open_again: Opener) -> None:
    messages = [_checked(make_message("b@y.test", "c@y.test"), ONE, bytes([n]) * 16) for n in range(3)]
    held = await asyncio.gather(*[_told(store, message) for message in messages])
    assert held == [(), (), (0,)]
    await store.close()
    store = await open_again()
    assert (await store.enqueue(_checked(make_message(), ONE))).held == (0,)
    assert (await store.enqueue(_checked(make_message(), TWO))).held == ()
    assert (await store.enqueue(replace(_checked(make_message(), ONE), application_id=2))).held == ()
    counts = await store.counts()
    assert (counts[LANE, DeliveryState.QUEUED], counts[LANE, DeliveryState.HELD]) == (7, 2)


async def _told(store: Database, message: NewMessage) -> tuple[int, ...]:
    return (await store.enqueue(message)).held


async def test_what_is_held_says_why_and_goes_when_released(store: Database) -> None:
    token = await begin(store)
    for _ in range(2):
        await store.enqueue(_checked(make_message(), ONE))
    message = _checked(make_message(), ONE)
    await store.enqueue(message)
    view = await store.message(message.id)
    assert view is not None
    assert [(event.kind, event.n, event.detail) for event in view.events[1:]] == [
        ("repeat_guard", 0, "the repeat guard holds it"),
        ("held", 0, "the repeat guard holds it"),
    ]
    assert await store.claim(claim_of(message, token)) == ()
    assert await store.release(Selection(message_id=message.id), NOON) == 1
    assert await store.claim(claim_of(message, token)) == (0,)


async def test_what_is_too_old_counts_no_more_and_is_forgotten(store: Database) -> None:
    for _ in range(2):
        await store.enqueue(_checked(make_message(), ONE))
    assert (await store.enqueue(_checked(make_message(), ONE, now=105))).held == ()
    assert (await store.enqueue(_checked(make_message(), ONE, now=106))).held == ()
    assert (await store.enqueue(_checked(make_message(), ONE, now=107))).held == (0,)
    assert await store.forget_usage(105) == 1
    assert await store.forget_usage(105) == 0


async def test_whether_an_application_repeats_itself_is_known_while_it_counts(store: Database) -> None:
    for n in range(3):
        await store.enqueue(_checked(make_message("b@y.test", "c@y.test"), ONE, bytes([n]) * 16))
    assert await store.repeats(3, 3, 5)
    assert not await store.repeats(3, 4, 5)  # of several recipients none came so often
    assert not await store.repeats(2, 3, 5)
    assert await store.repeats(3, 3, 104)
    assert not await store.repeats(3, 3, 105)
