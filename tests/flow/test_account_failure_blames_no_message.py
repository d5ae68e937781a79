"""A failure of the account puts the account to sleep; mail waits, uncounted, and goes when it wakes."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from postroom.model.circuit import Health
from postroom.model.outcome import Deferred, Remedy, Scope
from postroom.transports import AccountUnavailable

from .conftest import Room

DOWN = Deferred(status="4.4.1", reason="connection refused", scope=Scope.ACCOUNT)
WRONG = Deferred(status="5.7.8", reason="wrong password", advice="check it", scope=Scope.ACCOUNT, remedy=Remedy.STOP)


async def test_the_account_sleeps_longer_each_time_and_tries_are_not_used_up(room: Room) -> None:
    room.transports["relay1"].answers.extend([AccountUnavailable(DOWN)] * 3)
    message = await room.submit()
    for pause in (30, 60, 300):
        await room.store.until(lambda: _asleep(room))
        until = room.scheduler.circuit(1).until  # type: ignore[arg-type]
        assert until == room.clock.time + timedelta(seconds=pause)
        assert await room.states(message) == ["queued"]
        room.clock.advance(timedelta(seconds=pause))
    (row,) = await room.until(message, "delivered")
    assert row.tries <= 1
    assert room.scheduler.circuit(1).health is Health.HEALTHY  # type: ignore[arg-type]


async def _asleep(room: Room) -> bool:
    return room.scheduler.circuit(1).health is Health.SLEEPING  # type: ignore[arg-type]


async def test_a_failure_within_a_transaction_is_not_the_messages_either(room: Room) -> None:
    room.transports["relay1"].answers.append(dataclasses.replace(DOWN, retry_after=timedelta(minutes=10)))
    message = await room.submit()
    (row,) = await room.until(message, "deferred")
    assert row.tries == 0
    assert "600s" in await room.until_event("account.asleep")
    room.clock.advance(timedelta(minutes=9))
    assert len(room.transports["relay1"].sent) == 1
    room.clock.advance(timedelta(minutes=1))
    await room.until(message, "delivered")


async def test_a_wrong_password_stops_the_account_until_it_is_edited(room: Room) -> None:
    room.transports["relay1"].answers.append(AccountUnavailable(WRONG))
    message = await room.submit()
    assert "wrong password" in await room.until_event("account.needs_attention")
    room.clock.advance(timedelta(hours=5))
    assert await room.states(message) == ["queued"]
    assert room.scheduler.circuit(1).advice == "check it"  # type: ignore[arg-type]
    room.accounts[0] = dataclasses.replace(room.accounts[0], revision=2, password="better")
    room.scheduler.follow(room.accounts)
    await room.until(message, "delivered")
