"""The AUTH exchange as a submission server leads it (RFC 4954); the mechanisms are those of `protocol.sasl`."""

from __future__ import annotations

from ..sasl import Credentials, SaslError, from_base64, to_base64
from ..sasl.clear import LoginServer, PlainServer, server_stepper
from .server_replies import reply_line

#: As EHLO lists them.
MECHANISMS = (PlainServer.mechanism, LoginServer.mechanism)


class LoginRefused(Exception):
    """The exchange ended before there were credentials: the reply to give."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.reply = reply_line(code, enhanced, text)


class LoginExchange:
    """One exchange, from the argument of AUTH on; `step` takes the lines that follow.

    Both raise LoginRefused.
    """

    def __init__(self, argument: bytes) -> None:
        name, _, self._initial = argument.partition(b" ")
        if not name:
            raise LoginRefused(501, "5.5.4", "Syntax: AUTH mechanism")
        stepper = server_stepper(name.decode("ascii"))
        if stepper is None:
            raise LoginRefused(504, "5.5.4", "Mechanism is not offered")
        self._stepper = stepper

    def begin(self) -> bytes | Credentials:
        """The first answer to AUTH: a reply (334), or credentials that came with it."""
        return self.step(self._initial) if self._initial else self._step(None)

    def step(self, line: bytes) -> bytes | Credentials:
        """The answer to one line of the client (without CRLF): the next reply, or what it logs in with."""
        if line == b"*":
            raise LoginRefused(501, "5.7.0", "Login cancelled")
        try:
            return self._step(from_base64(line))
        except SaslError:
            raise LoginRefused(501, "5.5.2", "Malformed credentials") from None

    def _step(self, response: bytes | None) -> bytes | Credentials:
        answer = self._stepper.step(response)
        return answer if isinstance(answer, Credentials) else b"334 " + to_base64(answer) + b"\r\n"
