"""Connects over TCP: resolves, and races the addresses (RFC 8305)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..model.reply import Reply
from .local_address import family_of, is_own
from .observer import NOBODY, Observer

#: How long an address has before the next one is tried beside it (RFC 8305 section 5).
ATTEMPT_DELAY_SECONDS = 0.25

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]


class ConnectFailed(Exception):
    """No connection that mail may go over.

    `stage` is "resolve", "connect", "proxy", "tls", "greeting", "ehlo", "starttls" or "auth", or "pop": all of a POP3
    login that opens the relay. `kind` is one of "network", "tls", "certificate" (it was refused), "auth", "reply",
    "protocol", "no-mechanism", "clear-password", "credentials" (the mechanism cannot carry them), "sasl" (the exchange
    was broken off), "no-timestamp" (a POP3 server greets without one that APOP may use) and "local-address" (which is
    not this machine's); `reply` what the server said, if it did: of POP3 the words are in `reason`. `transcript` has
    what was said, without secrets.

    At stage "proxy" the way there failed, and `kind` says how: "network" (the proxy is not reached, or breaks off),
    "auth" (it asks for a login, or refuses the one it got), "no-mechanism" (it offers no login that the account may
    use), "credentials", "forbidden" (by its rules, or for what it can't do), "target" (it does not reach the relay) or
    "protocol" (what it says is none of its protocol).
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


async def addresses_of(
    host: str,
    port: int,
    family: socket.AddressFamily | None,
    resolver: Resolver = resolve,
    observer: Observer = NOBODY,
) -> list[Address]:
    """The addresses of `host` that are of `family` (None: of any), one at least.

    Raises:
        ConnectFailed: at stage "resolve".
    """
    observer.began("resolve")
    try:
        addresses = await resolver(host, port)
    except OSError as error:
        raise ConnectFailed("resolve", "network", f"{host} cannot be resolved: {words(error)}") from error
    usable = [address for address in addresses if family in (None, address[0])]
    if not usable:
        kind = {socket.AF_INET: "IPv4 ", socket.AF_INET6: "IPv6 "}[family] if family is not None and addresses else ""
        raise ConnectFailed("resolve", "network", f"{host} has no {kind}address")
    observer.found(addresses=[str(where[0]) for _, where in usable])
    return usable


async def open_tcp(
    host: str,
    port: int,
    local_address: str = "",
    family: socket.AddressFamily | None = None,
    resolver: Resolver = resolve,
    observer: Observer = NOBODY,
) -> socket.socket:
    """A socket that is connected to `host`, with TCP_NODELAY; from `local_address`, which decides the family, if any.

    Raises:
        ConnectFailed: at stage "resolve" or "connect".
    """
    if local_address:
        observer.began("connect")
        family = family_of(local_address)
        if not is_own(local_address):
            raise ConnectFailed("connect", "local-address", f"{local_address} is not an address of this machine")
    addresses = await addresses_of(host, port, family, resolver, observer)
    observer.began("connect")
    sock = await _race(host, _interleaved(addresses), local_address)
    with contextlib.suppress(OSError):  # it may be gone again
        observer.found(address=str(sock.getpeername()[0]), port=port, local_address=str(sock.getsockname()[0]))
    return sock


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
    raise unreachable(host, failures)


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


def unreachable(host: str, failures: Sequence[OSError]) -> ConnectFailed:
    """No connection to `host`, and why not."""
    reasons = "; ".join(dict.fromkeys(map(words, failures)))
    failed = ConnectFailed("connect", "network", f"no connection to {host}: {reasons}")
    failed.__cause__ = failures[-1]
    return failed


def words(error: OSError) -> str:
    """What the system says of `error`, whatever words asyncio puts in their place."""
    if error.errno is not None and error.errno > 0:  # those of getaddrinfo are not
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
