"""An exception in a transport: the message stays claimed (the next start marks it), and the lane goes on."""

from __future__ import annotations

from collections.abc import Sequence

from postroom.model.outcome import Outcome
from postroom.transports import Transaction

from .conftest import Room


async def test_a_transport_that_raises_blocks_nothing_and_loses_nothing(room: Room) -> None:
    transport = room.transports["relay1"]
    transport.capacity = 1

    async def fail(transaction: Transaction) -> Sequence[Outcome]:
        raise RuntimeError("a fault of ours")

    transport.answers.append(fail)
    first = await room.submit()
    second = await room.submit("c@y.test")
    await room.until(second, "delivered")
    assert await room.states(first) == ["sending"]
    assert transport.in_use == 0
    await room.scheduler.stop()
    recovered = await room.scheduler.start(room.accounts, paused=True, hold_pending=False)
    (row,) = await room.rows(first)
    assert (recovered, row.state, row.may_be_sent_twice) == (1, "deferred", True)
