"""Who waits for a turn gets it in order, and a turn is not lost with who gave up."""

from __future__ import annotations

import asyncio

from postroom.transports.waiters import Waiters


async def _wait(waiters: Waiters, name: str, told: list[str]) -> None:
    await waiters.wait()
    told.append(name)


async def test_first_come_first_served() -> None:
    waiters, told = Waiters(), list[str]()
    async with asyncio.TaskGroup() as tasks:
        for name in ("ann", "ben", "cas"):
            tasks.create_task(_wait(waiters, name, told))
        await asyncio.sleep(0)
        assert waiters.wake()
        await asyncio.sleep(0)
        assert told == ["ann"]
        waiters.wake_all()
    assert told == ["ann", "ben", "cas"]
    assert not waiters.wake()


async def test_a_turn_goes_on_from_who_gave_up() -> None:
    waiters, told = Waiters(), list[str]()
    ann, ben, cas = (asyncio.create_task(_wait(waiters, name, told)) for name in ("ann", "ben", "cas"))
    await asyncio.sleep(0)
    ann.cancel()  # before a turn
    await asyncio.sleep(0)
    waiters.wake()
    ben.cancel()  # with a turn that it has not seen yet
    await cas
    assert (ann.cancelled(), ben.cancelled(), told) == (True, True, ["cas"])
