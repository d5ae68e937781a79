"""The SMTP transport: transactions over pooled connections, and what they teach about the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from ..accounts.own_connections import OwnConnections
from ..model.account import Account, Authentication
from ..model.clock import Clock
from ..model.outcome import Deferred, NotSent, Outcome
from ..net import pop3_login
from ..net.smtp_client import ConnectFailed, ContentSource, SmtpConnection, TransactionResult, connect
from ..net.stream import Resolver, resolve
from ..net.token_login import TokenSource
from ..pending import Pending
from ..protocol.smtp.client_limits import believe_less
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from . import STOP_PATIENCE, AccountUnavailable, ChunkReader, Slot, Transaction, TransportClosed
from .budget import ConnectionBudget
from .own_connection import Judge, OwnLines
from .pool import ConnectionPool, Link
from .pop_before_smtp import PopBeforeSmtp, log_in_once
from .smtp_outcomes import Lesson, explain_connect_failure, learned, outcomes

#: How long it is remembered how many recipients a relay takes in one transaction.
LESSON_SECONDS = 3600.0


class SmtpTransport:
    """The transport of an account of kind smtp."""

    def __init__(
        self,
        account: Account,
        *,
        clock: Clock,
        budget: ConnectionBudget,
        helo_name: str,
        chunks: ChunkReader,
        reply_limits: ReplyLimits = DEFAULT_LIMITS,
        own: OwnConnections | None = None,
        resolver: Resolver = resolve,
        tokens: TokenSource | None = None,
    ) -> None:
        self._account = account
        self._tokens = tokens
        self._helo_name = account.helo_name or helo_name
        self._chunks = chunks
        self._reply_limits = reply_limits
        self._pool = ConnectionPool(
            account, clock, budget, connect=self._connect, start=self._start,
            explain=partial(explain_connect_failure, account),
        )  # fmt: skip
        self._own = None
        if own is not None:
            self._own = OwnLines(
                account, clock=clock, budget=budget, pool=self._pool, chunks=chunks, own=own,
                connect=self._connect_own, resolver=resolver,
            )  # fmt: skip
        self._clock = clock
        self._opener: PopBeforeSmtp | None = None
        if account.authentication is Authentication.POP:
            self._opener = PopBeforeSmtp(
                account, clock, partial(pop3_login.log_in, account, clock, reply_limits=reply_limits)
            )
        self._plain = False
        self._starttls_unasked = False
        self._most_recipients: int | None = None
        self._most_recipients_until = 0.0

    async def _connect(self) -> SmtpConnection:
        connection, _ = await self._log_in_and_connect(self._account, resolve)
        self._adjust(connection)
        return connection

    async def _log_in_and_connect(
        self, account: Account, resolver: Resolver, starttls_unasked: bool = False
    ) -> tuple[SmtpConnection, int]:
        """A connection, and the number of the POP3 login that opened the relay for it."""
        opener = self._opener
        while True:
            number = 0 if opener is None else await opener.ready()
            try:
                connection = await self._dial(account, resolver, starttls_unasked or self._starttls_unasked)
            except ConnectFailed as failure:
                if opener is not None and failure.reply is not None:
                    opener.forget()  # it may be shut to those whom it does not know
                raise
            is_too_clear = self._starttls_unasked and connection.may_start_tls  # TLS was demanded meanwhile
            if not is_too_clear and (opener is None or opener.stands(number)):
                return connection, number
            connection.leave()

    async def _connect_own(
        self, account: Account, resolver: Resolver, keeps_login: bool, starttls_unasked: bool
    ) -> tuple[SmtpConnection, Judge | None]:
        if keeps_login and self._opener is not None:
            connection, number = await self._log_in_and_connect(account, resolver, starttls_unasked)
            return connection, self._judge(self._opener, number)
        if account.authentication is Authentication.POP:
            await log_in_once(account, self._clock, self._reply_limits, resolver)
        return await self._dial(account, resolver, starttls_unasked), None

    async def _dial(self, account: Account, resolver: Resolver, starttls_unasked: bool) -> SmtpConnection:
        return await connect(
            account, helo_name=self._helo_name, reply_limits=self._reply_limits, resolver=resolver,
            tokens=self._tokens, starttls_unasked=starttls_unasked,
        )  # fmt: skip

    def _judge(self, opener: PopBeforeSmtp, number: int) -> Judge:
        return partial(opener.judged, number=number, pool=self._pool)

    def _adjust(self, connection: SmtpConnection) -> None:
        if self._clock.monotonic() > self._most_recipients_until:
            self._most_recipients = None
        if self._plain or self._most_recipients is not None:
            machine = connection.machine
            machine.limits = believe_less(
                machine.extensions, machine.limits, plain=self._plain, most_recipients=self._most_recipients
            )

    def learn(self, lesson: Lesson) -> None:
        """Treat the relay from now on as `lesson` says."""
        self._plain |= lesson.plain
        if lesson.tls and not self._starttls_unasked:
            self._starttls_unasked = True
            self._pool.retire()
        if lesson.most_recipients:
            self._most_recipients = min(self._most_recipients or lesson.most_recipients, lesson.most_recipients)
            self._most_recipients_until = self._clock.monotonic() + LESSON_SECONDS
        for connection in self._pool.connections():
            self._adjust(connection)

    def _start(
        self, connection: SmtpConnection, transaction: Transaction, done: Callable[[TransactionResult], None]
    ) -> None:
        source = ContentSource(transaction.head, transaction.body, self._chunks)
        watch = transaction.watch
        connection.start(transaction.envelope, source, done, None if watch is None else watch.answered)

    def succeed(self, former: SmtpTransport) -> None:
        """Count among the account's connections those that its `former` transport still has to the same relay."""
        was, account = former._account, self._account
        if (was.host, was.port) == (account.host, account.port):
            self._pool.succeed(former._pool)

    async def reserve(self) -> Slot:
        """See `Transport.reserve`."""
        if self._opener is None:
            return SmtpSlot(await self._pool.reserve(), self.learn)
        try:
            number = await self._opener.ready()
        except TransportClosed:
            raise
        except Exception as error:  # every failure to connect is told to who waits
            raise explain_connect_failure(self._account, error) from error
        return SmtpSlot(await self._pool.reserve(), self.learn, self._judge(self._opener, number))

    async def reserve_own(self) -> Slot:
        """See `Transport.reserve_own`."""
        if self._own is None:
            raise AccountUnavailable(Deferred(status="4.3.5", reason="it takes no connections that messages bring"))
        return await self._own.reserve()

    def listen(self, complained: Callable[[Deferred], None]) -> None:
        """See `Transport.listen`."""
        self._pool.complained = complained

    def limit_connections(self, most: int | None) -> None:
        """See `Transport.limit_connections`."""
        self._pool.limit_connections(most)

    def withdraw(self) -> None:
        """See `Transport.withdraw`."""
        self._pool.withdraw()

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """See `Transport.close`."""
        if self._opener is not None:
            self._opener.close()
        if self._own is None:
            await self._pool.close(patience)
        else:
            await asyncio.gather(self._pool.close(patience), self._own.close(patience))


class SmtpSlot:
    """One transaction's place on a link."""

    __slots__ = ("_judge", "_learn", "_link", "_sent")

    def __init__(self, link: Link, learn: Callable[[Lesson], None], judge: Judge | None = None) -> None:
        self._link = link
        self._learn = learn
        self._judge = judge
        self._sent = False

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        """See `Slot.deliver`."""
        told: Pending[Sequence[Outcome]] = Pending()

        def ended(sent: Pending[TransactionResult | None]) -> None:
            result = sent.result()
            if result is None:
                told.set_result([NotSent(remote_host=self._link.remote_host)] * len(transaction.envelope.recipients))
                return
            self._sent = True
            if transaction.watch is not None and result.was_begun:
                transaction.watch.was_begun()
            try:
                connection = self._link.connection
                reports = result.envelope.dsn is not None and "DSN" in connection.extensions
                tls, host = connection.may_start_tls, self._link.remote_host
                found = outcomes(result, host, connection.transcript, reports=reports, may_start_tls=tls)
                again = any(isinstance(outcome, NotSent) for outcome in found)
                if again and (lesson := learned(result, may_start_tls=tls)) is not None:
                    self._learn(lesson)
                if self._judge is not None:
                    found = self._judge(result.envelope.recipients, found)
            except Exception as error:
                told.set_exception(error)
            else:
                told.set_result(found)

        self._link.send(transaction).add_done_callback(ended)
        return told

    def settle(self) -> None:
        """See `Slot.settle`."""
        self._link.settle()

    def durable(self) -> None:
        """See `Slot.durable`."""
        if self._sent:
            self._link.durable()

    def cancel(self) -> None:
        """See `Slot.cancel`."""
        self._link.cancel()
