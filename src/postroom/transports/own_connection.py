"""Transactions over connections that their messages bring (SPEC section 2.1): one is opened for one transaction.

They count among the account's connections and have half of them at most. What fails is the message's own failure:
it is deferred by the retry schedule, and neither the account nor its other mail is touched.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from ..accounts.own_connection import places
from ..accounts.own_connections import NotAllowed, OpenedConnection, OwnConnections
from ..model.account import Account, ProxyType
from ..model.clock import Clock
from ..model.connection import SealedConnection, share
from ..model.outcome import Deferred, NotSent, Outcome
from ..net.address_guard import GUARDED
from ..net.smtp_client import ConnectFailed, ContentSource, SmtpConnection, TransactionResult
from ..net.stream import Resolver, resolve
from ..pending import Pending
from ..protocol.smtp.client_limits import believe_less
from . import ChunkReader, Slot, Transaction, TransportClosed
from .budget import ConnectionBudget
from .direct_outcomes import of_destination
from .memory import LESSON_SECONDS, Memory
from .pool import ConnectionPool
from .smtp_outcomes import explain_connect_failure, learned, outcomes
from .waiters import Waiters

_log = structlog.get_logger()

#: Proxies that resolve names themselves.
_RESOLVING = frozenset({ProxyType.SOCKS4A, ProxyType.SOCKS5, ProxyType.HTTP_CONNECT})

#: Looks at the outcomes by recipient, and may have another opinion.
Judge = Callable[[Sequence[str], Sequence[Outcome]], Sequence[Outcome]]

#: Opens a connection for an account, with names resolved by a resolver; True: after the account's own login; True: with
#: STARTTLS unasked. With it comes who judges what is said there, if anybody.
Connect = Callable[[Account, Resolver, bool, bool], Awaitable[tuple[SmtpConnection, Judge | None]]]

_ANEW = "the message brought it: cancel it, and send it anew with another"
_ADVICE = {
    "auth": f"the relay refused the login. {_ANEW}",
    "no-mechanism": f"the login can't be made there. {_ANEW}",
    "clear-password": f"the password would go unencrypted. {_ANEW}, or with security starttls or tls",
    "credentials": f"the login can't be made there. {_ANEW}",
    "sasl": f"the login can't be made there. {_ANEW}",
    "certificate": "the relay's certificate must be good for the host that the message names, as for its account",
    "local-address": f"local_address is none of this machine's. {_ANEW}",
    GUARDED: "the administrator can let it: add the address or name to the application's may_connect_to",
}


class OwnLines:
    """The connections of one account that messages bring; `pool` lends their places."""

    def __init__(
        self,
        account: Account,
        *,
        clock: Clock,
        budget: ConnectionBudget,
        pool: ConnectionPool,
        chunks: ChunkReader,
        own: OwnConnections,
        connect: Connect,
        resolver: Resolver = resolve,
    ) -> None:
        self._account = account
        self._clock = clock
        self._budget = budget
        self._pool = pool
        self._chunks = chunks
        self._own = own
        self._connect = connect
        self._resolver = resolver
        self._loop = asyncio.get_running_loop()
        self._free = share(account.max_connections)
        self._waiting = Waiters()  # for a slot
        self._lessons = Memory(clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()  # those of `_tasks` that have written nothing
        self._short: set[asyncio.Task[None]] = set()  # those that wait for one of the node's connections
        self._ending: set[asyncio.Task[None]] = set()
        self._open: set[SmtpConnection] = set()
        self._closing = False

    # Slots

    async def reserve(self) -> Slot:
        """See `Transport.reserve_own`."""
        while not self._closing and not self._free:
            await self._waiting.wait()
        if self._closing:
            raise TransportClosed
        self._free -= 1
        try:
            await self._pool.lend()
        except BaseException:
            self._is_free()
            raise
        return OwnSlot(self)

    def give_back(self) -> None:
        """A slot is not used any more, nor is its place among the account's connections."""
        self._pool.take_back()
        self._is_free()

    def _is_free(self) -> None:
        self._free += 1
        self._waiting.wake()

    # One transaction

    def send(self, slot: OwnSlot, transaction: Transaction, told: Pending[Sequence[Outcome]]) -> None:
        """Deliver `transaction` over the connection that it brings, and tell the outcomes."""
        task = self._loop.create_task(self._run(slot, transaction, told), name=f"own connection {self._account.name}")
        for tasks in (self._tasks, self._connecting):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _run(self, slot: OwnSlot, transaction: Transaction, told: Pending[Sequence[Outcome]]) -> None:
        everybody = len(transaction.envelope.recipients)
        try:
            found = await self._attempt(slot, transaction)
        except (asyncio.CancelledError, TransportClosed):  # closed before anything was written
            told.set_result([NotSent(reason="it was not begun")] * everybody)
        except Exception as error:
            if asyncio.current_task() not in self._connecting:
                told.set_exception(error)
                return
            _log.error("not_delivered", account=self._account.name, exc_info=error)  # and nothing was written
            told.set_result([Deferred(status="4.3.0", reason=f"it could not be begun: {error!r}")] * everybody)
        else:
            told.set_result(found)

    async def _attempt(self, slot: OwnSlot, transaction: Transaction) -> Sequence[Outcome]:
        everybody = len(transaction.envelope.recipients)
        brought = transaction.connection
        if brought is None:
            raise ValueError("the message brings no connection")
        await self._room()
        try:
            opened = self._own.open(self._account, brought)  # rights may have changed while it waited
            connection, judge = await self._opened(opened, brought)
        except NotAllowed as refused:
            self._budget.give_back()
            return [Deferred(status="4.7.1", reason=refused.reason, advice=refused.advice)] * everybody
        except ConnectFailed as error:
            self._budget.give_back()
            return [_failed(opened, error)] * everybody
        except BaseException:
            self._budget.give_back()
            raise
        self._open.add(connection)
        try:
            if not transaction.may_begin():
                return [NotSent(reason="where it may go was changed meanwhile")] * everybody
            result = await self._transact(connection, brought, transaction)
            found = self._outcomes(connection, brought, opened.account, transaction, result)
            return found if judge is None else judge(result.envelope.recipients, found)
        finally:
            slot.ending = self._end(connection)

    async def _opened(self, opened: OpenedConnection, brought: SealedConnection) -> tuple[SmtpConnection, Judge | None]:
        resolver = opened.guard.resolver(self._resolver, opened.exempt)
        account = await through_proxy(opened, resolver)
        lesson = self._lessons.find(brought.target)
        # A relay knows who has logged in by POP3 by the address that it came from.
        keeps_login = opened.keeps_login and account.local_address == self._account.local_address
        connection, judge = await self._connect(account, resolver, keeps_login, lesson is not None and lesson.tls)
        if not connection.is_usable:
            raise ConnectFailed("ehlo", "network", "it closed the connection")
        return connection, judge

    async def _transact(
        self, connection: SmtpConnection, brought: SealedConnection, transaction: Transaction
    ) -> TransactionResult:
        lesson = self._lessons.find(brought.target)
        if lesson is not None:
            machine = connection.machine
            machine.limits = believe_less(
                machine.extensions, machine.limits, plain=lesson.plain, most_recipients=lesson.most_recipients
            )
        self._connecting.discard(asyncio.current_task())  # it ends with its connection
        ended: asyncio.Future[TransactionResult] = self._loop.create_future()
        source = ContentSource(transaction.head, transaction.body, self._chunks)
        watch = transaction.watch
        connection.start(transaction.envelope, source, ended.set_result, None if watch is None else watch.answered)
        return await ended

    def _outcomes(
        self,
        connection: SmtpConnection,
        brought: SealedConnection,
        account: Account,
        transaction: Transaction,
        result: TransactionResult,
    ) -> Sequence[Outcome]:
        if transaction.watch is not None and result.was_begun:
            transaction.watch.was_begun()
        reports = result.envelope.dsn is not None and "DSN" in connection.extensions
        tls = connection.may_start_tls
        found = outcomes(result, account.host, connection.transcript, reports=reports, may_start_tls=tls)
        again = any(isinstance(outcome, NotSent) for outcome in found)
        if again and (lesson := learned(result, may_start_tls=tls)) is not None:
            self._lessons.keep(brought.target, LESSON_SECONDS).learn(lesson)
        return [of_destination(outcome) for outcome in found]

    # The node's connections

    async def _room(self) -> None:
        if self._closing:
            raise TransportClosed
        task = asyncio.current_task()
        assert task is not None
        self._short.add(task)
        try:
            await self._budget.taken()
        finally:
            self._short.discard(task)

    def _end(self, connection: SmtpConnection) -> asyncio.Task[None]:
        task = self._loop.create_task(self._quit(connection))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _quit(self, connection: SmtpConnection) -> None:
        try:
            await connection.quit()
        finally:
            self._open.discard(connection)
            self._budget.give_back()

    async def close(self, patience: timedelta | None) -> None:
        """See `Transport.close`."""
        self._closing = True
        self._waiting.wake_all()
        for task in list(self._short):
            task.cancel()  # whoever comes next sends it
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=None if patience is None else patience.total_seconds())
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._open):
            connection.abort()  # its transaction ends, and tells how
        if self._tasks or self._ending:
            await asyncio.wait([*self._tasks, *self._ending])


class OwnSlot:
    """The right to send one transaction; `ending` is the end of its connection."""

    __slots__ = ("_lines", "ending")

    def __init__(self, lines: OwnLines) -> None:
        self._lines = lines
        self.ending: asyncio.Task[None] | None = None

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        """See `Slot.deliver`."""
        told: Pending[Sequence[Outcome]] = Pending()
        self._lines.send(self, transaction, told)
        return told

    def settle(self) -> None:
        """See `Slot.settle`; a connection that has yet to end is one of the account's until then."""
        if self.ending is None or self.ending.done():
            self._lines.give_back()
        else:
            self.ending.add_done_callback(lambda _: self._lines.give_back())

    def durable(self) -> None:
        """See `Slot.durable`: nothing more is written over the same connection."""

    def cancel(self) -> None:
        """See `Slot.cancel`."""
        self._lines.give_back()


async def through_proxy(opened: OpenedConnection, resolver: Resolver) -> Account:
    """The account as a proxy gets it that would resolve names by itself: with an address that has passed the guard.

    What the guard knows by name, and what the account itself names, is the proxy's to resolve.

    Raises:
        ConnectFailed: the guard does not let it lead there, or its host can't be resolved.
    """
    _refuse_literals(opened)
    account = opened.account
    if account.proxy.type in _RESOLVING:
        _refuse_unchecked_login(opened)
    host, is_socks4 = account.host, account.proxy.type is ProxyType.SOCKS4A  # which knows no IPv6
    if account.proxy.type not in _RESOLVING or (host, account.port) in opened.exempt or opened.guard.knows(host):
        return account
    if _is_address(host):
        return account
    try:
        addresses = await resolver(host, account.port)
    except OSError as error:
        raise ConnectFailed("resolve", "network", f"{host} cannot be resolved here: {error}") from error
    wanted = [str(where[0]) for family, where in addresses if not (is_socks4 and family != socket.AF_INET)]
    if not wanted:
        raise ConnectFailed("resolve", "network", f"{host} has no {'IPv4 ' if is_socks4 else ''}address")
    return dataclasses.replace(account, host=wanted[0], server_name=account.server_name or host)


def _refuse_literals(opened: OpenedConnection) -> None:
    """No resolver is asked for an address, and what the guard lets pass may have changed since intake."""
    for host, port in places(opened.account).values():
        if (host, port) not in opened.exempt and (kind := opened.guard.refuses_host(host)):
            reason = f"{host} leads to {kind}, which the address guard does not let pass"
            raise ConnectFailed("resolve", GUARDED, reason)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refuse_unchecked_login(opened: OpenedConnection) -> None:
    """A POP3 server's certificate is checked by its name, so the proxy would have to resolve that: nobody checks it."""
    place = places(opened.account).get("pop_host")
    if place is None or place in opened.exempt or opened.guard.knows(place[0]) or _is_address(place[0]):
        return
    reason = f"{place[0]} would be resolved by the proxy, past the address guard"
    raise ConnectFailed("resolve", GUARDED, reason)


def _failed(opened: OpenedConnection, error: ConnectFailed) -> Deferred:
    """The outcome where no connection could be had: a refusal of the account's own login is the account's failure."""
    account = opened.account
    failure = explain_connect_failure(account, error).failure
    if error.kind == "auth" and opened.keeps_login:
        return failure
    return Deferred(
        status=f"4{failure.status[1:]}", reason=failure.reason, advice=_ADVICE.get(error.kind, failure.advice),
        reply=failure.reply, remote_host=account.host, transcript=failure.transcript, retry_after=failure.retry_after,
    )  # fmt: skip
