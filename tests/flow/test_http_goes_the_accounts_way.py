"""Requests over HTTP leave as the account says, to the server that was named, and no answer is taken without an end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import trustme

from postroom.model.account import Account, AccountKind, Proxy, ProxyType, Verification
from postroom.net.http import HttpClient, HttpFailed
from tests.tls_relay import pem, served
from tests.web_server import HANG_UP, SILENCE, Say, WebServer, answer

AUTHORITY = trustme.CA()
GOOD = served(AUTHORITY.issue_cert("localhost"))
ACCOUNT = Account(id=1, name="a", kind=AccountKind.SMTP, host="relay.test", ca_bundle=pem(AUTHORITY))
PATIENCE = timedelta(seconds=20)


def fine(asked: object) -> bytes:
    """A short answer."""
    return answer({"fine": True})


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    """One that speaks TLS."""
    async with WebServer(fine, GOOD) as server:
        yield server


async def failure(server: WebServer, say: Say, account: Account = ACCOUNT) -> HttpFailed:
    """What becomes of a request that is answered so."""
    server.say = say
    async with HttpClient.of(account) as http:
        with pytest.raises(HttpFailed) as failed:
            await http.request("POST", server.url, content=b"x", patience=PATIENCE, longest_bytes=1000)
    return failed.value


async def test_an_answer_over_tls_from_the_accounts_address(server: WebServer) -> None:
    async with HttpClient.of(replace(ACCOUNT, local_address="127.0.0.2")) as http:
        found = await http.request("POST", f"{server.url}/a?b=c", content=b"grant", patience=PATIENCE)
    assert (found.status, found.json()) == (200, {"fine": True})
    [asked] = server.asked
    assert (asked.method, asked.path, asked.body, asked.peer) == ("POST", "/a?b=c", b"grant", "127.0.0.2")
    assert asked.headers["host"] == f"localhost:{server.port}"


@pytest.mark.parametrize("verification", list(Verification))
async def test_a_certificate_that_nobody_vouches_for_is_refused_however_the_relay_is_verified(
    server: WebServer, verification: Verification
) -> None:
    failed = await failure(server, fine, replace(ACCOUNT, ca_bundle="", verification=verification))
    assert (failed.stage, failed.kind, failed.may_have_arrived) == ("tls", "certificate", False)
    assert not server.asked


async def test_a_server_that_is_not_there() -> None:
    async with HttpClient.of(ACCOUNT) as http:
        with pytest.raises(HttpFailed, match="no connection to") as failed:
            await http.request("GET", "https://127.0.0.1:1/", patience=PATIENCE)
    assert (failed.value.stage, failed.value.may_have_arrived) == ("connect", False)


async def test_a_server_that_says_nothing_to_the_hello_of_tls() -> None:
    async with WebServer(lambda asked: SILENCE) as deaf:
        async with HttpClient.of(replace(ACCOUNT, connect_timeout=timedelta(milliseconds=100))) as http:
            with pytest.raises(HttpFailed, match="no connection to localhost within 0.1 s") as failed:
                await http.request("GET", f"https://localhost:{deaf.port}", patience=PATIENCE)
    assert (failed.value.stage, failed.value.may_have_arrived) == ("tls", False)


async def test_a_server_that_never_answers(server: WebServer) -> None:
    server.say = lambda asked: SILENCE
    async with HttpClient.of(replace(ACCOUNT, connect_timeout=timedelta(seconds=1))) as http:
        with pytest.raises(HttpFailed, match="no answer from localhost") as failed:
            await http.request("GET", server.url, patience=timedelta(0))
    assert (failed.value.stage, failed.value.may_have_arrived) == ("answer", True)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (HANG_UP, "protocol", "disconnected"),
        (b"220 mail.example.test ESMTP\r\n\r\n", "protocol", "illegal status line"),
        (answer(b"{}", Content_Length="3", Connection="close"), "protocol", "complete message body"),
        (answer(b"x" * 1001), "protocol", "more than 1000 octets"),
        (answer(b"\x1f\x8b", Content_Encoding="gzip"), "protocol", "coded"),
        (b"HTTP/1.1 200 ok\r\n" + b"X: " + b"y" * 200_000, "protocol", "as HTTP asks"),
    ],
)
async def test_answers_that_are_none(server: WebServer, said: bytes, kind: str, words: str) -> None:
    failed = await failure(server, lambda asked: said)
    assert (failed.stage, failed.kind, failed.may_have_arrived) == ("answer", kind, True)
    assert words in failed.reason


async def test_a_redirect_is_an_answer_and_nothing_is_sent_to_where_it_points(server: WebServer) -> None:
    server.say = lambda asked: answer(b"", 307, Location=f"{server.url}/elsewhere")
    async with HttpClient.of(ACCOUNT) as http:
        found = await http.request("POST", server.url, content=b"secret", patience=PATIENCE)
    assert (found.status, len(server.asked)) == (307, 1)


@pytest.mark.parametrize(
    "url", ["http://login.example.org/", "ftp://localhost/", "https://a b/", "https://u:p@localhost/", "https://bü.de/"]
)
async def test_urls_that_are_not_asked(url: str) -> None:
    async with HttpClient.of(ACCOUNT) as http:
        with pytest.raises(ValueError):
            await http.request("GET", url, patience=PATIENCE)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_this_machine_is_asked_in_clear_but_not_through_a_proxy(host: str) -> None:
    async with WebServer(fine) as server:
        async with HttpClient.of(ACCOUNT) as http:
            assert (await http.request("GET", f"http://localhost:{server.port}", patience=PATIENCE)).status == 200
        proxy = Proxy(type=ProxyType.HTTP_CONNECT, host="127.0.0.1", port=server.port)
        async with HttpClient.of(replace(ACCOUNT, proxy=proxy)) as http:
            with pytest.raises(ValueError, match="not encrypted, and the way there leads through a proxy"):
                await http.request("POST", f"http://{host}:8400/token", content=b"secret", patience=PATIENCE)
        assert len(server.asked) == 1


async def test_a_header_cannot_carry_another(server: WebServer) -> None:
    async with HttpClient.of(ACCOUNT) as http:
        with pytest.raises(ValueError):
            await http.request("GET", server.url, headers={"Authorization": "a\r\nX: b"}, patience=PATIENCE)
    assert not server.asked


@pytest.mark.parametrize(("idle", "connections"), [(timedelta(0), 2), (timedelta(minutes=1), 1)])
async def test_connections_are_kept_where_asked(server: WebServer, idle: timedelta, connections: int) -> None:
    async with HttpClient.of(ACCOUNT, idle=idle) as http:
        for _ in range(2):
            await http.request("GET", server.url, patience=PATIENCE)
    assert server.connections == connections


async def test_a_kept_connection_that_was_closed_meanwhile_is_not_used(server: WebServer) -> None:
    server.say = lambda asked: answer({}, Connection="close" if asked.connection == 1 else "")
    async with HttpClient.of(ACCOUNT, idle=timedelta(minutes=1)) as http:
        for _ in range(2):
            assert (await http.request("GET", server.url, patience=PATIENCE)).status == 200
    assert server.connections == 2
