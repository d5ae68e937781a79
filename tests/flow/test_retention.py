"""What ended long ago goes in steps that leave the store to the mail; what has not ended stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import pytest

from postroom.errors import StorageFailed
from postroom.queue import retention
from tests.flow.conftest import FakeClock, Room

DAY = timedelta(days=1)


@asynccontextmanager
async def running(room: Room, believed: list[bool] | None = None) -> AsyncIterator[None]:
    """With the removal at work."""
    is_believed = (lambda: believed[0]) if believed else (lambda: True)
    work = retention.run(room.store, room.clock, lambda: retention.Ages(30 * DAY, 10 * DAY), is_believed)
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def turned(room: Room) -> None:
    """The removal has had its turn and rests."""
    while len(room.clock.waiting) == 0:
        await asyncio.sleep(0)
    room.clock.advance(retention.INTERVAL)
    for _ in range(200):
        await asyncio.sleep(0.001)
        if room.clock.waiting:
            break


async def test_content_goes_first_and_the_record_later(room: Room) -> None:
    ended = await room.submit()
    await room.until(ended, "delivered")
    async with running(room):
        room.clock.advance(11 * DAY)
        while await room.store.content(ended) is not None:
            await turned(room)
        assert await room.store.message(ended) is not None
        room.clock.advance(20 * DAY)
        while await room.store.message(ended) is not None:
            await turned(room)


async def test_what_waits_for_a_step_rests_four_times_as_long_as_it_took(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = room.clock = FakeClock()

    async def reap(ended_before: datetime, staged_before: datetime) -> int:
        clock.advance(timedelta(seconds=1))
        return 500

    monkeypatch.setattr(room.store, "reap", reap)
    async with running(room):
        while not clock.waiting:
            await asyncio.sleep(0)
        assert clock.waiting == [pytest.approx(4.0)]


async def test_nothing_goes_while_the_clock_is_doubted(room: Room) -> None:
    ended = await room.submit()
    await room.until(ended, "delivered")
    believed = [False]
    async with running(room, believed):
        room.clock.advance(31 * DAY)
        await turned(room)
        assert await room.store.message(ended) is not None
        believed[0] = True
        while await room.store.message(ended) is not None:
            await turned(room)


async def test_a_step_that_fails_is_tried_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = await room.submit()
    await room.until(ended, "delivered")
    reap = room.store.reap

    def refuse(ended_before: datetime, staged_before: datetime) -> asyncio.Future[int]:
        monkeypatch.setattr(room.store, "reap", reap)
        raise StorageFailed("no room")

    monkeypatch.setattr(room.store, "reap", refuse)
    async with running(room):
        room.clock.advance(31 * DAY)
        while await room.store.message(ended) is not None:
            await turned(room)
