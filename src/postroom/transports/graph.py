"""Sending by Microsoft Graph (SPEC section 2.9): slots, what of the node's connections they take, and one transaction.

How one message is sent is in `graph_sending`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from ..model.account import Account
from ..model.clock import Clock, Timer
from ..model.outcome import Deferred, NotSent, Outcome, Remedy, Scope, Unknown
from ..net.graph import AT_ONCE, ROOTS
from ..pending import Pending
from . import STOP_PATIENCE, AccountUnavailable, ChunkReader, Slot, Transaction, TransportClosed
from .budget import ConnectionBudget
from .smtp_outcomes import explain_connect_failure
from .waiters import Waiters

if TYPE_CHECKING:
    from .graph_sending import GraphSender

_log = structlog.get_logger()


class Tokens(Protocol):
    """Gives access tokens: see `oauth.service.TokenService`."""

    async def token(self, account: Account, rejected: str = "") -> str:
        """See there."""


class Places:
    """The requests that one mailbox takes at a time, whichever accounts send by it."""

    def __init__(self, most: int = AT_ONCE) -> None:
        self._free = most
        self._waiting = Waiters()

    async def take(self) -> None:
        """Wait for one."""
        while not self._free:
            await self._waiting.wait()
        self._free -= 1

    def give_back(self) -> None:
        """One is free."""
        self._free += 1
        self._waiting.wake()


def place_of(root: str, mailbox: str) -> str:
    """The name under which all who ask Graph at `root` about `mailbox` share its `Places`."""
    return f"{root} {mailbox.lower()}"


class GraphTransport:
    """The transport of an account of kind graph. `postmaster` stands for a draft mailbox that the account lacks."""

    def __init__(
        self,
        account: Account,
        *,
        clock: Clock,
        budget: ConnectionBudget,
        chunks: ChunkReader,
        tokens: Tokens,
        places: Callable[[str], Places],
        postmaster: str = "",
        root: str = "",
    ) -> None:
        graph = account.graph
        self._account = account
        self._clock = clock
        self._budget = budget
        self._chunks = chunks
        self._tokens = tokens
        self._root = root or ROOTS[account.oauth.cloud]
        self.mailbox = (graph.draft_mailbox or postmaster) if graph.draft_only else graph.mailbox
        self._places = places(place_of(self._root, self.mailbox))
        self._loop = asyncio.get_running_loop()
        self._most = min(account.max_connections, AT_ONCE)
        self._in_use = 0
        self._waiting = Waiters()  # for a slot
        self._short = Waiters()  # for one of the node's connections
        self._busy = self._held = 0  # transactions under way; connections taken from the budget
        self._sender: GraphSender | None = None
        self._idle: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False

    # Slots

    async def reserve(self) -> Slot:
        """See `Transport.reserve`; a slot is had with a token in hand."""
        if not self.mailbox:
            raise AccountUnavailable(NO_DRAFT_MAILBOX)
        while not self._closing and self._in_use >= self._most:
            await self._waiting.wait()
        self._refuse_if_closed()
        self._in_use += 1
        self._wake()  # there may be room for another
        try:
            await self._token("")
            await self._places.take()
        except BaseException as error:
            self._in_use -= 1
            self._wake()
            if isinstance(error, Exception):
                raise explain_connect_failure(self._account, error) from error
            raise
        slot = GraphSlot(self)
        try:
            self._refuse_if_closed()
        except TransportClosed:
            slot.cancel()
            raise
        return slot

    async def reserve_own(self) -> Slot:
        """See `Transport.reserve_own`: messages for Graph bring no connection."""
        return await self.reserve()

    def _refuse_if_closed(self) -> None:
        if self._closing:
            raise TransportClosed

    async def _token(self, rejected: str) -> str:
        return await self._tokens.token(self._account, rejected)

    def listen(self, complained: Callable[[Deferred], None]) -> None:
        """See `Transport.listen`; what Graph refuses, it refuses to a message that was given to it."""

    def limit_connections(self, most: int | None) -> None:
        """See `Transport.limit_connections`."""
        allowed = min(self._account.max_connections, AT_ONCE)
        self._most = allowed if most is None else max(1, min(most, allowed))
        self._wake()

    def withdraw(self) -> None:
        """See `Transport.withdraw`: `may_begin` is asked before anything is written."""

    def give_back(self) -> None:
        """A slot is free."""
        self._in_use -= 1
        self._places.give_back()
        self._wake()

    def _wake(self) -> None:
        if self._in_use < self._most:
            self._waiting.wake()

    # One transaction

    def send(self, transaction: Transaction, told: Pending[Sequence[Outcome]]) -> None:
        """Deliver `transaction` and tell its outcomes."""
        task = self._loop.create_task(self._run(transaction, told), name=f"deliver {self._account.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, transaction: Transaction, told: Pending[Sequence[Outcome]]) -> None:
        from .graph_sending import Sending  # here: it loads what speaks HTTP

        sending: Sending | None = None
        count = len(transaction.envelope.recipients)
        try:
            await self._connection()
            try:
                if not transaction.may_begin():
                    found: Sequence[Outcome] = [NotSent(reason="where it may go was changed meanwhile")] * count
                else:
                    sending = Sending(self._http(), transaction)
                    found = await sending.outcomes()
            finally:
                self._rest()
        except asyncio.CancelledError:  # closed
            was_handed_over = sending is not None and sending.was_handed_over
            stopped = Unknown(status="4.4.2", reason="the gateway stopped before Graph answered")
            told.set_result([stopped if was_handed_over else NotSent(reason="the gateway stopped")] * count)
        except Exception as error:
            if sending is not None and sending.was_handed_over:
                told.set_exception(error)
                return
            _log.error("not_delivered", account=self._account.name, exc_info=error)  # and nothing was sent
            told.set_result([Deferred(status="4.3.0", reason=f"it could not be sent: {error!r}")] * count)
        else:
            told.set_result(found)

    # Connections

    def _http(self) -> GraphSender:
        from .graph_sending import GraphSender

        if self._sender is None:
            self._sender = GraphSender(self._account, self.mailbox, self._root, self._token, self._clock, self._chunks)
        return self._sender

    async def _connection(self) -> None:
        """One of the node's connections for one transaction more, kept until all have rested for a while."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        while self._busy >= self._held:
            if self._budget.take(self):
                self._held += 1
            else:
                await self._short.wait()
        self._busy += 1
        self.grow()  # the next one asks for itself

    def grow(self) -> bool:
        """One of the node's connections may be had. Whether anybody here waits for it."""
        return self._short.wake()

    def _rest(self) -> None:
        self._busy -= 1
        self.grow()  # what this one held, the next may use
        if not self._busy:
            self._idle = self._clock.call_later(self._account.idle_timeout.total_seconds(), self._end_connections)

    def _end_connections(self) -> None:
        if self._busy:
            return
        self._idle = None
        sender, self._sender = self._sender, None
        while self._held:
            self._held -= 1
            self._budget.give_back()
        if sender is not None:
            closing: Awaitable[None] = sender.close()
            task = asyncio.ensure_future(closing)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """See `Transport.close`."""
        self._closing = True
        self._waiting.wake_all()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=None if patience is None else patience.total_seconds())
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._idle is not None:
            self._idle.cancel()
        self._end_connections()
        if self._ending:
            await asyncio.wait(self._ending)


class GraphSlot:
    """The right to send one message. Its place is free again when its outcome is durable: so a crash leaves no more in
    doubt than there are requests at a time."""

    __slots__ = ("_transport",)

    def __init__(self, transport: GraphTransport) -> None:
        self._transport = transport

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        """See `Slot.deliver`."""
        told: Pending[Sequence[Outcome]] = Pending()
        self._transport.send(transaction, told)
        return told

    def settle(self) -> None:
        """See `Slot.settle`."""

    def durable(self) -> None:
        """See `Slot.durable`."""
        self._transport.give_back()

    def cancel(self) -> None:
        """See `Slot.cancel`."""
        self._transport.give_back()


NO_DRAFT_MAILBOX = Deferred(
    status="4.3.5",
    reason="draft_only is on, and there is neither a draft mailbox nor a postmaster",
    advice="give the account a draft_mailbox, or set `postmaster`",
    scope=Scope.ACCOUNT,
    remedy=Remedy.STOP,
)
