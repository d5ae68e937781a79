"""Logging in: only over TLS unless the account says otherwise, never not at all when credentials are set."""

from __future__ import annotations

import base64
import hmac
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import scramp
import trustme

from postroom.model.account import Authentication, Mechanism, Security, Verification
from postroom.net.smtp_client import ConnectFailed, SmtpConnection, connect
from tests.flow.smtp_client.talk import Line, Relay
from tests.flow.smtp_client.test_encryption import context

PLAIN = base64.b64encode(b"\0erp\0hunter2").decode()


def offering(*mechanisms: str, then: Callable[[Line], Awaitable[None]]) -> Callable[[Line], Awaitable[None]]:
    """A talk that offers these mechanisms and goes on with `then`."""

    async def talk(line: Line) -> None:
        await line.greet(*([f"AUTH {' '.join(mechanisms)}"] if mechanisms else []))
        await then(line)

    return talk


async def logged_in(relay: Relay, **fields: Any) -> SmtpConnection:
    """A connection as erp."""
    defaults: dict[str, Any] = {
        "authentication": Authentication.PASSWORD,
        "username": "erp",
        "password": "hunter2",
        "allow_clear_password": True,
    }
    return await connect(relay.account(**(defaults | fields)), helo_name="client.test", resolver=relay.resolve)


async def test_plain() -> None:
    async def then(line: Line) -> None:
        await line.expect(f"AUTH PLAIN {PLAIN}")
        line.say("235 2.7.0 welcome")
        await line.expect("QUIT")

    async with Relay(offering("LOGIN", "PLAIN", then=then)) as relay:
        connection = await logged_in(relay)
        said = connection.transcript()
        assert "C: AUTH PLAIN [hidden]" in said
        assert PLAIN not in said and "hunter2" not in said
        await connection.quit()


async def test_a_relay_that_asks_without_end_is_left() -> None:
    async def then(line: Line) -> None:
        await line.expect(f"AUTH PLAIN {PLAIN}")
        for _ in range(3):
            line.say("334 ")
        while await line.line():
            line.say("334 ")

    async with Relay(offering("PLAIN", then=then)) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await logged_in(relay)
        assert (failed.value.stage, failed.value.kind) == ("auth", "sasl")


async def test_login_and_its_secrets_are_hidden() -> None:
    async def then(line: Line) -> None:
        await line.expect("AUTH LOGIN")
        line.say("334 VXNlcm5hbWU6")
        await line.expect(base64.b64encode(b"erp").decode())
        line.say("334 UGFzc3dvcmQ6")
        await line.expect(base64.b64encode(b"hunter2").decode())
        line.say("235 2.7.0 welcome")
        await line.expect("QUIT")

    async with Relay(offering("LOGIN", "GSSAPI", then=then)) as relay:
        connection = await logged_in(relay)
        said = connection.transcript()
        assert said.count("[hidden]") == 3
        assert base64.b64encode(b"hunter2").decode() not in said
        await connection.quit()


async def test_a_mechanism_that_is_refused_by_504_gives_way_to_the_next() -> None:
    async def then(line: Line) -> None:
        await line.expect(f"AUTH PLAIN {PLAIN}")
        line.say("504 5.5.4 not that one")
        await line.expect("AUTH LOGIN")
        line.say("235 2.7.0 welcome, unasked")
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", "LOGIN", then=then)) as relay:
        connection = await logged_in(relay)
        assert connection.is_idle
        await connection.quit()


@pytest.mark.parametrize("reply", ["535 5.7.8 no", "454 4.7.0 later", "530 5.7.0 TLS first"])
async def test_a_refused_login_fails_and_is_not_tried_with_another_mechanism(reply: str) -> None:
    async def then(line: Line) -> None:
        await line.expect(f"AUTH PLAIN {PLAIN}")
        line.say(reply)
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", "LOGIN", then=then)) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await logged_in(relay)
        assert (failed.value.stage, failed.value.kind) == ("auth", "auth")
        assert failed.value.reply is not None and failed.value.reply.command == "AUTH"
        assert "hunter2" not in failed.value.transcript and PLAIN not in failed.value.transcript


@pytest.mark.parametrize(("mechanisms", "shown"), [((), "none"), (("GSSAPI", "XOAUTH2"), "GSSAPI, XOAUTH2")])
async def test_no_mechanism_is_told_and_nothing_is_sent_without_a_login(mechanisms: tuple[str], shown: str) -> None:
    async def then(line: Line) -> None:
        await line.expect("QUIT")
        assert await line.end() == b""

    async with Relay(offering(*mechanisms, then=then)) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await logged_in(relay)
        assert failed.value.kind == "no-mechanism"
        assert f"(offered: {shown})" in failed.value.reason


@pytest.mark.parametrize("security", [Security.NONE, Security.AUTO, Security.STARTTLS_IF_OFFERED])
async def test_no_password_goes_out_in_clear_unless_the_account_allows_it(security: Security) -> None:
    async def then(line: Line) -> None:
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", then=then)) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await logged_in(relay, security=security, allow_clear_password=False)
        assert failed.value.kind == "clear-password"


async def test_a_server_that_demands_tls_without_offering_it_is_asked_once() -> None:
    authority = trustme.CA()
    tls = context(authority)

    async def then(line: Line) -> None:
        await line.expect(f"AUTH PLAIN {PLAIN}")
        line.say("538 5.7.11 encryption required")
        await line.expect("STARTTLS")
        line.say("220 go")
        await line.start_tls(tls)
        await line.expect("EHLO client.test")
        line.offer("AUTH PLAIN")
        await line.expect(f"AUTH PLAIN {PLAIN}")
        line.say("235 welcome")
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", then=then)) as relay:
        bundle = authority.cert_pem.bytes().decode()
        connection = await logged_in(relay, security=Security.AUTO, ca_bundle=bundle)
        assert connection.is_encrypted
        await connection.quit()


def scram_server(mechanism: str, password: str = "hunter2") -> Any:
    """Another implementation's server, that knows erp by `password`."""
    made = scramp.ScramMechanism(mechanism)
    return made.make_server({"erp": made.make_auth_info(password)}.__getitem__)


async def scram(line: Line, server: Any, *, signature: str = "") -> list[str]:
    """The server's side up to its signature (`signature`: another one), and what was said in base64."""
    first = (await line.line()).decode().split(" ")[2].strip()
    server.set_client_first(base64.b64decode(first).decode())
    line.say("334 " + base64.b64encode(server.get_server_first().encode()).decode())
    final = (await line.line()).decode().strip()
    server.set_client_final(base64.b64decode(final).decode())
    line.say("334 " + base64.b64encode((signature or server.get_server_final()).encode()).decode())
    return [first, final, base64.b64decode(final).decode().rpartition(",p=")[2]]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
async def test_scram_proves_both_sides_and_none_of_it_is_shown(mechanism: str) -> None:
    said: list[str] = []

    async def then(line: Line) -> None:
        said.extend(await scram(line, scram_server(mechanism)))
        await line.expect("")
        line.say(f"235 2.7.0 welcome, you said {said[1]} and {said[2]}")
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", mechanism, "CRAM-MD5", then=then)) as relay:
        connection = await logged_in(relay, allow_clear_password=False)
        transcript = connection.transcript()
        assert f"C: AUTH {mechanism} [hidden]" in transcript
        assert "235 2.7.0 welcome, you said [hidden] and [hidden]" in transcript
        assert not any(secret in transcript for secret in [*said, "hunter2"])
        await connection.quit()


@pytest.mark.parametrize("then_says", ["235 2.7.0 welcome", "501 5.7.0 cancelled"])
async def test_a_wrong_signature_ends_the_connection(then_says: str) -> None:
    """Whatever the server says to it, and with no other mechanism."""

    async def then(line: Line) -> None:
        await scram(line, scram_server("SCRAM-SHA-256"), signature="v=" + base64.b64encode(b"x" * 32).decode())
        await line.expect("*")
        line.say(then_says)
        await line.expect("QUIT")
        assert await line.end() == b""

    async with Relay(offering("SCRAM-SHA-256", "PLAIN", then=then)) as relay:
        with pytest.raises(ConnectFailed, match="signature doesn't match") as failed:
            await logged_in(relay)
        assert (failed.value.stage, failed.value.kind, failed.value.reply) == ("auth", "sasl", None)


async def test_a_login_that_is_taken_without_the_servers_proof_is_not_used() -> None:
    async def then(line: Line) -> None:
        await line.line()
        line.say("235 2.7.0 welcome")
        await line.expect("QUIT")

    async with Relay(offering("SCRAM-SHA-256", then=then)) as relay:
        with pytest.raises(ConnectFailed, match="no signature"):
            await logged_in(relay)


async def test_cram_md5_and_its_digest_is_hidden() -> None:
    digest = hmac.digest(b"hunter2", b"<1@relay.test>", "md5").hex()

    async def then(line: Line) -> None:
        await line.expect("AUTH CRAM-MD5")
        line.say("334 " + base64.b64encode(b"<1@relay.test>").decode())
        await line.expect(base64.b64encode(f"erp {digest}".encode()).decode())
        line.say(f"235 2.7.0 welcome, {digest}")
        await line.expect("QUIT")

    async with Relay(offering("LOGIN", "CRAM-MD5", "PLAIN", then=then)) as relay:
        connection = await logged_in(relay)
        assert digest not in connection.transcript()
        await connection.quit()


async def test_one_mechanism_is_the_only_one() -> None:
    async def then(line: Line) -> None:
        await line.expect("AUTH LOGIN")
        line.say("535 5.7.8 no")
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", "LOGIN", "SCRAM-SHA-256", then=then)) as relay:
        with pytest.raises(ConnectFailed, match="refused"):
            await logged_in(relay, mechanism=Mechanism.LOGIN)

    async def nothing(line: Line) -> None:
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", then=nothing)) as relay:
        with pytest.raises(ConnectFailed, match="offered: PLAIN"):
            await logged_in(relay, mechanism=Mechanism.CRAM_MD5)


def over_tls(
    tls: ssl.SSLContext, *mechanisms: str, then: Callable[[Line], Awaitable[None]]
) -> Callable[[Line], Awaitable[None]]:
    """A talk that offers STARTTLS, and these mechanisms after it."""

    async def talk(line: Line) -> None:
        await line.greet("STARTTLS")
        await line.expect("STARTTLS")
        line.say("220 go")
        await line.start_tls(tls)
        await line.expect("EHLO client.test")
        line.offer(f"AUTH {' '.join(mechanisms)}")
        await then(line)

    return talk


@pytest.mark.parametrize("code", ["535 5.7.8", "534 5.7.9", "504 5.5.4"])
async def test_a_refused_challenge_gives_way_to_plain_once_where_the_relay_is_verified(code: str) -> None:
    authority = trustme.CA()

    async def then(line: Line) -> None:
        assert (await line.line()).startswith(b"AUTH SCRAM-SHA-256 ")
        line.say(f"{code} not so")
        await line.expect(f"AUTH PLAIN {PLAIN}")
        line.say("235 2.7.0 welcome")
        await line.expect("QUIT")

    talk = over_tls(context(authority), "SCRAM-SHA-256", "PLAIN", "LOGIN", then=then)
    async with Relay(talk) as relay:
        bundle = authority.cert_pem.bytes().decode()
        connection = await logged_in(relay, security=Security.AUTO, ca_bundle=bundle, allow_clear_password=False)
        await connection.quit()


async def test_a_relay_that_hangs_up_behind_the_refusal_leaves_the_refusal_as_the_reason() -> None:
    authority = trustme.CA()

    async def then(line: Line) -> None:
        await line.line()
        line.say("535 5.7.8 no such user")
        line.close()

    async with Relay(over_tls(context(authority), "SCRAM-SHA-256", "PLAIN", then=then)) as relay:
        with pytest.raises(ConnectFailed, match="no such user") as failed:
            await logged_in(relay, security=Security.AUTO, ca_bundle=authority.cert_pem.bytes().decode())
        assert failed.value.reply is not None and failed.value.reply.code == 535


async def test_nothing_follows_a_refused_challenge_where_the_relay_is_not_verified() -> None:
    async def then(line: Line) -> None:
        assert (await line.line()).startswith(b"AUTH SCRAM-SHA-256 ")
        line.say("535 5.7.8 no")
        await line.expect("QUIT")
        assert await line.end() == b""

    in_clear = offering("SCRAM-SHA-256", "PLAIN", then=then)
    unverified = over_tls(context(trustme.CA()), "SCRAM-SHA-256", "PLAIN", then=then)
    for talk, security in ((in_clear, Security.NONE), (unverified, Security.STARTTLS)):
        async with Relay(talk) as relay:
            with pytest.raises(ConnectFailed, match="refused"):
                await logged_in(relay, security=security, verification=Verification.OFF)


async def test_a_password_that_a_mechanism_cannot_carry_goes_by_the_next() -> None:
    password = "p\N{GRINNING FACE}ss"

    async def then(line: Line) -> None:
        await line.expect("AUTH PLAIN " + base64.b64encode(f"\0erp\0{password}".encode()).decode())
        line.say("235 2.7.0 welcome")
        await line.expect("QUIT")

    async with Relay(offering("SCRAM-SHA-256", "PLAIN", then=then)) as relay:
        await (await logged_in(relay, password=password)).quit()

    async def nothing(line: Line) -> None:
        await line.expect("QUIT")

    async with Relay(offering("SCRAM-SHA-256", "PLAIN", then=nothing)) as relay:
        with pytest.raises(ConnectFailed, match="SCRAM-SHA-256: unassigned") as failed:
            await logged_in(relay, password=password, mechanism=Mechanism.SCRAM_SHA_256)
        assert failed.value.kind == "credentials"


async def test_a_password_too_long_for_the_command_goes_with_the_first_challenge() -> None:
    """RFC 4954 section 4: an AUTH line of more than 512 octets has no initial response."""
    password = "secret" * 100
    response = base64.b64encode(f"\0erp\0{password}".encode()).decode()

    async def then(line: Line) -> None:
        await line.expect("AUTH PLAIN")
        line.say("334 ")
        await line.expect(response)
        line.say("235 2.7.0 welcome")
        await line.expect("QUIT")

    async with Relay(offering("PLAIN", then=then)) as relay:
        connection = await logged_in(relay, password=password)
        assert response not in connection.transcript() and "C: [hidden]" in connection.transcript()
        await connection.quit()
