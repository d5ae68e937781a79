"""Connections through a proxy: SOCKS4, SOCKS4a, SOCKS5 (RFC 1928, RFC 1929) and HTTP CONNECT (RFC 9110).

A proxy that fails ends the attempt: nobody here connects to the host itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from ..model.account import Proxy, ProxyType
from . import http_connect
from .observer import NOBODY, Observer
from .tcp import ConnectFailed, Resolver, addresses_of, words
from .transcript import Transcript

#: Opens a TCP connection to the proxy.
Dial = Callable[[], Awaitable[socket.socket]]

#: A name, or an address: nothing that could end a line or a field of a request.
_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}\Z")

#: python-socks wants a time limit of its own: one that no account's is beyond.
_NO_LIMIT_SECONDS = 7 * 24 * 3600.0

#: The body of a refusal is read up to so many octets, to use the connection again.
_MAX_BODY_BYTES = 256 * 1024

#: The end of a head or of a line takes so many octets.
_LONGEST_END = 4

#: What failures of SOCKS mean: kinds of `ConnectFailed`, by the code of the reply (RFC 1928 section 6; SOCKS4: 91-93).
_SOCKS_KINDS = {
    1: "target", 2: "forbidden", 3: "target", 4: "target", 5: "target", 6: "target", 7: "forbidden", 8: "forbidden",
    91: "target", 92: "auth", 93: "auth",
}  # fmt: skip

#: Replies of a proxy that speaks HTTP begin with an H, which python-socks takes for a version.
_SPEAKS_HTTP = re.compile(r"version(?: number)?: (?:72|0X48)\Z")

_REFUSED_LOGIN = re.compile("authentication failure|No acceptable authentication|Unexpected SOCKS authentication")
_WAS_CLOSED = "Connection closed unexpectedly"


def name_of(proxy: Proxy) -> str:
    """`proxy` as it stands in an error."""
    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    return f"the proxy {host}:{proxy.port}"


async def through(
    proxy: Proxy, host: str, port: int, dial: Dial, resolver: Resolver, observer: Observer = NOBODY
) -> socket.socket:
    """A socket that `proxy` has connected to `host`, which it resolves itself, unless it speaks SOCKS4.

    `dial` connects to the proxy. Not an octet of what the host says is taken from the socket.

    Raises:
        ConnectFailed: at stage "proxy", or "resolve" where the host is resolved here.
    """
    attempt = _Attempt(proxy, dial, observer)
    if proxy.type is not ProxyType.SOCKS4 or _is_address(host):
        observer.began("proxy")
    try:
        if not _HOST.match(host) and not _is_address(host):
            raise ConnectFailed("proxy", "protocol", f"{host!r} is no host that a proxy can be asked for")
        if proxy.type is ProxyType.HTTP_CONNECT:
            return await attempt.http(host, port)
        if proxy.type is ProxyType.SOCKS4:
            return await attempt.socks4(host, port, resolver)
        if proxy.type is ProxyType.SOCKS4A and ":" in host:
            raise ConnectFailed("proxy", "forbidden", f"SOCKS4 knows no IPv6 address, and {host} is one")
        return await attempt.socks(host, port)
    except ConnectFailed as failed:
        failed.reason = attempt.without_secrets(failed.reason)
        failed.args = (failed.reason,)
        raise


def _is_address(host: str) -> bool:
    try:
        return not getattr(ipaddress.ip_address(host), "scope_id", None)
    except ValueError:
        return False


class _Attempt:
    """One attempt to get through; what it says and hears of secrets is hidden in what it tells."""

    def __init__(self, proxy: Proxy, dial: Dial, observer: Observer) -> None:
        self._proxy = proxy
        self._observer = observer
        self._dial_proxy = dial
        self._login = http_connect.ProxyLogin(proxy)

    def without_secrets(self, text: str) -> str:
        """`text`, as it may be shown."""
        hider = Transcript()
        for secret in (self._proxy.password, *self._login.secrets):
            hider.hide(secret)
        return hider.without_secrets(text)

    async def socks4(self, host: str, port: int, resolver: Resolver) -> socket.socket:
        """SOCKS4 knows IPv4 addresses alone: those of `host` are asked for in turn."""
        if _is_address(host):
            addresses = [host]
            if ":" in host:
                raise ConnectFailed("proxy", "forbidden", f"SOCKS4 knows no IPv6 address, and {host} is one")
        else:
            try:
                found = await addresses_of(host, port, socket.AF_INET, resolver, self._observer)
            except ConnectFailed as failed:
                raise ConnectFailed("resolve", failed.kind, f"{failed.reason}, and SOCKS4 needs one") from failed
            addresses = list(dict.fromkeys(str(address[0]) for _, address in found))
            self._observer.began("proxy")
        while True:
            try:
                return await self.socks(addresses.pop(0), port)
            except ConnectFailed as failed:
                if failed.kind != "target" or not addresses:
                    raise

    async def socks(self, host: str, port: int) -> socket.socket:
        """By python-socks, over a connection of ours."""
        import python_socks  # here: few accounts need it
        from python_socks.async_.asyncio import Proxy as SocksProxy

        proxy = self._proxy
        known = python_socks.ProxyType.SOCKS5 if proxy.type is ProxyType.SOCKS5 else python_socks.ProxyType.SOCKS4
        by_name = proxy.type is not ProxyType.SOCKS4
        name, password = (proxy.username, proxy.password) if proxy.use_credentials else (None, None)
        before: Any = self
        speaker = SocksProxy(known, proxy.host, proxy.port, name, password, rdns=by_name, forward=before)
        try:
            return await speaker.connect(host, port, timeout=_NO_LIMIT_SECONDS)
        except python_socks.ProxyError as error:
            raise self._socks_failure(error) from error
        except python_socks.ProxyTimeoutError as error:
            raise self._broken_off("timed out") from error
        except OSError as error:
            raise self._broken_off(words(error)) from error
        except ValueError as error:  # what it could not decode, or encode
            raise ConnectFailed("proxy", "protocol", f"{name_of(proxy)} keeps to no protocol: {error}") from error

    async def connect(self, dest_host: str, dest_port: int, timeout: float | None = None) -> socket.socket:
        """What python-socks asks of a proxy before the proxy, in whose place we stand: a connection to the proxy."""
        return await self.dial()

    async def dial(self) -> socket.socket:
        """A connection to the proxy."""
        try:
            return await self._dial_proxy()
        except ConnectFailed as failed:
            reason = f"{name_of(self._proxy)} is not reached: {failed.reason}"
            raise ConnectFailed("proxy", failed.kind, reason) from failed

    def _socks_failure(self, error: Any) -> ConnectFailed:
        name, text = name_of(self._proxy), str(error)
        if error.error_code is not None:
            kind = _SOCKS_KINDS.get(int(error.error_code), "target")
            return ConnectFailed("proxy", kind, f"{name} said: {text}")
        if text == _WAS_CLOSED:
            return self._broken_off("it closed the connection")
        if _REFUSED_LOGIN.search(text):
            if self._proxy.use_credentials:
                return ConnectFailed("proxy", "auth", f"{name} refused the login: {text}")
            return ConnectFailed("proxy", "auth", f"{name} asks for a login, and the account has none for it: {text}")
        what = "speaks HTTP, not SOCKS" if _SPEAKS_HTTP.search(text) else f"does not speak SOCKS: {text}"
        return ConnectFailed("proxy", "protocol", f"{name} {what}")

    def _broken_off(self, why: str) -> ConnectFailed:
        return ConnectFailed("proxy", "network", f"{name_of(self._proxy)} broke off: {why}")

    async def http(self, host: str, port: int) -> socket.socket:
        """By CONNECT; the requests of NTLM's login go over one connection."""
        name, login = name_of(self._proxy), self._login
        try:
            return await self._http(host, port)
        except http_connect.LoginRefused as error:
            raise ConnectFailed("proxy", error.kind, f"{name} {error}") from error
        except http_connect.ConnectRubbish as error:
            raise ConnectFailed("proxy", "protocol", f"{name} {error}") from error
        except EOFError as error:
            where = " in the middle of NTLM" if login.is_under_way else ""
            raise self._broken_off(f"it closed the connection{where}") from error
        except OSError as error:
            raise self._broken_off(words(error)) from error

    async def _http(self, host: str, port: int) -> socket.socket:
        said = self._login.begin()
        sock = await self.dial()
        try:
            while True:  # the login ends: it tries no scheme twice
                await asyncio.get_running_loop().sock_sendall(sock, http_connect.request(host, port, said))
                head = await _read_head(sock)
                if 200 <= head.status < 300:
                    return sock
                if head.status != 407:
                    raise ConnectFailed("proxy", _kind_of(head.status), f"{name_of(self._proxy)} said: {head.words}")
                said = self._login.answer(head.challenges)
                if not await _skip_body(sock, head):
                    if self._login.is_under_way:
                        raise EOFError
                    sock.close()
                    sock = await self.dial()
        except BaseException:
            sock.close()
            raise


def _kind_of(status: int) -> str:
    """What a refusal by HTTP means: kinds of `ConnectFailed`."""
    if status in (408, 425, 429):
        return "target"
    if 400 <= status < 500 or status in (501, 505):
        return "forbidden"
    return "target" if status >= 500 else "protocol"


async def _read_head(sock: socket.socket) -> http_connect.Head:
    """The head of a final reply, and not an octet behind it.

    Raises:
        EOFError: the proxy closed the connection.
        ConnectRubbish: it is none, or too long.
    """
    room = http_connect.MAX_HEAD_BYTES
    while True:
        data = await _read_to(sock, http_connect.END_OF_HEAD, room)
        head = http_connect.Head.parse(data)
        if head.status >= 200:
            return head
        room -= len(data)


async def _skip_body(sock: socket.socket, head: http_connect.Head) -> bool:
    """Read what is behind `head`; whether the connection may be used again."""
    if not head.stays_open:
        return False
    if head.is_chunked:
        return await _skip_chunks(sock)
    length = head.body_bytes
    if length is None or length > _MAX_BODY_BYTES:
        return False
    await _skip(sock, length)
    return True


async def _skip_chunks(sock: socket.socket) -> bool:
    """RFC 9112 section 7.1."""
    room = _MAX_BODY_BYTES
    while room > 0:
        line = await _read_to(sock, http_connect.END_OF_LINE, http_connect.MAX_HEAD_BYTES)
        length = http_connect.chunk_bytes(line)
        if length == 0:
            while (await _read_to(sock, http_connect.END_OF_LINE, http_connect.MAX_HEAD_BYTES)).strip():
                room -= 1
                if room < 0:
                    return False
            return True
        room -= length + len(line)
        if room > 0:
            await _skip(sock, length + 2)
    return False


async def _skip(sock: socket.socket, length: int) -> None:
    loop = asyncio.get_running_loop()
    while length:
        data = await loop.sock_recv(sock, min(length, 1 << 16))
        if not data:
            raise EOFError
        length -= len(data)


async def _read_to(sock: socket.socket, end: re.Pattern[bytes], most: int) -> bytes:
    """All up to and with `end`: one octet is waited for, and of what else is there only what belongs to it is taken."""
    loop = asyncio.get_running_loop()
    kept = bytearray()
    while len(kept) <= most:
        searched = max(len(kept) - _LONGEST_END + 1, 0)
        octet = await loop.sock_recv(sock, 1)
        if not octet:
            raise EOFError
        kept += octet
        try:
            there = sock.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            there = b""
        found = end.search(kept + there, searched)
        taken = found.end() - len(kept) if found is not None else len(there)
        if taken:
            kept += sock.recv(taken)
        if found is not None:
            return bytes(kept)
    raise http_connect.ConnectRubbish(f"sends more than {http_connect.MAX_HEAD_BYTES} octets where it should answer")
