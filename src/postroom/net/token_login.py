"""Logs in to a relay by a token (RFC 7628): over TLS alone, and with another token once where one was refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from ..model.account import Account, Mechanism
from ..model.reply import Reply
from ..protocol.sasl import SaslError
from ..protocol.sasl.bearer import BearerClient
from ..protocol.sasl.choice import token_mechanisms
from .smtp_connection import SmtpConnection
from .smtp_login import exchange, no_mechanism, refused
from .smtp_sending import ConnectionLost
from .stream import ConnectFailed


class TokenSource(Protocol):
    """Who gives access tokens."""

    async def token(self, account: Account, rejected: str = "") -> str:
        """A token that is good for a while yet, and another than `rejected`.

        Raises:
            ConnectFailed: at stage "token", or "proxy": there is none.
        """


class TokenRenewed(Exception):
    """The server refused a token and hung up; there is another one now, for another connection."""


async def log_in_by_token(
    account: Account,
    connection: SmtpConnection,
    encrypt: Callable[[], Awaitable[bool]],
    token: str,
    renew: Callable[[str], Awaitable[str]] | None,
) -> str:
    """Log in with `token`, and return the mechanism that did it; refused, with the one that `renew` gives for it, once.

    `encrypt` (whether there is TLS now) is called where the connection is in clear.

    Raises:
        ConnectFailed: at stage "auth": the login was refused, or may not be made over this connection; at stage
            "token": the token was refused and there is no other.
        ConnectionLost: the connection broke in the first exchange.
        TokenRenewed: see there.
    """
    if not connection.is_encrypted and not await encrypt():
        reason = f"the connection to {account.host} is not encrypted, and a token goes over no such connection"
        raise ConnectFailed("auth", "clear-token", reason)
    offered = connection.extensions.get("AUTH", "").split()
    only = "" if account.mechanism is Mechanism.AUTO else account.mechanism.value.upper()
    left = token_mechanisms(offered, only=only)
    last: ConnectFailed | None = None
    is_renewed = False
    while left:
        try:
            stepper = BearerClient(left[0], account.username, token, account.host, account.port)
        except SaslError as error:
            raise ConnectFailed("auth", "credentials", str(error)) from None
        connection.recorded.hide(token)
        try:
            reply = await exchange(connection, stepper)
        except ConnectionLost as lost:
            if last is None or lost.reply is not None:
                raise
            raise (TokenRenewed() if is_renewed else last) from lost  # some hang up behind a refusal
        if reply.is_positive:
            return stepper.mechanism
        last = refused(_explained(reply, stepper.problem))
        if reply.code == 504:  # offered and not to be had (RFC 4954 section 4)
            left.pop(0)
        elif reply.code in (534, 535) and renew is not None and not is_renewed:
            is_renewed, token = True, await renew(token)
        else:
            break
    raise last if last is not None else no_mechanism(offered)


def _explained(reply: Reply, problem: str) -> Reply:
    """`reply` with what the server said before it, which tells more."""
    return replace(reply, lines=(*reply.lines, f"(before that: {problem})")) if problem else reply
