"""Logs in to a POP3 server, and leaves: what opens a relay that knows its clients by that (SPEC section 2.2)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

from ..model.account import Account, PopSecurity
from ..model.clock import Clock
from ..model.quantity import duration_in_words
from ..protocol.pop3.client import Answered, ConnectionEnded, Pop3Client
from ..protocol.pop3.reply import PopReply
from ..protocol.smtp.errors import LocalProtocolError, RemoteProtocolError
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from .observer import NOBODY, Observer
from .stream import ConnectFailed, Resolver, Way, open_socket, open_transport, resolve, start_tls
from .tls import ClientTls, pop_tls
from .transcript import Transcript

#: How long a server may take to say goodbye.
QUIT_SECONDS = 2.0

#: Of a failure of the connection itself, the stage: here they are all one.
_OF_THE_STREAM = frozenset({"resolve", "connect", "tls"})


@dataclass(frozen=True, slots=True)
class PopLoggedIn:
    """A login that was made: `began` on the monotonic clock, when its first words went out."""

    began: float
    transcript: str


async def log_in(
    account: Account,
    clock: Clock,
    *,
    reply_limits: ReplyLimits = DEFAULT_LIMITS,
    resolver: Resolver = resolve,
    observer: Observer = NOBODY,
) -> PopLoggedIn:
    """Log in to the POP3 server of `account` by APOP, or by its password as it is, and say goodbye.

    `observer` is told of all this as one stage, "pop".

    Raises:
        ConnectFailed: at stage "pop", or at one of its own where a proxy failed; nothing is left open.
    """
    connection = _Connection(account.pop_host, account.command_timeout.total_seconds(), reply_limits)
    connection.recorded.hide(account.pop.password)
    if observer is not NOBODY:
        connection.recorded.told = observer.said
        connection.secured = observer.secured
    observer.began("pop")
    try:
        return await _Login(account, connection, clock, resolver, observer).run()
    except ConnectFailed as failure:
        if failure.stage in _OF_THE_STREAM:
            failure.stage = "pop"
        connection.recorded.note(failure.reason)
        failure.transcript = connection.recorded.text()
        raise
    finally:
        connection.leave()


class _Login:
    """The dialogue of one login."""

    def __init__(
        self, account: Account, connection: _Connection, clock: Clock, resolver: Resolver, observer: Observer
    ) -> None:
        self._account = account
        self._connection = connection
        self._clock = clock
        self._resolver = resolver
        self._observer = observer
        self._host = account.pop_host

    async def run(self) -> PopLoggedIn:
        """All of it."""
        security, connection = self._account.pop.security, self._connection
        tls = self._tls() if security is PopSecurity.TLS else None
        self._observer.found(host=self._host, port=self._account.pop.port)
        await self._within_connect_timeout(self._reach(tls))
        greeting = await connection.answer(None)
        self._observer.found(greeting=greeting.words)
        self._require(greeting, "does not take us")
        if security is PopSecurity.STLS:
            await self._encrypt()
        began = await (self._apop() if self._account.pop.apop else self._password())
        self._observer.found(login="APOP" if self._account.pop.apop else "USER")
        await self._say_goodbye()
        return PopLoggedIn(began, connection.recorded.text())

    async def _reach(self, tls: ClientTls | None) -> None:
        sock = await open_socket(self._host, self._account.pop.port, Way.of(self._account), self._resolver)
        await open_transport(lambda: self._connection, sock, self._host, tls)

    async def _encrypt(self) -> None:
        connection, machine = self._connection, self._connection.machine
        await connection.answer(machine.capa)  # a server that knows no CAPA may know STLS nevertheless
        if machine.capabilities is not None and "STLS" not in machine.capabilities:
            raise ConnectFailed("pop", "tls", f"{self._host} does not offer STLS, which this account requires")
        tls = self._tls()
        reply = await connection.answer(machine.stls)
        if not reply.is_positive:
            raise ConnectFailed("pop", "tls", f"{self._host} refuses STLS, which this account requires: {reply.words}")
        await self._within_connect_timeout(connection.start_tls(tls))

    async def _apop(self) -> float:
        account, machine = self._account, self._connection.machine
        if not machine.timestamp:
            has = "a timestamp that APOP must not use" if machine.greets_oddly else "no timestamp for APOP"
            reason = f"{self._host} greets with {has}, and the password does not go in clear in its place"
            raise ConnectFailed("pop", "no-timestamp", reason)
        shown = f"APOP {account.pop.username}"

        def send() -> None:
            self._connection.recorded.sent_but_for(shown, machine.apop(account.pop.username, account.pop.password))

        began = self._clock.monotonic()
        self._require_login(await self._connection.answer(send, is_shown=False))
        return began

    async def _password(self) -> float:
        account, connection = self._account, self._connection
        if not connection.is_encrypted and not account.allow_clear_password:
            raise ConnectFailed(
                "pop",
                "clear-password",
                f"the POP3 connection to {self._host} is not encrypted, and this account may not send its password in"
                " clear",
            )

        def send() -> None:
            connection.machine.password(account.pop.password)
            connection.recorded.sent_but_for("PASS", account.pop.password)

        began = self._clock.monotonic()
        self._require_login(await connection.answer(lambda: connection.machine.user(account.pop.username)))
        self._require_login(await connection.answer(send, is_shown=False))
        return began

    async def _say_goodbye(self) -> None:
        """The login stands, whatever comes now; but a mailbox that is not left may be locked for the next login."""
        try:
            async with asyncio.timeout(QUIT_SECONDS):
                await self._connection.answer(self._connection.machine.quit)
        except (ConnectFailed, TimeoutError):
            pass

    async def _within_connect_timeout(self, doing: Coroutine[None, None, None]) -> None:
        seconds = self._account.connect_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                await doing
        except TimeoutError:
            where, longest = Way.of(self._account).to(self._host), self._account.connect_timeout
            reason = f"no connection to {where} within {duration_in_words(longest)}"
            raise ConnectFailed("pop", "network", reason) from None

    def _tls(self) -> ClientTls:
        try:
            return pop_tls(self._account)
        except ValueError as error:
            raise ConnectFailed("pop", "tls", str(error)) from error

    def _require(self, reply: PopReply, what: str) -> None:
        if not reply.is_positive:
            raise ConnectFailed("pop", "reply", f"{self._host} {what}: {reply.words}")

    def _require_login(self, reply: PopReply) -> None:
        if not reply.is_positive:
            raise ConnectFailed("pop", "auth", f"{self._host} refused the POP3 login: {reply.words}")


class _Connection(asyncio.Protocol):
    """Drives the machine over a socket; one command at a time."""

    def __init__(self, host: str, command_seconds: float, limits: ReplyLimits) -> None:
        self.machine = Pop3Client(limits)
        self.recorded = Transcript()
        self.is_encrypted = False
        self.secured: Callable[[ssl.SSLObject], None] = lambda found: None
        self._host = host
        self._command_seconds = command_seconds
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[PopReply] | None = None
        self._early: PopReply | None = None  # the greeting, when it comes before it is asked for
        self._failure: ConnectFailed | None = None

    async def answer(self, send: Callable[[], None] | None, *, is_shown: bool = True) -> PopReply:
        """The reply to what `send` has the machine say; None: the greeting.

        Raises:
            ConnectFailed: the connection broke, the server broke the protocol, or nothing came in time.
        """
        if self._early is not None:
            early, self._early = self._early, None
            return early
        if self._failure is not None:
            raise self._failure
        if send is not None:
            self._say(send, is_shown)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._command_seconds):
                return await self._waiter
        except TimeoutError:
            longest = timedelta(seconds=self._command_seconds)
            reason = f"no reply from {self._host} within {duration_in_words(longest)}"
            raise ConnectFailed("pop", "network", reason) from None
        finally:
            self._waiter = None

    async def start_tls(self, tls: ClientTls) -> None:
        """TLS, after a yes to STLS."""
        if self._transport is None or self._failure is not None:
            raise self._failure or ConnectFailed("pop", "network", "the connection was closed")
        self._transport = await start_tls(self._transport, self, self._host, tls)
        self.machine.tls_started()
        self._note_encryption()

    def leave(self) -> None:
        """Say goodbye without waiting for the answer, if it was not said and may be, and close."""
        if self._transport is None:
            return
        if self._failure is None and self.machine.may_quit:
            self.machine.quit()
            self._transport.write(self.machine.take_output())
            self._transport.close()
        else:
            self._transport.abort()

    def _say(self, send: Callable[[], None], is_shown: bool) -> None:
        try:
            send()
        except LocalProtocolError as error:
            raise ConnectFailed("pop", "credentials", str(error)) from error
        output = self.machine.take_output()
        if is_shown:
            self.recorded.sent(output)
        assert self._transport is not None
        self._transport.write(output)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected (and TLS started, if implicit)."""
        self._transport = cast(asyncio.Transport, transport)
        if transport.get_extra_info("ssl_object") is not None:
            self._note_encryption()

    def data_received(self, data: bytes) -> None:
        """Replies, or pieces of them."""
        self.machine.receive(data)
        self._pump()

    def eof_received(self) -> bool:
        """The server closed its side."""
        self.machine.receive_eof()
        self._pump()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if isinstance(exc, ssl.SSLError):
            # The verdict of TLS 1.3 on a client's certificate comes behind the handshake.
            self._fail("tls", f"TLS with {self._host} was ended: {exc.reason or exc}")
        else:
            self._fail("network", f"the connection was lost: {exc}" if exc else f"{self._host} closed the connection")

    # Inside

    def _pump(self) -> None:
        try:
            while (event := self.machine.next_event()) is not None:
                if isinstance(event, ConnectionEnded):
                    self._fail("network", f"{self._host} closed the connection")
                    return
                self._answered(event)
        except RemoteProtocolError as error:
            self._fail("protocol", self.recorded.without_secrets(str(error)))

    def _answered(self, event: Answered) -> None:
        reply = event.reply
        words = self.recorded.without_secrets(reply.words)
        self.recorded.heard(words)
        if words != reply.words:
            reply = replace(reply, text=self.recorded.without_secrets(reply.text))
        if self._waiter is None:
            self._early = reply
        elif not self._waiter.done():
            self._waiter.set_result(reply)

    def _fail(self, kind: str, reason: str) -> None:
        if self._failure is not None:
            return
        self._failure = ConnectFailed("pop", kind, reason)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._failure)
        if self._transport is not None:
            self._transport.abort()

    def _note_encryption(self) -> None:
        found = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        self.is_encrypted = True
        cipher = found.cipher() if found is not None else None
        if found is not None and cipher is not None:
            self.recorded.note(f"{found.version()} with {cipher[0]}")
            self.secured(found)
