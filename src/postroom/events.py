"""Events for who follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from .model.clock import Clock
from .store import EventFilter, EventPage, ViewStore

#: How often events are looked for while somebody waits for them.
LOOK_SECONDS = 0.25


async def page(
    store: ViewStore, clock: Clock, wanted: EventFilter, wait: timedelta, is_ending: Callable[[], bool]
) -> EventPage:
    """A page of events; where there is none yet, the first ones that come within `wait`. `is_ending` ends the wait."""
    found = await store.events(wanted)
    deadline = clock.monotonic() + wait.total_seconds()
    while found.at_end and not found.events and clock.monotonic() < deadline and not is_ending():
        await asyncio.sleep(LOOK_SECONDS)
        if await store.last_event() != found.cursor:
            found = await store.events(replace(wanted, after=found.cursor))
    return found
