"""What an account may say of TLS: versions, the name that is asked for, pinned certificates, its own certificate."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trustme

from postroom.model.account import Account, AccountKind, Security, Verification
from postroom.net.smtp_client import ConnectFailed, SmtpConnection, connect
from postroom.net.stream import Address
from postroom.net.tls import client_context
from tests.flow.smtp_client.talk import Line, Relay
from tests.flow.smtp_client.test_encryption import with_starttls
from tests.tls_relay import EXPIRED, TlsRelay, asking, fingerprint, own_certificate, pem, served

AUTHORITY = trustme.CA()
BUNDLE = pem(AUTHORITY)


async def goodbye(line: Line) -> None:
    """Greets, and sees the client leave."""
    await line.greet()
    await line.expect("QUIT")


async def silence(line: Line) -> None:
    """Not a word comes from the client."""
    line.say("220 relay.test ESMTP")
    assert await line.end() == b""


async def opened(relay: Relay | TlsRelay, **fields: Any) -> SmtpConnection:
    """A connection to relay.test, over TLS from the start unless `security` says otherwise."""

    async def here(host: str, port: int) -> Sequence[Address]:
        return [(socket.AF_INET, ("127.0.0.1", port))]

    given: dict[str, Any] = {"security": Security.TLS, "host": "relay.test", "port": relay.port} | fields
    account = Account(id=1, name="relay", kind=AccountKind.SMTP, **given)
    return await connect(account, helo_name="client.test", resolver=here)


async def refused(relay: Relay | TlsRelay, **fields: Any) -> ConnectFailed:
    """Why no connection can be had."""
    with pytest.raises(ConnectFailed) as failed:
        await opened(relay, **fields)
    return failed.value


@pytest.mark.parametrize(
    ("spoken", "allowed", "used"),
    [
        (["1.0"], ["1.0", "1.1"], "TLSv1 "),
        (["1.0"], ["1.0", "1.2", "1.3"], "TLSv1 "),
        (["1.2", "1.3"], ["1.2"], "TLSv1.2 "),
        (["1.0", "1.2"], ["1.0", "1.2"], "TLSv1.2 "),
        (["1.2", "1.3"], ["1.0", "1.3"], "TLSv1.3 "),
        (["1.2", "1.3"], ["1.0", "1.1", "1.2", "1.3"], "TLSv1.3 "),
    ],
)
async def test_the_newest_version_that_both_allow_is_used(
    spoken: Sequence[str], allowed: Sequence[str], used: str
) -> None:
    async with Relay(goodbye, served(AUTHORITY.issue_cert("relay.test"), *spoken)) as relay:
        connection = await opened(relay, tls_versions=tuple(allowed), ca_bundle=BUNDLE)
        assert f"-- {used}" in connection.transcript()
        await connection.quit()


@pytest.mark.parametrize(
    ("spoken", "allowed"),
    [(["1.0"], ["1.2", "1.3"]), (["1.2"], ["1.3"]), (["1.2"], ["1.0", "1.1", "1.3"]), (["1.3"], ["1.0", "1.2"])],
)
async def test_a_version_that_the_account_does_not_allow_is_not_spoken(
    spoken: Sequence[str], allowed: Sequence[str]
) -> None:
    with TlsRelay(served(AUTHORITY.issue_cert("relay.test"), *spoken)) as relay:
        failed = await refused(relay, tls_versions=tuple(allowed), ca_bundle=BUNDLE)
        assert (failed.stage, failed.kind) == ("tls", "tls")
        assert re.search("PROTOCOL|it speaks TLS 1.2, which this account does not allow", failed.reason)


def test_old_versions_of_one_account_change_no_other() -> None:
    old, usual = client_context(versions=("1.0", "1.2")), client_context()
    assert (old.security_level, usual.security_level) == (0, ssl.create_default_context().security_level)
    assert usual.minimum_version is ssl.TLSVersion.TLSv1_2
    assert old.verify_mode is ssl.CERT_REQUIRED and old.check_hostname


async def test_the_server_name_is_asked_for_and_checked() -> None:
    asked: list[str | None] = []
    tls = served(AUTHORITY.issue_cert("mail.provider.test"))
    tls.sni_callback = lambda _, name, __: asked.append(name)
    async with Relay(goodbye, tls) as relay:
        connection = await opened(relay, ca_bundle=BUNDLE, server_name="mail.provider.test")
        await connection.quit()
    async with Relay(silence, tls) as relay:
        failed = await refused(relay, ca_bundle=BUNDLE)
        assert failed.kind == "certificate" and "mismatch" in failed.reason
    assert asked == ["mail.provider.test", "relay.test"]


@pytest.mark.parametrize("times", [{}, EXPIRED])
async def test_a_pinned_certificate_is_taken_whoever_signed_it(times: dict[str, Any]) -> None:
    issued = trustme.CA().issue_cert("another.test", **times)
    pins = ("00" * 32, fingerprint(issued))
    async with Relay(goodbye, served(issued)) as relay:
        connection = await opened(relay, verification=Verification.FINGERPRINT, fingerprints=pins)
        await connection.quit()
    async with Relay(with_starttls(served(issued))) as relay:
        connection = await opened(
            relay, security=Security.AUTO, verification=Verification.FINGERPRINT, fingerprints=pins
        )
        assert connection.is_encrypted
        await connection.quit()


def starttls_and_silence(tls: ssl.SSLContext) -> Callable[[Line], Awaitable[None]]:
    """A talk in which nothing is said behind the handshake."""

    async def talk(line: Line) -> None:
        await line.greet("STARTTLS")
        await line.expect("STARTTLS")
        line.say("220 go")
        await line.start_tls(tls)
        assert await line.end() == b""

    return talk


@pytest.mark.parametrize("security", [Security.TLS, Security.STARTTLS, Security.AUTO])
async def test_a_certificate_that_is_not_pinned_gets_not_a_word(security: Security) -> None:
    """Though this machine would trust it; and nothing goes in clear."""
    issued = AUTHORITY.issue_cert("relay.test")
    tls = served(issued)
    relay = Relay(silence, tls) if security is Security.TLS else Relay(starttls_and_silence(tls))
    async with relay:
        failed = await refused(
            relay, security=security, ca_bundle=BUNDLE, verification=Verification.FINGERPRINT, fingerprints=("ab" * 32,)
        )
        assert (failed.stage, failed.kind) == ("tls", "certificate")
        assert fingerprint(issued) in failed.reason.replace(":", "")
    assert relay.connections <= 1


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_the_accounts_certificate_is_shown_where_it_is_asked_for(version: str) -> None:
    with TlsRelay(asking(AUTHORITY, AUTHORITY.issue_cert("relay.test"), version)) as relay:
        connection = await opened(relay, ca_bundle=BUNDLE, **own_certificate(AUTHORITY))
        assert connection.is_encrypted
        await connection.quit()


@pytest.mark.parametrize(
    ("version", "alert"), [("1.2", "HANDSHAKE_FAILURE"), ("1.3", "TLSV13_ALERT_CERTIFICATE_REQUIRED")]
)
async def test_without_a_certificate_the_reason_names_it(version: str, alert: str) -> None:
    with TlsRelay(asking(AUTHORITY, AUTHORITY.issue_cert("relay.test"), version)) as relay:
        failed = await refused(relay, ca_bundle=BUNDLE)
        assert failed.kind == "tls" and alert in failed.reason


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_a_certificate_by_a_stranger_is_refused_by_the_relay(version: str) -> None:
    with TlsRelay(asking(AUTHORITY, AUTHORITY.issue_cert("relay.test"), version)) as relay:
        failed = await refused(relay, ca_bundle=BUNDLE, **own_certificate(trustme.CA()))
        assert failed.kind == "tls" and "UNKNOWN_CA" in failed.reason


async def test_a_certificate_that_cannot_be_used_fails_by_name() -> None:
    async with Relay(silence) as relay:
        broken = own_certificate(AUTHORITY) | {"client_key": own_certificate(AUTHORITY)["client_key"]}
        failed = await refused(relay, **broken)
        assert failed.kind == "tls" and "client certificate cannot be used" in failed.reason
