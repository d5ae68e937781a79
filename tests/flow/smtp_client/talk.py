"""A server on loopback whose side of the dialogue is a coroutine of the test."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from postroom.model.account import Account, AccountKind, Security
from postroom.model.content import ContentId, StagedBody
from postroom.model.envelope import Envelope
from postroom.net.smtp_client import ContentSource, SmtpConnection, TransactionResult, connect
from postroom.net.stream import Address
from postroom.protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits

HEAD = b"Subject: x\r\n\r\n"


class Line:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def peer(self) -> str:
        """The IP address of the client."""
        return str(self._writer.get_extra_info("peername")[0])

    async def expect(self, *commands: str) -> None:
        """The next lines are these, to the octet."""
        for command in commands:
            assert (await self._reader.readline()) == command.encode() + b"\r\n"

    async def line(self) -> bytes:
        """The next line, with its end."""
        return await self._reader.readline()

    async def octets(self, count: int) -> bytes:
        """The next so many."""
        return await self._reader.readexactly(count)

    async def head(self) -> bytes:
        """Everything up to an empty line, and that."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def content(self) -> bytes:
        """Everything up to the end of data."""
        return (await self._reader.readuntil(b"\r\n.\r\n"))[:-3]

    async def large_content(self) -> bytes:
        """Content of any size, with the dots taken out as RFC 5321 section 4.5.2 says."""
        lines: list[bytes] = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    async def end(self) -> bytes:
        """What comes until the client closes."""
        return await self._reader.read()

    def say(self, *replies: str) -> None:
        """Write replies, all at once."""
        self._writer.write("".join(reply + "\r\n" for reply in replies).encode())

    def write(self, octets: bytes) -> None:
        """Write them as they are."""
        self._writer.write(octets)

    async def flood(self, octets: bytes) -> int:
        """Write `octets` again and again until the client has gone; how many times."""
        times = 0
        while not self._writer.transport.is_closing():
            self._writer.write(octets)
            times += 1
            await self._writer.drain()
            await asyncio.sleep(0)
        return times

    async def dribble(self, octets: bytes) -> None:
        """Write them one by one."""
        for octet in octets:
            self._writer.write(bytes([octet]))
            await self._writer.drain()
            await asyncio.sleep(0)

    async def greet(self, *offered: str) -> None:
        """Greeting and EHLO, with these extensions."""
        self.say("220 relay.test ESMTP")
        await self.expect("EHLO client.test")
        self.offer(*offered)

    def offer(self, *offered: str) -> None:
        """The reply to EHLO."""
        self.say(*(f"250-{extension}" for extension in ("relay.test", *offered)), "250 HELP")

    async def drip(self) -> None:
        """A reply that never ends, an octet now and then, until the client has gone."""
        self._writer.write(b"250-")
        while not (self._reader.at_eof() or self._writer.is_closing()):
            self._writer.write(b"x")
            await asyncio.sleep(0.01)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """The handshake of a server."""
        await self._writer.start_tls(context)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    def reset(self) -> None:
        """Hang up without a goodbye."""
        self._writer.transport.abort()


Talk = Callable[[Line], Awaitable[None]]


class Relay(AbstractAsyncContextManager["Relay"]):
    """`async with Relay(talk)`: each connection runs `talk`; what it raises is raised at the end of the block."""

    def __init__(self, talk: Talk, tls: ssl.SSLContext | None = None) -> None:
        self._talk = talk
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._errors: list[BaseException] = []
        self._talks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        if error is None:
            await asyncio.gather(*self._talks, return_exceptions=True)
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()
        if error is None and self._errors:
            raise self._errors[0]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            await self._talk(Line(reader, writer))
        except (ssl.SSLError, ConnectionError):
            pass  # the client did not like it
        except Exception as error:
            self._errors.append(error)
        finally:
            writer.close()

    def account(self, **fields: Any) -> Account:
        """An account for this relay, by the name relay.test; without TLS unless `security` says otherwise."""
        defaults: dict[str, Any] = {"security": Security.NONE, "host": "relay.test", "port": self.port}
        return Account(id=1, name="relay", kind=AccountKind.SMTP, **(defaults | fields))

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Every name is this machine."""
        return [(socket.AF_INET, ("127.0.0.1", port))]


def commands(number: int) -> tuple[str, str, str]:
    """What the envelope of message `number` looks like to the relay."""
    return f"MAIL FROM:<s{number}@x.test>", f"RCPT TO:<r{number}@y.test>", "DATA"


def start(
    connection: SmtpConnection, number: int, body: bytes | StagedBody = b"hello\r\n", **source: Any
) -> asyncio.Future[TransactionResult]:
    """Hand over message `number`."""
    future: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()
    envelope = Envelope(f"s{number}@x.test", (f"r{number}@y.test",))
    connection.start(envelope, ContentSource(HEAD, body, **source), future.set_result)
    return future


def staged(body: bytes, size: int) -> tuple[StagedBody, Callable[[StagedBody], AsyncIterator[bytes]]]:
    """`body` as it lies in the store, and its reader."""

    async def chunks(wanted: StagedBody) -> AsyncIterator[bytes]:
        assert wanted == there
        for at in range(0, len(body), size):
            yield body[at : at + size]

    there = StagedBody(ContentId(b"c" * 16), -(-len(body) // size), len(body), b"")
    return there, chunks


async def open_to(relay: Relay, **fields: Any) -> SmtpConnection:
    """A connection to it; `reply_limits`, where given, are the client's, the rest is the account's."""
    limits: ReplyLimits = fields.pop("reply_limits", DEFAULT_LIMITS)
    account = relay.account(**fields)
    return await connect(account, helo_name="client.test", reply_limits=limits, resolver=relay.resolve)


async def hang_up(line: Line) -> None:
    """Close at once."""
    line.close()
