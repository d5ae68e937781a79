"""On an account of kind graph all recipients of a message go in one request: now, later, and from the store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from postroom.model.account import Account, AccountKind
from postroom.model.limits import Limits
from postroom.model.outcome import Deferred, Unknown
from postroom.model.queue import MessageId

from .conftest import Room, relay


def graph(room: Room, **fields: Any) -> Account:
    """An account of kind graph in place of all others."""
    account = replace(relay(7), kind=AccountKind.GRAPH, **fields)
    room.accounts[:] = [account]
    room.scheduler.follow(room.accounts)
    return account


async def delivered(room: Room, message: MessageId, many: int) -> None:
    """All of its recipients have it."""
    await room.until(message, *["delivered"] * many)


def sizes(room: Room) -> list[int]:
    """To how many each request went."""
    return [len(sent.envelope.recipients) for sent in room.transports["relay7"].sent]


async def test_all_recipients_go_in_one_request_however_many_a_transaction_may_have(room: Room) -> None:
    graph(room, recipients_per_transaction=2)
    await delivered(room, await room.submit(*[f"{n}@y.test" for n in range(300)]), 300)
    assert sizes(room) == [300]


async def test_so_do_those_that_come_back_from_the_store(room: Room) -> None:
    account = graph(room, enabled=False)
    many = [f"{n}@y.test" for n in range(450)]
    messages = [await room.submit(*many) for _ in range(3)]
    room.accounts[:] = [replace(account, enabled=True)]
    room.scheduler.follow(room.accounts)
    for message in messages:
        await delivered(room, message, 450)
    assert sizes(room) == [450] * 3


async def test_they_are_tried_again_together(room: Room) -> None:
    graph(room)
    room.transports["relay7"].answers.append(Deferred(status="4.0.0", reason="500"))
    message = await room.submit("b@y.test", "c@y.test", "d@y.test")
    while len(sizes(room)) < 2:
        room.clock.advance(timedelta(minutes=1))
        await room.store.record("a minute later")
    await delivered(room, message, 3)
    assert sizes(room) == [3, 3]


async def test_a_message_waits_for_a_limit_to_let_all_its_recipients_go(room: Room) -> None:
    graph(room, limits=Limits(recipients_per_day=10))
    await delivered(room, await room.submit(*[f"{n}@y.test" for n in range(6)]), 6)
    second = await room.submit(*[f"{n}@y.test" for n in range(5)])
    await room.store.record("looked at")
    assert await room.states(second) == ["queued"] * 5, "not four of them"
    while len(sizes(room)) < 2:
        room.clock.advance(timedelta(minutes=10))
        await room.store.record("ten minutes later")
    await delivered(room, second, 5)
    assert sizes(room) == [6, 5]


async def test_only_a_limit_that_is_smaller_than_a_message_divides_it(room: Room) -> None:
    graph(room, limits=Limits(recipients_per_day=10))
    message = await room.submit(*[f"{n}@y.test" for n in range(14)])
    while len(sizes(room)) < 2:
        room.clock.advance(timedelta(minutes=10))
        await room.store.record("ten minutes later")
    await delivered(room, message, 14)
    assert sizes(room) == [10, 4]


async def test_what_may_have_been_sent_is_given_to_the_transport_with_that_doubt(room: Room) -> None:
    graph(room)
    room.transports["relay7"].answers.append(Unknown(status="4.4.2", reason="no answer"))
    message = await room.submit("b@y.test")
    while len(sizes(room)) < 2:
        room.clock.advance(timedelta(minutes=1))
        await room.store.record("a minute later")
    await room.until(message, "delivered")
    assert [sent.in_doubt for sent in room.transports["relay7"].sent] == [False, True]
