"""The time of day jumps, and mail neither ends at once because of it nor waits for ever."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from postroom.errors import StorageFailed
from postroom.model.outcome import Deferred, Scope
from postroom.model.queue import MessageId
from postroom.policy.retry import Schedule
from postroom.queue import maintenance, retention
from postroom.queue.clock_watch import DOUBT, ClockWatch, Jumps
from postroom.queue.delivery import RetryRules
from postroom.queue.rules import LaneRules
from postroom.queue.scheduler import Scheduler
from postroom.store import Silence, clock_jumps
from tests.flow.conftest import FakeClock, Room
from tests.waited_too_long import rules as rules_of

YEARS = timedelta(days=3653)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)
LATER = Deferred(status="4.2.1", reason="try later", scope=Scope.MESSAGE)
SCHEDULE = Schedule.parse("1m, 5m")
RULES = rules_of(timedelta(days=2), timedelta(days=14), timedelta(hours=4))


class Upkeep:
    """Maintenance of a room whose clock is watched, turn by turn."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.watch = ClockWatch(room.clock)
        self.told: list[str] = []

    async def turn(self) -> None:
        """Some seconds pass, and maintenance has its turn."""
        room = self._room
        room.clock.advance(timedelta(seconds=10))

        def clock_jumped() -> None:
            self.told.append("jumped")
            room.scheduler.clock_jumped()

        told = maintenance.Told(lambda: None, clock_jumped)
        now = room.clock.now()
        await maintenance.turn(room.store, room.clock, RULES, self.watch, told)
        if self.watch.is_believed():
            await retention.step(room.store, now, retention.Ages(MONTH, MONTH))


async def held(room: Room) -> MessageId:
    """A message whose first try was put off."""
    room.transports["relay1"].answers.append(LATER)
    message = await room.submit()
    await room.until(message, "deferred")
    return message


# --- the watch ---


def test_a_clock_that_runs_with_the_timers_is_believed() -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    for _ in range(1000):
        clock.advance(timedelta(hours=1))
        assert watch.is_believed()
    assert not watch.jumps


def test_small_corrections_are_no_jump() -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    for correction in (30, -45, 59, -20):
        clock.advance(timedelta(minutes=1))
        clock.time += timedelta(seconds=correction)
        assert watch.is_believed()
    assert not watch.jumps


@pytest.mark.parametrize("jump", [DAY, YEARS])
def test_a_jump_ahead_is_doubted_for_a_day_and_believed_then(jump: timedelta) -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    clock.time += jump
    assert not watch.is_believed()
    assert watch.jumps == Jumps(ahead=jump)
    clock.advance(DOUBT - timedelta(seconds=1))
    assert not watch.is_believed()
    clock.advance(timedelta(seconds=1))
    assert watch.is_believed()


def test_a_jump_that_is_taken_back_is_forgotten() -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    clock.time += YEARS
    assert not watch.is_believed()
    clock.advance(timedelta(hours=3))
    clock.time -= YEARS
    assert watch.is_believed()


def test_a_second_jump_ahead_is_doubted_anew() -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    clock.time += DAY
    assert not watch.is_believed()
    clock.advance(DOUBT - timedelta(hours=1))
    clock.time += DAY
    assert not watch.is_believed()
    clock.advance(timedelta(hours=2))
    assert not watch.is_believed()


def test_a_jump_back_ends_nothing_and_is_believed() -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    clock.time -= YEARS
    assert watch.is_believed()
    assert watch.jumps == Jumps(back=YEARS)


@pytest.mark.parametrize(("since", "believed"), [(timedelta(hours=23), True), (timedelta(days=3), False)])
def test_after_a_long_silence_a_start_gives_everything_a_day(since: timedelta, believed: bool) -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    watch.was_silent(Silence(clock.now() - since))
    assert watch.is_believed() is believed
    clock.advance(DOUBT)
    assert watch.is_believed()


@pytest.mark.parametrize(("ago", "left"), [(timedelta(hours=1), timedelta(hours=23)), (timedelta(days=2), None)])
def test_a_start_goes_on_with_the_doubt_that_was_there(ago: timedelta, left: timedelta | None) -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    watch.was_silent(Silence(clock.now() - ago - YEARS, clock.now() - ago))
    if left is not None:
        clock.advance(left - timedelta(seconds=1))
        assert not watch.is_believed()
        clock.advance(timedelta(seconds=1))
    assert watch.is_believed()
    assert not watch.jumps


def test_a_jump_back_that_is_on_record_is_past(room: Room) -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    watch.was_silent(Silence(clock.now() + YEARS, clock.now() - timedelta(hours=1)))
    assert watch.is_believed()
    assert not watch.jumps


async def test_a_start_with_no_past_knows_of_no_jump(room: Room) -> None:
    watch = ClockWatch(room.clock)
    await watch.remember(room.store)
    assert watch.is_believed()
    assert not watch.jumps


def test_a_stop_between_two_readings_is_no_jump() -> None:
    class Stopping(FakeClock):
        """The process is stopped for an hour within a look at the clocks."""

        stops = 0

        def now(self) -> datetime:
            now = super().now()
            if self.stops:
                self.stops -= 1
                self.advance(timedelta(hours=1))
            return now

    clock = Stopping()
    watch = ClockWatch(clock)
    clock.stops = 2
    assert watch.is_believed()
    assert watch.is_believed()
    assert not watch.jumps


def test_a_start_with_a_past_in_the_future_is_a_jump_back() -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    watch.was_silent(Silence(clock.now() + YEARS))
    assert watch.is_believed()
    assert watch.jumps == Jumps(back=YEARS)
    watch.dealt_with(watch.jumps)
    assert not watch.jumps


# --- what becomes of mail ---


@pytest.mark.parametrize("jump", [timedelta(days=3), YEARS])
async def test_a_jump_ahead_expires_and_removes_nothing_within_a_day(room: Room, jump: timedelta) -> None:
    upkeep = Upkeep(room)
    done = await room.submit()
    await room.until(done, "delivered")
    waits = await held(room)
    room.clock.time += jump
    for _ in range(3):
        await upkeep.turn()
    assert await room.states(done) == ["delivered"]
    assert await room.states(waits) != ["expired"]


async def test_a_clock_that_stays_ahead_counts_after_a_day(room: Room) -> None:
    upkeep = Upkeep(room)
    done = await room.submit()
    await room.until(done, "delivered")
    room.clock.time += YEARS
    await upkeep.turn()
    assert await room.store.message(done) is not None
    room.clock.advance(DOUBT)
    await upkeep.turn()
    assert await room.store.message(done) is None


async def test_what_fails_after_a_jump_ahead_waits_for_its_next_try(room: Room) -> None:
    watch = ClockWatch(room.clock)
    await room.scheduler.stop()
    rules = LaneRules(lambda account: RetryRules(SCHEDULE, RULES.longest_window, watch.is_believed), SCHEDULE)
    room.scheduler = Scheduler(
        room.store, room.clock, rules, lambda account: room.transports[account.name], lambda: 0.5, room.directory
    )
    room.intake._offer = room.scheduler.offer
    await room.scheduler.start(room.accounts, paused=True, hold_pending=False)
    waits = await room.submit()
    room.clock.time += YEARS
    room.transports["relay1"].answers.append(LATER)
    room.scheduler.pause(False)
    await room.until(waits, "deferred")


async def test_after_a_jump_back_what_waits_is_tried_as_soon_as_it_would_have_been(room: Room) -> None:
    upkeep = Upkeep(room)
    waits = await held(room)
    (before,) = await room.rows(waits)
    room.clock.time -= YEARS
    await upkeep.turn()
    (after,) = await room.rows(waits)
    assert before.due is not None and after.due is not None
    assert after.due == before.due - YEARS > room.clock.now()
    room.clock.advance(timedelta(minutes=1))
    await room.until(waits, "delivered")
    assert upkeep.told == ["jumped"]


async def test_a_jump_ahead_and_back_holds_nothing_up(room: Room) -> None:
    upkeep = Upkeep(room)
    first = await held(room)
    room.clock.time += YEARS
    await upkeep.turn()
    await room.until(first, "delivered")  # it was due long ago
    second = await held(room)
    room.clock.time -= YEARS
    await upkeep.turn()
    room.clock.advance(timedelta(minutes=1))
    await room.until(second, "delivered")
    assert upkeep.watch.is_believed()


async def test_a_retry_window_that_began_in_the_future_begins_now(room: Room) -> None:
    upkeep = Upkeep(room)
    room.clock.time += YEARS
    await upkeep.turn()
    waits = await held(room)
    room.clock.time -= YEARS
    await upkeep.turn()
    (row,) = await room.rows(waits)
    assert row.window_from <= room.clock.now()


@pytest.mark.parametrize("jump", [DAY, YEARS])
async def test_a_start_sends_what_a_wrong_clock_had_put_far_away(room: Room, jump: timedelta) -> None:
    room.clock.time += jump
    waits = await held(room)
    await room.scheduler.stop()
    room.clock.time -= jump
    upkeep = Upkeep(room)
    await upkeep.watch.remember(room.store)
    await room.scheduler.start(room.accounts, paused=False, hold_pending=False)
    await upkeep.turn()
    room.clock.advance(timedelta(minutes=1))
    await room.until(waits, "delivered")


async def test_a_wrong_clock_is_doubted_over_starts_within_the_day(room: Room) -> None:
    waits = await held(room)
    room.scheduler.pause(True)
    room.clock.time += YEARS
    for _ in range(3):
        upkeep = Upkeep(room)  # a start
        await upkeep.watch.remember(room.store)
        room.clock.advance(timedelta(hours=7))
        await room.submit()  # on record with a wrong time
        await upkeep.turn()
        assert await room.states(waits) == ["deferred"]
    room.clock.advance(DOUBT - timedelta(hours=14))  # a day after the first of them
    await upkeep.turn()
    assert await room.states(waits) == ["expired"]


async def test_a_jump_that_was_dealt_with_is_past_for_the_next_start(room: Room) -> None:
    upkeep = Upkeep(room)
    room.clock.time += YEARS
    first = await held(room)
    room.clock.time -= YEARS
    await upkeep.turn()
    await room.until(first, "delivered")  # or it takes the answer of the next one
    waits = await held(room)
    (before,) = await room.rows(waits)
    for _ in range(2):
        upkeep = Upkeep(room)
        await upkeep.watch.remember(room.store)
        await upkeep.turn()
    assert await room.rows(waits) == (before,)
    assert upkeep.told == []


async def test_a_jump_that_was_taken_back_before_anybody_looked_holds_nothing_up(room: Room) -> None:
    upkeep = Upkeep(room)
    room.clock.time += YEARS
    waits = await held(room)
    room.clock.time -= YEARS
    await upkeep.turn()
    (row,) = await room.rows(waits)
    assert row.due is None or row.due <= room.clock.now()  # it may be on its way by now
    await room.until(waits, "delivered")


async def test_a_jump_while_upkeep_is_at_work_ends_nothing(room: Room) -> None:
    upkeep = Upkeep(room)
    waits = await held(room)
    room.clock.time -= timedelta(minutes=5)
    whole = room.store.bring_back

    async def jumps_meanwhile(*arguments: object) -> int:
        moved: int = await whole(*arguments)
        room.scheduler.pause(True)
        room.clock.time += YEARS
        return moved

    room.store.bring_back = jumps_meanwhile
    await upkeep.turn()
    room.store.bring_back = whole
    await upkeep.turn()
    assert await room.states(waits) == ["deferred"]


async def test_upkeep_where_no_clock_jumps_leaves_every_time_alone(room: Room) -> None:
    upkeep = Upkeep(room)
    waits = [await held(room) for _ in range(3)]
    before = [await room.rows(one) for one in waits]
    commits = room.store.commits
    await upkeep.turn()
    assert [await room.rows(one) for one in waits] == before
    assert upkeep.told == []
    assert room.store.commits - commits <= 2


async def test_upkeep_that_fails_brings_back_at_its_next_turn(room: Room) -> None:
    upkeep = Upkeep(room)
    waits = await held(room)
    room.clock.time -= YEARS

    def fails(*_: object) -> None:
        raise StorageFailed("no")

    room.store.bring_back, whole = fails, room.store.bring_back
    with pytest.raises(StorageFailed):
        await upkeep.turn()
    room.store.bring_back = whole
    await upkeep.turn()
    room.clock.advance(timedelta(minutes=1))
    await room.until(waits, "delivered")


async def test_a_long_queue_is_brought_back_whole(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_jumps, "STEP", 3)
    room.scheduler.pause(True)
    room.clock.time += YEARS
    messages = [await room.submit("b@y.test", "c@y.test") for _ in range(10)]
    room.clock.time -= YEARS
    now = room.clock.now()
    assert await room.store.bring_back(now, YEARS, now) == 20
    for message in messages:
        assert {row.due for row in await room.rows(message)} == {now}
