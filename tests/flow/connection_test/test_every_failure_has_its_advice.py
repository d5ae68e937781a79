"""Each way in which no connection can be had, brought about for real: the test tells what to do about it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.model.account import AddressFamily, Mechanism, Security, Verification
from postroom.net import tcp
from postroom.net.stream import Address
from postroom.policy.classify import failure_rules
from tests.flow.connection_test.trying import LOGIN, Server, Tried, nothing, to, tried
from tests.flow.smtp_client.talk import Line, Relay, hang_up
from tests.flow.smtp_client.test_login import offering, scram, scram_server
from tests.tls_relay import EXPIRED, NOT_YET_VALID, TlsRelay, asking, fingerprint, own_certificate, pem, served

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
TLS: dict[str, Any] = {"security": Security.TLS, "ca_bundle": pem(AUTHORITY)}
SHORT = timedelta(seconds=0.2)

#: The kinds of failures that this file answers for; a way to connect that has its own kinds has its own tests.
KINDS = frozenset(
    {"network", "tls", "certificate", "protocol", "no-mechanism", "clear-password", "credentials", "sasl"}
    | {"local-address"}
)


def is_told(found: Tried, stage: str, rule: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The stage failed, and the advice of the rule is what the command prints; all that it prints."""
    assert found.failed == [stage], found.result.show()
    assert rule in found.rules
    entry = next(one for one in failure_rules() if one.name == rule)
    found.print()
    printed = capsys.readouterr().out
    assert entry.cause in printed and entry.advice in printed
    assert not found.result.passed
    return printed


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a listener that takes no more connections: whoever connects waits."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(3):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        yield port
        for one in waiting:
            one.close()


# Resolution and TCP


@pytest.mark.parametrize(
    ("host", "error", "rule"),
    [
        ("relay.test", socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name-unknown"),
        ("RELAY01", socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "short-name-unknown"),
        (
            "relay.test",
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "names-are-not-resolved",
        ),
    ],
)
async def test_a_name_that_is_not_resolved(
    host: str, error: OSError, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def resolver(asked: str, port: int) -> Sequence[Address]:
        raise error

    is_told(await tried(resolver, host=host), "resolve", rule, capsys)


async def test_no_address_of_the_family(capsys: pytest.CaptureFixture[str]) -> None:
    found = await tried(to(1), address_family=AddressFamily.IPV6)
    printed = is_told(found, "resolve", "no-address-of-this-family", capsys)
    assert "postroom accounts edit relay --address-family any" in printed


async def test_an_address_that_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    found = await tried(to(1), local_address="192.0.2.7")
    printed = is_told(found, "connect", "address-not-ours", capsys)
    assert "postroom accounts edit relay --reset local_address" in printed


async def test_nobody_listens(free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> None:
    is_told(await tried(to(free_port())), "connect", "refused", capsys)


@pytest.mark.parametrize(("port", "rule"), [(25, "port-25-blocked"), (587, "unreachable")])
async def test_nobody_answers(full: int, port: int, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = await tried(to(full), port=port, connect_timeout=SHORT)
    printed = is_told(found, "connect", rule, capsys)
    assert ("edit relay --port 587" in printed) == (port == 25)


@pytest.mark.parametrize(
    ("number", "rule"),
    [(errno.ENETUNREACH, "no-way-there"), (errno.EHOSTUNREACH, "no-way-there"), (errno.EPERM, "not-let-out")],
)
async def test_no_way_out_of_this_machine(
    number: int, rule: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def forbidden(address: Address, local_address: str) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tcp, "_connected", forbidden)
    is_told(await tried(to(1)), "connect", rule, capsys)


# The dialogue


async def say_http(line: Line) -> None:
    """Another service."""
    line.say("HTTP/1.1 400 Bad Request")
    await line.end()


@pytest.mark.parametrize(
    ("talk", "stage", "rule", "fields"),
    [
        (say_http, "greeting", "not-a-mail-server", {}),
        (Server(ehlo="354 go on"), "ehlo", "breaks-the-protocol", {}),
        (nothing, "greeting", "silent-greeting", {"command_timeout": SHORT}),
        (nothing, "greeting", "silent-port-465", {"command_timeout": SHORT, "port": 465}),
        (hang_up, "greeting", "closed-at-the-greeting", {}),
        (Server(ehlo=""), "ehlo", "stalls", {"command_timeout": SHORT}),
        (Server("AUTH PLAIN", auth=""), "auth", "stalls", {"command_timeout": SHORT, **LOGIN}),
        (Server("STARTTLS", starttls=""), "starttls", "stalls",
         {"command_timeout": SHORT, "security": Security.STARTTLS}),
        (Server(), "auth", "no-authentication-method", LOGIN),
        (Server("AUTH GSSAPI"), "auth", "no-authentication-method", LOGIN),
        (Server("AUTH PLAIN"), "auth", "clear-password", LOGIN | {"allow_clear_password": False}),
        (Server("AUTH SCRAM-SHA-256"), "auth", "credentials-cannot-be-sent",
         LOGIN | {"password": "\u0378", "mechanism": Mechanism.SCRAM_SHA_256}),
        (Server("SIZE"), "starttls", "no-starttls", {"security": Security.STARTTLS}),
        (Server("X" * 7 + "A"), "starttls", "starttls-painted-over", {"security": Security.STARTTLS}),
    ],
)  # fmt: skip
async def test_a_dialogue_that_leads_nowhere(
    talk: Callable[[Line], Awaitable[None]],
    stage: str,
    rule: str,
    fields: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Relay(talk) as relay:
        found = await tried(to(relay.port), **fields)
    is_told(found, stage, rule, capsys)


async def test_a_relay_that_hangs_up_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    async def talk(line: Line) -> None:
        line.say("220 relay.test")
        await line.line()

    async with Relay(talk) as relay:
        is_told(await tried(to(relay.port)), "ehlo", "hangs-up", capsys)


async def test_octets_behind_the_reply_to_starttls(capsys: pytest.CaptureFixture[str]) -> None:
    async def injecting(line: Line) -> None:
        line.say("220 relay.test")
        await line.line()
        line.offer("STARTTLS")
        await line.line()
        line.say("220 go", "250 injected")
        await line.end()

    async with Relay(injecting) as relay:
        found = await tried(to(relay.port), security=Security.STARTTLS)
    printed = is_told(found, "starttls", "octets-behind-starttls", capsys)
    assert "edit relay --security tls --port 465" in printed


# Logins by SCRAM


def ending(last: str) -> Callable[[Line], Awaitable[None]]:
    """A relay that says `last` where its signature is due."""

    async def then(line: Line) -> None:
        await scram(line, scram_server("SCRAM-SHA-256"), signature=last)
        await line.expect("*")
        line.say("501 5.7.0 cancelled")
        await line.end()

    return then


@pytest.mark.parametrize(
    ("last", "rule"),
    [
        ("v=" + "A" * 43 + "=", "server-does-not-know-the-password"),
        ("e=invalid-proof", "wrong-password-by-scram"),
        ("nonsense", "login-broken-off"),
    ],
)
async def test_a_login_by_scram_that_is_not_right(last: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with Relay(offering("SCRAM-SHA-256", then=ending(last))) as relay:
        found = await tried(to(relay.port), **(LOGIN | {"username": "erp"}), helo_name="client.test")
    is_told(found, "auth", rule, capsys)


# TLS


@pytest.mark.parametrize(
    ("made", "fields", "rule", "change"),
    [
        (lambda: served(AUTHORITY.issue_cert("other.test")), {}, "certificate-name", "--server-name other.test"),
        (lambda: served(AUTHORITY.issue_cert("relay.test", **EXPIRED)), {}, "certificate-expired",
         "--verification fingerprint --fingerprints"),
        (lambda: served(AUTHORITY.issue_cert("relay.test", **NOT_YET_VALID)), {}, "certificate-not-yet-valid", ""),
        (lambda: served(STRANGER.issue_cert("relay.test")), {}, "certificate-unknown",
         "--verification fingerprint --fingerprints"),
        (lambda: served(AUTHORITY.issue_cert("relay.test")),
         {"verification": Verification.FINGERPRINT, "fingerprints": ("0" * 64,)}, "certificate-not-pinned",
         "--fingerprints"),
        (lambda: served(AUTHORITY.issue_cert("relay.test"), "1.0"), {}, "old-tls",
         "--tls-versions '1.0, 1.1, 1.2, 1.3'"),
    ],
)  # fmt: skip
async def test_a_certificate_or_version_that_is_not_taken(
    made: Callable[[], Any], fields: dict[str, Any], rule: str, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with TlsRelay(made()) as relay:
        found = await tried(to(relay.port), **(TLS | fields))
    printed = is_told(found, "tls", rule, capsys)
    assert ("postroom accounts edit relay " + change) in printed if change else "edit relay" not in printed


async def test_the_certificate_that_was_refused_is_shown() -> None:
    issued = AUTHORITY.issue_cert("other.test")
    with TlsRelay(served(issued)) as relay:
        found = await tried(to(relay.port), **TLS)
    facts = found.stage("tls").facts
    assert facts["sha256"] == fingerprint(issued)
    assert facts["chain"][0]["names"] == ["other.test"]
    assert relay.taken == []


async def test_a_relay_that_was_refused_sees_no_certificate_of_ours() -> None:
    shown: list[object] = []
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("peercert"))
        writer.write(b"220 other.test\r\n")
        with suppress(OSError):
            await reader.readline()
        writer.close()
        ended.set()

    context = asking(AUTHORITY, AUTHORITY.issue_cert("other.test"))
    context.verify_mode = ssl.CERT_OPTIONAL
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as relay:
        fields = TLS | own_certificate(AUTHORITY)
        found = await tried(to(relay.sockets[0].getsockname()[1]), **fields)
        await ended.wait()
    assert found.stage("tls").facts["chain"][0]["names"] == ["other.test"]
    assert shown == [None]


async def test_a_certificate_that_is_wanted_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with TlsRelay(asking(STRANGER, AUTHORITY.issue_cert("relay.test"))) as relay:
        found = await tried(to(relay.port), **TLS)
    is_told(found, "greeting", "client-certificate-wanted", capsys)


async def test_a_certificate_of_ours_that_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with TlsRelay(asking(STRANGER, AUTHORITY.issue_cert("relay.test"))) as relay:
        found = await tried(to(relay.port), **(TLS | own_certificate(AUTHORITY)))
    is_told(found, "greeting", "client-certificate-refused", capsys)


async def test_a_certificate_of_ours_that_is_of_no_use(capsys: pytest.CaptureFixture[str]) -> None:
    found = await tried(to(1), **TLS, client_certificate="x", client_key="y")
    is_told(found, "tls", "client-certificate-unusable", capsys)


async def test_tls_at_a_port_that_begins_in_clear(capsys: pytest.CaptureFixture[str]) -> None:
    async with Relay(Server()) as relay:
        found = await tried(to(relay.port), **TLS)
    printed = is_told(found, "tls", "no-tls-on-this-port", capsys)
    assert "postroom accounts edit relay --security starttls" in printed


async def test_no_cipher_in_common(capsys: pytest.CaptureFixture[str]) -> None:
    context = served(AUTHORITY.issue_cert("relay.test"), "1.2")
    context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")  # and its key is of elliptic curves
    with TlsRelay(context) as relay:
        found = await tried(to(relay.port), **TLS)
    is_told(found, "tls", "tls-fails", capsys)


@pytest.mark.parametrize(("talk", "rule"), [(nothing, "tls-stalls"), (hang_up, "tls-breaks-off")])
async def test_a_handshake_without_an_answer(
    talk: Callable[[Line], Awaitable[None]], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Relay(talk) as relay:
        found = await tried(to(relay.port), **TLS, connect_timeout=SHORT)
    is_told(found, "tls", rule, capsys)


def test_no_rule_about_failures_is_left_out() -> None:
    source = Path(__file__).read_text("utf-8")
    missing = [
        rule.name
        for rule in failure_rules()
        if rule.kind in KINDS and not {"proxy", "pop", "token"} & rule.stages and f'"{rule.name}"' not in source
    ]
    assert missing == []
