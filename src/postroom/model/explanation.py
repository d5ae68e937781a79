"""What a message waits for, in words for the person who asks `why`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .queue import DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One delivery: what it waits for (or how it ended), until when, what to do, and the command that does it.

    `marks` say what is not known of it: whether the relay has it, or has it twice.
    """

    n: int
    recipient: str
    state: DeliveryState
    account: str
    reason: str
    until: datetime | None = None
    advice: str = ""
    command: str = ""
    marks: tuple[str, ...] = ()
