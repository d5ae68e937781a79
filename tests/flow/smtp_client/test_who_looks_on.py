"""Who looks on is told each stage of an opening, what it found, and each line that is said, without secrets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

import pytest
import trustme

from postroom.model.account import Account, AccountKind, Authentication, Security
from postroom.net.observer import Observer
from postroom.net.smtp_client import ConnectFailed, SmtpConnection, connect
from postroom.net.stream import Address
from tests.flow.smtp_client.talk import Line, Relay
from tests.flow.smtp_client.test_encryption import with_starttls
from tests.tls_relay import TlsRelay, pem, served

AUTHORITY = trustme.CA()
BUNDLE = pem(AUTHORITY)
PASSWORD = {"authentication": Authentication.PASSWORD, "username": "u", "password": "hunter2"}


class Notebook(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.facts: dict[str, Any] = {}
        self.lines: list[str] = []
        self.versions: list[str | None] = []

    def began(self, stage: str) -> None:
        self.stages.append(stage)

    def found(self, **facts: object) -> None:
        self.facts |= facts

    def secured(self, tls: ssl.SSLObject) -> None:
        self.versions.append(tls.version())

    def said(self, line: str) -> None:
        self.lines.append(line)


async def opened(relay: Relay | TlsRelay, looking: Notebook, **fields: Any) -> SmtpConnection:
    """A connection to it, with `looking` on."""

    async def here(host: str, port: int) -> Sequence[Address]:
        return [(socket.AF_INET, ("127.0.0.1", port))]

    given: dict[str, Any] = {"security": Security.NONE, "host": "relay.test", "port": relay.port} | fields
    account = Account(id=1, name="relay", kind=AccountKind.SMTP, **given)
    return await connect(account, helo_name="client.test", resolver=here, observer=looking)


async def with_a_login(line: Line) -> None:
    """Takes any login."""
    await line.greet("AUTH PLAIN", "SIZE 1000")
    await line.line()
    line.say("235 welcome, hunter2")
    await line.expect("QUIT")


async def test_stages_come_in_their_order_with_what_they_found() -> None:
    looking = Notebook()
    async with Relay(with_a_login) as relay:
        connection = await opened(relay, looking, allow_clear_password=True, **PASSWORD)
        await connection.quit()
    assert looking.stages == ["resolve", "connect", "greeting", "ehlo", "auth"]
    assert looking.facts["addresses"] == ["127.0.0.1"]
    assert (looking.facts["address"], looking.facts["port"]) == ("127.0.0.1", relay.port)
    assert looking.facts["greeting"] == "220 relay.test ESMTP"
    assert looking.facts["extensions"]["SIZE"] == "1000"
    assert looking.facts["mechanism"] == "PLAIN"
    assert looking.lines[:2] == ["S: 220 relay.test ESMTP", "C: EHLO client.test"]
    assert "C: AUTH PLAIN [hidden]" in looking.lines
    assert "hunter2" not in str(looking.lines)


async def test_implicit_tls_is_a_stage_behind_the_connection() -> None:
    looking = Notebook()
    with TlsRelay(served(AUTHORITY.issue_cert("relay.test"))) as relay:
        connection = await opened(relay, looking, security=Security.TLS, ca_bundle=BUNDLE)
        await connection.quit()
    assert looking.stages == ["resolve", "connect", "tls", "greeting", "ehlo"]
    assert looking.versions == ["TLSv1.3"]


async def test_starttls_is_a_stage_of_its_own_with_the_handshake_and_a_second_ehlo_behind_it() -> None:
    looking = Notebook()

    async with Relay(with_starttls(served(AUTHORITY.issue_cert("relay.test")))) as relay:
        connection = await opened(relay, looking, security=Security.STARTTLS, ca_bundle=BUNDLE)
        await connection.quit()
    assert looking.stages == ["resolve", "connect", "greeting", "ehlo", "starttls", "tls", "ehlo"]
    assert looking.versions == ["TLSv1.3"]


async def test_an_attempt_that_fails_ends_in_the_stage_that_the_error_names() -> None:
    looking = Notebook()
    with TlsRelay(served(AUTHORITY.issue_cert("other.test"))) as relay:
        with pytest.raises(ConnectFailed) as failed:
            await opened(relay, looking, security=Security.TLS, ca_bundle=BUNDLE)
    assert looking.stages[-1] == failed.value.stage == "tls"


async def test_an_envelope_is_asked_about_and_taken_back_without_content() -> None:
    async def talk(line: Line) -> None:
        await line.greet()
        await line.expect("MAIL FROM:<a@x.test>")
        line.say("250 2.1.0 fine")
        await line.expect("RCPT TO:<b@y.test>")
        line.say("550 5.1.1 nobody")
        await line.expect("RSET")
        line.say("250 2.0.0 forgotten")
        await line.expect("QUIT")

    async with Relay(talk) as relay:
        connection = await opened(relay, Notebook())
        commands = [b"MAIL FROM:<a@x.test>", b"RCPT TO:<b@y.test>", b"RSET"]
        assert [(await connection.ask(command)).code for command in commands] == [250, 550, 250]
        assert "C: RCPT TO:<b@y.test>" in connection.transcript()
        assert connection.is_idle
        await connection.quit()
