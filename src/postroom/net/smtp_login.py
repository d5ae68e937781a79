"""Logs in to a relay by the mechanisms that the account allows, and never goes on without (SPEC section 2.2)."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence

from ..model.account import Account, Mechanism, Verification
from ..model.reply import Reply
from ..protocol.sasl import ClientStepper, SaslError
from ..protocol.sasl.choice import client_stepper, left_after, mechanisms, sends_clear_password
from ..protocol.smtp.client_login import ClientLogin
from .smtp_connection import SmtpConnection
from .smtp_sending import ConnectionLost
from .stream import ConnectFailed

_NONCE_BYTES = 24


async def log_in(account: Account, connection: SmtpConnection, encrypt: Callable[[], Awaitable[bool]]) -> str:
    """Log in as `account` says, and return the mechanism that did it.

    `encrypt` (whether there is TLS now) is called where the server demands it.

    Raises:
        ConnectFailed: at stage "auth": the login was refused, or may not be made over this connection.
        ConnectionLost: the connection broke in the first exchange.
    """
    attempts = _Attempts(account, connection)
    last: Reply | None = None
    while (stepper := attempts.next()) is not None:
        try:
            last = await exchange(connection, stepper)
        except ConnectionLost as lost:
            if last is None or lost.reply is not None:
                raise
            raise refused(last) from lost  # some hang up behind a refusal
        if last.is_positive:
            return stepper.mechanism
        if last.code in (530, 538) and not connection.is_encrypted and await encrypt():
            attempts, last = _Attempts(account, connection), None
        else:
            attempts.refused(stepper.mechanism, last.code)
    raise refused(last) if last is not None else attempts.failure()


async def exchange(connection: SmtpConnection, stepper: ClientStepper) -> Reply:
    """The reply that ends one exchange.

    Raises:
        ConnectFailed: the exchange was broken off, or a yes is not to be believed.
        ConnectionLost: the connection broke.
    """
    login = ClientLogin(stepper)
    try:
        reply = await connection.authenticate(login)
    except ConnectionLost as lost:
        if login.fault:
            raise ConnectFailed("auth", "sasl", login.fault) from lost
        raise
    if login.fault:
        # It may be somebody else than the relay: it gets nothing more, least of all the password itself.
        raise ConnectFailed("auth", "sasl", login.fault)
    return reply


def refused(reply: Reply) -> ConnectFailed:
    """A login that ended with `reply`."""
    return ConnectFailed("auth", "auth", f"the login was refused: {reply.text}", reply=reply)


class _Attempts:
    """The mechanisms that are still to be tried on this connection, in their order."""

    def __init__(self, account: Account, connection: SmtpConnection) -> None:
        self._account = account
        self._offered = connection.extensions.get("AUTH", "").split()
        self._is_verified = connection.is_encrypted and account.verification is not Verification.OFF
        self._clear_may_go = connection.is_encrypted or account.allow_clear_password
        only = "" if account.mechanism is Mechanism.AUTO else account.mechanism.value.upper()
        self._usable = mechanisms(self._offered, only=only, is_verified=self._is_verified)
        self._left = [name for name in self._usable if self._clear_may_go or not sends_clear_password(name)]
        self._fault = ""

    def next(self) -> ClientStepper | None:
        """An exchange of the next mechanism that can carry user name and password; None if there is none."""
        account = self._account
        while self._left:
            name = self._left.pop(0)
            try:
                return client_stepper(name, account.username, account.password, secrets.token_urlsafe(_NONCE_BYTES))
            except SaslError as error:
                self._fault = self._fault or str(error)
        return None

    def refused(self, mechanism: str, code: int) -> None:
        """The server refused `mechanism` with `code`."""
        self._left = left_after(mechanism, code, self._left, is_verified=self._is_verified)

    def failure(self) -> ConnectFailed:
        """Why there was nothing to try."""
        host = self._account.host
        if self._fault:
            return ConnectFailed("auth", "credentials", self._fault)
        if self._usable:
            return ConnectFailed(
                "auth",
                "clear-password",
                f"the connection to {host} is not encrypted, and this account may not send its password in clear",
            )
        return no_mechanism(self._offered)


def no_mechanism(offered: Sequence[str]) -> ConnectFailed:
    """Nothing of what is offered can be used (SPEC section 2.2)."""
    shown = ", ".join(offered) or "none"
    reason = f"the server offers no authentication method that this account may use (offered: {shown})"
    return ConnectFailed("auth", "no-mechanism", f"{reason}; choose none if it needs no login")
