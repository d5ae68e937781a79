"""Removes what ended long ago and gives its room back, in small steps that leave the store to the mail for the most.

Nothing that has not ended, or of which the sender is still to be told, is ever touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from ..errors import GatewayError
from ..model.clock import Clock
from ..store import Store
from .maintenance import sleep

_log = structlog.get_logger()

#: How often something is looked for; how many times as long as a step takes is waited after it, and at least.
INTERVAL = timedelta(minutes=1)
REST = 4
LEAST_REST = timedelta(milliseconds=20)
#: How long staged chunks may wait for their message.
STAGED_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Ages:
    """For how long messages are kept that have ended, and their content."""

    records: timedelta
    content: timedelta


#: Moves a time up to which may be removed what ended, so that nothing goes that is still needed.
Bound = Callable[[datetime], datetime]


async def run(
    store: Store,
    clock: Clock,
    ages: Callable[[], Ages],
    is_believed: Callable[[], bool],
    bound: Bound = lambda ended_before: ended_before,
) -> None:
    """Remove until cancelled, but nothing while the clock is doubted; a step that fails is logged and tried again."""
    while True:
        began = clock.monotonic()
        now = clock.now()  # before the watch looks: a jump that comes now is not in it
        try:
            is_more = is_believed() and await step(store, now, ages(), bound)
        except GatewayError as error:
            _log.warning("retention_failed", reason=str(error))
            is_more = False
        spent = timedelta(seconds=clock.monotonic() - began)
        await sleep(clock, max(REST * spent, LEAST_REST) if is_more else INTERVAL)


async def step(store: Store, now: datetime, ages: Ages, bound: Bound = lambda ended_before: ended_before) -> bool:
    """One small step at the time of day `now`; whether there may be more to do. Room is given back last."""
    if await store.reap(bound(now - ages.records), now - STAGED_FOR):
        return True
    if ages.content < ages.records and await store.reap_content(bound(now - ages.content)):
        return True
    if await store.suppressions.forget(now - ages.records):
        return True
    return await store.shrink()
