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


async def run(store: QueueStore, clock: Clock, rules: MaintenanceRules, noted: Callable[[], None]) -> None:
    """Maintain until cancelled; a step that fails is logged and tried again at the next turn. `noted` is called where
    senders may have to be told of something."""
    while True:
        try:
            await step(store, clock, rules)
            noted()
        except GatewayError as error:
            _log.warning("maintenance_failed", reason=str(error))
        await _sleep(clock, INTERVAL)


async def step(store: QueueStore, clock: Clock, rules: MaintenanceRules) -> None:
    """One turn: small steps until nothing is left to do."""
    now = clock.now()
    while await store.expire(now - rules.retry_window, now - rules.give_up, now):
        pass
    while rules.delay_warning and await store.warn(now - rules.delay_warning, now):
        pass
    while await store.reap(now - rules.retention, now - STAGED_FOR):
        pass


async def _sleep(clock: Clock, pause: timedelta) -> None:
    over = asyncio.Event()
    timer = clock.call_later(pause.total_seconds(), over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
