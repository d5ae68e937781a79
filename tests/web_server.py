"""A web server on the test's own loop that says what it is told, octet by octet, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import inspect
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from tests.tcp_server import TcpServer


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


class WebServer(TcpServer):
    """`async with WebServer(say) as server`: over TLS where `context` is given."""

    def __init__(self, say: Say, context: ssl.SSLContext | None = None) -> None:
        super().__init__(context)
        self.say = say
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}" if self._context is not None else f"http://127.0.0.1:{self.port}"

    def leave(self, writer: asyncio.StreamWriter) -> None:
        """End a connection, whatever was not read yet."""
        writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what is asked."""
        number = self.connections
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
