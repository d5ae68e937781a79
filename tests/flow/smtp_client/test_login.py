"""Logging in: only over TLS unless the account says otherwise, never not at all when credentials are set."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme

from postroom.model.account import Authentication, Security
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
