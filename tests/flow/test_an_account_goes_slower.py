"""A relay that complains of rate or connections slows the account; it comes back by itself, and nothing is counted."""

from __future__ import annotations

from datetime import timedelta

from postroom.model.circuit import Health
from postroom.model.outcome import Deferred, Remedy, Scope
from postroom.model.queue import LaneId

from .conftest import Room

TOO_FAST = Deferred(
    status="4.7.0", reason="Maximum sending rate exceeded", advice="lower the account's rate", scope=Scope.ACCOUNT,
    remedy=Remedy.SLOWER, retry_after=timedelta(seconds=1),
)  # fmt: skip
TOO_MANY = Deferred(status="4.3.2", reason="concurrent connections", scope=Scope.ACCOUNT, remedy=Remedy.FEWER)
LANE = LaneId(1)


async def test_a_complaint_about_the_rate_makes_pauses_and_blames_no_message(room: Room) -> None:
    transport = room.transports["relay1"]
    transport.answers.append(TOO_FAST)
    message = await room.submit()
    (row,) = await room.until(message, "deferred")
    assert (row.tries, row.due) == (0, room.clock.time + timedelta(seconds=1))
    circuit = room.scheduler.circuit(LANE)
    assert circuit.health is Health.SLOWED
    assert circuit.reason == "0.1s between two messages: 4.7.0 Maximum sending rate exceeded"
    assert circuit.advice == "lower the account's rate"
    more = [await room.submit() for _ in range(3)]
    await room.store.until(lambda: _tried(room, 2))
    await room.until(more[0], "delivered")
    for one in more[1:]:
        room.clock.advance(timedelta(milliseconds=99))
        assert await room.states(one) == ["queued"]
        room.clock.advance(timedelta(milliseconds=1))
        await room.until(one, "delivered")
    room.clock.advance(timedelta(seconds=1))
    await room.until(message, "delivered")


async def test_after_a_minute_without_a_complaint_the_account_is_healthy_again(room: Room) -> None:
    room.transports["relay1"].answers.append(TOO_FAST)
    message = await room.submit()
    assert "0.1s between two messages" in await room.until_event("account.slowed")
    await room.until(message, "deferred")
    room.clock.advance(timedelta(seconds=59))
    assert room.scheduler.circuit(LANE).health is Health.SLOWED
    room.clock.advance(timedelta(seconds=1))
    assert room.scheduler.circuit(LANE).health is Health.HEALTHY
    await room.until_event("account.healthy")
    await room.until(message, "delivered")


async def test_complaints_in_a_row_with_no_success_put_the_account_to_sleep(room: Room) -> None:
    room.transports["relay1"].answers.extend([TOO_FAST] * 3)
    message = await room.submit()
    for tries in (1, 2, 3):
        await room.store.until(lambda tries=tries: _tried(room, tries))
        await room.until(message, "deferred")
        if tries < 3:
            assert room.scheduler.circuit(LANE).health is Health.SLOWED
            room.clock.advance(timedelta(seconds=10))
    circuit = room.scheduler.circuit(LANE)
    assert circuit.health is Health.SLEEPING
    assert circuit.until == room.clock.time + timedelta(seconds=30)
    room.clock.advance(timedelta(seconds=30))
    (row,) = await room.until(message, "delivered")
    assert row.tries == 1


async def _tried(room: Room, times: int) -> bool:
    return len(room.transports["relay1"].sent) >= times


async def test_a_complaint_about_connections_allows_one_less_and_later_one_more(room: Room) -> None:
    transport = room.transports["relay1"]
    await room.until(await room.submit(), "delivered")
    transport.complain(TOO_MANY)
    transport.complain(TOO_MANY)  # of what was under way then
    assert transport.limits == [3]
    room.clock.advance(timedelta(seconds=6))
    transport.complain(TOO_MANY)
    assert transport.limits == [3, 2]
    assert room.scheduler.circuit(LANE).reason.startswith("at most 2 connection(s): ")
    room.clock.advance(timedelta(minutes=10))
    assert transport.limits == [3, 2, 3]
    room.clock.advance(timedelta(minutes=10))
    assert transport.limits == [3, 2, 3, None]
    assert room.scheduler.circuit(LANE).health is Health.HEALTHY


async def test_a_slowed_account_that_slept_is_slowed_when_it_wakes(room: Room) -> None:
    transport = room.transports["relay1"]
    down = Deferred(status="4.4.1", reason="refused", scope=Scope.ACCOUNT, retry_after=timedelta(seconds=20))
    transport.answers.extend([TOO_FAST, down])
    message = await room.submit()
    await room.until(message, "deferred")
    room.clock.advance(timedelta(seconds=1))
    await room.until_event("account.asleep")
    assert room.scheduler.circuit(LANE).health is Health.SLEEPING
    room.clock.advance(timedelta(seconds=20))
    assert room.scheduler.circuit(LANE).health is Health.SLOWED
    await room.until(message, "delivered")
