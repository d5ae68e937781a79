"""The sandbox: captures what it is given and sends nothing; the content stays in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from ..model.outcome import Captured, Deferred, Outcome
from ..model.reply import Reply
from ..pending import Pending
from . import STOP_PATIENCE, Slot, Transaction
from .waiters import Waiters

_REPLY = Reply(250, ("captured by the sandbox, nothing was sent",), "2.0.0")

#: Messages captured at the same time; more would only wait for the same commit.
CAPACITY = 64


class SandboxTransport:
    """The transport of an account of kind sandbox."""

    def __init__(self, account: str) -> None:
        self._outcome = Captured(reply=_REPLY, remote_host=f"sandbox {account}")
        self._free = CAPACITY
        self._waiting = Waiters()

    async def reserve(self) -> Slot:
        """A slot, at once unless very many captures are under way."""
        while not self._free:
            await self._waiting.wait()
        self._free -= 1
        return _SandboxSlot(self)

    async def reserve_own(self) -> Slot:
        """See `Transport.reserve_own`."""
        return await self.reserve()

    def listen(self, complained: Callable[[Deferred], None]) -> None:
        """Nobody complains."""

    def limit_connections(self, most: int | None) -> None:
        """There are none."""

    def withdraw(self) -> None:
        """See `Transport.withdraw`: nothing waits here."""

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """Nothing is open."""

    def give_back(self) -> None:
        """A slot is free."""
        self._free += 1
        self._waiting.wake()

    def capture(self, transaction: Transaction) -> Sequence[Outcome]:
        """The outcome of everything."""
        return [self._outcome] * len(transaction.envelope.recipients)


class _SandboxSlot:
    __slots__ = ("_transport",)

    def __init__(self, transport: SandboxTransport) -> None:
        self._transport = transport

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        captured: Pending[Sequence[Outcome]] = Pending()
        if transaction.watch is not None:
            transaction.watch.answered()
        captured.set_result(self._transport.capture(transaction))
        return captured

    def settle(self) -> None:
        self._transport.give_back()

    def durable(self) -> None:
        """Nothing waits for it."""

    def cancel(self) -> None:
        self._transport.give_back()
