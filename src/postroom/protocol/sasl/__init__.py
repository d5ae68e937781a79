"""SASL mechanisms (RFC 4422) as steppers, client and server: one message in, the next one out; base64 is not theirs."""

from __future__ import annotations

import base64
import binascii
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

    @property
    def takes_long(self) -> bool:
        """Whether an answer may need so much computing that nothing else should wait for it."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What of the messages so far nobody may be shown, beside the password; they are hidden whole in any case."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to `challenge`.

        Raises:
            SaslError: the mechanism has no answer to it.
        """

    def accepted(self) -> None:
        """The server took the login.

        Raises:
            SaslError: it took it before it had proved to know the password, as the mechanism asks of it.
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
