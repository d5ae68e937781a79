"""A server on loopback whose side of the dialogue is a coroutine of the test."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from postroom.model.account import Account, AccountKind, Security
from postroom.net.stream import Address


class Line:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def expect(self, *commands: str) -> None:
        """The next lines are these, to the octet."""
        for command in commands:
            assert (await self._reader.readline()) == command.encode() + b"\r\n"

    async def content(self) -> bytes:
        """Everything up to the end of data."""
        return (await self._reader.readuntil(b"\r\n.\r\n"))[:-3]

    async def end(self) -> bytes:
        """What comes until the client closes."""
        return await self._reader.read()

    def say(self, *replies: str) -> None:
        """Write replies, all at once."""
        self._writer.write("".join(reply + "\r\n" for reply in replies).encode())

    async def greet(self, *offered: str) -> None:
        """Greeting and EHLO, with these extensions."""
        self.say("220 relay.test ESMTP")
        await self.expect("EHLO client.test")
        self.offer(*offered)

    def offer(self, *offered: str) -> None:
        """The reply to EHLO."""
        self.say(*(f"250-{extension}" for extension in ("relay.test", *offered)), "250 HELP")

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
        defaults: dict[str, Any] = {"security": Security.NONE, "host": "relay.test"}
        return Account(id=1, name="relay", kind=AccountKind.SMTP, port=self.port, **(defaults | fields))

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Every name is this machine."""
        return [(socket.AF_INET, ("127.0.0.1", port))]
