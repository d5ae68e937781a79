"""Order of sending, splitting by recipients, and what happens when more waits than memory should hold."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from postroom.model.outcome import Outcome
from postroom.model.queue import PriorityClass
from postroom.queue import loader, ready
from postroom.store import Due
from postroom.transports import Transaction

from .conftest import OK, Room


async def test_urgent_goes_before_normal_before_bulk_and_older_before_newer(room: Room) -> None:
    room.transports["relay1"].capacity = 1
    await room.until(await room.submit(), "delivered")  # the lane's first look into the store is over
    room.transports["relay1"].sent.clear()
    room.scheduler.pause(True)
    messages = [
        await room.submit(f"{n}@y.test", priority=priority)
        for n, priority in enumerate(
            [PriorityClass.BULK, PriorityClass.NORMAL, PriorityClass.NORMAL, PriorityClass.URGENT]
        )
    ]
    room.scheduler.pause(False)
    for message in messages:
        await room.until(message, "delivered")
    order = [sent.envelope.recipients[0] for sent in room.transports["relay1"].sent]
    assert order == ["3@y.test", "1@y.test", "2@y.test", "0@y.test"]


async def test_no_transaction_has_more_recipients_than_the_account_allows(room: Room) -> None:
    room.accounts[0] = dataclasses.replace(room.accounts[0], revision=2, recipients_per_transaction=2)
    room.scheduler.follow(room.accounts)
    message = await room.submit(*(f"{n}@y.test" for n in range(5)))
    await room.until(message, *["delivered"] * 5)
    assert [len(sent.envelope.recipients) for sent in room.transports["relay1"].sent] == [2, 2, 1]


async def test_what_does_not_fit_in_memory_is_read_back_and_sent_once_in_order(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "READY_MESSAGES", 5)
    monkeypatch.setattr(loader, "LOAD_LIMIT", 7)
    monkeypatch.setattr(ready, "LOAD_BELOW", 2)
    room.transports["relay1"].capacity = 1
    messages = [await room.submit(f"{n}@y.test", body=b"%d\r\n" % n) for n in range(40)]
    for message in messages:
        await room.until(message, "delivered")
    sent = room.transports["relay1"].sent
    assert [transaction.body for transaction in sent] == [b"%d\r\n" % n for n in range(40)]


async def test_what_waits_in_the_store_at_start_is_sent(room: Room) -> None:
    await room.scheduler.stop()
    messages = [await room.submit() for _ in range(3)]
    assert room.transports["relay1"].sent == []
    await room.scheduler.start(room.accounts, paused=False, hold_pending=False)
    for message in messages:
        await room.until(message, "delivered")


async def test_with_hold_pending_what_waits_at_start_is_held(room: Room) -> None:
    await room.scheduler.stop()
    before = await room.submit()
    await room.scheduler.start(room.accounts, paused=False, hold_pending=True)
    after = await room.submit()
    await room.until(after, "delivered")
    assert await room.states(before) == ["held"]


async def test_an_urgent_message_passes_a_backlog_that_does_not_fit_in_memory(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "READY_MESSAGES", 5)
    monkeypatch.setattr(loader, "LOAD_LIMIT", 7)
    monkeypatch.setattr(ready, "LOAD_BELOW", 2)
    transport = room.transports["relay1"]
    transport.capacity = 1
    room.scheduler.pause(True)
    for n in range(20):
        await room.submit(f"{n}@y.test", priority=PriorityClass.BULK)
    gate = asyncio.Event()
    begun = asyncio.Event()

    async def wait(transaction: Transaction) -> Sequence[Outcome]:
        begun.set()
        await gate.wait()
        return [OK]

    transport.answers.append(wait)
    room.scheduler.pause(False)
    await begun.wait()
    urgent = await room.submit("urgent@y.test", priority=PriorityClass.URGENT)
    gate.set()
    await room.until(urgent, "delivered")
    assert [sent.envelope.recipients[0] for sent in transport.sent][:2] == ["0@y.test", "urgent@y.test"]


async def test_nobody_waits_behind_the_backlog_of_another(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applications take turns, also where the backlog of one does not fit in memory."""
    monkeypatch.setattr(ready, "READY_MESSAGES", 5)
    monkeypatch.setattr(loader, "LOAD_LIMIT", 6)
    monkeypatch.setattr(ready, "LOAD_BELOW", 2)
    transport = room.transports["relay1"]
    transport.capacity = 1
    room.scheduler.pause(True)
    other = dataclasses.replace(room.application, id=2, name="shop")
    backlog = [await room.submit(f"{n}@y.test") for n in range(30)]
    few = [await room.submit(f"few{n}@y.test", application=other) for n in range(4)]
    room.scheduler.pause(False)
    for message in (*backlog, *few):
        await room.until(message, "delivered")
    order = [sent.envelope.recipients[0] for sent in transport.sent]
    assert [name for name in order if not name.startswith("few")] == [f"{n}@y.test" for n in range(30)]
    places = [order.index(f"few{n}@y.test") for n in range(4)]
    # While the store is read, what is in memory goes on.
    most = 2 + ready.READY_MESSAGES
    assert all(two - one <= most for one, two in zip([0, *places], places, strict=False))


async def test_bulk_mail_goes_beside_a_backlog_of_normal_mail(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "READY_MESSAGES", 5)
    monkeypatch.setattr(loader, "LOAD_LIMIT", 10)
    monkeypatch.setattr(ready, "LOAD_BELOW", 2)
    transport = room.transports["relay1"]
    transport.capacity = 1
    room.scheduler.pause(True)
    messages = [await room.submit(f"n{n}@y.test") for n in range(40)]
    messages += [await room.submit(f"b{n}@y.test", priority=PriorityClass.BULK) for n in range(8)]
    room.scheduler.pause(False)
    for message in messages:
        await room.until(message, "delivered")
    order = "".join(sent.envelope.recipients[0][0] for sent in transport.sent)
    for n, share in enumerate(order.split("b")[:8]):
        assert len(share) <= 4, (n, order)  # fewer where memory ran out of normal ones for a moment
    assert order.count("n") == 40


async def test_applications_take_turns_also_while_their_mail_is_in_memory(room: Room) -> None:
    transport = room.transports["relay1"]
    transport.capacity = 1
    await room.until(await room.submit(), "delivered")  # the lane's first look into the store is over
    transport.sent.clear()
    gate, begun = asyncio.Event(), asyncio.Event()

    async def wait(transaction: Transaction) -> Sequence[Outcome]:
        begun.set()
        await gate.wait()
        return [OK]

    transport.answers.append(wait)
    other = dataclasses.replace(room.application, id=2, name="shop")
    messages = [await room.submit(f"a{n}@y.test") for n in range(6)]
    await begun.wait()
    messages += [await room.submit(f"b{n}@y.test", application=other) for n in range(3)]
    gate.set()
    for message in messages:
        await room.until(message, "delivered")
    order = [sent.envelope.recipients[0].partition("@")[0] for sent in transport.sent]
    assert order == ["a0", "a1", "b0", "a2", "b1", "a3", "b2", "a4", "a5"]


async def test_urgent_mail_does_not_wait_for_a_read_of_the_backlog(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "READY_MESSAGES", 2)
    transport = room.transports["relay1"]
    transport.capacity = 1
    await room.until(await room.submit(), "delivered")  # the lane's first look into the store is over
    room.scheduler.pause(True)
    backlog = [await room.submit(f"{n}@y.test", priority=PriorityClass.BULK) for n in range(5)]
    reading, go_on = asyncio.Event(), asyncio.Event()
    read = room.store._store.due

    async def slow(*asked: Any) -> Due:
        reading.set()
        await go_on.wait()
        found: Due = await read(*asked)
        return found

    monkeypatch.setattr(room.store._store, "due", slow)
    room.scheduler.pause(False)
    await reading.wait()
    urgent = [await room.submit(f"urgent{n}@y.test", priority=PriorityClass.URGENT) for n in range(2)]
    for message in urgent:
        await room.until(message, "delivered")
    go_on.set()
    for message in backlog:
        await room.until(message, "delivered")
    order = [sent.envelope.recipients[0].partition("@")[0] for sent in transport.sent[1:]]
    assert sorted(order) == sorted(["urgent0", "urgent1", *"01234"])
    assert [name for name in order if name.isdigit()] == [*"01234"]
