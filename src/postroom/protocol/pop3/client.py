"""The client's side of a POP3 login (RFC 1939): TLS by STLS, then APOP or USER and PASS, and goodbye."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ..smtp.errors import LocalProtocolError, RemoteProtocolError
from ..smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits, printable, quoted
from . import apop
from .reply import PopReply

_LINE = re.compile(rb"(\+OK|-ERR)(?:[ \t]+(.*))?\Z", re.DOTALL)

# RFC 2449 section 8: levels apart by a slash, without regard to case.
_CODE = re.compile(r"\[([A-Za-z0-9_.-]{1,64}(?:/[A-Za-z0-9_.-]{1,64}){0,8})\][ \t]*")

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


class PopState(StrEnum):
    """Where a login is."""

    GREETING = "greeting"  # awaits the server's first words
    AUTHORIZATION = "authorization"  # nobody is logged in
    ENCRYPTING = "encrypting"  # STLS was answered: the handshake comes
    TRANSACTION = "transaction"  # logged in
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Answered:
    """The server answered the command under way, or greeted."""

    reply: PopReply


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """The server closed the connection."""

    reason: str


Event = Answered | ConnectionEnded


class Pop3Client:
    """Give it bytes with `receive`, pull events one at a time; one command at a time, each awaits its reply."""

    def __init__(self, limits: ReplyLimits = DEFAULT_LIMITS) -> None:
        self.state = PopState.GREETING
        self.capabilities: dict[str, str] | None = None  # by keyword in capitals; None: not told since the last TLS
        self.timestamp = b""  # of the greeting; empty: it has none that APOP may use
        self.greets_oddly = False  # it has something like a timestamp, which is none
        self._limits = limits
        self._buffer = b""
        self._position = 0
        self._eof = False
        self._awaited: str | None = ""  # the verb whose reply is due
        self._status: PopReply | None = None  # of a reply that has more lines
        self._lines: list[str] = []
        self._reply_bytes = 0
        self._output = b""
        self._error: RemoteProtocolError | None = None

    # Commands

    def capa(self) -> None:
        """Ask what the server can do (RFC 2449 section 5). Raises LocalProtocolError, as all of these, out of turn."""
        self._send("CAPA", PopState.AUTHORIZATION)

    def stls(self) -> None:
        """Ask for TLS (RFC 2595 section 4); `tls_started` must follow a yes."""
        self._send("STLS", PopState.AUTHORIZATION)

    def tls_started(self) -> None:
        """The handshake is over: what the server said of itself in clear no longer counts."""
        if self.state is not PopState.ENCRYPTING:
            raise LocalProtocolError("TLS was not agreed on")
        self.state, self.capabilities = PopState.AUTHORIZATION, None

    def apop(self, user: str, password: str) -> str:
        """Log in without sending the password (RFC 1939 section 7); the digest that was sent.

        Raises:
            LocalProtocolError: also where the greeting has no timestamp, or the user name cannot be sent.
        """
        if not self.timestamp:
            raise LocalProtocolError("the greeting has no timestamp")
        name = _argument(user, "user name")
        if b" " in name:
            raise LocalProtocolError("the user name has a space, which APOP cannot carry")
        _argument(password, "password")
        digest = apop.digest(self.timestamp, password)
        self._send("APOP", PopState.AUTHORIZATION, name + b" " + digest.encode())
        return digest

    def user(self, name: str) -> None:
        """Name the mailbox."""
        self._send("USER", PopState.AUTHORIZATION, _argument(name, "user name"))

    def password(self, password: str) -> None:
        """Its password, as it is."""
        self._send("PASS", PopState.AUTHORIZATION, _argument(password, "password"))

    def quit(self) -> None:
        """Say goodbye."""
        self._send("QUIT", self.state if self.may_quit else PopState.AUTHORIZATION)

    @property
    def may_quit(self) -> bool:
        """Whether goodbye can be said now."""
        return self._awaited is None and self.state in (PopState.AUTHORIZATION, PopState.TRANSACTION)

    def take_output(self) -> bytes:
        """What is to be written."""
        output, self._output = self._output, b""
        return output

    def _send(self, verb: str, state: PopState, argument: bytes = b"") -> None:
        if self._error is not None or self._awaited is not None or self.state is not state:
            raise LocalProtocolError(f"{verb} cannot be sent now")
        self._output += verb.encode() + (b" " + argument if argument else b"") + b"\r\n"
        self._awaited = verb

    # Replies

    def receive(self, data: bytes) -> None:
        """Take in what arrived."""
        self._buffer = self._buffer[self._position :] + data
        self._position = 0

    def receive_eof(self) -> None:
        """The server closed its side."""
        self._eof = True

    def next_event(self) -> Event | None:
        """The next event; None until more arrives.

        Raises:
            RemoteProtocolError: what arrived is no POP3, or more than the limits allow; the events before it stand.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._next()
        except RemoteProtocolError as error:
            self._error, self.state = error, PopState.CLOSED
            raise

    def _next(self) -> Event | None:
        if self.state is PopState.CLOSED:
            return None
        if self._awaited is None:
            if self._has_unread:
                where = "before TLS was started" if self.state is PopState.ENCRYPTING else "without being asked"
                raise RemoteProtocolError(f"the server speaks {where}: {quoted(self._buffer[self._position :])}")
        elif (reply := self._read(self._awaited)) is not None:
            return self._answered(reply)
        if self._eof:
            self.state = PopState.CLOSED
            return ConnectionEnded("the server closed the connection")
        return None

    def _answered(self, reply: PopReply) -> Answered:
        self._awaited, self._status, self._lines, self._reply_bytes = None, None, [], 0
        if reply.command == "QUIT":
            self.state = PopState.CLOSED
        elif reply.command == "" and reply.is_positive:
            self.state = PopState.AUTHORIZATION
        elif reply.command in ("PASS", "APOP") and reply.is_positive:
            self.state = PopState.TRANSACTION
        elif reply.command == "CAPA" and reply.is_positive:
            told = (line.partition(" ") for line in reply.lines)
            self.capabilities = {keyword.upper(): more for keyword, _, more in told}
        elif reply.command == "STLS" and reply.is_positive:
            if self._has_unread:
                # Who put it there would be believed to speak inside TLS (RFC 2595 section 4).
                raise RemoteProtocolError("the server speaks before TLS was started")
            self.state = PopState.ENCRYPTING
        return Answered(reply)

    def _read(self, command: str) -> PopReply | None:
        while (line := self._next_line()) is not None:
            if self._status is None:
                status = self._parse(line, command)
                if command != "CAPA" or not status.is_positive:
                    return status
                self._status = status
            elif line == b".":
                return PopReply(True, self._status.text, self._status.code, tuple(self._lines), command)
            else:
                self._lines.append(printable(line.removeprefix(b".").decode("utf-8", "replace")))
        return None

    def _parse(self, line: bytes, command: str) -> PopReply:
        match = _LINE.match(line)
        if match is None:
            raise RemoteProtocolError(f"not a POP3 reply: {quoted(line)}")
        if not command:
            self.timestamp = apop.timestamp_of(line)
            self.greets_oddly = not self.timestamp and apop.has_brackets(line)
        text = printable((match[2] or b"").decode("utf-8", "replace"))
        code = _CODE.match(text)
        if code is None:
            return PopReply(match[1] == b"+OK", text, command=command)
        return PopReply(match[1] == b"+OK", text[code.end() :], code[1].upper(), command=command)

    def _next_line(self) -> bytes | None:
        start = self._position
        end = self._buffer.find(b"\n", start)
        size_bytes = (end + 1 if end >= 0 else len(self._buffer)) - start
        if size_bytes > self._limits.line_bytes:
            raise RemoteProtocolError(f"a reply line of more than {self._limits.line_bytes} octets")
        if end < 0:
            return None
        self._reply_bytes += size_bytes
        if self._reply_bytes > self._limits.reply_bytes:
            raise RemoteProtocolError(f"a reply of more than {self._limits.reply_bytes} octets")
        self._position = end + 1
        return self._buffer[start:end].removesuffix(b"\r")

    @property
    def _has_unread(self) -> bool:
        return self._position < len(self._buffer)


def _argument(value: str, what: str) -> bytes:
    argument = value.encode()
    if not argument:
        raise LocalProtocolError(f"the {what} is empty")
    if _CONTROLS.search(argument):
        raise LocalProtocolError(f"the {what} has a line break or another control character, which POP3 cannot carry")
    return argument
