"""Warm connections of one account: slots, reuse, limits, and the rule that bounds what a crash can duplicate.

A connection serves up to three transactions that are `sending`: one answered whose outcome waits for its commit, one
whose content is out, one whose envelope is ahead. It writes its next content only while at most one outcome waits
(DESIGN section 3).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta

from ..model.account import Account
from ..model.clock import Clock, Timer
from ..model.outcome import Deferred
from ..net.smtp_client import SmtpConnection, TransactionResult
from ..pending import Pending
from . import STOP_PATIENCE, AccountUnavailable, Transaction, TransportClosed
from .budget import ConnectionBudget

#: Slots of a connection that pipelines, and of one that does not (no envelope can be ahead).
PIPELINED_SLOTS = 3
PLAIN_SLOTS = 2

#: A connection with work that has answered for nothing so long gets no more while another may be opened: what stands
#: behind a content waits as long as its reply, which may be minutes.
STALLED_SECONDS = 5.0

#: Connections in a row that may break before any transaction was answered whole until the account counts as failing.
FRUITLESS_LIMIT = 2

Start = Callable[[SmtpConnection, Transaction, Callable[[TransactionResult], None]], None]
Connect = Callable[[], Awaitable[SmtpConnection]]
Explain = Callable[[Exception], AccountUnavailable]


class Link:
    """A connection with the transactions that were given to it."""

    __slots__ = (
        "_in_machine",
        "_pool",
        "_unsettled",
        "_waiting",
        "answered",
        "busy_since",
        "connection",
        "dead",
        "free_since",
        "given",
        "held",
        "most",
    )

    def __init__(self, pool: ConnectionPool, connection: SmtpConnection) -> None:
        self._pool = pool
        self.connection = connection
        self.held = 0  # slots reserved and not settled
        self.given = 0  # slots reserved ever
        self.answered = 0
        most, offered = pool.account.messages_per_connection, connection.most_mails
        self.most = most if offered is None else min(most, offered)  # slots that it may give (RFC 9422 section 4.1)
        self.free_since = self.busy_since = pool.clock.monotonic()
        self.dead = False
        self._in_machine = 0
        self._unsettled = 0
        self._waiting: deque[tuple[Transaction, Pending[TransactionResult | None]]] = deque()

    @property
    def remote_host(self) -> str:
        """The other side, as attempts name it."""
        return self.connection.remote_host

    def send(self, transaction: Transaction) -> Pending[TransactionResult | None]:
        """Hand over a transaction; its result, or None when nothing of it was sent."""
        future: Pending[TransactionResult | None] = Pending()
        if self.dead or not self.connection.is_usable:
            future.set_result(None)
        elif self._in_machine < (2 if self.connection.pipelining else 1):
            self._start(transaction, future)
        else:
            self._waiting.append((transaction, future))
        return future

    def _start(self, transaction: Transaction, future: Pending[TransactionResult | None]) -> None:
        self._in_machine += 1

        def done(result: TransactionResult) -> None:
            self._in_machine -= 1
            self.answered += not result.error
            self.busy_since = self._pool.clock.monotonic()
            self._unsettled += 1
            if self._unsettled == 2:
                self.connection.block_content()
            if self._waiting and not self.dead and self.connection.is_usable:
                self._start(*self._waiting.popleft())
            future.set_result(result)

        self._pool.start(self.connection, transaction, done)

    def settle(self) -> None:
        """The result went to the store: the slot is free."""
        self._release()

    def durable(self) -> None:
        """A result is durable: the next content may follow once enough are."""
        self._unsettled -= 1
        if self._unsettled == 1 and not self.dead:
            self.connection.allow_content()

    def cancel(self) -> None:
        """A reserved slot that was not used."""
        self.given -= 1
        self._release()

    def _release(self) -> None:
        self.held -= 1
        if not self.held:
            self.free_since = self._pool.clock.monotonic()
        self._pool.slot_was_freed(self)

    def withdraw(self) -> None:
        """What nothing was written of comes back as not sent."""
        while self._waiting:
            self._waiting.popleft()[1].set_result(None)
        self.connection.withdraw()

    def was_closed(self) -> None:
        """The connection is gone; what it had not begun comes back as not sent."""
        self.dead = True
        while self._waiting:
            self._waiting.popleft()[1].set_result(None)


class ConnectionPool:
    """The connections of one account."""

    def __init__(
        self,
        account: Account,
        clock: Clock,
        budget: ConnectionBudget,
        *,
        connect: Connect,
        start: Start,
        explain: Explain,
    ) -> None:
        self.account = account
        self.clock = clock
        self.start = start
        self.loop = asyncio.get_running_loop()
        self._budget = budget
        self._connect = connect
        self._explain = explain
        self._links: list[Link] = []
        self._by_held: tuple[dict[Link, None], ...] = tuple({} for _ in range(PIPELINED_SLOTS + 1))
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiters: deque[asyncio.Future[Link]] = deque()
        self._not_before = 0.0
        self._timers: dict[str, Timer] = {}
        self._fruitless = 0
        self._failure: AccountUnavailable | None = None
        self._closing = False
        self._emptied = asyncio.Event()  # the last connection has ended, and none follows
        self._most = account.max_connections
        self._lent = 0
        self._heir: ConnectionPool | None = None
        self._left_to_heir = 0
        self._borrowers: deque[asyncio.Future[None]] = deque()
        self.complained: Callable[[Deferred], None] = lambda failure: None

    def connections(self) -> list[SmtpConnection]:
        """Those that are open."""
        return [link.connection for link in self._links]

    def withdraw(self) -> None:
        """See `Transport.withdraw`."""
        for link in list(self._links):
            link.withdraw()

    def limit_connections(self, most: int | None) -> None:
        """See `Transport.limit_connections`."""
        allowed = self.account.max_connections
        self._most = allowed if most is None else max(1, min(most, allowed))
        for link in self._links[self._most :]:
            self._retire(link)
        self._serve_borrowers()
        if self._waiters:
            self._serve()

    def retire(self) -> None:
        """The connections that are open get nothing more, and end after what they have."""
        for link in list(self._links):
            self._by_held[link.held].pop(link, None)
            link.most = 0
            if not link.held:
                self._end(link)

    def _retire(self, link: Link) -> None:
        """It ends with what it has been given."""
        self._by_held[link.held].pop(link, None)
        link.most = link.given
        if not link.held:
            self._end(link)

    async def lend(self) -> None:
        """Have one connection fewer from now on, for one that is not of the pool; until `take_back`.

        Raises:
            TransportClosed: the pool was closed.
        """
        if self._closing:
            raise TransportClosed
        if not self._borrowers and self._has_room:
            self._lent += 1
            return
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._borrowers.append(waiter)
        self._give_way()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.take_back()
            raise

    def take_back(self) -> None:
        """What was lent is the pool's again; its own come first now where they had none."""
        self._lent -= 1
        self._pass_on()
        if not (self._waiters and not self._links and not self._connecting):
            self._serve_borrowers()
        if self._waiters:
            self.grow()

    def succeed(self, former: ConnectionPool) -> None:
        """Have as many connections fewer as `former`, which is about to close, still has, until they have ended."""
        former._heir, former._left_to_heir = self, former._count
        self._lent += former._count

    def _pass_on(self) -> None:
        while self._heir is not None and self._left_to_heir > self._count:
            self._left_to_heir -= 1
            self._heir.take_back()

    @property
    def _count(self) -> int:
        return len(self._links) + len(self._connecting) + self._lent

    @property
    def _has_room(self) -> bool:
        return self._count < self._most

    def _serve_borrowers(self) -> None:
        while self._borrowers and self._has_room:
            waiter = self._borrowers.popleft()
            if not waiter.done():
                self._lent += 1
                waiter.set_result(None)
        if self._borrowers:
            self._give_way()

    def _give_way(self) -> None:
        """End as many links as are asked for, the idle ones first."""
        wanted = len(self._links) + self._lent + len(self._borrowers) - self._most
        wanted -= sum(link.given >= link.most for link in self._links)  # they end already
        for link in sorted(self._links, key=lambda link: link.held):
            if wanted > 0 and link.given < link.most:
                self._retire(link)
                wanted -= 1

    async def reserve(self) -> Link:
        """A link with one slot taken.

        Raises:
            AccountUnavailable: no connection is open and none can be had.
            TransportClosed: the pool was closed.
        """
        if self._closing:
            raise TransportClosed
        if self._failure is not None and not self._links:
            failure, self._failure = self._failure, None
            raise failure
        link = self._best()
        if link is not None and not self._waiters:
            if link.held >= PLAIN_SLOTS:
                self.grow()
            return self._take(link)
        waiter: asyncio.Future[Link] = self.loop.create_future()
        self._waiters.append(waiter)
        self.grow()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().cancel()
            raise

    def _take(self, link: Link) -> Link:
        self._by_held[link.held].pop(link, None)
        if not link.held:
            link.busy_since = self.clock.monotonic()
        link.held += 1
        link.given += 1
        if link.given < link.most:
            self._by_held[link.held][link] = None
        return link

    def _best(self) -> Link | None:
        """The usable link with the fewest slots taken, the one that has waited longest first."""
        stalled_since = -math.inf
        if len(self._links) < self._most:
            stalled_since = self.clock.monotonic() - STALLED_SECONDS
        for held, links in enumerate(self._by_held[:PIPELINED_SLOTS]):
            for link in links:
                if held and link.busy_since <= stalled_since:
                    continue
                if link.connection.is_usable and (held < PLAIN_SLOTS or link.connection.pipelining):
                    return link
        return None

    def slot_was_freed(self, link: Link) -> None:
        """Serve who waits; a link that has had its messages is ended."""
        self._by_held[link.held + 1].pop(link, None)
        if not link.dead and link.given < link.most:
            self._by_held[link.held][link] = None
        if not link.held and not link.dead:
            if self._closing or link.given >= link.most:
                self._end(link)
            else:
                self._watch_idle()
        if self._waiters:
            self._serve()

    def _serve(self) -> None:
        while self._waiters:
            link = self._best()
            if link is None:
                self.grow()
                return
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(self._take(link))

    def grow(self) -> bool:
        """Open one connection more, if work and limits ask for it; at most one is being opened at a time. Whether it is
        opened."""
        # A link that has had its messages still counts: it is an open connection until it has ended.
        if self._closing or self._connecting or len(self._links) + self._lent >= self._most:
            return False
        wait = self._not_before - self.clock.monotonic()
        if wait > 0:
            self._later("grow", wait, self.grow)
        elif self._budget.take(self):
            task = self.loop.create_task(self._open(), name=f"connect {self.account.name}")
            self._connecting.add(task)
            task.add_done_callback(self._opened)
            return True
        return False

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        self._pass_on()

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except Exception as error:  # every failure to connect is told to who waits
            self._budget.give_back()
            self._connecting.discard(asyncio.current_task())
            self._serve_borrowers()
            self._connect_failed(self._explain(error))
            return
        except asyncio.CancelledError:
            self._budget.give_back()
            raise
        self._connecting.discard(asyncio.current_task())
        link = Link(self, connection)
        self._links.append(link)
        self._by_held[0][link] = None
        connection.on_closed = lambda reason: self._was_closed(link, reason)
        if not connection.is_usable:
            self._was_closed(link, "closed at once")
        elif self._closing:
            self._end(link)
        else:
            self._serve()
            self._serve_borrowers()
            self._watch_idle()

    def _connect_failed(self, failure: AccountUnavailable) -> None:
        self._not_before = self.clock.monotonic() + self.account.connect_retry.total_seconds()
        if self._links:  # others still work: no reason to put the account to sleep
            self.complained(failure.failure)
            if self._waiters:  # not for a slot that is free: those that there are may take minutes
                self._later("grow", max(self.account.connect_retry.total_seconds(), 1.0), self.grow)
            return
        # The lane that is told sleeps by the account's schedule and decides when to try again.
        self._not_before = 0.0
        if not self._waiters:
            self._failure = failure
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(failure)

    def _was_closed(self, link: Link, reason: str) -> None:
        if link not in self._links:
            return
        self._forget(link)
        unexpected = link.held > 0 and not self._closing
        link.was_closed()
        self._budget.give_back()
        self._pass_on()
        if unexpected:
            self._not_before = self.clock.monotonic() + self.account.reconnect_interval.total_seconds()
            self._fruitless = 0 if link.answered else self._fruitless + 1
            if self._fruitless >= FRUITLESS_LIMIT:
                self._fruitless = 0
                self._connect_failed(self._explain(ConnectionError(f"the relay closes the connection: {reason}")))
        self._serve_borrowers()
        if self._waiters:
            self.grow()

    def _forget(self, link: Link) -> None:
        self._links.remove(link)
        self._by_held[link.held].pop(link, None)
        if self._closing and not self._links:
            self._emptied.set()

    def _end(self, link: Link) -> None:
        if link in self._links:
            self._forget(link)
            link.was_closed()
            self._budget.give_back()
            task = self.loop.create_task(link.connection.quit())
            self._connecting.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._opened(task)
        self._serve_borrowers()
        if self._waiters:
            self.grow()

    def _later(self, name: str, seconds: float, callback: Callable[[], object]) -> None:
        if name not in self._timers:

            def fire() -> None:
                del self._timers[name]
                callback()

            self._timers[name] = self.clock.call_later(seconds, fire)

    def _watch_idle(self) -> None:
        idle = self.account.idle_timeout.total_seconds()
        self._later("idle", idle, self._end_idle)

    def _end_idle(self) -> None:
        oldest = self.clock.monotonic() - self.account.idle_timeout.total_seconds()
        for link in [link for link in self._links if not link.held and link.free_since <= oldest]:
            self._end(link)
        if self._links:
            free = [link.free_since for link in self._links if not link.held]
            wait = min(free) - oldest if free else self.account.idle_timeout.total_seconds()
            self._later("idle", max(wait, 0.01), self._end_idle)

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """End idle connections, let the others finish for `patience` (None: by their timeouts), then cut them."""
        self._closing = True
        self._budget.forget(self)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(TransportClosed())
        self._waiters.clear()
        for borrower in self._borrowers:
            if not borrower.done():
                borrower.set_exception(TransportClosed())
        self._borrowers.clear()
        for link in [link for link in self._links if not link.held]:
            self._end(link)
        if patience is None and self._links:
            await self._emptied.wait()
        deadline = self.clock.monotonic() + (patience or STOP_PATIENCE).total_seconds()
        while (self._links or self._connecting) and self.clock.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for task in list(self._connecting):
            task.cancel()
        for link in list(self._links):
            link.connection.abort()
