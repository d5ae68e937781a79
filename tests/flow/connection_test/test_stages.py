"""What a test goes through and finds, what it leaves alone, and what it says of it."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
import trustme

from postroom.model.account import AccountKind, Authentication, Security, Verification
from tests.flow.connection_test.trying import LOGIN, Server, to, tried
from tests.flow.smtp_client.talk import Line, Relay
from tests.tls_relay import TlsRelay, fingerprint, pem, served

AUTHORITY = trustme.CA()
BUNDLE = pem(AUTHORITY)


async def test_every_stage_passes_and_nothing_is_sent() -> None:
    server = Server("AUTH PLAIN LOGIN", "SIZE 1000")
    async with Relay(server) as relay:
        found = await tried(to(relay.port), **LOGIN)
    names = [stage.name for stage in found.result.stages]
    assert names == ["resolve", "connect", "greeting", "ehlo", "auth", "encryption", "sender", "recipient"]
    assert found.result.passed
    assert found.stage("auth").facts == {"mechanism": "PLAIN"}
    assert found.stage("ehlo").facts["extensions"]["SIZE"] == "1000"
    assert found.stage("recipient").facts == {"address": "b@y.test", "reply": "250 2.0.0 ok"}
    assert server.commands[2:] == ["MAIL FROM:<a@x.test> SIZE=0", "RCPT TO:<b@y.test>", "RSET", "QUIT"]
    assert all(stage.milliseconds >= 0 for stage in found.result.stages)


async def test_stages_are_told_when_they_begin_and_when_they_have_ended_with_each_line_in_between() -> None:
    async with Relay(Server()) as relay:
        found = await tried(to(relay.port))
    told = [(event["event"], event.get("stage", event.get("line", ""))) for event in found.events]
    assert told[:6] == [
        ("began", "resolve"),
        ("stage", "resolve"),
        ("began", "connect"),
        ("stage", "connect"),
        ("began", "greeting"),
        ("said", "S: 220 relay.test ESMTP"),
    ]
    assert ("said", "C: RCPT TO:<b@y.test>") in told
    assert [line for kind, line in told if kind == "said"] == found.result.transcript


async def test_secrets_stand_nowhere() -> None:
    async with Relay(Server("AUTH PLAIN", auth="535 5.7.8 wrong: hunter2")) as relay:
        found = await tried(to(relay.port), **LOGIN)
    everything = json.dumps([found.events, found.result.show()])
    assert "hunter2" not in everything and "AGVycEB4LnRlc3QAaHVudGVyMg" not in everything
    assert "C: AUTH PLAIN [hidden]" in found.result.transcript


async def test_without_a_recipient_it_stops_behind_the_sender_and_without_a_sender_before() -> None:
    server = Server()
    async with Relay(server) as relay:
        found = await tried(to(relay.port), recipient="")
        assert found.stage("recipient").outcome == "skipped"
        assert server.commands[1:] == ["MAIL FROM:<a@x.test>", "RSET", "QUIT"]
        nobody = await tried(to(relay.port), sender="", recipient="")
    assert nobody.stage("sender").outcome == "skipped"
    assert nobody.result.passed


async def test_a_real_message_is_sent_only_when_it_is_asked_for_and_its_reply_is_told() -> None:
    server = Server()
    async with Relay(server) as relay:
        found = await tried(to(relay.port), send=True)
    assert found.stage("message").facts["reply"] == "250 2.0.0 kept as 42"
    assert server.commands[-3:] == ["RCPT TO:<b@y.test>", "DATA", "QUIT"]
    assert "S: 250 2.0.0 kept as 42" in found.result.transcript
    assert "hello" not in "".join(found.result.transcript)


async def test_no_message_goes_where_a_stage_before_it_failed() -> None:
    server = Server(rcpt="550 5.1.1 nobody")
    async with Relay(server) as relay:
        found = await tried(to(relay.port), send=True)
    assert found.failed == ["recipient"]
    assert found.stage("message").outcome == "skipped"
    assert "DATA" not in server.commands


async def test_a_message_whose_end_is_not_answered_failed() -> None:
    async def talk(line: Line) -> None:
        line.say("220 relay.test")
        for reply in ("250 relay.test", "250 ok", "250 ok", "250 ok", "250 ok", "250 ok", "354 go"):
            await line.line()
            line.say(reply)
        await line.content()

    async with Relay(talk) as relay:
        found = await tried(to(relay.port), send=True)
    assert found.failed == ["message"]
    assert "message-broke-off" in found.rules


async def test_an_address_beyond_ascii_needs_a_relay_with_smtputf8() -> None:
    async with Relay(Server()) as relay:
        found = await tried(to(relay.port), recipient="jürgen@y.test")
    assert found.failed == ["sender"]
    assert "no-smtputf8" in found.rules
    async with Relay(Server("SMTPUTF8")) as relay:
        assert (await tried(to(relay.port), recipient="jürgen@y.test")).result.passed


async def test_an_address_that_would_end_its_line_is_not_written() -> None:
    server = Server()
    async with Relay(server) as relay:
        found = await tried(to(relay.port), recipient="b@y.test>\r\nDATA")
    assert found.failed == ["sender"]
    assert "bad-address" in found.rules
    assert not any(command.startswith("RCPT") for command in server.commands)


async def test_tls_shows_its_version_cipher_and_chain_with_the_day_that_it_ends() -> None:
    issued = AUTHORITY.issue_cert("relay.test")
    with TlsRelay(served(issued)) as relay:
        found = await tried(to(relay.port), security=Security.TLS, ca_bundle=BUNDLE)
    facts = found.stage("tls").facts
    assert facts["version"] == "TLSv1.3" and facts["cipher"].startswith("TLS_")
    assert facts["sha256"] == fingerprint(issued)
    assert facts["chain"][0]["names"] == ["relay.test"]
    assert "trustme" in facts["chain"][0]["issuer"]
    assert datetime.date.fromisoformat(facts["expires"]) > datetime.datetime.now(datetime.UTC).date()


@pytest.mark.parametrize(
    ("dates", "fields", "rule"),
    [
        ({"not_after": datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=9)}, {}, "expires-soon"),
        ({}, {"verification": Verification.OFF}, "not-verified"),
    ],
)
async def test_what_works_and_is_not_well_is_warned_of(
    dates: dict[str, Any], fields: dict[str, Any], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with TlsRelay(served(AUTHORITY.issue_cert("relay.test", **dates))) as relay:
        found = await tried(to(relay.port), security=Security.TLS, ca_bundle=BUNDLE, **fields)
    assert found.result.passed
    assert found.stage("tls").outcome == "warning"
    assert rule in found.rules
    found.print()
    printed = capsys.readouterr().out
    assert "note    tls" in printed
    assert ("edit relay --verification full" in printed) == (rule == "not-verified")


async def test_a_connection_in_clear_is_warned_of() -> None:
    async with Relay(Server()) as relay:
        found = await tried(to(relay.port), security=Security.AUTO)
    assert found.stage("encryption").outcome == "warning"
    assert "in-clear" in found.rules


async def test_the_change_of_a_sender_is_one_that_the_login_owns(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server("AUTH PLAIN", mail="553 5.7.1 <a@x.test>: Sender address rejected: not owned by user erp@x.test")
    async with Relay(server) as relay:
        found = await tried(to(relay.port), **LOGIN)
    found.print()
    assert "run:   postroom accounts edit relay --fixed-sender erp@x.test" in capsys.readouterr().out


async def test_a_change_that_is_there_already_is_not_proposed() -> None:
    """Where a relay wants a login and the account has no name for it, no command mends that."""
    async with Relay(Server(mail="530 5.7.0 Authentication required")) as relay:
        without = await tried(to(relay.port))
        named = await tried(
            to(relay.port), username="erp@x.test", password="hunter2", authentication=Authentication.NONE
        )
    assert [dict(one.change) for one in without.stage("sender").advice] == [{}]
    assert [dict(one.change) for one in named.stage("sender").advice] == [{"authentication": "password"}]


async def test_a_sandbox_connects_to_nobody() -> None:
    found = await tried(to(1), kind=AccountKind.SANDBOX)
    assert [stage.outcome for stage in found.result.stages] == ["skipped"]
    assert found.result.passed


async def test_who_needs_attention_is_told_how_to_wake_after_a_test_that_passed() -> None:
    async with Relay(Server()) as relay:
        woken = await tried(to(relay.port), order={"needs_attention": True})
        off = await tried(to(relay.port), enabled=False)
    assert any("postroom accounts wake relay" in note for note in woken.result.notes)
    assert any("postroom accounts edit relay --enabled" in note for note in off.result.notes)
    failed = await tried(to(1), order={"needs_attention": True})
    assert failed.result.notes == []
