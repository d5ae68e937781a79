"""Opens connections to SMTP servers: TCP, TLS, greeting, EHLO and AUTH as the account says (SPEC section 2)."""

from __future__ import annotations

import asyncio

from ..model.account import Account, Authentication, Security
from ..model.reply import Reply
from ..protocol.smtp.errors import LocalProtocolError
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from .smtp_connection import ConnectionLost, SmtpConnection
from .smtp_login import log_in
from .smtp_sending import ContentSource, TransactionResult
from .stream import ConnectFailed, Resolver, Way, open_socket, open_transport, resolve
from .tls import ClientTls, client_tls

__all__ = [
    "ConnectFailed",
    "ContentSource",
    "SmtpConnection",
    "TransactionResult",
    "connect",
]

#: The port whose connections start with TLS (RFC 8314 section 3.3).
IMPLICIT_TLS_PORT = 465


async def connect(
    account: Account,
    *,
    helo_name: str,
    reply_limits: ReplyLimits = DEFAULT_LIMITS,
    resolver: Resolver = resolve,
) -> SmtpConnection:
    """A connection that transactions can be started on: encrypted and logged in as `account` asks.

    `helo_name` is what EHLO says where the account has no name of its own; empty: the address literal.

    Raises:
        ConnectFailed: see there; nothing is left open.
    """
    connection = SmtpConnection(
        account.host,
        account.helo_name or helo_name,
        account.command_timeout,
        account.end_of_data_timeout,
        reply_limits,
    )
    connection.recorded.hide(account.password)
    opening = _Opening(account, connection, resolver)
    try:
        await opening.run()
    except ConnectFailed as failure:
        connection.recorded.note(failure.reason)
        failure.transcript = connection.transcript()
        connection.leave()
        raise
    except (ConnectionLost, LocalProtocolError, ValueError) as error:
        connection.abort()
        failed = opening.failure(error)
        failed.transcript = connection.transcript()
        raise failed from error
    except BaseException:
        connection.abort()
        raise
    return connection


class _Opening:
    """The stages of one connection attempt; `stage` is the one it is in."""

    def __init__(self, account: Account, connection: SmtpConnection, resolver: Resolver) -> None:
        self._account = account
        self._connection = connection
        self._resolver = resolver
        self.stage = "connect"

    async def run(self) -> None:
        """All stages."""
        account, connection = self._account, self._connection
        implicit = account.security is Security.TLS or (
            account.security is Security.AUTO and account.port == IMPLICIT_TLS_PORT
        )
        await self._reach(implicit)
        self.stage = "greeting"
        self._require(await connection.greeting())
        await self._introduce()
        if not connection.is_encrypted and account.security is not Security.NONE:
            await self._encrypt()
        if account.authentication is Authentication.PASSWORD:
            self.stage = "auth"
            await log_in(account, connection, self._encrypt_unasked)
        connection.require_open()

    def failure(self, error: Exception) -> ConnectFailed:
        """`error` as what it means for the connection attempt."""
        if isinstance(error, ConnectionLost):
            kind = {"timeout": "network", "closing": "reply"}.get(error.kind, error.kind)
            return ConnectFailed(self.stage, kind, error.reason, reply=error.reply)
        return ConnectFailed(self.stage, "tls" if self.stage == "tls" else "protocol", str(error))

    async def _reach(self, implicit: bool) -> None:
        account, connection = self._account, self._connection
        tls = self._tls() if implicit else None
        self.stage = "connect"
        seconds = account.connect_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                sock = await open_socket(account.host, account.port, Way.of(account), self._resolver)
                self.stage = "tls" if implicit else "connect"
                await open_transport(lambda: connection, sock, account.host, tls)
        except TimeoutError:
            raise ConnectFailed(
                self.stage, "network", f"no connection to {account.host} within {seconds:g} s"
            ) from None

    async def _introduce(self) -> None:
        self.stage = "ehlo"
        reply = await self._connection.ehlo()
        if reply.is_permanent:
            reply = await self._connection.helo()
        self._require(reply)

    async def _encrypt_unasked(self) -> bool:
        if self._account.security in (Security.AUTO, Security.STARTTLS_IF_OFFERED):
            await self._encrypt(unasked=True)
            self.stage = "auth"
        return self._connection.is_encrypted

    async def _encrypt(self, *, unasked: bool = False) -> None:
        """STARTTLS by the account's rule; `unasked`: the server demands it without offering it."""
        account, connection = self._account, self._connection
        self.stage = "starttls"
        required = account.security is Security.STARTTLS
        if not unasked and "STARTTLS" not in connection.extensions:
            if required:
                raise ConnectFailed(
                    self.stage, "tls", f"{account.host} does not offer STARTTLS, which this account requires"
                )
            return
        tls = self._tls()
        self.stage = "starttls"
        seconds = account.connect_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                reply = await connection.starttls(account.host, tls)
        except TimeoutError:
            raise ConnectFailed("tls", "network", f"no TLS with {account.host} within {seconds:g} s") from None
        if reply.is_positive:
            await self._introduce()
        elif required:
            raise ConnectFailed(self.stage, "tls", f"STARTTLS was refused: {reply.text}", reply=reply)

    def _tls(self) -> ClientTls:
        self.stage = "tls"
        return client_tls(self._account)

    def _require(self, reply: Reply) -> None:
        if not reply.is_positive:
            raise ConnectFailed(self.stage, "reply", f"{self._account.host} said: {reply.text}", reply=reply)
