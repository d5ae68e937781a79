"""A web server on the test's own loop that says what it is told, octet by octet, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; `connection` numbers the connections, `peer` is the address it came from."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    peer: str

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


def answer(body: bytes | Mapping[str, object], status: int = 200, **headers: str) -> bytes:
    """An HTTP answer: JSON of a mapping, octets as they are; `Retry_After` is the header Retry-After."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} as told", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


#: Says nothing, and keeps the connection; hangs up.
SILENCE = None
HANG_UP = b""

Say = Callable[[Asked], bytes | Awaitable[bytes | None] | None]


class WebServer:
    """`async with WebServer(say) as server`: over TLS where `context` is given."""

    def __init__(self, say: Say, context: ssl.SSLContext | None = None) -> None:
        self.say = say
        self.asked: list[Asked] = []
        self.connections = 0
        self.port = 0
        self._context = context
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}" if self._context is not None else f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> WebServer:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer, self.connections)
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
            first, *lines = head.rstrip("\r\n").split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(method, path, headers, body, number, writer.get_extra_info("peername")[0])
            self.asked.append(asked)
            said = self.say(asked)
            if inspect.isawaitable(said):
                said = await said
            if said is SILENCE:
                await reader.read()
                return
            writer.write(said)
            await writer.drain()
            if said == HANG_UP or b"Connection: close" in said:
                return
