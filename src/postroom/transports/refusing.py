"""The transport of an account that must not send: it never gives a slot, so that its mail waits and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from ..model.outcome import Deferred, Remedy, Scope
from . import STOP_PATIENCE, AccountUnavailable, Slot


class RefusingTransport:
    """Says why, each time; the account needs attention until it is changed."""

    def __init__(self, reason: str, advice: str) -> None:
        self._failure = Deferred(status="4.3.5", reason=reason, advice=advice, scope=Scope.ACCOUNT, remedy=Remedy.STOP)

    async def reserve(self) -> Slot:
        """See `Transport.reserve`; there is never one."""
        raise AccountUnavailable(self._failure)

    async def reserve_own(self) -> Slot:
        """See `Transport.reserve_own`."""
        return await self.reserve()

    def listen(self, complained: Callable[[Deferred], None]) -> None:
        """See `Transport.listen`."""

    def limit_connections(self, most: int | None) -> None:
        """See `Transport.limit_connections`."""

    def withdraw(self) -> None:
        """See `Transport.withdraw`: nothing waits here."""

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """See `Transport.close`."""
