"""Proxies on the way to a relay: what is asked of them, what is resolved where, and what they can do wrong.

A relay listens on loopback all the while, and every name means loopback: who goes round the proxy reaches it.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import spnego

from postroom.model.account import AddressFamily, Proxy, ProxyType
from postroom.net.smtp_client import ConnectFailed, SmtpConnection, connect
from postroom.net.stream import Address, Way, open_socket
from postroom.policy.classify import Action, classify_failure
from tests.flow.smtp_client.talk import Line, Relay, Talk, hang_up

GRANTED_4 = b"\0\x5a\0\0\0\0\0\0"
GRANTED_5 = b"\x05\0\0\x01\0\0\0\0\0\0"
SECRET = "Tr0ub4dor-and-3"
ANN = {"use_credentials": True, "username": "ann", "password": SECRET}
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()
CLOSING = "Connection: close"
EMPTY = "Content-Length: 0"


class Passage:
    """A proxy that talks as the test says, a relay that nobody shall reach, and the names that were looked up."""

    def __init__(self, proxy: Relay, relay: Relay) -> None:
        self.proxy = proxy
        self.relay = relay
        self.looked_up: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Every name is this machine."""
        self.looked_up.append(host)
        return await self.relay.resolve(host, port)

    def way(self, kind: ProxyType, **fields: Any) -> Proxy:
        """Through the proxy."""
        defaults: dict[str, Any] = {"type": kind, "host": "proxy.test", "port": self.proxy.port}
        return Proxy(**(defaults | fields))

    async def open(self, proxy: Proxy, **fields: Any) -> SmtpConnection:
        """A connection to the relay."""
        account = self.relay.account(proxy=proxy, **fields)
        return await connect(account, helo_name="client.test", resolver=self.resolve)


async def attempt(
    talk: Talk, kind: ProxyType, asking: dict[str, Any] | None = None, **fields: Any
) -> tuple[SmtpConnection | ConnectFailed, Passage]:
    """What came of one connection through a proxy that talks so; the relay itself heard of nothing."""
    async with Relay(hang_up) as relay, Relay(talk) as proxy:
        passage = Passage(proxy, relay)
        came: SmtpConnection | ConnectFailed
        try:
            came = await passage.open(passage.way(kind, **(asking or {})), **fields)
            await came.quit()
        except ConnectFailed as failed:
            came = failed
        assert relay.connections == 0, "somebody went round the proxy"
    return came, passage


async def opened(talk: Talk, kind: ProxyType, asking: dict[str, Any] | None = None, **fields: Any) -> Passage:
    """As `attempt`, which must have come to something."""
    came, passage = await attempt(talk, kind, asking, **fields)
    if isinstance(came, ConnectFailed):
        raise came
    return passage


async def refused(talk: Talk, kind: ProxyType, asking: dict[str, Any] | None = None, **fields: Any) -> ConnectFailed:
    """As `attempt`, which must have failed; no secret is told."""
    came, _ = await attempt(talk, kind, asking, **fields)
    assert isinstance(came, ConnectFailed)
    assert not any(secret in f"{came} {came.reason} {came.transcript}" for secret in (SECRET, BASIC))
    return came


async def be_the_relay(line: Line) -> None:
    """What a relay behind the proxy says, once it has greeted."""
    await line.expect("EHLO client.test")
    line.offer()
    await line.expect("QUIT")
    line.say("221 bye")


# --- What is asked, and where names are resolved ---


@pytest.mark.parametrize(
    ("kind", "asked", "granted"),
    [
        (ProxyType.SOCKS4, b"\x04\x01\x02\x4b\x7f\0\0\x01\0", GRANTED_4),
        (ProxyType.SOCKS4A, b"\x04\x01\x02\x4b\0\0\0\x01\0relay.test\0", GRANTED_4),
        (ProxyType.SOCKS5, b"\x05\x01\0\x03\x0arelay.test\x02\x4b", GRANTED_5),
        (ProxyType.SOCKS5, b"\x05\x01\0\x03\x0arelay.test\x02\x4b", b"\x05\0\0\x03\x04here\0\x19"),
        (ProxyType.SOCKS5, b"\x05\x01\0\x03\x0arelay.test\x02\x4b", b"\x05\0\0\x04" + bytes(18)),
        (ProxyType.HTTP_CONNECT, b"CONNECT relay.test:587 HTTP/1.1\r\nHost: relay.test:587\r\n",
         b"HTTP/1.1 200 Connection established\r\n\r\n"),
        (ProxyType.HTTP_CONNECT, b"", b"HTTP/1.0 200\nContent-Length: 9\n\n"),
        (ProxyType.HTTP_CONNECT, b"", b"HTTP/1.1 102 wait\r\n\r\nHTTP/1.1 299\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)  # fmt: skip
async def test_names_are_resolved_at_the_proxy_and_nothing_that_the_relay_says_is_lost(
    kind: ProxyType, asked: bytes, granted: bytes
) -> None:
    async def talk(line: Line) -> None:
        if kind is ProxyType.SOCKS5:
            assert await line.octets(3) == b"\x05\x01\0"
            line.write(b"\x05\0")
        if kind is ProxyType.HTTP_CONNECT:
            assert (await line.head()).startswith(asked)
        else:
            assert await line.octets(len(asked)) == asked
        line.write(granted + b"220 relay.test is quick\r\n")  # in one piece
        await be_the_relay(line)

    passage = await opened(talk, kind, port=587)
    assert passage.looked_up == (["relay.test", "proxy.test"] if kind is ProxyType.SOCKS4 else ["proxy.test"])


async def test_octet_by_octet_is_as_good() -> None:
    async def talk(line: Line) -> None:
        await line.head()
        await line.dribble(
            _407("Proxy-Authenticate: NTLM", "Transfer-Encoding: chunked", body="3;x\r\nwhy\r\n0\r\na: b\r\n\r\n")
        )
        await line.head()
        await line.dribble(b"HTTP/1.1 200 ok\r\n\r\n220 relay.test\r\n")
        await be_the_relay(line)

    await opened(talk, ProxyType.HTTP_CONNECT, ANN)


async def test_addresses_are_asked_for_as_addresses() -> None:
    async def by_http(line: Line) -> None:
        assert (await line.head()).startswith(b"CONNECT [2001:db8::1]:25 HTTP/1.1\r\nHost: [2001:db8::1]:25\r\n")
        line.write(b"HTTP/1.1 200 ok\r\n\r\n220 relay.test\r\n")
        await be_the_relay(line)

    async def by_socks(line: Line) -> None:
        await line.octets(3)
        line.write(b"\x05\0")
        assert await line.octets(22) == b"\x05\x01\0\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\0\x19"
        line.write(GRANTED_5 + b"220 relay.test\r\n")
        await be_the_relay(line)

    await opened(by_http, ProxyType.HTTP_CONNECT, host="2001:db8::1", port=25)
    await opened(by_socks, ProxyType.SOCKS5, host="2001:db8::1", port=25)
    for kind in (ProxyType.SOCKS4, ProxyType.SOCKS4A):
        failed = await refused(hang_up, kind, host="2001:db8::1")
        assert "SOCKS4 knows no IPv6 address" in failed.reason
        assert failed.kind == "forbidden"


async def test_socks4_tries_each_address_of_the_relay() -> None:
    asked = []

    async def talk(line: Line) -> None:
        asked.append((await line.octets(13))[4:])
        if len(asked) == 1:
            line.write(b"\0\x5b" + bytes(6))
            return
        line.write(GRANTED_4 + b"220 relay.test\r\n")
        await be_the_relay(line)

    async with Relay(hang_up) as relay, Relay(talk) as proxy:
        passage = Passage(proxy, relay)

        async def two(host: str, port: int) -> Sequence[Address]:
            if host == "proxy.test":
                return await relay.resolve(host, port)
            return [(socket.AF_INET, (address, port)) for address in ("192.0.2.1", "192.0.2.2")]

        account = relay.account(proxy=passage.way(ProxyType.SOCKS4, use_credentials=True, username="ann4"))
        connection = await connect(account, helo_name="client.test", resolver=two)
        await connection.quit()
    assert asked == [b"\xc0\0\x02\x01ann4\0", b"\xc0\0\x02\x02ann4\0"]
    async with Relay(hang_up) as relay, Relay(hang_up) as proxy:

        async def six(host: str, port: int) -> Sequence[Address]:
            return [(socket.AF_INET6, ("2001:db8::1", port, 0, 0))]

        with pytest.raises(ConnectFailed, match="relay.test has no IPv4 address, and SOCKS4 needs one") as failed:
            await open_socket("relay.test", 25, Way(proxy=Passage(proxy, relay).way(ProxyType.SOCKS4)), six)
        assert failed.value.stage == "resolve"


async def test_local_address_and_family_are_those_of_the_connection_to_the_proxy() -> None:
    peers = []

    async def talk(line: Line) -> None:
        peers.append(line.peer)
        await line.head()
        line.write(b"HTTP/1.1 200 ok\r\n\r\n220 relay.test\r\n")
        await be_the_relay(line)

    await opened(talk, ProxyType.HTTP_CONNECT, local_address="127.0.0.78")
    failed = await refused(talk, ProxyType.HTTP_CONNECT, address_family=AddressFamily.IPV6)
    assert (failed.stage, failed.kind) == ("proxy", "network")
    assert "proxy.test has no IPv6 address" in failed.reason
    failed = await refused(talk, ProxyType.SOCKS5, local_address="192.0.2.77")
    assert (failed.stage, failed.kind) == ("proxy", "local-address")
    assert peers == ["127.0.0.78"]


@pytest.mark.parametrize("host", ["a\r\nX: y", "a\nb", "a\0b", "a b", "a/b", "a@b", "", "x" * 256, "fe80::1%eth0", "ä"])
@pytest.mark.parametrize("kind", [kind for kind in ProxyType if kind is not ProxyType.NONE])
async def test_a_host_that_would_say_more_than_a_host_is_never_written(host: str, kind: ProxyType) -> None:
    async with Relay(hang_up) as relay, Relay(hang_up) as proxy:
        passage = Passage(proxy, relay)
        with pytest.raises(ConnectFailed, match="is no host that a proxy can be asked for") as failed:
            await open_socket(host, 25, Way(proxy=passage.way(kind)), passage.resolve)
        assert (failed.value.stage, failed.value.kind) == ("proxy", "protocol")
        assert (proxy.connections, relay.connections, passage.looked_up) == (0, 0, [])


# --- Logins ---


async def test_socks5_logs_in_where_it_is_asked_to() -> None:
    async def asking(line: Line) -> None:
        assert await line.octets(4) == b"\x05\x02\0\x02"
        line.write(b"\x05\x02")
        assert await line.octets(6 + len(SECRET)) == b"\x01\x03ann" + bytes([len(SECRET)]) + SECRET.encode()
        line.write(b"\x01\0")
        await line.octets(17)
        line.write(GRANTED_5 + b"220 relay.test\r\n")
        await be_the_relay(line)

    async def not_asking(line: Line) -> None:
        await line.octets(4)
        line.write(b"\x05\0")
        await line.octets(17)
        line.write(GRANTED_5 + b"220 relay.test\r\n")
        await be_the_relay(line)

    await opened(asking, ProxyType.SOCKS5, ANN)
    await opened(not_asking, ProxyType.SOCKS5, ANN)


async def test_basic_is_sent_at_once_in_utf_8() -> None:
    async def talk(line: Line) -> None:
        token = base64.b64encode("ännchen:paß wort".encode()).decode()
        assert f"\r\nProxy-Authorization: Basic {token}\r\n".encode() in await line.head()
        line.write(b"HTTP/1.1 200 ok\r\n\r\n220 relay.test\r\n")
        await be_the_relay(line)

    await opened(talk, ProxyType.HTTP_CONNECT, {**ANN, "username": "ännchen", "password": "paß wort"})


def _407(*fields: str, body: str = "") -> bytes:
    return "\r\n".join(["HTTP/1.1 407 Login, please", *fields, "", body]).encode()


def _authorization(head: bytes, scheme: str) -> bytes:
    (token,) = [
        line.partition(f"Proxy-Authorization: {scheme} ")[2]
        for line in head.decode().split("\r\n")
        if line.startswith(f"Proxy-Authorization: {scheme} ")
    ]
    return base64.b64decode(token)


@pytest.mark.parametrize(
    ("scheme", "asking", "before"),
    [
        ("NTLM", {"domain": "CORP"}, []),
        ("NTLM", {"username": "CORP\\ann"}, [_407("Proxy-Authenticate: NTLM", CLOSING)]),
        ("NTLM", {"username": "CORP\\ann"}, [_407("Proxy-Authenticate: X, NTLM", "Content-Length: 1", body="x")]),
        ("Negotiate", {"domain": "CORP"}, [_407("Proxy-Authenticate: Negotiate", EMPTY)]),
        ("Negotiate", {"domain": "CORP"}, [_407('Proxy-Authenticate: Digest realm="a, NTLM b", Negotiate', CLOSING)]),
        ("Negotiate", {"username": "CORP\\ann"}, [_407("Proxy-Authenticate: Negotiate", CLOSING)]),
    ],
)  # fmt: skip
async def test_ntlm_goes_over_one_connection_and_proves_the_password(
    scheme: str, asking: dict[str, Any], before: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What proves it is pyspnego's acceptor, which knows the user's password and no other."""
    users = tmp_path / "users"
    users.write_text(f"CORP:ann:{SECRET}\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(users))
    left = list(before)
    logged_in = []

    async def talk(line: Line) -> None:
        while left:
            await line.head()
            said = left.pop()
            line.write(said)
            if CLOSING.encode() in said:
                return
        acceptor = spnego.server(protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
        challenge = acceptor.step(_authorization(await line.head(), scheme))
        assert challenge is not None
        token = base64.b64encode(challenge).decode()
        line.write(_407(f"Proxy-Authenticate: {scheme} {token}", "Content-Length: 4", body="more"))
        acceptor.step(_authorization(await line.head(), scheme))
        assert acceptor.complete
        logged_in.append(acceptor.client_principal)
        line.write(b"HTTP/1.1 200 ok\r\n\r\n220 relay.test\r\n")
        await be_the_relay(line)

    await opened(talk, ProxyType.HTTP_CONNECT, {**ANN, **asking})
    assert logged_in == ["CORP\\ann"]


# --- What goes wrong, at each stage of each ---


def saying(*steps: int | str | bytes) -> Talk:
    """A proxy that reads so many octets, or a head ("head"), or writes; "stall" waits for the client to go."""

    async def talk(line: Line) -> None:
        for step in steps:
            if step == "head":
                await line.head()
            elif step == "stall":
                await line.end()
            elif step == "flood":
                await line.flood(b"x" * 1000)
            elif isinstance(step, int):
                await line.octets(step)
            elif isinstance(step, bytes):
                line.write(step)

    return talk


#: With a challenge of Squid's ntlm_fake_auth.
NTLM = "Proxy-Authenticate: NTLM TlRMTVNTUAACAAAACQAJAK6qqqqXggjipRaIiRuRMaoAAAAAAAA6AFdPUktHUk9VUA=="
D = {**ANN, "domain": "D"}
SOCKS5_FAILURES: list[tuple[Talk, str, str]] = [
    (hang_up, "network", "closed|reset"),
    (saying(3), "network", "closed"),
    (saying(3, b"\x05"), "network", "closed"),
    (saying(3, b"\x04\0"), "protocol", "version number: 4"),
    (saying(3, b"HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol", "speaks HTTP, not SOCKS"),
    (saying(3, b"\x05\x99"), "protocol", "method"),
    (saying(3, b"\x05\xff"), "auth", "asks for a login"),
    (saying(3, b"\x05\x02"), "auth", "asks for a login"),
    (saying(3, b"\x05\0", 17), "network", "closed"),
    (saying(3, b"\x05\0", 17, b"\x05\x01\0\x01" + bytes(6)), "target", "General SOCKS server failure"),
    (saying(3, b"\x05\0", 17, b"\x05\x02\0\x01" + bytes(6)), "forbidden", "not allowed by ruleset"),
    (saying(3, b"\x05\0", 17, b"\x05\x03\0\x01" + bytes(6)), "target", "Network unreachable"),
    (saying(3, b"\x05\0", 17, b"\x05\x04\0\x01" + bytes(6)), "target", "Host unreachable"),
    (saying(3, b"\x05\0", 17, b"\x05\x05\0\x01" + bytes(6)), "target", "Connection refused"),
    (saying(3, b"\x05\0", 17, b"\x05\x06\0\x01" + bytes(6)), "target", "TTL expired"),
    (saying(3, b"\x05\0", 17, b"\x05\x07\0\x01" + bytes(6)), "forbidden", "Command not supported"),
    (saying(3, b"\x05\0", 17, b"\x05\x08\0\x01" + bytes(6)), "forbidden", "Address type not supported"),
    (saying(3, b"\x05\0", 17, b"\x05\x77\0\x01" + bytes(6)), "protocol", "Invalid reply code"),
    (saying(3, b"\x05\0", 17, b"\x05\0\0\x09" + bytes(6)), "protocol", "Invalid address type"),
    (saying(3, b"\x05\0", 17, b"\x05\0\x01\x01" + bytes(6)), "protocol", "reserved"),
    (saying(3, b"\x05\0", 17, b"\x05\0\0\x03\x02\xff\xfe\0\0"), "protocol", "keeps to no protocol"),
    (saying(3, b"\x05\0", 17, b"\x05\0\0\x01\0"), "network", "closed"),
    (saying(3, b"\x05\0", 17, b"\0" * 99), "protocol", "version number"),
]
SOCKS5_LOGIN_FAILURES: list[tuple[Talk, str, str]] = [
    (saying(4, b"\x05\xff"), "auth", "refused the login"),
    (saying(4, b"\x05\x02", 21), "network", "closed"),
    (saying(4, b"\x05\x02", 21, b"\x01\x01"), "auth", "refused the login"),
    (saying(4, b"\x05\x02", 21, b"\x05\0"), "protocol", "Invalid authentication response"),
]
SOCKS4_FAILURES: list[tuple[Talk, str, str]] = [
    (hang_up, "network", "closed|reset"),
    (saying(9, b"\0\x5a\0"), "network", "closed"),
    (saying(9, b"\0\x5b" + bytes(6)), "target", "rejected or failed"),
    (saying(9, b"\0\x5c" + bytes(6)), "auth", "identd"),
    (saying(9, b"\0\x5d" + bytes(6)), "auth", "identd"),
    (saying(9, b"\0\x99" + bytes(6)), "protocol", "Invalid reply code"),
    (saying(9, b"HTTP/1.1 400 Bad\r\n\r\n"), "protocol", "speaks HTTP, not SOCKS"),
]
HTTP_FAILURES: list[tuple[Talk, dict[str, Any], str, str]] = [
    (hang_up, {}, "network", "closed|reset"),
    (saying("head", b"HTTP/1.1 200 OK\r\n"), {}, "network", "closed"),
    (saying("head", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), {}, "protocol", "does not speak HTTP: SSH-2.0-OpenSSH_9.2"),
    (saying("head", b"\x05\0\0\0\r\n\r\n"), {}, "protocol", "does not speak HTTP"),
    (saying("head", b"HTTP/1.1 xyz\r\n\r\n"), {}, "protocol", "does not speak HTTP"),
    (saying("head", b"HTTP/1.1 200 OK\r\nx: ", "flood"), {}, "protocol", "more than 16384 octets"),
    (saying("head", b"HTTP/1.1 100 a\r\n\r\n" * 2000), {}, "protocol", "more than .* octets"),
    (saying("head", b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n"), {}, "forbidden",
     "403 Forbidden .ERR_ACCESS_DENIED 0"),
    (saying("head", b"HTTP/1.1 405 \x1b[31mno\r\n\r\n"), {}, "forbidden", r"405 \?\[31mno"),
    (saying("head", b"HTTP/1.1 501 no\r\n\r\n"), {}, "forbidden", "501 no"),
    (saying("head", b"HTTP/1.1 429 slow down\r\n\r\n"), {}, "target", "429"),
    (saying("head", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), {}, "target", "502"),
    (saying("head", b"HTTP/1.1 503 no\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n"), {}, "target", "ERR_DNS_FAIL"),
    (saying("head", b"HTTP/1.1 504 Gateway Timeout\r\n\r\n"), {}, "target", "504"),
    (saying("head", b"HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\n\r\n"), {}, "protocol", "302"),
    (saying("head", _407('Proxy-Authenticate: Basic realm="x"', EMPTY)), {}, "auth", "asks for a login .offered: b"),
    (saying("head", _407()), ANN, "no-mechanism", "offered: none"),
    (saying("head", _407('Proxy-Authenticate: Basic realm="x"', EMPTY)), ANN, "auth", "refused the login by Basic"),
    (saying("head", _407('Proxy-Authenticate: Digest realm="x", nonce="NT"')), ANN, "no-mechanism", "offered: digest"),
    (saying("head", _407('Proxy-Authenticate: Basic realm="x"')), D, "no-mechanism",
     "NTLM was tried; offered: basic"),
    (saying("head", _407("Proxy-Authenticate: NTLM", EMPTY)), D, "auth", "refused the login by NTLM"),
    (saying("head", _407("Proxy-Authenticate: NTLM AAAA", EMPTY)), D, "protocol", "challenge"),
    (saying("head", _407(NTLM, EMPTY), "head", _407(NTLM, EMPTY)), D, "auth",
     "refused the login by NTLM"),
    (saying("head", _407(NTLM, EMPTY), "head", _407("Proxy-Authenticate: Negotiate")), D,
     "no-mechanism", "offered: negotiate"),
    (saying("head", _407(NTLM, CLOSING)), D, "network", "in the middle of NTLM"),
    (saying("head", _407(NTLM, EMPTY), "head"), D, "network", "in the middle of NTLM"),
    (saying("head", _407(NTLM, "Content-Length: 9")), D, "network", "closed"),
    (saying("head", _407(NTLM, "Transfer-Encoding: chunked", body="zz\r\n")), D, "protocol", "chunks"),
    (saying("head", _407(NTLM, "Transfer-Encoding: chunked", body="fffffff\r\n"), "flood"), D,
     "network", "in the middle of NTLM"),
    (saying("head", _407(NTLM, "Content-Length: 99999999"), "flood"), D, "network",
     "in the middle of NTLM"),
    (saying("head", f"HTTP/1.1 403 {SECRET} {BASIC}\r\n\r\n".encode()), ANN, "forbidden", "403 .hidden. .hidden."),
    (saying("head"), {**ANN, "username": "a:b"}, "credentials", "colon"),
]  # fmt: skip
ALL = [
    *((ProxyType.SOCKS5, {}, *one) for one in SOCKS5_FAILURES),
    *((ProxyType.SOCKS5, ANN, *one) for one in SOCKS5_LOGIN_FAILURES),
    *((ProxyType.SOCKS4, {}, *one) for one in SOCKS4_FAILURES),
    *((ProxyType.HTTP_CONNECT, asking, talk, kind, words) for talk, asking, kind, words in HTTP_FAILURES),
]


@pytest.mark.parametrize(("kind", "asking", "talk", "means", "words"), ALL)
async def test_a_proxy_that_fails_ends_the_attempt(
    kind: ProxyType, asking: dict[str, Any], talk: Talk, means: str, words: str
) -> None:
    failed = await refused(talk, kind, asking)
    assert failed.stage == "proxy"
    assert failed.kind == means, failed.reason
    assert re.search(words, failed.reason), failed.reason
    assert "the proxy proxy.test:" in failed.reason
    rule = classify_failure(failed.kind, failed.stage, failed.reason, host="relay.test", port=587)
    assert rule is not None
    for_good = failed.kind in ("auth", "forbidden", "no-mechanism", "credentials") or "speaks HTTP" in failed.reason
    assert (rule.action is Action.STOP) == for_good


@pytest.mark.parametrize(
    ("kind", "asking", "talk"),
    [
        (ProxyType.SOCKS4, {}, saying("stall")),
        (ProxyType.SOCKS4A, {}, saying(9, b"\0\x5a", "stall")),
        (ProxyType.SOCKS5, {}, saying("stall")),
        (ProxyType.SOCKS5, ANN, saying(4, b"\x05\x02", "stall")),
        (ProxyType.SOCKS5, {}, saying(3, b"\x05\0", 17, b"\x05", "stall")),
        (ProxyType.HTTP_CONNECT, {}, saying("stall")),
        (ProxyType.HTTP_CONNECT, {}, saying("head", b"HTTP/1.1 200 OK\r\nA: b\r\n", "stall")),
        (ProxyType.HTTP_CONNECT, D, saying("head", _407(NTLM, "Content-Length: 9"), "stall")),
        (ProxyType.HTTP_CONNECT, D, saying("head", _407(NTLM, EMPTY), "head", "stall")),
    ],
)
async def test_the_connect_timeout_counts_what_the_proxy_takes(
    kind: ProxyType, asking: dict[str, Any], talk: Talk
) -> None:
    failed = await refused(talk, kind, asking, connect_timeout=timedelta(milliseconds=80))
    assert (failed.stage, failed.kind) == ("proxy", "network")
    assert re.fullmatch("no connection to relay.test through the proxy proxy.test:[0-9]+ within 0.08 s", failed.reason)


async def test_a_proxy_that_is_not_there_is_told_apart(free_port: Callable[[], int]) -> None:
    for kind in set(ProxyType) - {ProxyType.NONE}:
        failed = await refused(hang_up, kind, {"port": free_port()})
        assert (failed.stage, failed.kind) == ("proxy", "network")
        assert re.fullmatch(
            "the proxy proxy.test:[0-9]+ is not reached: no connection to proxy.test: .*", failed.reason
        )


async def test_a_proxy_whose_name_is_unknown_is_told_apart() -> None:
    async def nobody(host: str, port: int) -> Sequence[Address]:
        raise OSError("no such name")

    way = Way(proxy=Proxy(type=ProxyType.SOCKS5, host="proxy.test"))
    with pytest.raises(ConnectFailed) as failed:
        await open_socket("relay.test", 25, way, nobody)
    assert (failed.value.stage, failed.value.kind) == ("proxy", "network")
    assert failed.value.reason.endswith("is not reached: proxy.test cannot be resolved: no such name")


async def test_interim_replies_without_an_end_are_too_many() -> None:
    async def talk(line: Line) -> None:
        await line.head()
        await line.flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 50)

    came, _ = await attempt(talk, ProxyType.HTTP_CONNECT)
    assert isinstance(came, ConnectFailed)
    assert (came.kind, "sends more than 16384 octets where it should answer" in came.reason) == ("protocol", True)
