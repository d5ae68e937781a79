"""Opens connections to SMTP servers: TCP, TLS, greeting, EHLO and AUTH as the account says (SPEC section 2)."""

from __future__ import annotations

import asyncio
import re
from functools import partial

from ..model.account import Account, Authentication, Security
from ..model.quantity import duration_in_words
from ..model.reply import Reply
from ..protocol.smtp.errors import LocalProtocolError
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from .observer import NOBODY, Observer
from .smtp_connection import SmtpConnection
from .smtp_login import log_in
from .smtp_sending import ConnectionLost, ContentSource, TransactionResult
from .stream import ConnectFailed, Resolver, Way, open_socket, open_transport, resolve
from .tls import ClientTls, client_tls
from .token_login import TokenRenewed, TokenSource, log_in_by_token

__all__ = [
    "ConnectFailed",
    "ContentSource",
    "SmtpConnection",
    "TransactionResult",
    "connect",
]

#: The port whose connections start with TLS (RFC 8314 section 3.3).
IMPLICIT_TLS_PORT = 465

#: What has STARTTLS sent where it is offered, and where it is demanded.
_WHERE_OFFERED = frozenset({Security.AUTO, Security.STARTTLS_IF_OFFERED})

#: What firewalls that inspect SMTP make of a keyword that they do not want.
_MASKED = re.compile("X{4,40}[A-Z]?")


async def connect(
    account: Account,
    *,
    helo_name: str,
    reply_limits: ReplyLimits = DEFAULT_LIMITS,
    resolver: Resolver = resolve,
    observer: Observer = NOBODY,
    tokens: TokenSource | None = None,
    starttls_unasked: bool = False,
) -> SmtpConnection:
    """A connection that transactions can be started on: encrypted and logged in as `account` asks.

    `helo_name` is what EHLO says where the account has no name of its own; empty: the address literal. `observer` is
    told stage by stage. `tokens` are for an account that logs in by one. `starttls_unasked`: the relay has demanded
    TLS, so that STARTTLS is sent where the account's security allows it, offered or not.

    Raises:
        ConnectFailed: see there; nothing is left open.
    """
    opened = partial(_opened, account, helo_name, reply_limits, resolver, observer, tokens, starttls_unasked)
    try:
        return await opened(may_renew=True)
    except TokenRenewed:
        return await opened(may_renew=False)


async def _opened(
    account: Account,
    helo_name: str,
    reply_limits: ReplyLimits,
    resolver: Resolver,
    observer: Observer,
    tokens: TokenSource | None,
    starttls_unasked: bool,
    *,
    may_renew: bool,
) -> SmtpConnection:
    connection = SmtpConnection(
        account.host,
        account.helo_name or helo_name,
        account.command_timeout,
        account.end_of_data_timeout,
        reply_limits,
    )
    connection.recorded.hide(account.password)
    connection.recorded.hide(account.proxy.password)
    if observer is not NOBODY:
        connection.recorded.told = observer.said
    opening = _Opening(account, connection, resolver, observer, tokens, starttls_unasked=starttls_unasked)
    try:
        await opening.run(may_renew=may_renew)
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


class _Opening(Observer):
    """The stages of one connection attempt; `stage` is the one it is in, and what it hears it tells `observer`."""

    def __init__(
        self,
        account: Account,
        connection: SmtpConnection,
        resolver: Resolver,
        observer: Observer = NOBODY,
        tokens: TokenSource | None = None,
        *,
        starttls_unasked: bool = False,
    ) -> None:
        self._account = account
        self._connection = connection
        self._resolver = resolver
        self.stage = "connect"
        self._observer = observer
        self._tokens = tokens
        self._unasked = starttls_unasked

    def began(self, stage: str) -> None:
        """See `Observer.began`."""
        self.stage = stage
        self._observer.began(stage)

    def found(self, **facts: object) -> None:
        """See `Observer.found`."""
        self._observer.found(**facts)

    async def run(self, *, may_renew: bool = True) -> None:
        """All stages; where a token is refused there is another one if it `may_renew`."""
        account, connection = self._account, self._connection
        token = await self._token()
        implicit = account.security is Security.TLS or (
            account.security is Security.AUTO and account.port == IMPLICIT_TLS_PORT
        )
        await self._reach(implicit)
        self.began("greeting")
        greeting = await connection.greeting()
        self._require(greeting)
        self.found(greeting=greeting.text)
        await self._introduce()
        if not connection.is_encrypted and account.security is not Security.NONE:
            await self._encrypt(unasked=self._unasked and account.security in _WHERE_OFFERED)
        if account.authentication is Authentication.PASSWORD:
            self.began("auth")
            self.found(mechanism=await log_in(account, connection, self._encrypt_unasked))
        elif account.authentication is Authentication.OAUTH2:
            self.began("auth")
            renew = self._token if may_renew else None
            found = await log_in_by_token(account, connection, self._encrypt_unasked, token, renew)
            self.found(mechanism=found)
        connection.require_open()
        connection.may_start_tls = (
            not connection.is_encrypted and not self._unasked and account.security in _WHERE_OFFERED
        )

    def failure(self, error: Exception) -> ConnectFailed:
        """`error` as what it means for the connection attempt."""
        if isinstance(error, ConnectionLost):
            kind = {"timeout": "network", "closing": "reply"}.get(error.kind, error.kind)
            return ConnectFailed(self.stage, kind, error.reason, reply=error.reply)
        return ConnectFailed(self.stage, "protocol", str(error))

    async def _token(self, rejected: str = "") -> str:
        """The token that the account logs in with; it is had before anything is said to the relay."""
        if self._account.authentication is not Authentication.OAUTH2:
            return ""
        if self._tokens is None:
            raise ConnectFailed("token", "consent", "nobody here gives out tokens")
        if not rejected:
            self.began("token")
        return await self._tokens.token(self._account, rejected)

    async def _reach(self, implicit: bool) -> None:
        account, connection = self._account, self._connection
        tls = self._tls() if implicit else None
        way = Way.of(account)
        seconds = account.connect_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                sock = await open_socket(account.host, account.port, way, self._resolver, self)
                if implicit:
                    self.began("tls")
                await open_transport(lambda: connection, sock, account.host, tls)
        except TimeoutError:
            reason = f"no connection to {way.to(account.host)} within {duration_in_words(account.connect_timeout)}"
            raise ConnectFailed(self.stage, "network", reason) from None
        self._tell_tls()

    def _tell_tls(self) -> None:
        secured = self._connection.tls
        if secured is not None:
            self._observer.secured(secured)

    async def _introduce(self) -> None:
        self.began("ehlo")
        reply = await self._connection.ehlo()
        if reply.is_permanent:
            reply = await self._connection.helo()
        self._require(reply)
        self.found(extensions=self._connection.extensions)

    async def _encrypt_unasked(self) -> bool:
        if self._account.security in _WHERE_OFFERED:
            self._unasked = True
            await self._encrypt(unasked=True)
            self.began("auth")
        return self._connection.is_encrypted

    async def _encrypt(self, *, unasked: bool = False) -> None:
        """STARTTLS by the account's rule; `unasked`: the server demands it without offering it."""
        account, connection = self._account, self._connection
        self.began("starttls")
        required = account.security is Security.STARTTLS
        if not unasked and "STARTTLS" not in connection.extensions:
            if required:
                masked = next((name for name in connection.extensions if _MASKED.fullmatch(name)), "")
                instead = f" (but in its place {masked})" if masked else ""
                raise ConnectFailed(
                    self.stage, "tls", f"{account.host} does not offer STARTTLS, which this account requires{instead}"
                )
            self.found(offered=False)
            return
        tls = self._tls()
        seconds = account.connect_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                reply = await connection.starttls(account.host, tls, self)
        except TimeoutError:
            reason = f"no TLS with {account.host} within {duration_in_words(account.connect_timeout)}"
            raise ConnectFailed("tls", "network", reason) from None
        if reply.is_positive:
            self._tell_tls()
            await self._introduce()
            return
        self.found(refused=reply.text)
        if required:
            raise ConnectFailed(self.stage, "tls", f"STARTTLS was refused: {reply.text}", reply=reply)

    def _tls(self) -> ClientTls:
        try:
            return client_tls(self._account)
        except ValueError as error:
            raise ConnectFailed("tls", "tls", str(error)) from error

    def _require(self, reply: Reply) -> None:
        if not reply.is_positive:
            raise ConnectFailed(self.stage, "reply", f"{self._account.host} said: {reply.text}", reply=reply)
