"""What a reply means: each rule against the real reply it was made for, and what holds without a rule."""

from __future__ import annotations

import re

import pytest

from postroom.model.outcome import Scope
from postroom.model.reply import Reply
from postroom.policy.classify import Rule, Stage, classify, rules

_REPLY = re.compile(r"([0-9]{3}) (?:([245]\.[0-9]{1,3}\.[0-9]{1,3}) )?(.*)", re.DOTALL)


def reply(text: str) -> Reply:
    """A reply from its text, as the reply reader splits it."""
    match = _REPLY.fullmatch(text)
    assert match, text
    return Reply(int(match[1]), (match[3],), match[2] or "")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_each_rule_decides_on_the_real_reply_it_was_made_for(rule: Rule) -> None:
    for stage in rule.stages:
        verdict = classify(stage, reply(rule.reply))
        assert verdict.rule == rule.name, f"{verdict.rule} decided at {stage}"
        assert (verdict.bounce, verdict.scope, verdict.stop) == (rule.bounce, rule.scope, rule.stop)
        assert verdict.advice


def test_a_rule_that_blames_the_account_never_bounces_mail() -> None:
    assert not [rule.name for rule in rules() if rule.bounce and rule.scope is Scope.ACCOUNT]


@pytest.mark.parametrize(
    ("stage", "text", "bounces", "scope"),
    [
        (Stage.RCPT, "550 5.1.1 no such user", True, Scope.MESSAGE),
        (Stage.RCPT, "450 4.2.0 greylisted", False, Scope.MESSAGE),
        (Stage.CONTENT, "554 5.7.1 looks like spam", True, Scope.MESSAGE),
        (Stage.CONTENT, "451 4.3.0 later", False, Scope.MESSAGE),
        (Stage.MAIL, "550 go away", False, Scope.ACCOUNT),
        (Stage.MAIL, "452 4.3.1 disk full", False, Scope.MESSAGE),
        (Stage.EHLO, "550 bad name", False, Scope.ACCOUNT),
        (Stage.GREETING, "554 no service", False, Scope.ACCOUNT),
        (Stage.AUTH, "454 4.7.0 temporary failure", False, Scope.ACCOUNT),
        (Stage.RCPT, "299 odd", False, Scope.MESSAGE),
        (Stage.CONTENT, "699 odder", False, Scope.MESSAGE),
    ],
)
def test_without_a_rule_the_first_digit_and_the_stage_decide(
    stage: Stage, text: str, bounces: bool, scope: Scope
) -> None:
    verdict = classify(stage, reply(text))
    assert (verdict.rule, verdict.bounce, verdict.scope) == ("", bounces, scope)
    assert verdict.status[0] == ("5" if bounces else verdict.status[0])
