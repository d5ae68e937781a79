"""Periodic work on the queue: ends what waited too long, removes what ended long ago, in small steps."""

from __future__ import annotations

import asyncio
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
    """Ages at which things end (SPEC sections 2.8 and 3)."""

    retry_window: timedelta
    give_up: timedelta
    retention: timedelta


async def run(store: QueueStore, clock: Clock, rules: MaintenanceRules) -> None:
    """Maintain until cancelled; a step that fails is logged and tried again at the next turn."""
    while True:
        try:
            await step(store, clock, rules)
        except GatewayError as error:
            _log.warning("maintenance_failed", reason=str(error))
        await _sleep(clock, INTERVAL)


async def step(store: QueueStore, clock: Clock, rules: MaintenanceRules) -> None:
    """One turn: small steps until nothing is left to do."""
    now = clock.now()
    while await store.expire(now - rules.retry_window, now - rules.give_up, now):
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
