"""What a failure means: each rule against the real reply or error it was made for, and what holds without a rule."""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from postroom.model.outcome import Scope
from postroom.model.reply import Reply
from postroom.policy.classify import (
    LOOKED_AT,
    SCOPES,
    Action,
    FailureRule,
    NobodyRule,
    Rule,
    Stage,
    WaitRule,
    classify,
    classify_failure,
    failure_rules,
    named_wait,
    nobody_rules,
    rules,
    wait_rules,
)
from postroom.protocol.smtp.reply_reader import ReplyReader

_HTTP = frozenset({Stage.TOKEN, Stage.GRAPH})


def reply(text: str, stage: Stage) -> Reply:
    """A reply at `stage` as it is read from the wire; no enhanced status before the first EHLO is answered."""
    reader = ReplyReader()
    reader.receive(text.replace("\n", "\r\n").encode() + b"\r\n")
    found = reader.next_reply("" if stage is Stage.GREETING else stage.upper())
    assert found is not None, text
    assert not reader.has_unread, text
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_each_rule_decides_on_the_real_reply_it_was_made_for(rule: Rule) -> None:
    for stage in rule.stages:
        verdict = classify(stage, reply(rule.reply, stage))
        assert verdict.rule == rule.name, f"{verdict.rule} decided at {stage}"
        assert (verdict.action, verdict.scope) == (rule.action, rule.scope)
        assert verdict.advice
        assert verdict.status[0] in "45"
    assert rule.cause
    assert rule.source


@pytest.mark.parametrize("rule", failure_rules(), ids=lambda rule: rule.name)
def test_each_rule_about_connections_decides_on_the_real_error(rule: FailureRule) -> None:
    host = "RELAY01" if rule.bare_name else "relay.example.org"
    port = min(rule.ports, default=587)
    for stage in rule.stages or {"tls"}:
        assert classify_failure(rule.kind, stage, rule.error, host=host, port=port) is rule
    assert rule.action in (Action.SLEEP, Action.STOP)
    assert rule.advice
    assert rule.source


@pytest.mark.parametrize("rule", wait_rules(), ids=lambda rule: rule.reply)
def test_each_rule_about_times_reads_the_real_reply(rule: WaitRule) -> None:
    assert named_wait(rule.reply) in (timedelta(minutes=5), timedelta(seconds=15))


@pytest.mark.parametrize("rule", nobody_rules(), ids=lambda rule: rule.name)
def test_each_rule_about_recipients_reads_the_real_reply(rule: NobodyRule) -> None:
    told = reply(rule.reply, Stage.RCPT)
    assert [one.name for one in nobody_rules() if one.matches(told, told.text)] == [rule.name]
    verdict = classify(Stage.RCPT, told)
    assert (verdict.nobody, verdict.action, verdict.scope) == (True, Action.BOUNCE, Scope.MESSAGE)
    assert not classify(Stage.CONTENT, told).nobody, "of which recipient it would be is not known"
    assert not classify(Stage.MAIL, told).nobody
    assert rule.source


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 <b@y.test>: Recipient address rejected: User unknown in virtual mailbox table",
        "550-5.1.1 The email account that you tried to reach does not exist.\n550 5.1.1 again",
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
        "556 5.1.10 <b@y.test>: Recipient address rejected: Domain y.test does not accept mail (nullMX)",
        "550 5.2.1 <EXAMPLE@PRODIGY.NET>... Addressee unknown, relay=[192.0.2.1]",
        "550 No such user (b@y.test)",
        "553 sorry, that mailbox does not exist here: no such user",
        "550 Unrouteable address",
        "550 5.1.1 <spam@y.test>: User unknown",
    ],
)
def test_a_recipient_that_does_not_exist_is_told_by_the_reply(text: str) -> None:
    assert classify(Stage.RCPT, reply(text, Stage.RCPT)).nobody


@pytest.mark.parametrize(
    "text",
    [
        "550 b@y.test",
        "550 Requested action not taken: mailbox unavailable",
        "550 5.7.1 Service unavailable; client host [192.0.2.1] blocked using zen.example",
        "550 5.7.1 <no such user@y.test>: Recipient address rejected: Access denied",
        "550 5.7.1 user unknown to the policy service",
        '550 <"no such user"@y.test>: rejected',
        "550 5.1.1 your IP has a bad reputation: message blocked as spam",
        "550 5.1.1 Sender address does not exist",
        "450 4.1.1 <b@y.test>: Recipient address rejected: User unknown",
        "552 5.2.2 The email account that you tried to reach is over quota",
        "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents delivery",
        "550 5.2.1 mailbox temporarily disabled, try again later",
        "552 5.3.4 Message size exceeds fixed limit",
        "554 5.7.1 <b@y.test>: Relay access denied",
        "550 5.1.8 <a@nowhere.example>: Sender address rejected: Domain not found",
        "553 5.7.1 Sender address rejected: not owned by auth user; user unknown",
        "550 5.4.5 Daily user sending limit exceeded, user unknown",
        "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
        "550 5.1.2 the host is misconfigured",
        "452 4.5.3 Your message has too many recipients",
        "501 5.1.3 Bad recipient address syntax",
        "554 5.1.1 Message rejected: Email address is not verified.",
        "555 5.1.1 RCPT TO parameters not recognized or not implemented",
    ],
)
def test_other_refusals_say_nothing_of_whether_the_recipient_exists(text: str) -> None:
    assert not classify(Stage.RCPT, reply(text, Stage.RCPT)).nobody


def test_names_are_unique_and_no_rule_hides_behind_another() -> None:
    names = [rule.name for rule in rules()] + [rule.name for rule in failure_rules()]
    names += [rule.name for rule in nobody_rules()]
    assert len(names) > 60
    assert len(names) == len(set(names))


def test_only_what_is_about_the_message_or_its_sender_bounces() -> None:
    assert {rule.scope for rule in rules() if rule.action is Action.BOUNCE} == {Scope.MESSAGE, Scope.SENDER}
    account = [action for action, scope in SCOPES.items() if scope is Scope.ACCOUNT]
    assert set(account) == {Action.FEWER, Action.SLOWER, Action.SLEEP, Action.STOP}


def test_answers_over_http_have_rules_of_their_own() -> None:
    assert [rule.name for rule in rules() if rule.stages & _HTTP and not rule.stages <= _HTTP] == []


def _repeats(tree: Any, inside: int = 0) -> Iterator[tuple[int, int]]:
    """How often each repetition of a pattern may repeat, and how deep it stands in others."""
    for operation, argument in tree:
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _, most, inner = argument
            if most > 1:
                yield most, inside
            yield from _repeats(inner, inside + (most > 1))
        elif operation is sre.BRANCH:
            for branch in argument[1]:
                yield from _repeats(branch, inside)
        elif operation is sre.SUBPATTERN:
            yield from _repeats(argument[3], inside)


def test_no_pattern_can_take_more_than_a_multiple_of_the_text() -> None:
    """Every repetition is bounded, and none stands inside another."""
    patterns = [pattern for rule in rules() for pattern in (rule.code, rule.enhanced, rule.text)]
    patterns += [rule.text for rule in failure_rules()] + [rule.text for rule in wait_rules()]
    patterns += [pattern for rule in nobody_rules() for pattern in (rule.code, rule.enhanced, rule.text, rule.unless)]
    found = [(p.pattern, most, inside) for p in patterns if p for most, inside in _repeats(parser.parse(p.pattern))]
    assert found
    assert [one for one in found if one[1] > 100 or one[2]] == []


def test_only_the_beginning_of_a_long_reply_is_looked_at() -> None:
    words = "relay access denied"
    assert classify(Stage.RCPT, Reply(554, (" " * (LOOKED_AT - len(words)) + words,))).rule == "relaying-denied"
    assert classify(Stage.RCPT, Reply(554, (" " * LOOKED_AT + words,))).rule == ""


@pytest.mark.parametrize(
    ("stage", "text", "action", "scope"),
    [
        (Stage.RCPT, "550 5.1.1 no such user", Action.BOUNCE, Scope.MESSAGE),
        (Stage.RCPT, "450 4.2.0 greylisted", Action.RETRY, Scope.MESSAGE),
        (Stage.RCPT, "552 5.2.2 mailbox full", Action.BOUNCE, Scope.MESSAGE),
        (Stage.CONTENT, "554 5.7.1 looks like spam", Action.BOUNCE, Scope.MESSAGE),
        (Stage.CONTENT, "451 4.3.0 later", Action.RETRY, Scope.MESSAGE),
        (Stage.MAIL, "550 go away", Action.SLEEP, Scope.ACCOUNT),
        (Stage.MAIL, "452 4.3.1 disk full", Action.RETRY, Scope.MESSAGE),
        (Stage.EHLO, "550 go away", Action.SLEEP, Scope.ACCOUNT),
        (Stage.GREETING, "554 no service", Action.SLEEP, Scope.ACCOUNT),
        (Stage.STARTTLS, "450 4.7.0 TLS not now", Action.SLEEP, Scope.ACCOUNT),
        (Stage.AUTH, "504 5.5.4 unknown mechanism", Action.SLEEP, Scope.ACCOUNT),
        (Stage.RCPT, "299 odd", Action.RETRY, Scope.MESSAGE),
        (Stage.CONTENT, "699 odder", Action.RETRY, Scope.MESSAGE),
    ],
)
def test_without_a_rule_the_first_digit_and_the_stage_decide(
    stage: Stage, text: str, action: Action, scope: Scope
) -> None:
    code, _, rest = text.partition(" ")
    enhanced = rest.split(" ")[0] if re.match(r"[245]\.", rest) else ""
    verdict = classify(stage, Reply(int(code), (rest,), enhanced))
    assert (verdict.rule, verdict.action, verdict.scope) == ("", action, scope)
    assert action is Action.BOUNCE or verdict.status[0] != "2"


@pytest.mark.parametrize(
    ("words", "wait"),
    [
        ("try again in 7 seconds", timedelta(seconds=7)),
        ("please come back in 01:02:03", timedelta(hours=1, minutes=2, seconds=3)),
        ("try again in 0 seconds", timedelta(seconds=1)),
        ("try again in 999999 seconds", timedelta(days=1)),
        ("try again later", None),
    ],
)
def test_a_time_that_the_other_side_names_is_believed_within_bounds(words: str, wait: timedelta | None) -> None:
    assert named_wait(words) == wait
    assert classify(Stage.RCPT, Reply(450, (words,), "4.2.0")).wait == wait


def test_the_time_that_a_reply_names_goes_before_that_of_its_rule() -> None:
    told = Reply(450, ("Peak SMTP relay limit exceeded for customer, try again in 90 seconds",), "4.2.1")
    assert classify(Stage.MAIL, told).wait == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("host", "port", "kind", "stage", "reason", "rule"),
    [
        ("mail.example.org", 587, "network", "resolve", "it cannot be resolved: not known", "name-unknown"),
        ("mail", 587, "network", "resolve", "mail cannot be resolved: Temporary failure", "names-are-not-resolved"),
        ("mail.example.org", 587, "network", "connect", "no connection within 30 s", "unreachable"),
        ("mail.example.org", 25, "network", "connect", "no connection: Connection refused", "refused"),
        ("mail.example.org", 587, "network", "greeting", "no reply within 60 s", "silent-greeting"),
    ],
)
def test_connections_that_fail_in_passing_do_not_stop_the_account(
    host: str, port: int, kind: str, stage: str, reason: str, rule: str | None
) -> None:
    found = classify_failure(kind, stage, reason, host=host, port=port)
    assert (found.name if found else None) == rule
    assert found is None or found.action is Action.SLEEP
