"""SASL mechanisms (RFC 4422) as steppers, client and server: one message in, the next one out; base64 is not theirs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class SaslError(Exception):
    """The exchange cannot go on: the other side sent what the mechanism does not know, or a value cannot be sent."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client proved to know: `login` acts for `authorization` where that is another name (RFC 4422, 3.4.1)."""

    login: str
    password: str = field(repr=False)
    authorization: str = ""


class ClientStepper(Protocol):
    """The client's side of one mechanism."""

    @property
    def mechanism(self) -> str:
        """The registered name."""

    @property
    def sends_clear_password(self) -> bool:
        """Whether who reads the exchange knows the password."""

    def initial_response(self) -> bytes | None:
        """What may go with the AUTH command; None if the server speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to `challenge`.

        Raises:
            SaslError: the mechanism has no answer to it.
        """


class ServerStepper(Protocol):
    """The server's side of one mechanism."""

    @property
    def mechanism(self) -> str:
        """The registered name."""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """The next challenge, or what the client sent in the end. None: AUTH came without an initial response.

        Raises:
            SaslError: it is not what the mechanism asks for.
        """


class PlainClient:
    """PLAIN (RFC 4616): user name and password in one message."""

    mechanism = "PLAIN"
    sends_clear_password = True

    def __init__(self, login: str, password: str) -> None:
        # RFC 4616 section 2: NUL separates, and neither may be empty.
        if "\0" in login or "\0" in password:
            raise SaslError("a user name or password with NUL cannot be sent")
        if not login or not password:
            raise SaslError("PLAIN needs a user name and a password")
        self._message = b"\0" + login.encode() + b"\0" + password.encode()
        self._sent = False

    def initial_response(self) -> bytes | None:
        """All of it."""
        self._sent = True
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """All of it, to the empty challenge of a server that took no initial response."""
        if self._sent or challenge:
            raise SaslError("the server asks for more than PLAIN has")
        self._sent = True
        return self._message


class LoginClient:
    """LOGIN (draft-murchison-sasl-login): user name, then password, each to a challenge of any wording."""

    mechanism = "LOGIN"
    sends_clear_password = True

    def __init__(self, login: str, password: str) -> None:
        self._answers = [login.encode(), password.encode()]

    def initial_response(self) -> bytes | None:
        """None: not every server takes the user name with the command."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """The user name, then the password."""
        if not self._answers:
            raise SaslError("the server asks for more than LOGIN has")
        return self._answers.pop(0)


class PlainServer:
    """PLAIN (RFC 4616)."""

    mechanism = "PLAIN"

    def step(self, response: bytes | None) -> bytes | Credentials:
        """An empty challenge where nothing came with the command, then the credentials."""
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise SaslError("PLAIN is authorization identity, NUL, user name, NUL, password")
        authorization, login, password = map(_text, parts)
        if not login or not password:
            raise SaslError("PLAIN needs a user name and a password")
        return Credentials(login, password, authorization)


class LoginServer:
    """LOGIN (draft-murchison-sasl-login); the user name may come with the command."""

    mechanism = "LOGIN"

    def __init__(self) -> None:
        self._login: str | None = None

    def step(self, response: bytes | None) -> bytes | Credentials:
        """The challenges that clients of this mechanism look for, word by word, then the credentials."""
        if response is None:
            return b"Username:"
        if self._login is None:
            self._login = _text(response)
            if not self._login:
                raise SaslError("LOGIN needs a user name")
            return b"Password:"
        return Credentials(self._login, _text(response))


def client_stepper(
    offered: Sequence[str], login: str, password: str, *, refused: Sequence[str] = ()
) -> ClientStepper | None:
    """The first mechanism of ours, best first, that the server offers and has not `refused`; None if there is none.

    Raises:
        SaslError: user name or password cannot be sent.
    """
    names = {name.upper() for name in offered} - {name.upper() for name in refused}
    if PlainClient.mechanism in names:
        return PlainClient(login, password)
    if LoginClient.mechanism in names:
        return LoginClient(login, password)
    return None


def server_stepper(mechanism: str) -> ServerStepper | None:
    """A new exchange of `mechanism` (in any case), None if it is not served."""
    match mechanism.upper():
        case "PLAIN":
            return PlainServer()
        case "LOGIN":
            return LoginServer()
    return None


def to_base64(message: bytes) -> bytes:
    """A message as AUTH carries it behind the command or a 334 (RFC 4954 section 4)."""
    return base64.b64encode(message)


def from_base64(line: bytes) -> bytes:
    """The message that an AUTH line carries; `=` alone is the empty one (RFC 4954 section 4).

    Raises:
        SaslError: it is not base64.
    """
    if line == b"=":
        return b""
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise SaslError("not base64") from None


def _text(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("not UTF-8") from None
    if "\0" in text:
        raise SaslError("a user name or password with NUL")
    return text
