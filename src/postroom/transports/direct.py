"""Direct delivery: each transaction goes to a host of its recipients' domain (SPEC section 2.10, RFC 5321 section 5.1).

A slot is had at once, for it is not known yet where to; a domain's share of them is the lane's business. A connection
serves one transaction at a time and is kept warm for its domain. It takes the next one while at most one outcome of it
waits for its commit (DESIGN section 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from ..model.account import Account, Security, Verification
from ..model.clock import Clock, Timer
from ..model.outcome import Bounced, Deferred, NotSent, Outcome, Scope
from ..model.quantity import duration_in_words
from ..net.smtp_client import ConnectFailed, ContentSource, SmtpConnection, TransactionResult, connect
from ..pending import Pending
from ..protocol.smtp.client_limits import believe_less
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from . import STOP_PATIENCE, ChunkReader, Slot, Transaction, TransportClosed
from .budget import ConnectionBudget
from .direct_outcomes import no_connection, of_destination
from .mail_route import Host, MailRoutes, Misses, NoRoute, Route, not_tried
from .memory import LESSON_SECONDS, Memory
from .smtp_outcomes import learned, outcomes
from .waiters import Waiters

_log = structlog.get_logger()

#: Hosts that are tried for one transaction.
MOST_TRIED = 5

#: How long it is remembered that TLS fails with a host that need not have it.
TLS_SECONDS = 3600.0


class Line:
    """An open connection to a host of a domain; `is_verified`: its certificate was."""

    __slots__ = ("connection", "domain", "free_since", "host", "in_use", "is_verified", "most", "sent", "unsettled")

    def __init__(self, domain: str, host: str, connection: SmtpConnection, most: int, *, is_verified: bool) -> None:
        self.domain = domain
        self.host = host
        self.connection = connection
        offered = connection.most_mails  # RFC 9422 section 4.1
        self.most = most if offered is None else min(most, offered)
        self.is_verified = is_verified
        self.in_use = True
        self.sent = 0
        self.unsettled = 0  # outcomes that wait for their commit
        self.free_since = 0.0

    def serves(self, route: Route) -> bool:
        """Whether a transaction for `route` may go over it now."""
        if self.in_use or self.unsettled > 1 or not self.connection.is_idle:
            return False
        return self.domain == route.domain and route.has(self.host) and (self.is_verified or not route.enforced)


def towards(account: Account, route: Route, host: Host) -> Account:
    """The direct `account` as one whose relay is `host`: TLS where offered, and verified where MTA-STS says so."""
    return dataclasses.replace(
        account, host=host.tls_name, port=account.mx_port,
        security=Security.STARTTLS if route.enforced else Security.STARTTLS_IF_OFFERED,
        verification=Verification.FULL if route.enforced else Verification.OFF,
    )  # fmt: skip


class DirectTransport:
    """The transport of an account of kind direct."""

    def __init__(
        self,
        account: Account,
        *,
        clock: Clock,
        budget: ConnectionBudget,
        helo_name: str,
        chunks: ChunkReader,
        routes: MailRoutes,
        reply_limits: ReplyLimits = DEFAULT_LIMITS,
    ) -> None:
        self._account = account
        self._clock = clock
        self._budget = budget
        self._helo_name = account.helo_name or helo_name
        self._chunks = chunks
        self._routes = routes
        self._reply_limits = reply_limits
        self._loop = asyncio.get_running_loop()
        self._in_use = 0
        self._most = account.max_connections
        self._waiting = Waiters()  # for a slot
        self._short = Waiters()  # for one of the node's connections
        self._lines: list[Line] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()  # those of `_tasks` that have written nothing
        self._ending: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._failing = Memory(clock)
        self._lessons = Memory(clock)
        self._without_tls = Memory(clock)
        self._idle: Timer | None = None
        self._closing = False

    # Slots

    async def reserve(self) -> Slot:
        """See `Transport.reserve`; there are as many as connections are allowed."""
        while not self._closing and self._in_use >= self._most:
            await self._waiting.wait()
        if self._closing:
            raise TransportClosed
        self._in_use += 1
        self._wake()  # there may be room for another
        return _DirectSlot(self)

    async def reserve_own(self) -> Slot:
        """See `Transport.reserve_own`."""
        return await self.reserve()

    def listen(self, complained: Callable[[Deferred], None]) -> None:
        """See `Transport.listen`; a destination that complains slows nobody else."""

    def withdraw(self) -> None:
        """See `Transport.withdraw`: a connection is used when it is idle, and `may_begin` is asked before."""

    def limit_connections(self, most: int | None) -> None:
        """See `Transport.limit_connections`."""
        allowed = self._account.max_connections
        self._most = allowed if most is None else max(1, min(most, allowed))
        self._wake()

    def give_back(self, line: Line | None) -> None:
        """A slot is free, and `line` with it."""
        self._in_use -= 1
        if line is not None:
            line.in_use = False
            line.free_since = self._clock.monotonic()
            if self._closing or line.sent >= line.most or not line.connection.is_usable:
                self._end(line)
            else:
                self._watch_idle()
        self._wake()
        self._short.wake()

    def _wake(self) -> None:
        if self._in_use < self._most:
            self._waiting.wake()

    # One transaction

    def send(self, slot: _DirectSlot, transaction: Transaction, told: Pending[Sequence[Outcome]]) -> None:
        """Deliver `transaction`, which has recipients of one domain, and tell the outcomes."""
        task = self._loop.create_task(self._run(slot, transaction, told), name=f"deliver {self._account.name}")
        for tasks in (self._tasks, self._connecting):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _run(self, slot: _DirectSlot, transaction: Transaction, told: Pending[Sequence[Outcome]]) -> None:
        try:
            found = await self._attempt(slot, transaction)
        except asyncio.CancelledError:  # closed before anything was written
            told.set_result([NotSent(reason="it was not begun")] * len(transaction.envelope.recipients))
        except Exception as error:
            if asyncio.current_task() not in self._connecting:
                told.set_exception(error)
                return
            _log.error("not_delivered", account=self._account.name, exc_info=error)  # and nothing was written
            failed = Deferred(status="4.3.0", reason=f"it could not be begun: {error!r}")
            told.set_result([failed] * len(transaction.envelope.recipients))
        else:
            told.set_result(found)

    async def _attempt(self, slot: _DirectSlot, transaction: Transaction) -> Sequence[Outcome]:
        recipients = transaction.envelope.recipients
        if transaction.connection is not None:
            failed = Deferred(status="4.7.1", reason="it brings a connection, and its account delivers directly")
            return [failed] * len(recipients)
        domain = domain_of(recipients[0])
        known = self._failing.find(domain)
        if known is not None and known.failure is not None:
            return [known.failure] * len(recipients)
        try:
            route = await self._routes.find(domain)
        except NoRoute as none:
            return self._failed(domain, none.failure, len(recipients))
        line = next((line for line in self._lines if line.serves(route)), None)
        if line is not None:
            line.in_use = True
            slot.line = line
            return await self._go(line, transaction)
        failures: list[Bounced | Deferred] = []
        misses = Misses()
        async with contextlib.aclosing(self._routes.hosts(route, misses)) as hosts:
            async for host in hosts:
                try:
                    slot.line = line = await self._open(route, host)
                except ConnectFailed as error:
                    failures.append(no_connection(host, error, enforced=route.enforced))
                    if len(failures) == MOST_TRIED or failures[-1].scope is Scope.ACCOUNT:
                        break
                else:
                    self._failing.forget(domain)
                    return await self._go(line, transaction)
        return self._failed(domain, failures[-1] if failures else not_tried(route, misses), len(recipients))

    def _failed(self, domain: str, failure: Bounced | Deferred, recipients: int) -> Sequence[Outcome]:
        """No host was reached: what waits for the same domain fails alike for a while, so that it holds up nobody."""
        if isinstance(failure, Deferred) and failure.scope is not Scope.ACCOUNT:
            pause = self._account.connect_retry
            when = f"tried at {self._clock.now():%H:%M:%S} UTC and not again for {duration_in_words(pause)}"
            again = f"{failure.reason}; {when}"
            kept = dataclasses.replace(failure, reason=again, reply=None, transcript="")
            self._failing.keep(domain, pause.total_seconds()).failure = kept
        return [failure] * recipients

    async def _go(self, line: Line, transaction: Transaction) -> Sequence[Outcome]:
        if not transaction.may_begin():
            line.unsettled += 1
            return [NotSent(reason="where it may go was changed meanwhile")] * len(transaction.envelope.recipients)
        return self._outcomes(line, transaction, await self._transact(line, transaction))

    async def _transact(self, line: Line, transaction: Transaction) -> TransactionResult:
        ended: asyncio.Future[TransactionResult] = self._loop.create_future()
        self._connecting.discard(asyncio.current_task())  # it ends with its connection
        source = ContentSource(transaction.head, transaction.body, self._chunks)
        watch = transaction.watch
        self._teach(line)
        line.sent += 1
        line.connection.start(transaction.envelope, source, ended.set_result, None if watch is None else watch.answered)
        return await ended

    def _outcomes(self, line: Line, transaction: Transaction, result: TransactionResult) -> Sequence[Outcome]:
        line.unsettled += 1
        if transaction.watch is not None and result.was_begun:
            transaction.watch.was_begun()
        connection = line.connection
        reports = result.envelope.dsn is not None and "DSN" in connection.extensions
        tls = connection.may_start_tls
        found = outcomes(result, line.host, connection.transcript, reports=reports, may_start_tls=tls)
        again = any(isinstance(outcome, NotSent) for outcome in found)
        if again and (lesson := learned(result, may_start_tls=tls)) is not None:
            self._lessons.keep(line.domain, LESSON_SECONDS).learn(lesson)
            if lesson.tls:
                self._end_clear(line.domain)
        return [of_destination(outcome) for outcome in found]

    def _end_clear(self, domain: str) -> None:
        """Connections to hosts of `domain` that are not encrypted, and might be, get nothing more."""
        for line in [line for line in self._lines if line.domain == domain and line.connection.may_start_tls]:
            line.most = 0
            if not line.in_use:
                self._end(line)

    def _teach(self, line: Line) -> None:
        lesson = self._lessons.find(line.domain)
        if lesson is not None:
            machine = line.connection.machine
            machine.limits = believe_less(
                machine.extensions, machine.limits, plain=lesson.plain, most_recipients=lesson.most_recipients
            )

    # Connections

    async def _open(self, route: Route, host: Host) -> Line:
        await self._room()
        try:
            connection = await self._connect(route, host)
            if not connection.is_usable:
                raise ConnectFailed("ehlo", "network", "it closed the connection")
        except BaseException:
            self._budget.give_back()
            raise
        finally:
            self._opening -= 1
        most = self._account.messages_per_connection
        line = Line(route.domain, host.name, connection, most, is_verified=route.enforced)
        self._lines.append(line)
        connection.on_closed = lambda reason: self._was_closed(line)
        return line

    async def _connect(self, route: Route, host: Host) -> SmtpConnection:
        security = Security.STARTTLS if route.enforced else Security.STARTTLS_IF_OFFERED
        if not route.enforced and self._without_tls.find(host.name) is not None:
            security = Security.NONE
        account = dataclasses.replace(towards(self._account, route, host), security=security)
        lesson = self._lessons.find(route.domain)
        try:
            return await connect(
                account, helo_name=self._helo_name, reply_limits=self._reply_limits, resolver=host.resolve,
                starttls_unasked=lesson is not None and lesson.tls,
            )  # fmt: skip
        except ConnectFailed as error:
            if error.stage == "tls" and security is Security.STARTTLS_IF_OFFERED:
                # As broken as TLS is there, the next try goes without: it was not asked for, only better than nothing.
                self._without_tls.keep(host.name, TLS_SECONDS)
            raise

    async def _room(self) -> None:
        """Wait for one of the node's connections."""
        while len(self._lines) + self._opening >= self._account.max_connections and self._end_one():
            pass
        self._opening += 1
        try:
            while not self._budget.take(self):
                if not self._end_one():
                    await self._short.wait()
        except BaseException:
            self._opening -= 1
            self._budget.serve()  # what was kept for it, another account may have
            raise
        finally:
            self._short.wake()  # the next one asks for itself

    def grow(self) -> bool:
        """One of the node's connections may be had. Whether anybody here waits for it."""
        return self._short.wake()

    def _was_closed(self, line: Line) -> None:
        if line in self._lines:
            self._lines.remove(line)
            self._budget.give_back()

    def _end_one(self) -> bool:
        """End the connection that has been idle for longest, if one is."""
        line = min((line for line in self._lines if not line.in_use), key=lambda one: one.free_since, default=None)
        if line is not None:
            self._was_closed(line)
            line.connection.leave()
        return line is not None

    def _end(self, line: Line) -> None:
        if line in self._lines:
            self._was_closed(line)
            task = self._loop.create_task(line.connection.quit())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _watch_idle(self) -> None:
        if self._idle is None and not self._closing:
            idle = self._account.idle_timeout.total_seconds()
            oldest = min((line.free_since for line in self._lines if not line.in_use), default=None)
            if oldest is not None:
                wait = max(oldest + idle - self._clock.monotonic(), 0.01)
                self._idle = self._clock.call_later(wait, self._end_idle)

    def _end_idle(self) -> None:
        self._idle = None
        oldest = self._clock.monotonic() - self._account.idle_timeout.total_seconds()
        for line in [line for line in self._lines if not line.in_use and line.free_since <= oldest]:
            self._end(line)
        self._watch_idle()

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """See `Transport.close`."""
        self._closing = True
        if self._idle is not None:
            self._idle.cancel()
        self._waiting.wake_all()
        for line in [line for line in self._lines if not line.in_use]:
            self._end(line)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=None if patience is None else patience.total_seconds())
        for line in list(self._lines):
            line.connection.abort()  # its transaction ends, and tells how
        for task in list(self._connecting):
            task.cancel()
        if self._tasks or self._ending:
            await asyncio.wait([*self._tasks, *self._ending])


class _DirectSlot:
    """The right to send one transaction; `line` is what it went over."""

    __slots__ = ("_transport", "line")

    def __init__(self, transport: DirectTransport) -> None:
        self._transport = transport
        self.line: Line | None = None

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        """See `Slot.deliver`."""
        told: Pending[Sequence[Outcome]] = Pending()
        self._transport.send(self, transaction, told)
        return told

    def settle(self) -> None:
        """See `Slot.settle`."""
        self._transport.give_back(self.line)

    def durable(self) -> None:
        """See `Slot.durable`."""
        if self.line is not None and self.line.unsettled:
            self.line.unsettled -= 1

    def cancel(self) -> None:
        """See `Slot.cancel`."""
        self._transport.give_back(None)


def domain_of(recipient: str) -> str:
    """The domain that decides where mail for `recipient` goes."""
    return recipient.rpartition("@")[2].lower().rstrip(".")
