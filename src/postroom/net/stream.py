"""Connects, straight or through a proxy, and starts TLS, each failure told by its stage."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from ..model.account import NO_PROXY, Account, AddressFamily, Proxy, ProxyType
from .observer import NOBODY, Observer
from .proxy import name_of, through
from .tcp import Address, ConnectFailed, Resolver, open_tcp, resolve, unreachable, words
from .tls import ClientTls

__all__ = [
    "STRAIGHT",
    "Address",
    "ConnectFailed",
    "Resolver",
    "Way",
    "open_socket",
    "open_transport",
    "resolve",
    "start_tls",
    "tls_failure",
]

#: The loop's own limit of a handshake: out of the way of the connect timeout, which whoever connects keeps.
HANDSHAKE_SECONDS = 86_400.0

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)

_FAMILIES = {AddressFamily.IPV4: socket.AF_INET, AddressFamily.IPV6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Way:
    """How connections leave this machine: from which address of it (empty: any), over which family, through what.

    With a proxy, address and family are those of the connection to it.
    """

    local_address: str = ""
    family: AddressFamily = AddressFamily.ANY
    proxy: Proxy = NO_PROXY

    @classmethod
    def of(cls, account: Account) -> Self:
        """The way that `account` asks for."""
        return cls(account.local_address, account.address_family, account.proxy)

    @property
    def is_straight(self) -> bool:
        """No proxy stands in it."""
        return self.proxy.type is ProxyType.NONE

    def to(self, host: str) -> str:
        """Where to, and through what, as it stands in an error."""
        return host if self.is_straight else f"{host} through {name_of(self.proxy)}"


#: From any address to any address.
STRAIGHT = Way()


async def open_socket(
    host: str, port: int, way: Way = STRAIGHT, resolver: Resolver = resolve, observer: Observer = NOBODY
) -> socket.socket:
    """A socket that is connected to `host` by `way`, with TCP_NODELAY.

    Through a proxy `host` is resolved there, unless it speaks SOCKS4. A proxy that fails is never gone round.

    Raises:
        ConnectFailed: at stage "resolve", "connect" or "proxy".
    """
    family = _FAMILIES.get(way.family)
    if way.is_straight:
        return await open_tcp(host, port, way.local_address, family, resolver, observer)
    proxy, within = way.proxy, _OneStage(observer)

    def dial() -> Awaitable[socket.socket]:
        return open_tcp(proxy.host, proxy.port, way.local_address, family, resolver, within)

    return await through(proxy, host, port, dial, resolver, observer)


class _OneStage(Observer):
    """Tells what is found on the way to the proxy, all of which is the stage "proxy"."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def found(self, **facts: object) -> None:
        """See `Observer.found`."""
        self._observer.found(**{f"proxy_{name}": fact for name, fact in facts.items()})


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
            ssl_handshake_timeout=HANDSHAKE_SECONDS if tls is not None else None,
        )
    except OSError as error:
        sock.close()
        raise tls_failure(host, error) if tls is not None else unreachable(host, [error]) from error
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
        secured = await loop.start_tls(
            transport, protocol, tls.context, server_hostname=tls.server_name, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
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
        return ConnectFailed("tls", "tls", f"no TLS with {host}: {error.reason or words(error)}")
    return ConnectFailed("tls", "network", f"the TLS handshake with {host} broke off: {words(error)}")
