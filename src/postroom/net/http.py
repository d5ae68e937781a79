"""HTTP over the one way out: by an account's address and proxy, with TLS from `net.tls`, and answers that have an end.

Import it where it is used: it loads an HTTP library.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpcore2

from ..model.account import Account
from .observer import NOBODY, Observer
from .stream import ConnectFailed, Resolver, Way, open_socket, open_transport, resolve
from .tls import ClientTls, client_context, https_tls

#: What is read of an answer where the caller names no other bound.
LONGEST_ANSWER_BYTES = 1024 * 1024

#: What a connection holds of what nobody has read yet.
_READ_BYTES = 64 * 1024

#: To these names a request may go without encryption, but through no proxy: it does not leave the machine.
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Tls = Callable[[str], ClientTls]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, whole; the names of `headers` are in small letters. Redirects are answers like others."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The JSON object in the body.

        Raises:
            ValueError: it is none (an HTML page of a proxy, a truncated text, one nested without end).
        """
        try:
            found = json.loads(self.body)
        except RecursionError:
            raise ValueError("the answer is nested too deeply") from None
        if not isinstance(found, dict):
            raise ValueError("the answer is not a JSON object")
        return found


class HttpFailed(Exception):
    """No answer that can be used.

    `stage` is "resolve", "connect", "proxy", "tls" or "answer", `kind` as in `ConnectFailed`. `may_have_arrived`:
    octets of the request were written, so that the server may have done what it asks.
    """

    def __init__(self, stage: str, kind: str, reason: str, *, may_have_arrived: bool) -> None:
        super().__init__(reason)
        self.stage = stage
        self.kind = kind
        self.reason = reason
        self.may_have_arrived = may_have_arrived


class HttpClient:
    """Requests that leave by `way`. Connections stay open for `idle` after an answer; `close` ends them.

    `connect_timeout` is for resolution, TCP, proxy and TLS together; `tls` makes the TLS to a host. `observer` is told
    of each connection as of one to a relay, and of "answer": a request that begins, by whichever connection.
    """

    def __init__(
        self,
        way: Way,
        connect_timeout: timedelta,
        tls: Tls = https_tls,
        *,
        most_connections: int = 4,
        idle: timedelta = timedelta(0),
        resolver: Resolver = resolve,
        observer: Observer = NOBODY,
    ) -> None:
        self._way = way
        self._observer = observer
        self._connect_seconds = connect_timeout.total_seconds()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=client_context(protocols=("http/1.1",)),  # not used: each host has its own
            max_connections=most_connections,
            max_keepalive_connections=most_connections if idle else 0,
            keepalive_expiry=idle.total_seconds(),
            network_backend=_Network(way, self._connect_seconds, tls, resolver, observer),
        )

    @classmethod
    def of(cls, account: Account, *, idle: timedelta = timedelta(0), observer: Observer = NOBODY) -> Self:
        """A client that goes the way of `account`, and trusts its CA bundle beside the system's authorities.

        That the account does not verify its relay, or pins its certificate, is not about web servers.
        """
        return cls(
            Way.of(account),
            account.connect_timeout,
            lambda host: https_tls(host, account.ca_bundle),
            most_connections=account.max_connections,
            idle=idle,
            observer=observer,
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        patience: timedelta,
        longest_bytes: int = LONGEST_ANSWER_BYTES,
    ) -> Answer:
        """The answer to one request, of at most `longest_bytes`; all of it within `patience`, the connecting apart.

        Raises:
            HttpFailed: there is none.
            ValueError: the URL can't be asked, or is not encrypted and not this machine's own, reached without proxy.
        """
        host = _host_of(url, self._way)
        begun: list[str] = []

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started"):
                begun.append(event)
                self._observer.began("answer")

        sent = {"Host": _host_field(url), "Accept-Encoding": "identity", **(headers or {})}
        if content or method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = str(len(content))
        seconds = self._connect_seconds + patience.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                async with self._pool.stream(
                    method, url, headers=list(sent.items()), content=content, extensions={"trace": trace}
                ) as answer:
                    return await _whole(answer, longest_bytes)
        except ConnectFailed as failed:
            raise HttpFailed(failed.stage, failed.kind, failed.reason, may_have_arrived=False) from failed
        except TimeoutError:
            stage = "answer" if begun else "connect"
            reason = f"no answer from {host} within {seconds:g} s"
            raise HttpFailed(stage, "network", reason, may_have_arrived=bool(begun)) from None
        except httpcore2.LocalProtocolError as error:
            raise ValueError(f"the request can't be written: {error}") from None
        except httpcore2.RemoteProtocolError as error:
            reason = f"{host} does not answer as HTTP asks: {error}"
            raise HttpFailed("answer", "protocol", reason, may_have_arrived=True) from error
        except (httpcore2.NetworkError, OSError) as error:
            reason = f"the connection to {host} broke off: {error}"
            raise HttpFailed("answer", "network", reason, may_have_arrived=bool(begun)) from error

    async def close(self) -> None:
        """Close what is open."""
        await self._pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _host_of(url: str, way: Way) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not url.isascii() or not url.isprintable() or " " in url or not host or parts.username is not None:
        raise ValueError("the URL can't be asked")
    if parts.scheme != "https":
        if parts.scheme != "http" or host not in LOOPBACK:
            raise ValueError(f"the URL of {host} is not encrypted")
        if not way.is_straight:
            raise ValueError(f"the URL of {host} is not encrypted, and the way there leads through a proxy")
    return host


def _host_field(url: str) -> str:
    """Host (RFC 9112 section 3.2): without the port where it is the scheme's own."""
    parts = urlsplit(url)
    return parts.netloc.removesuffix({"https": ":443", "http": ":80"}[parts.scheme])


async def _whole(answer: httpcore2.Response, longest_bytes: int) -> Answer:
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    coding = headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise httpcore2.RemoteProtocolError(f"the answer is coded ({coding}), which was not asked for")
    body = bytearray()
    async for piece in answer.aiter_stream():
        body += piece
        if len(body) > longest_bytes:
            raise httpcore2.RemoteProtocolError(f"the answer has more than {longest_bytes} octets")
    return Answer(answer.status, headers, bytes(body))


class _Network(httpcore2.AsyncNetworkBackend):
    """Connects by the way of an account."""

    def __init__(self, way: Way, seconds: float, tls: Tls, resolver: Resolver, observer: Observer) -> None:
        self._way = way
        self._seconds = seconds
        self._tls = tls
        self._resolver = resolver
        self._observer = observer

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> _Wire:
        """A connection to `host`; TLS begins by `start_tls`.

        Raises:
            ConnectFailed: there is none.
        """
        deadline = asyncio.get_running_loop().time() + self._seconds
        wire = _Wire(host, self._way, deadline, self._seconds, self._tls, self._observer)
        await wire.reach(port, self._resolver)
        return wire


class _Joined(asyncio.StreamReaderProtocol):
    """The reader's protocol, which knows its transport."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does alone
        super().connection_made(transport)


class _Wire(httpcore2.AsyncNetworkStream):
    """One connection: a socket, until it is known whether TLS is spoken over it."""

    def __init__(self, host: str, way: Way, deadline: float, seconds: float, tls: Tls, observer: Observer) -> None:
        self._host = host
        self._way = way
        self._deadline = deadline
        self._seconds = seconds
        self._tls = tls
        self._observer = observer
        self._socket: Any = None
        self._reader = asyncio.StreamReader(limit=_READ_BYTES)
        self._writer: asyncio.StreamWriter | None = None

    async def reach(self, port: int, resolver: Resolver) -> None:
        """Connect the socket. Raises ConnectFailed."""
        async with self._in_time("connect" if self._way.is_straight else "proxy"):
            self._socket = await open_socket(self._host, port, self._way, resolver, self._observer)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Wire:
        """Speak TLS from now on; the context is not the one given, but that of the host. Raises ConnectFailed."""
        self._observer.began("tls")
        await self._open("tls", self._tls(server_hostname or self._host))
        assert self._writer is not None
        self._observer.secured(self._writer.get_extra_info("ssl_object"))
        return self

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come; nothing at the end."""
        try:
            return await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore2.ReadError(error) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send it."""
        if self._writer is None:
            await self._open("connect", None)
        assert self._writer is not None
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore2.WriteError(error) from error

    async def aclose(self) -> None:
        """Close it at once: nothing is owed any more."""
        if self._writer is not None:
            self._writer.transport.abort()
        elif self._socket is not None:
            self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """See the library: whether the other side has ended it, and its TLS."""
        if info == "is_readable":
            return self._writer is None or self._writer.transport.is_closing() or self._reader.at_eof()
        return self._writer.get_extra_info(info) if self._writer is not None else None

    async def _open(self, stage: str, tls: ClientTls | None) -> None:
        async with self._in_time(stage):
            protocol = await open_transport(lambda: _Joined(self._reader), self._socket, self._host, tls)
        loop = asyncio.get_running_loop()
        self._writer = asyncio.StreamWriter(protocol.transport, protocol, self._reader, loop)

    @contextlib.asynccontextmanager
    async def _in_time(self, stage: str) -> AsyncIterator[None]:
        """For a part of connecting, which has to end by the deadline of the whole."""
        try:
            async with asyncio.timeout_at(self._deadline):
                yield
        except TimeoutError:
            reason = f"no connection to {self._way.to(self._host)} within {self._seconds:g} s"
            raise ConnectFailed(stage, "network", reason) from None
