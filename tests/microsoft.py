"""Microsoft 365 on this machine, under its own names, which the account's proxy alone can find.

So nothing in the gateway is turned aside: it asks the hosts that it always asks, over TLS that it verifies, by fields
that every account has.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any

import trustme

from tests.graph_peer import GraphPeer
from tests.tcp_server import TcpServer
from tests.tls_relay import pem, served
from tests.token_desk import TokenDesk

#: Where tokens are given, where Graph is, and where it takes the ranges of files.
LOGIN, GRAPH, UPLOADS = "login.microsoftonline.com", "graph.microsoft.com", "outlook.office.com"

MAILBOX, TENANT = "box@x.test", "x.test"


class ConnectProxy(TcpServer):
    """An HTTP proxy (CONNECT, RFC 9110 section 9.3.6) that leads each `host:port` in `ways` to a port of this machine,
    and nobody anywhere else. With `fails` it answers everybody with 503."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: dict[str, int] = {}
        self.asked: list[str] = []
        self.fails = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead one client to where it asks to."""
        method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ", 2)
        self.asked.append(target)
        port = self.ways.get(target) if method == "CONNECT" else None
        if self.fails or port is None:
            said = "503 not now" if self.fails else "502 nobody of that name"
            writer.write(f"HTTP/1.1 {said}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        from_there, to_there = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 connected\r\n\r\n")
        both = [asyncio.ensure_future(_pump(*way)) for way in ((reader, to_there), (from_there, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in both:
                way.cancel()
            to_there.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()


class Microsoft:
    """`async with Microsoft() as microsoft`: a desk for tokens, Graph (which takes the tokens a1 to a9), a proxy."""

    def __init__(self) -> None:
        authority = trustme.CA()
        context = served(authority.issue_cert(LOGIN, GRAPH, UPLOADS, "localhost"))
        self.ca = pem(authority)
        self.desk = TokenDesk(context)
        self.graph = GraphPeer(context, f"https://{UPLOADS}")
        self.graph.tokens = {f"a{n}" for n in range(1, 10)}
        self.proxy = ConnectProxy()
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Microsoft:
        for server in (self.desk, self.graph, self.proxy):
            await self._open.enter_async_context(server)
        self.proxy.ways[f"{LOGIN}:443"] = self.desk.server.port
        self.proxy.ways |= dict.fromkeys((f"{GRAPH}:443", f"{UPLOADS}:443"), self.graph.server.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    def account(self, **fields: Any) -> dict[str, Any]:
        """The fields of an account that sends by it: an application with rights of its own, unless `fields` say
        otherwise."""
        return {
            "name": "m365", "preset": "microsoft-graph", "mailbox": MAILBOX, "oauth_flow": "client-credentials",
            "oauth_tenant": TENANT, "oauth_client_id": "app-1", "oauth_client_secret": "s3cret", "ca_bundle": self.ca,
            "proxy_type": "http-connect", "proxy_host": "127.0.0.1", "proxy_port": self.proxy.port, **fields,
        }  # fmt: skip
