"""Periodic work on the queue: ends what waited too long, in small steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from ..errors import GatewayError
from ..model.clock import Clock
from ..store import LaneEnds, QueueStore
from .clock_watch import TOLERANCE, ClockWatch, Jumps

_log = structlog.get_logger()

#: How often maintenance looks.
INTERVAL = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class MaintenanceRules:
    """What has waited too long at a time, by account, and the longest retry window of all (SPEC section 2.8); and
    the age at which the sender is told of a delay (zero: never).
    """

    ends: Callable[[datetime], Iterable[LaneEnds]]
    longest_window: timedelta
    delay_warning: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told: `noted` where senders may have to be told of something, `clock_jumped` when the time of day did."""

    noted: Callable[[], None]
    clock_jumped: Callable[[], None]
    limits_now: Callable[[], int] = lambda: 0  # by the clock of limits


async def run(
    store: QueueStore, clock: Clock, rules: Callable[[], MaintenanceRules], watch: ClockWatch, told: Told
) -> None:
    """Maintain until cancelled by the rules of each turn; a step that fails is logged and tried again at the next."""
    while True:
        try:
            await turn(store, clock, rules(), watch, told)
        except GatewayError as error:
            _log.warning("maintenance_failed", reason=str(error))
        await sleep(clock, INTERVAL)


async def turn(store: QueueStore, clock: Clock, rules: MaintenanceRules, watch: ClockWatch, told: Told) -> None:
    """Mend what a jump of the clock has put far away, then a `step`, unless the clock is doubted."""
    now = clock.now()  # before the watch looks: a jump that comes now is not in it
    is_believed = watch.is_believed()
    jumps = watch.jumps
    if (moved := await _mend(store, clock, rules, jumps)) or jumps:
        watch.dealt_with(jumps)
        told.clock_jumped()
        _log.info("clock_followed", brought_back=moved)
    if is_believed:
        await step(store, now, rules)
    while await store.forget_usage(told.limits_now()):
        pass
    told.noted()


async def _mend(store: QueueStore, clock: Clock, rules: MaintenanceRules, jumps: Jumps) -> int:
    """Bring back what would wait too long; how many deliveries. Jumps that were taken back before anybody looked count
    too: what was put off between them has a time far away."""
    now = clock.now()
    moved = await store.bring_back(now, jumps.back, now) if jumps.back else 0
    # No try is put off beyond its retry window, whether or not somebody saw the clock that said so.
    moved += await store.bring_back(now, None, now + rules.longest_window + TOLERANCE)
    if jumps:
        # On record at the new time of day, or the next start would take this jump for another.
        ways = ((jumps.ahead, "ahead"), (jumps.back, "back"))
        await store.record("clock.jumped", detail=", ".join(f"{by} {way}" for by, way in ways if by))
    return moved


async def step(store: QueueStore, now: datetime, rules: MaintenanceRules) -> None:
    """One turn at the time of day `now`: small steps until nothing is left to do."""
    ends = tuple(rules.ends(now))
    while await store.expire(ends, now):
        pass
    if rules.delay_warning:
        await store.warn(now - rules.delay_warning, now)


async def sleep(clock: Clock, pause: timedelta) -> None:
    """Wait, by the clock."""
    over = asyncio.Event()
    timer = clock.call_later(pause.total_seconds(), over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
