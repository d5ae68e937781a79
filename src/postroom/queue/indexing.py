"""Makes messages searchable, some time after the intake, in steps that leave the store to the mail most of the time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog

from ..errors import GatewayError
from ..model.clock import Clock
from ..store import QueueStore
from .maintenance import sleep

_log = structlog.get_logger()

#: How often new messages are looked for; how many times as long as a step takes is waited after it, and at least.
INTERVAL = timedelta(seconds=5)
REST = 4
LEAST_REST = timedelta(milliseconds=20)


async def run(store: QueueStore, clock: Clock, with_subjects: Callable[[], bool]) -> None:
    """Index until cancelled; a step that fails is logged and tried again."""
    while True:
        began = clock.monotonic()
        try:
            is_behind = await store.index(with_subjects())
        except GatewayError as error:
            _log.warning("indexing_failed", reason=str(error))
            is_behind = False
        spent = timedelta(seconds=clock.monotonic() - began)
        await sleep(clock, max(REST * spent, LEAST_REST) if is_behind else INTERVAL)
