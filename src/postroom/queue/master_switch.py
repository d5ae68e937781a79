"""The master switch: off, nothing is claimed and retry windows stand still, also over restarts (SPEC section 3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime

from ..model.clock import Clock
from ..policy.standstill import Standstill


class MasterSwitch:
    """Pauses the lanes, and remembers when: `keep` stores the text that the next start is given as `kept`."""

    def __init__(
        self, pause: Callable[[bool], None], clock: Clock, keep: Callable[[str], asyncio.Future[None]], kept: str = ""
    ) -> None:
        self._pause = pause
        self._clock = clock
        self._keep = keep
        self._standstill = _read(kept)

    @property
    def standstill(self) -> Standstill:
        """When windows stood still."""
        return self._standstill

    def turn(self, is_on: bool) -> None:
        """Switch sending on or off."""
        before = self._standstill
        self._standstill = before.turned(not is_on, self._clock.now())
        if self._standstill != before:
            kept = self._keep(_write(self._standstill))
            # The windows stand still in this process all the same, and the next switch writes everything again.
            kept.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._pause(not is_on)


def _write(standstill: Standstill) -> str:
    return json.dumps(
        [[since.isoformat(), until.isoformat() if until is not None else None] for since, until in standstill.pauses]
    )


def _read(kept: str) -> Standstill:
    if not kept:
        return Standstill()
    return Standstill(
        tuple(
            (datetime.fromisoformat(since), datetime.fromisoformat(until) if until else None)
            for since, until in json.loads(kept)
        )
    )
