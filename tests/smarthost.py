"""A relay whose behaviour the test configures, with named misbehaviours; it keeps what it took.

It speaks just enough SMTP to be a far side. That real relays understand us is proved in tests/interop.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Taken:
    """A message that the smarthost answered 2yz for."""

    reverse_path: str
    recipients: list[str]
    content: bytes
    connection: int


@dataclass
class Behaviour:
    """How the smarthost answers.

    `replies` maps a verb ("RCPT", "MAIL", "EHLO", "DATA", "CONTENT", "GREETING") or a whole command line to the reply
    for it, or to a list of replies for the first, second, ... time (the last stays). `close_after` closes the
    connection after it has read (and not answered) that verb; from `silent_at` on nothing is answered;
    `messages_per_connection` closes after so many. `offers` is said to EHLO, beside PIPELINING. With `tls` STARTTLS is
    taken, offered or not; `in_clear` are the replies of a connection without it, where it has one.
    """

    replies: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    close_after: str = ""
    silent_at: str = ""
    closes: int = 1_000_000
    messages_per_connection: int = 1_000_000
    pipelining: bool = True
    offers: tuple[str, ...] = ("8BITMIME", "SIZE 50000000", "ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    in_clear: Mapping[str, str] = field(default_factory=dict)


class Smarthost:
    """Listens between `start` and `stop`: on a free loopback port, or where it is told."""

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._context = context  # TLS from the first octet on
        self.address = address
        self.behaviour = behaviour or Behaviour()
        self.taken: list[Taken] = []
        self.commands: list[str] = []
        self.logins: dict[int, str] = {}  # the AUTH of each connection
        self.encrypted: set[int] = set()  # connections
        self.connections = 0
        self.contents = 0  # that came whole, answered or not
        self.port = port
        self._times: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.gate = asyncio.Event()  # replies to contents wait for it
        self.gate.set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(
            self._serve, self.address, self.port, limit=1 << 20, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    def _reply(self, verb: str, line: str = "") -> bytes:
        default = {"GREETING": "220 smarthost.test ESMTP", "AUTH": "235 2.7.0 welcome", "DATA": "354 go on"}
        default["QUIT"] = "221 2.0.0 bye"
        answer = (
            self.behaviour.replies.get(line) or self.behaviour.replies.get(verb) or default.get(verb, "250 2.0.0 ok")
        )
        if not isinstance(answer, str):
            times = self._times[verb] = self._times.get(verb, 0) + 1
            answer = answer[min(times, len(answer)) - 1]
        return answer.encode() + b"\r\n"

    def _in_clear(self, verb: str, line: str) -> bytes:
        answer = self.behaviour.in_clear.get(line) or self.behaviour.in_clear.get(verb)
        return f"{answer}\r\n".encode() if answer else b""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._talk(reader, writer, self.connections)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(self._reply("GREETING"))
        path, recipients, count, in_transaction = "", list[str](), 0, False
        while line := (await reader.readline()).decode("utf-8", "replace").rstrip("\r\n"):
            self.commands.append(line)
            verb = line.split(" ")[0].upper()
            if verb == "AUTH":
                self.logins[number] = line
            if self._closes(verb):
                return
            if verb == self.behaviour.silent_at:
                await reader.read()
                return
            reply = self._ehlo() if verb == "EHLO" and "EHLO" not in self.behaviour.replies else self._reply(verb, line)
            if number not in self.encrypted:
                reply = self._in_clear(verb, line) or reply
            if verb == "MAIL":
                path, recipients = line[line.index("<") + 1 : line.index(">")], []
                in_transaction = reply.startswith(b"2")
            elif verb in ("RCPT", "DATA") and not in_transaction:
                reply = b"503 5.5.1 need MAIL\r\n"
            elif verb == "RCPT" and reply.startswith(b"2"):
                recipients.append(line[line.index("<") + 1 : line.index(">")])
            elif verb == "DATA" and not recipients and "DATA" not in self.behaviour.replies:
                reply = b"554 5.5.1 no valid recipients\r\n"
            writer.write(reply)
            if verb == "STARTTLS" and self.behaviour.tls is not None and reply.startswith(b"2"):
                await writer.start_tls(self.behaviour.tls)
                self.encrypted.add(number)
                continue
            if verb == "DATA" and reply.startswith(b"354"):
                content = await _content(reader)
                self.contents += 1
                if self._closes("CONTENT"):
                    return
                await self.gate.wait()
                reply = self._reply("CONTENT")
                if reply.startswith(b"2") and recipients:
                    self.taken.append(Taken(path, recipients, content, number))
                writer.write(reply)
                count, in_transaction = count + 1, False
                if count >= self.behaviour.messages_per_connection:
                    await writer.drain()
                    return
            if verb == "QUIT":
                return
            await writer.drain()

    def _closes(self, verb: str) -> bool:
        if self.behaviour.close_after == verb and self.behaviour.closes > 0:
            self.behaviour.closes -= 1
            return True
        return False

    def _ehlo(self) -> bytes:
        offered = ["PIPELINING"] if self.behaviour.pipelining else []
        lines = ["smarthost.test", *offered, *self.behaviour.offers]
        return b"".join(f"250{' ' if n == len(lines) - 1 else '-'}{line}\r\n".encode() for n, line in enumerate(lines))


async def _content(reader: asyncio.StreamReader) -> bytes:
    lines = []
    while (line := await reader.readline()) != b".\r\n":
        if not line:
            raise ConnectionError
        lines.append(line[1:] if line.startswith(b".") else line)
    return b"".join(lines)
