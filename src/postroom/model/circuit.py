"""The circuit of an account: whether it may send now, and if not, why and until when (SPEC section 2.8)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Health(StrEnum):
    """The state of a circuit."""

    HEALTHY = "healthy"
    SLOWED = "slowed"  # it sends, more slowly or over fewer connections, because the relay complained
    SLEEPING = "sleeping"
    NEEDS_ATTENTION = "needs attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How an account is and since when; `until` is set while it sleeps.

    `transcript` is what was said when it failed, without secrets; `failures` counts those in a row, by which its next
    sleep goes; `by_hand`: a person put it to sleep. `failing_since`: since when
    nothing has succeeded. `limit` is the limit that lets nothing start now, until
    `limit_until` at the earliest.
    """

    health: Health = Health.HEALTHY
    reason: str = ""
    advice: str = ""
    since: datetime | None = None
    until: datetime | None = None
    transcript: str = ""
    failures: int = 0
    by_hand: bool = False
    failing_since: datetime | None = None
    limit: str = ""
    limit_until: datetime | None = None

    @property
    def may_send(self) -> bool:
        """Whether mail leaves."""
        return self.health in (Health.HEALTHY, Health.SLOWED)
