"""The suppression list: addresses and domains that mail is not sent to (SPEC section 6)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from .record import record

#: Of a reason, as many characters are kept.
REASON_CHARACTERS = 200


class SuppressionSource(StrEnum):
    """How an entry came onto the list."""

    BY_HAND = "by-hand"
    IMPORT = "import"
    HARD_BOUNCE = "hard-bounce"


@record
class Suppression:
    """One entry: `key` is an address or a domain as `policy.suppressions` folds it, and holds until `expires` (None:
    until it is removed). `message_id` is that of
    the message that bounced, where one did."""

    key: str
    reason: str
    source: SuppressionSource
    created: datetime
    expires: datetime | None = None
    message_id: bytes | None = None

    @property
    def is_domain(self) -> bool:
        """Whether it is a domain: all addresses at it."""
        return "@" not in self.key

    def holds(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires is None or self.expires > now


class SuppressionStore(Protocol):
    """The suppression list as it is stored: entries by key. What is awaited is durable."""

    def save(self, entries: Sequence[Suppression], told: str) -> Awaitable[int]:
        """Put entries with different keys on the list, all or none, each in the place of the one that is there; how
        many are new. `told` stands in the event."""

    def remove(self, key: str) -> Awaitable[bool]:
        """Take an entry off the list; whether it was there."""

    def forget(self, expired_before: datetime) -> Awaitable[int]:
        """Remove entries that expired before that time, at most 1,000 at a time; how many."""

    async def get(self, key: str) -> Suppression | None:
        """One entry, expired or not."""

    async def page(self, prefix: str, after: str, limit: int) -> Sequence[Suppression]:
        """Entries whose keys begin with `prefix` and come behind `after`, in the order of their octets."""
