"""What is known of an account that may not send is kept; a start does not try it, a person or an edit ends it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from datetime import timedelta

from postroom.model.circuit import Circuit, Health
from postroom.model.outcome import Deferred, Remedy, Scope
from postroom.model.queue import LaneId
from postroom.queue.scheduler import Scheduler
from postroom.transports import AccountUnavailable

from .conftest import Room, ScriptedTransport

LANE = LaneId(1)
WRONG = Deferred(
    status="5.7.8", reason="wrong password", advice="check it", scope=Scope.ACCOUNT, remedy=Remedy.STOP,
    transcript="S: 535 no",
)  # fmt: skip
DOWN = Deferred(status="4.4.1", reason="refused", scope=Scope.ACCOUNT)


async def restart(room: Room, *, after: timedelta = timedelta(0), start: bool = True) -> None:
    """End the scheduler and begin with another one on the same store, as a start of the gateway does."""
    old = room.scheduler
    await old.stop()
    room.clock.advance(after)
    room.transports = defaultdict(ScriptedTransport)
    room.scheduler = Scheduler(
        room.store, room.clock, old._rules, lambda account: room.transports[account.name], lambda: 0.5, room.directory
    )
    if start:
        await room.scheduler.start(room.accounts, paused=False, hold_pending=False)
    else:
        await room.scheduler.load(room.accounts)


def circuit(room: Room) -> Circuit:
    """How the account is."""
    return room.scheduler.circuit(LANE)


async def test_a_start_does_not_try_a_wrong_password_again(room: Room) -> None:
    room.transports["relay1"].answers.append(AccountUnavailable(WRONG))
    message = await room.submit()
    await room.until_event("account.needs_attention")
    since = room.clock.now()
    await restart(room, after=timedelta(days=1))
    kept = circuit(room)
    assert (kept.health, kept.reason, kept.advice) == (Health.NEEDS_ATTENTION, "5.7.8 wrong password", "check it")
    assert (kept.since, kept.transcript) == (since, "S: 535 no")
    await room.store.record("something.else")
    assert room.transports["relay1"].sent == []
    assert await room.states(message) == ["queued"]
    assert (await room.scheduler.wake(room.accounts[0])).health is Health.HEALTHY
    await room.until(message, "delivered")
    await restart(room)
    assert circuit(room).health is Health.HEALTHY


async def test_an_edit_while_nothing_runs_ends_it_too(room: Room) -> None:
    room.transports["relay1"].answers.append(AccountUnavailable(WRONG))
    message = await room.submit()
    await room.until_event("account.needs_attention")
    room.accounts[0] = dataclasses.replace(room.accounts[0], revision=2, password="right")
    await restart(room)
    await room.until(message, "delivered")


async def test_a_sleep_goes_on_and_the_next_is_longer(room: Room) -> None:
    room.transports["relay1"].answers.extend([AccountUnavailable(DOWN)] * 2)
    message = await room.submit()
    await room.store.until(lambda: _sleeps(room, 1))
    room.clock.advance(timedelta(seconds=30))
    await room.store.until(lambda: _sleeps(room, 2))
    until = circuit(room).until
    assert until == room.clock.now() + timedelta(minutes=1)
    await restart(room, after=timedelta(seconds=20))
    assert circuit(room).until == until
    room.transports["relay1"].answers.append(AccountUnavailable(DOWN))
    room.clock.advance(timedelta(seconds=39))
    assert circuit(room).health is Health.SLEEPING
    room.clock.advance(timedelta(seconds=1))
    await room.store.until(lambda: _sleeps(room, 3))
    assert circuit(room).until == room.clock.now() + timedelta(minutes=5)
    room.clock.advance(timedelta(minutes=5))
    await room.until(message, "delivered")


async def _sleeps(room: Room, failures: int) -> bool:
    return circuit(room).health is Health.SLEEPING and circuit(room).failures == failures


async def test_a_sleep_that_is_over_at_the_start_is_over(room: Room) -> None:
    room.transports["relay1"].answers.append(AccountUnavailable(DOWN))
    message = await room.submit()
    await room.until_event("account.asleep")
    await restart(room, after=timedelta(hours=1))
    room.clock.advance(timedelta(0))
    await room.until(message, "delivered")


async def test_a_clock_that_went_back_makes_no_sleep_longer(room: Room) -> None:
    room.transports["relay1"].answers.append(AccountUnavailable(DOWN))
    await room.submit()
    await room.until_event("account.asleep")
    room.clock.time -= timedelta(days=365)
    await restart(room)
    room.clock.advance(timedelta(seconds=29))
    assert circuit(room).health is Health.SLEEPING
    room.clock.advance(timedelta(seconds=1))
    assert circuit(room).health is Health.HEALTHY


async def test_a_person_lets_an_account_sleep_and_wakes_it(room: Room) -> None:
    asleep = await room.scheduler.put_to_sleep(room.accounts[0], timedelta(hours=2))
    assert (asleep.health, asleep.until, asleep.by_hand) == (
        Health.SLEEPING, room.clock.now() + timedelta(hours=2), True,
    )  # fmt: skip
    message = await room.submit()
    room.clock.advance(timedelta(minutes=119))
    assert await room.states(message) == ["queued"]
    await restart(room)
    assert circuit(room) == asleep
    await room.scheduler.wake(room.accounts[0])
    await room.until(message, "delivered")


async def test_what_a_person_does_while_nothing_runs_holds_at_the_start(room: Room) -> None:
    await restart(room, start=False)
    asleep = await room.scheduler.put_to_sleep(room.accounts[0], timedelta(hours=2))
    await restart(room)
    assert circuit(room) == asleep
    await restart(room, start=False)
    assert circuit(room) == asleep
    assert (await room.scheduler.wake(room.accounts[0])).health is Health.HEALTHY
    message = await room.submit()
    await restart(room)
    await room.until(message, "delivered")


async def test_moving_an_account_in_the_list_wakes_nobody(room: Room) -> None:
    await room.scheduler.put_to_sleep(room.accounts[0], timedelta(hours=2))
    room.accounts[0] = dataclasses.replace(room.accounts[0], revision=2, position=1)
    room.scheduler.follow(room.accounts)
    assert circuit(room).by_hand
    await restart(room)
    assert circuit(room).by_hand


async def test_what_fails_under_way_while_it_sleeps_may_stop_it(room: Room) -> None:
    """A wrong password is worth more than a sleep: it must not be tried again when that is over."""
    gate = room.store  # the transaction ends only after the account sleeps
    started = []

    async def fail_late(transaction: object) -> list[Deferred]:
        started.append(transaction)
        await gate.until(lambda: _is_asleep(room))
        return [dataclasses.replace(WRONG)]

    room.transports["relay1"].answers.append(fail_late)
    message = await room.submit()
    await room.until(message, "sending")
    await room.scheduler.put_to_sleep(room.accounts[0], timedelta(minutes=1))
    await room.until_event("account.needs_attention")
    room.clock.advance(timedelta(hours=1))
    assert circuit(room).health is Health.NEEDS_ATTENTION


async def _is_asleep(room: Room) -> bool:
    return circuit(room).health is Health.SLEEPING
