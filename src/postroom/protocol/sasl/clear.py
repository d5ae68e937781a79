"""PLAIN and LOGIN, both sides: the password itself goes over the wire."""

from __future__ import annotations

from . import Credentials, SaslError, ServerStepper


class PlainClient:
    """PLAIN (RFC 4616): user name and password in one message."""

    mechanism = "PLAIN"
    sends_clear_password = True
    takes_long = False
    secrets = ()

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

    def accepted(self) -> None:
        """Nothing is asked of the server."""


class LoginClient:
    """LOGIN (draft-murchison-sasl-login): user name, then password, each to a challenge of any wording."""

    mechanism = "LOGIN"
    sends_clear_password = True
    takes_long = False
    secrets = ()

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

    def accepted(self) -> None:
        """Nothing is asked of the server."""


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


def server_stepper(mechanism: str) -> ServerStepper | None:
    """A new exchange of `mechanism` (in any case), None if it is not served."""
    match mechanism.upper():
        case "PLAIN":
            return PlainServer()
        case "LOGIN":
            return LoginServer()
    return None


def _text(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("not UTF-8") from None
    if "\0" in text:
        raise SaslError("a user name or password with NUL")
    return text
