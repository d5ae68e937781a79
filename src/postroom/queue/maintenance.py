"""Periodic work on the queue: ends what waited too long, removes what ended long ago, in small steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from ..errors import GatewayError
from ..model.clock import Clock
from ..store import QueueStore
from .clock_watch import ClockWatch

_log = structlog.get_logger()

#: How often maintenance looks, and how long staged chunks may wait for their message.
INTERVAL = timedelta(minutes=1)
STAGED_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MaintenanceRules:
    """Ages at which things end (SPEC sections 2.8 and 3), and at which the sender is told of a delay (zero: never)."""

    retry_window: timedelta
    give_up: timedelta
    retention: timedelta
    delay_warning: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told: `noted` where senders may have to be told of something, `clock_jumped` when the time of day did."""

    noted: Callable[[], None]
    clock_jumped: Callable[[], None]


async def run(store: QueueStore, clock: Clock, rules: MaintenanceRules, watch: ClockWatch, told: Told) -> None:
    """Maintain until cancelled; a step that fails is logged and tried again at the next turn."""
    while True:
        try:
            await turn(store, clock, rules, watch, told)
        except GatewayError as error:
            _log.warning("maintenance_failed", reason=str(error))
        await _sleep(clock, INTERVAL)


async def turn(store: QueueStore, clock: Clock, rules: MaintenanceRules, watch: ClockWatch, told: Told) -> None:
    """Mend what a jump of the clock has put far away, then a `step`, unless the clock is doubted."""
    is_believed = watch.is_believed()
    if jump := watch.jumped:
        if jump < timedelta(0):
            now = clock.now()
            await store.bring_back(now, -jump, now)
        watch.dealt_with(jump)
        told.clock_jumped()
    if is_believed:
        await step(store, clock, rules)
    told.noted()


async def step(store: QueueStore, clock: Clock, rules: MaintenanceRules) -> None:
    """One turn: small steps until nothing is left to do."""
    now = clock.now()
    while await store.expire(now - rules.retry_window, now - rules.give_up, now):
        pass
    if rules.delay_warning:
        await store.warn(now - rules.delay_warning, now)
    while await store.reap(now - rules.retention, now - STAGED_FOR):
        pass


async def _sleep(clock: Clock, pause: timedelta) -> None:
    over = asyncio.Event()
    timer = clock.call_later(pause.total_seconds(), over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
