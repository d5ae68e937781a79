"""Each reply that a rule was made for, said by a relay at its stage: the test tells that rule's advice to the user.

So with what an authorization server says, a relay to a token, and Graph.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
import trustme

from postroom.model.account import Authentication, OAuth, OAuthFlow, OAuthProvider, Security
from postroom.policy.classify import Rule, Stage, rules
from postroom.transports.graph_outcomes import addressed
from tests import graph_senders
from tests.flow.connection_test.microsoft import by_graph, microsoft
from tests.flow.connection_test.trying import LOGIN, Server, Tried, to, tried
from tests.flow.smtp_client.talk import Line, Relay
from tests.graph_peer import error
from tests.tls_relay import pem, served
from tests.token_desk import TokenDesk
from tests.web_server import answer

AUTHORITY = trustme.CA()

#: How the stages of replies are called in a test.
NAMES = {"mail": "sender", "rcpt": "recipient", "data": "message", "content": "message"}

#: What is said where tokens are given or taken is no reply of a relay to a password.
OF_TOKENS = {Stage.TOKEN, Stage.TOKEN_LOGIN, Stage.GRAPH}

CASES = [
    pytest.param(rule, stage, id=f"{rule.name}-{stage}")
    for rule in rules()
    for stage in sorted(rule.stages - OF_TOKENS)
]


def at(stage: Stage) -> list[Rule]:
    """The rules of a stage."""
    return [rule for rule in rules() if stage in rule.stages]


def is_told(found: Tried, stage: str, rule: Rule, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The stage failed, and cause and advice are what the command prints; no secret is."""
    assert found.failed == [stage], found.result.show()
    assert rule.name in found.rules
    found.print()
    printed = capsys.readouterr().out
    assert rule.cause in printed
    assert advice.replace("accounts authorize NAME", "accounts authorize relay") in printed
    assert not re.search(r"hunter2|\ba[12]\b|token-1", printed)


def test_there_are_more_than_forty_rules_about_replies_of_relays() -> None:
    assert len({case.values[0].name for case in CASES}) > 40  # type: ignore[union-attr]


@pytest.mark.parametrize(("rule", "stage"), CASES)
async def test_the_advice_of_each_rule_reaches_the_user(
    rule: Rule, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server("AUTH PLAIN", "STARTTLS", **{stage.value: rule.reply.strip()})
    fields = LOGIN if stage is Stage.AUTH else {}
    security = Security.STARTTLS if stage is Stage.STARTTLS else Security.NONE
    async with Relay(server) as relay:
        found = await tried(to(relay.port), send=True, security=security, **fields)
    name = NAMES.get(stage.value, stage.value)
    assert found.failed == [name]
    assert rule.name in found.rules
    found.print()
    printed = capsys.readouterr().out
    assert rule.cause in printed
    assert rule.advice in printed
    assert "hunter2" not in printed


def by_token(desk: TokenDesk) -> dict[str, Any]:
    """The fields of an account that comes there for tokens with rights of its own."""
    oauth = OAuth(
        provider=OAuthProvider.CUSTOM, flow=OAuthFlow.CLIENT_CREDENTIALS, client_id="app-1", client_secret="hunter2",
        token_url=f"{desk.server.url}/token", scopes=("mail",),
    )  # fmt: skip
    return {
        "authentication": Authentication.OAUTH2, "username": "ann@x.test", "oauth": oauth, "security": Security.TLS,
        "ca_bundle": pem(AUTHORITY),
    }  # fmt: skip


@pytest.mark.parametrize("rule", at(Stage.TOKEN), ids=lambda rule: rule.name)
async def test_what_an_authorization_server_refuses(rule: Rule, capsys: pytest.CaptureFixture[str]) -> None:
    said = re.fullmatch(r"([0-9]{3}) (?:([a-z_]+): )?(.+)", rule.reply)
    assert said is not None
    refusal = {"error": said[2] or "invalid_client", "error_description": said[3]}
    async with TokenDesk() as desk:
        desk.misbehaviours.append(lambda asked: answer(refusal, int(said[1])))
        found = await tried(to(1), **by_token(desk))
    is_told(found, "token", rule, rule.advice, capsys)


#: What Microsoft refuses to passwords and tokens alike.
BOTH = ("microsoft-smtp-auth-disabled", "microsoft-basic-authentication", "microsoft-criteria")


@pytest.mark.parametrize(
    "rule",
    [*at(Stage.TOKEN_LOGIN), *(rule for rule in at(Stage.AUTH) if rule.name in BOTH)],
    ids=lambda rule: rule.name,
)
async def test_what_a_relay_refuses_to_a_token(rule: Rule, capsys: pytest.CaptureFixture[str]) -> None:
    said = re.fullmatch(r"(.+?)(?: \(before that: (\w+)(?: \(the server wants a token for (.+?)\))?\))?", rule.reply)
    assert said is not None
    problem = json.dumps({"status": said[2], "schemes": "bearer", "scope": said[3] or ""}) if said[2] else ""

    async def talk(line: Line) -> None:
        line.say("220 relay.test")
        await line.line()
        line.offer("AUTH XOAUTH2")
        for _ in range(2):  # there is another token once
            assert (await line.line()).startswith(b"AUTH XOAUTH2 ")
            if problem:
                line.say("334 " + base64.b64encode(problem.encode()).decode())
                await line.line()
            line.say(said[1])
        await line.end()

    async with TokenDesk() as desk, Relay(talk, served(AUTHORITY.issue_cert("relay.test"))) as relay:
        found = await tried(to(relay.port), **by_token(desk))
    is_told(found, "auth", rule, rule.advice, capsys)


@pytest.mark.parametrize("rule", at(Stage.GRAPH), ids=lambda rule: rule.name)
async def test_what_graph_refuses(
    rule: Rule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = re.fullmatch(r"([0-9]{3}) (\w+): (.+)", rule.reply)
    assert said is not None
    async with microsoft(monkeypatch) as there:
        peer = there.peer
        for _ in range(2):  # a 401 is asked about once more
            peer.fail("sendMail", error(int(said[1]), said[2], said[3]))
        found = await by_graph(send=True)
    advice = addressed(rule.advice, graph_senders.account(), "box@x.test", "box@x.test")
    is_told(found, "message", rule, advice, capsys)


@pytest.mark.parametrize("name", ["graph-access-policy", "graph-no-mailbox", "graph-token-refused", "graph-throttled"])
async def test_what_graph_refuses_to_who_asks_for_the_mailbox(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = next(one for one in rules() if one.name == name)
    said = re.fullmatch(r"([0-9]{3}) (\w+): (.+)", rule.reply)
    assert said is not None
    async with microsoft(monkeypatch) as there:
        peer = there.peer
        for _ in range(2):
            peer.fail("mailFolders", error(int(said[1]), said[2], said[3]))
        found = await by_graph(send=True)
        assert peer.sent == []
    advice = addressed(rule.advice, graph_senders.account(), "box@x.test", "box@x.test")
    is_told(found, "mailbox", rule, advice, capsys)
    assert found.stage("message").outcome == "skipped"


@pytest.mark.parametrize(
    ("refusals", "stage", "rule"),
    [
        ({"greeting": "554 no"}, "greeting", "account-refused"),
        ({"ehlo": "550 go away"}, "ehlo", "account-refused"),
        ({"mail": "550 not you"}, "sender", "sender-refused"),
        ({"mail": "451 4.3.0 not now"}, "sender", "refused-for-now"),
        ({"rcpt": "550 5.1.1 <b@y.test>: User unknown in virtual mailbox table"}, "recipient", "no-such-mailbox"),
        ({"rcpt": "550 not this one"}, "recipient", "recipient-refused"),
        ({"rcpt": "450 4.2.0 greylisted"}, "recipient", "refused-for-now"),
        ({"data": "554 no"}, "message", "message-refused"),
        ({"content": "554 5.6.0 it smells"}, "message", "message-refused"),
    ],
)
async def test_without_a_rule_the_stage_says_what_to_do(refusals: dict[str, str], stage: str, rule: str) -> None:
    async with Relay(Server(**refusals)) as relay:
        found = await tried(to(relay.port), send=True)
    assert found.failed == [stage]
    assert rule in found.rules
    assert all(advice.cause and advice.advice for one in found.result.stages for advice in one.advice)
