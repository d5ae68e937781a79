"""TLS of outgoing connections: every policy, verified by default, and nothing of a clear dialogue survives it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import pytest
import trustme

from postroom.model.account import Authentication, Security, Verification
from postroom.net.smtp_client import ConnectFailed, connect
from postroom.net.tls import client_context, server_context
from tests.flow.smtp_client.talk import Line, Relay


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A throw-away certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA) -> str:
    """Its certificate, as an account holds it."""
    return authority.cert_pem.bytes().decode()


def context(authority: trustme.CA, name: str = "relay.test") -> ssl.SSLContext:
    """A server's context with a certificate for `name`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(made)
    return made


def with_starttls(tls: ssl.SSLContext, *, behind: str = "") -> Callable[[Line], Awaitable[None]]:
    """A talk that offers STARTTLS (and LIES, which it does not repeat after it)."""

    async def talk(line: Line) -> None:
        await line.greet("STARTTLS", "LIES")
        await line.expect("STARTTLS")
        line.say("220 go", *([behind] if behind else []))
        await line.start_tls(tls)
        await line.expect("EHLO client.test")
        line.offer("PIPELINING")
        await line.expect("QUIT")
        line.say("221 bye")

    return talk


@pytest.mark.parametrize("security", [Security.AUTO, Security.STARTTLS, Security.STARTTLS_IF_OFFERED])
async def test_starttls_is_used_where_offered(authority: trustme.CA, bundle: str, security: Security) -> None:
    async with Relay(with_starttls(context(authority))) as relay:
        account = relay.account(security=security, ca_bundle=bundle)
        connection = await connect(account, helo_name="client.test", resolver=relay.resolve)
        assert connection.is_encrypted
        assert connection.pipelining and "LIES" not in connection.extensions
        assert "TLSv1.3" in connection.transcript()
        await connection.quit()


@pytest.mark.parametrize("security", [Security.AUTO, Security.STARTTLS, Security.STARTTLS_IF_OFFERED])
@pytest.mark.parametrize("fault", ["wrong name", "unknown authority"])
async def test_a_certificate_that_fails_never_falls_back_to_clear(
    authority: trustme.CA, bundle: str, security: Security, fault: str
) -> None:
    tls = context(authority, "other.test") if fault == "wrong name" else context(trustme.CA())
    async with Relay(with_starttls(tls)) as relay:
        account = relay.account(security=security, ca_bundle=bundle)
        with pytest.raises(ConnectFailed) as failed:
            await connect(account, helo_name="client.test", resolver=relay.resolve)
        assert (failed.value.stage, failed.value.kind) == ("tls", "certificate")
        assert "relay.test" in failed.value.reason
    assert relay.connections == 1


async def test_a_self_signed_certificate_is_refused_without_a_bundle_and_taken_when_verification_is_off(
    authority: trustme.CA,
) -> None:
    async def talk(line: Line) -> None:
        await line.greet()
        await line.expect("QUIT")

    async with Relay(talk, context(authority)) as relay:
        account = relay.account(security=Security.TLS)
        with pytest.raises(ConnectFailed) as failed:
            await connect(account, helo_name="client.test", resolver=relay.resolve)
        assert failed.value.kind == "certificate"
        trusting = relay.account(security=Security.TLS, verification=Verification.OFF)
        connection = await connect(trusting, helo_name="client.test", resolver=relay.resolve)
        assert connection.is_encrypted
        await connection.quit()


async def test_implicit_tls_comes_before_the_greeting(authority: trustme.CA, bundle: str) -> None:
    async def talk(line: Line) -> None:
        await line.greet("STARTTLS")  # inside TLS it is of no use
        await line.expect("QUIT")

    async with Relay(talk, context(authority)) as relay:
        account = relay.account(security=Security.TLS, ca_bundle=bundle)
        connection = await connect(account, helo_name="client.test", resolver=relay.resolve)
        assert connection.is_encrypted
        await connection.quit()


async def test_required_starttls_that_is_not_offered_fails() -> None:
    async def talk(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await connect(relay.account(security=Security.STARTTLS), helo_name="client.test", resolver=relay.resolve)
        assert (failed.value.stage, failed.value.kind) == ("starttls", "tls")


@pytest.mark.parametrize("security", [Security.AUTO, Security.STARTTLS_IF_OFFERED, Security.STARTTLS])
async def test_starttls_that_is_refused_ends_a_required_one_only(security: Security) -> None:
    async def talk(line: Line) -> None:
        await line.greet("STARTTLS")
        await line.expect("STARTTLS")
        line.say("454 4.7.0 no key today")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        account = relay.account(security=security)
        if security is Security.STARTTLS:
            with pytest.raises(ConnectFailed) as failed:
                await connect(account, helo_name="client.test", resolver=relay.resolve)
            assert failed.value.reply is not None and failed.value.reply.code == 454
        else:
            connection = await connect(account, helo_name="client.test", resolver=relay.resolve)
            assert connection.is_usable and not connection.is_encrypted
            await connection.quit()


async def test_bytes_in_clear_behind_the_220_end_the_connection(authority: trustme.CA, bundle: str) -> None:
    """Response injection: CVE-2021-38371 and its kin."""
    talk = with_starttls(context(authority), behind="250-relay.test\r\n250 AUTH PLAIN")
    async with Relay(talk) as relay:
        account = relay.account(
            security=Security.STARTTLS,
            ca_bundle=bundle,
            authentication=Authentication.PASSWORD,
            username="u",
            password="p",
        )
        with pytest.raises(ConnectFailed) as failed:
            await connect(account, helo_name="client.test", resolver=relay.resolve)
        assert failed.value.kind == "protocol"
        assert "STARTTLS" in failed.value.reason


async def test_a_server_that_speaks_no_tls_is_told_so(authority: trustme.CA) -> None:
    async def talk(line: Line) -> None:
        line.say("220 relay.test in clear")
        await line.end()

    async with Relay(talk) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await connect(relay.account(security=Security.TLS), helo_name="client.test", resolver=relay.resolve)
        assert (failed.value.stage, failed.value.kind) == ("tls", "tls")


async def test_old_versions_of_tls_are_refused(authority: trustme.CA, bundle: str) -> None:
    old = context(authority)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1

    async def talk(line: Line) -> None:
        await line.greet()

    async with Relay(talk, old) as relay:
        account = relay.account(security=Security.TLS, ca_bundle=bundle)
        with pytest.raises(ConnectFailed) as failed:
            await connect(account, helo_name="client.test", resolver=relay.resolve)
        assert failed.value.stage == "tls"


async def test_a_ca_bundle_that_is_none_fails_by_name() -> None:
    async def talk(line: Line) -> None:
        await line.end()

    async with Relay(talk) as relay:
        account = relay.account(security=Security.TLS, ca_bundle="not a certificate")
        with pytest.raises(ConnectFailed, match="CA bundle"):
            await connect(account, helo_name="client.test", resolver=relay.resolve)


def test_contexts_verify_unless_told_otherwise(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> None:
    full, off = client_context(), client_context(Verification.OFF)
    assert (full.check_hostname, full.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert off.verify_mode is ssl.CERT_NONE
    assert full.minimum_version is ssl.TLSVersion.TLSv1_2
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("mx.test")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    served = server_context(str(folder / "both.pem"))
    assert served.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        server_context(str(folder / "missing.pem"))
