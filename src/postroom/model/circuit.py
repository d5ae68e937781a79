"""The circuit of an account: whether it may send now, and if not, why and until when (SPEC section 2.8)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Health(StrEnum):
    """The state of a circuit."""

    HEALTHY = "healthy"
    SLEEPING = "sleeping"
    NEEDS_ATTENTION = "needs attention"


@dataclass(frozen=True, slots=True)
class Circuit:
    """How an account is, since its last success or failure; `until` is set while sleeping.

    `transcript` is what was said when it failed, without secrets.
    """

    health: Health = Health.HEALTHY
    reason: str = ""
    advice: str = ""
    until: datetime | None = None
    transcript: str = ""
