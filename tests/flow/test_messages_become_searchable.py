"""What searches go by is written in the background, in steps that leave the store to the mail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest

from postroom.errors import StorageFailed
from postroom.queue import indexing
from tests.flow.conftest import FakeClock, Room

UNSEARCHABLE = "SELECT count(*) FROM message WHERE searchable = 0"


async def unsearchable(room: Room) -> int:
    """How many messages are not searchable."""
    found: int = await room.store.write(lambda core: core.exec_driver_sql(UNSEARCHABLE).scalar_one())
    return found


@asynccontextmanager
async def running(room: Room, with_subjects: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
    """With the indexing at work."""
    task = asyncio.create_task(indexing.run(room.store, room.clock, with_subjects))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def resting(clock: FakeClock) -> float:
    """For how long the indexing rests, once it does."""
    while not clock.waiting:
        await asyncio.sleep(0)
    return clock.waiting[0]


async def test_messages_become_searchable_soon_after_they_came(room: Room) -> None:
    async with running(room):
        for _ in range(3):
            await room.submit()
            room.clock.advance(indexing.INTERVAL)
            while await unsearchable(room):
                room.clock.advance(indexing.LEAST_REST)


async def test_after_a_step_it_rests_four_times_as_long(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def index(with_subjects: bool) -> bool:
        room.clock.advance(timedelta(seconds=2))
        return True

    monkeypatch.setattr(room.store, "index", index)
    clock = room.clock = FakeClock()
    async with running(room):
        assert await resting(clock) == pytest.approx(8.0)


async def test_a_store_that_fails_is_asked_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    await room.submit()
    index = room.store.index

    def refuse(with_subjects: bool) -> asyncio.Future[bool]:
        monkeypatch.setattr(room.store, "index", index)
        raise StorageFailed("no room")

    monkeypatch.setattr(room.store, "index", refuse)
    async with running(room):
        while await unsearchable(room):
            await asyncio.sleep(0)
            room.clock.advance(indexing.INTERVAL)


async def test_the_switch_is_looked_at_before_each_step(room: Room) -> None:
    await room.submit()
    switch = [False, True]
    async with running(room, lambda: switch.pop(0) if len(switch) > 1 else switch[0]):
        count = "SELECT count(*) FROM message WHERE searchable = 2"
        while not await room.store.write(lambda core: int(core.exec_driver_sql(count).scalar_one())):
            room.clock.advance(indexing.INTERVAL)
