"""A strict SMTP server in memory that answers as the test says, and keeps a record of every step out of order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from postroom.model.envelope import Envelope
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import Event
from postroom.protocol.smtp.transaction import MailTransaction

HEAD = b"220 far.test ESMTP\r\n"


@dataclass
class Arrived:
    """A message that the far side answered 2yz for."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass
class FarSide:
    """`answer` gives the reply for a command line ("." is the end of data), None for the usual one.

    `offered` is said to EHLO, beside PIPELINING. `lax` answers DATA with 354 though there is no recipient. `flights`
    counts what the client wrote at once; `disorder` is what a strict server answers 503.
    """

    answer: Callable[[str], str | None] = lambda line: None
    pipelining: bool = True
    lax: bool = False
    offered: tuple[str, ...] = ("8BITMIME", "SIZE 1000")
    taken: list[Arrived] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    flights: int = 0
    _buffer: bytes = b""
    _in_content: bool = False
    _path: str | None = None
    _recipients: list[str] = field(default_factory=list)

    def receive(self, data: bytes) -> bytes:
        """The replies to what the client wrote at once."""
        self.flights += 1
        self._buffer += data
        replies = b""
        while (reply := self._next()) is not None:
            replies += reply.encode() + b"\r\n"
        return replies

    def _next(self) -> str | None:
        if self._in_content:
            end = (b"\r\n" + self._buffer).find(b"\r\n.\r\n")
            if end < 0:
                return None
            content, self._buffer = self._buffer[:end], self._buffer[end + 3 :]
            return self._content(content)
        line, crlf, rest = self._buffer.partition(b"\r\n")
        if not crlf:
            return None
        self._buffer = rest
        self.commands.append(line.decode())
        return self._command(line.decode())

    def _command(self, line: str) -> str:
        verb = line.split(" ")[0]
        given = self.answer(line)
        if verb == "EHLO":
            offered = ["far.test", *(["PIPELINING"] if self.pipelining else []), *self.offered]
            return given or "\r\n".join([*(f"250-{line}" for line in offered[:-1]), f"250 {offered[-1]}"])
        if verb == "MAIL":
            if self._path is not None:
                self.disorder.append(line)
                return "503 5.5.1 nested MAIL"
            if given is None or given.startswith("2"):
                self._path = line[line.index("<") + 1 : line.index(">")]
            return given or "250 2.1.0 ok"
        if verb == "RCPT":
            if self._path is None:
                return "503 5.5.1 need MAIL"
            if given is None or given.startswith("2"):
                self._recipients.append(line[line.index("<") + 1 : line.index(">")])
            return given or "250 2.1.5 ok"
        if verb == "DATA":
            if given is None and not self._recipients and not self.lax:
                return "554 5.5.1 no valid recipients"
            self._in_content = given is None or given.startswith("3")
            return given or "354 go on"
        if verb == "RSET":
            self._path, self._recipients = None, []
        return given or {"QUIT": "221 2.0.0 bye"}.get(verb, "250 2.0.0 ok")

    def _content(self, content: bytes) -> str:
        self._in_content = False
        path, recipients = self._path, tuple(self._recipients)
        self._path, self._recipients = None, []
        reply = self.answer(f". {content.decode('latin-1').strip()}") or "250 2.0.0 taken"
        if not recipients or path is None:
            if content:
                self.disorder.append("content without a transaction")
            return "554 5.5.1 no valid recipients" if not self.lax else "250 2.0.0 taken, from nobody to nobody"
        if reply.startswith("2"):
            self.taken.append(Arrived(path, recipients, content))
        return reply


def greeted(far_side: FarSide) -> SmtpClient:
    """A client that has said EHLO to `far_side`."""
    client = SmtpClient("client.test")
    client.receive(HEAD)
    client.next_event()
    client.ehlo()
    client.receive(far_side.receive(b"".join(client.take_output())))
    client.next_event()
    return client


def transaction(number: int, recipients: int = 1) -> MailTransaction:
    """The transaction of message `number`, from its own sender to its own recipients."""
    to = tuple(f"r{n}@m{number}.test" for n in range(recipients))
    return MailTransaction(Envelope(f"s{number}@x.test", to), 10)


def content(number: int) -> bytes:
    """The content of message `number`."""
    return b"message %d\r\n" % number


def events(client: SmtpClient) -> list[Event]:
    """All that there are now."""
    found = []
    while (event := client.next_event()) is not None:
        found.append(event)
    return found
