"""Time as an argument: the one source of now, waits and timers, replaced by a fake in tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol


class Timer(Protocol):
    """A call that waits for its time."""

    def cancel(self) -> None:
        """Forget the call, if it has not been made."""


class Clock(Protocol):
    """Now, and calls at a later time."""

    def now(self) -> datetime:
        """The time of day, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the loop after `seconds`."""
