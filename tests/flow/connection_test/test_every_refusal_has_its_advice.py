"""Each reply that a rule was made for, said by a relay at its stage: the test tells that rule's advice to the user."""

from __future__ import annotations

import pytest

from postroom.model.account import Security
from postroom.policy.classify import Rule, Stage, rules
from tests.flow.connection_test.trying import LOGIN, Server, to, tried
from tests.flow.smtp_client.talk import Relay

#: How the stages of replies are called in a test.
NAMES = {"mail": "sender", "rcpt": "recipient", "data": "message", "content": "message"}

#: What is said where tokens are given or taken is no reply of a relay to a password.
OF_TOKENS = {Stage.TOKEN, Stage.TOKEN_LOGIN, Stage.GRAPH}

CASES = [
    pytest.param(rule, stage, id=f"{rule.name}-{stage}")
    for rule in rules()
    for stage in sorted(rule.stages - OF_TOKENS)
]


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
