"""Connects: resolves, races the addresses (RFC 8305), and starts TLS, each failure told by its stage."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from ..model.account import Account, AddressFamily
from ..model.reply import Reply
from .local_address import family_of, is_own
from .observer import NOBODY, Observer
from .tls import ClientTls

#: How long an address has before the next one is tried beside it (RFC 8305 section 5).
ATTEMPT_DELAY_SECONDS = 0.25

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]
ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)

_FAMILIES = {AddressFamily.IPV4: socket.AF_INET, AddressFamily.IPV6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Way:
    """How connections leave this machine: from which address of it (empty: any), and over which family."""

    local_address: str = ""
    family: AddressFamily = AddressFamily.ANY

    @classmethod
    def of(cls, account: Account) -> Self:
        """The way that `account` asks for."""
        return cls(account.local_address, account.address_family)


#: From any address to any address.
STRAIGHT = Way()


class ConnectFailed(Exception):
    """No connection that mail may go over.

    `stage` is "resolve", "connect", "tls", "greeting", "ehlo", "starttls" or "auth"; `kind` one of "network", "tls",
    "certificate" (it was refused), "auth", "reply", "protocol", "no-mechanism", "clear-password", "credentials" (the
    mechanism cannot carry them), "sasl" (the exchange was broken off) and "local-address" (which is not this
    machine's); `reply` what the server said, if it did. `transcript` has what was said, without secrets.
    """

    def __init__(self, stage: str, kind: str, reason: str, *, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.stage = stage
        self.kind = kind
        self.reason = reason
        self.reply = reply
        self.transcript = ""


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of `host`, in the system's order.

    Raises:
        OSError: it has none, or nobody can say.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


async def open_socket(
    host: str, port: int, way: Way = STRAIGHT, resolver: Resolver = resolve, observer: Observer = NOBODY
) -> socket.socket:
    """A socket that is connected to `host` by `way`, with TCP_NODELAY.

    Raises:
        ConnectFailed: at stage "resolve" or "connect".
    """
    local_address, family = way.local_address, _FAMILIES.get(way.family)
    if local_address:
        observer.began("connect")
        family = family_of(local_address)
        if not is_own(local_address):
            raise ConnectFailed("connect", "local-address", f"{local_address} is not an address of this machine")
    observer.began("resolve")
    try:
        addresses = await resolver(host, port)
    except OSError as error:
        raise ConnectFailed("resolve", "network", f"{host} cannot be resolved: {_words(error)}") from error
    usable = [address for address in addresses if family in (None, address[0])]
    if not usable:
        kind = {socket.AF_INET: "IPv4 ", socket.AF_INET6: "IPv6 "}[family] if family is not None and addresses else ""
        raise ConnectFailed("resolve", "network", f"{host} has no {kind}address")
    observer.found(addresses=[str(where[0]) for _, where in usable])
    observer.began("connect")
    sock = await _race(host, _interleaved(usable), local_address)
    with contextlib.suppress(OSError):  # it may be gone again
        observer.found(address=str(sock.getpeername()[0]), port=port, local_address=str(sock.getsockname()[0]))
    return sock


async def open_transport(
    factory: Callable[[], ProtocolT], sock: socket.socket, host: str, tls: ClientTls | None = None
) -> ProtocolT:
    """Join the connected `sock` to a new protocol, after the TLS handshake if `tls` is given.

    Raises:
        ConnectFailed: at stage "tls" or "connect".
    """
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await loop.create_connection(
            factory,
            sock=sock,
            ssl=tls.context if tls is not None else None,
            server_hostname=tls.server_name if tls is not None else None,
        )
    except OSError as error:
        sock.close()
        raise tls_failure(host, error) if tls is not None else _unreachable(host, [error]) from error
    except BaseException:
        sock.close()
        raise
    if tls is not None:
        _require_allowed(transport, host, tls)
    return protocol


async def start_tls(
    transport: asyncio.Transport, protocol: asyncio.BaseProtocol, host: str, tls: ClientTls
) -> asyncio.Transport:
    """TLS over `transport`; the transport to use from now on.

    Raises:
        ConnectFailed: at stage "tls"; the connection is closed.
    """
    loop = asyncio.get_running_loop()
    try:
        secured = await loop.start_tls(transport, protocol, tls.context, server_hostname=tls.server_name)
    except OSError as error:
        transport.abort()
        raise tls_failure(host, error) from error
    if secured is None:
        raise ConnectFailed("tls", "network", f"{host} closed the connection in the TLS handshake")
    _require_allowed(secured, host, tls)
    return secured


def _require_allowed(transport: asyncio.Transport, host: str, tls: ClientTls) -> None:
    found: ssl.SSLObject = transport.get_extra_info("ssl_object")
    version = tls.refused_version(found.version())
    certificate = tls.refused_certificate(found.getpeercert(binary_form=True))
    if version or certificate:
        transport.abort()
    if version:
        raise ConnectFailed("tls", "tls", f"no TLS with {host}: {version}")
    if certificate:
        raise ConnectFailed("tls", "certificate", f"the certificate of {host} was refused: {certificate}")


def tls_failure(host: str, error: OSError) -> ConnectFailed:
    """What a failed handshake means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"the certificate of {host} was refused: {error.verify_message}"
        return ConnectFailed("tls", "certificate", reason)
    if isinstance(error, ssl.SSLError):
        return ConnectFailed("tls", "tls", f"no TLS with {host}: {error.reason or _words(error)}")
    return ConnectFailed("tls", "network", f"the TLS handshake with {host} broke off: {_words(error)}")


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Families in turn, the one of the first address first (RFC 8305 section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    ordered: list[Address] = []
    while first or others:
        ordered += first[:1] + others[:1]
        first, others = first[1:], others[1:]
    return ordered


async def _race(host: str, waiting: list[Address], local_address: str) -> socket.socket:
    running: set[asyncio.Task[socket.socket]] = set()
    failures: list[OSError] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_connected(waiting.pop(0), local_address)))
            done, _ = await asyncio.wait(
                running,
                timeout=ATTEMPT_DELAY_SECONDS if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                running.discard(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                failures.append(error)
    finally:
        for attempt in running:
            attempt.add_done_callback(_close_late)
            attempt.cancel()
    raise _unreachable(host, failures)


async def _connected(address: Address, local_address: str) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local_address:
            sock.bind((local_address, 0))
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _unreachable(host: str, failures: Sequence[OSError]) -> ConnectFailed:
    reasons = "; ".join(dict.fromkeys(map(_words, failures)))
    failed = ConnectFailed("connect", "network", f"no connection to {host}: {reasons}")
    failed.__cause__ = failures[-1]
    return failed


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
