"""The transport contract: one attempt, one Outcome per recipient (DESIGN section 7).

A lane asks its transport for a *slot* before it claims, so that a claim always means "about to be written". The order
of one slot's life is: `reserve` -> the lane claims -> `deliver` (once) -> the lane hands the outcomes to the store ->
`settle` -> their commit -> `durable`. A slot that is not used is given back with `cancel`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Protocol

from ..model.connection import SealedConnection
from ..model.content import StagedBody
from ..model.envelope import Envelope
from ..model.outcome import Deferred, Outcome
from ..model.record import record
from ..pending import Pending

#: How long what is being sent may last once the gateway stops.
STOP_PATIENCE = timedelta(seconds=3)

#: Reads a staged body; given to transports so that they need not know the store.
ChunkReader = Callable[[StagedBody], AsyncIterator[bytes]]


class Watch(Protocol):
    """Is told when a transaction begins, as limits count it (SPEC section 2.7)."""

    def answered(self) -> None:
        """The other side has answered its beginning (MAIL): it counts from now on. It may be told after the end, too,
        and not at all where no answer came."""

    def was_begun(self) -> None:
        """At its end: the other side may have seen its beginning."""


@record
class Transaction:
    """One message on its way: envelope, and content as it shall leave (after rewriting); `watch` is told when it
    begins. `may_begin` is asked last, by a transport that has yet to connect: where it says no, nothing is sent. With a
    `connection` of its own it goes over no other. `in_doubt`: an earlier attempt may have sent it already, and a
    transport that can find out should."""

    envelope: Envelope
    head: bytes
    body: bytes | StagedBody
    size_bytes: int
    watch: Watch | None = None
    may_begin: Callable[[], bool] = lambda: True
    connection: SealedConnection | None = None
    in_doubt: bool = False


class AccountUnavailable(Exception):
    """No connection can be had: `failure` says why and how long to wait; nothing of any message was written."""

    def __init__(self, failure: Deferred) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class TransportClosed(Exception):
    """The transport was closed while a slot was waited for."""


class Slot(Protocol):
    """The right to send one transaction on one connection."""

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        """Send; one outcome per recipient, in order. An error only for a fault of our own, never for the other side's.

        A result of scope ACCOUNT is about the account and must not use up a try of the message.
        """

    def settle(self) -> None:
        """The outcomes were given to the store; the slot is free for the next claim."""

    def durable(self) -> None:
        """The outcomes of a settled slot are durable; its connection may write further content."""

    def cancel(self) -> None:
        """Nothing was sent; give the slot back."""


class Transport(Protocol):
    """One account's way out; made anew when the account's revision changes."""

    async def reserve(self) -> Slot:
        """Wait for a connection that can take one more transaction, connecting if fewer than allowed are open.

        Raises:
            AccountUnavailable: connecting, greeting, TLS or authentication failed.
            TransportClosed: `close` was called.
        """

    async def reserve_own(self) -> Slot:
        """Wait until one more transaction that brings a connection of its own may go over it; raises as `reserve`."""

    def listen(self, complained: Callable[[Deferred], None]) -> None:
        """Call `complained` when the other side refuses one more connection while others work."""

    def limit_connections(self, most: int | None) -> None:
        """Have at most so many connections open from now on (None: as the account says); those over end when idle."""

    def withdraw(self) -> None:
        """Give back as `NotSent` what was handed over and of which nothing was written yet: other rules hold now."""

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """End connections after the transactions under way, which may last for `patience` (None: as long as the account
        lets them); safe to call twice, also while the first call waits."""
