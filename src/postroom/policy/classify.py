"""What a failure means: the one place that decides (SPEC section 2.8); its rules are data in `classify.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from ..model.outcome import Scope
from ..model.quantity import parse_duration
from ..model.reply import Reply

#: Of a reply, so many characters are looked at; rules are bounded, so that a look costs a multiple of that at most.
LOOKED_AT = 8192

#: An address in a reply: what the sender wrote, not what the relay says.
_ADDRESSES = re.compile("<[^<>]{0,320}>")

#: A time that the other side names is believed within these bounds.
SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(days=1)


class Stage(StrEnum):
    """Where in the dialogue a reply was given; `token` and `graph` are answers over HTTP. Of a login by token the rules
    of `auth` speak too."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    TOKEN_LOGIN = "token-login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    TOKEN = "token"
    GRAPH = "graph"


#: Without a rule, a refusal at these stages is about recipient or message, at the others about the account.
_MESSAGE_STAGES = frozenset({Stage.RCPT, Stage.DATA, Stage.CONTENT})

#: Answers over HTTP that are about who asks, or about the service, whatever is asked (RFC 9110 section 15).
_ACCOUNT_STATUSES = frozenset({401, 403, 407, 429, 503, 509})


class Action(StrEnum):
    """What follows from a failure."""

    BOUNCE = "bounce"  # refused for good
    RETRY = "retry"  # this delivery is tried again by its schedule, or after the wait named
    SPLIT = "split"  # what was not taken goes with the next transaction, at once
    PLAIN = "plain"  # once more at once, without the parameters that may be left out
    FEWER = "fewer"  # the account goes on over fewer connections
    SLOWER = "slower"  # the account goes on with a pause between two messages
    SLEEP = "sleep"  # the account sleeps, by its schedule or for the time named
    STOP = "stop"  # the account needs attention: the cause does not pass by itself


#: What each action is about; None: the rule says so.
SCOPES: dict[Action, Scope | None] = {
    Action.BOUNCE: None,
    Action.RETRY: None,
    Action.SPLIT: Scope.MESSAGE,
    Action.PLAIN: Scope.MESSAGE,
    Action.FEWER: Scope.ACCOUNT,
    Action.SLOWER: Scope.ACCOUNT,
    Action.SLEEP: Scope.ACCOUNT,
    Action.STOP: Scope.ACCOUNT,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do and who is to blame; `wait` is the time that the reply or the rule names (None: by schedule).

    `nobody`: the recipient does not exist. `pop`, `tls`: a POP3 login, or TLS, may change it (see `Rule`).
    """

    action: Action
    scope: Scope
    status: str
    advice: str = ""
    wait: timedelta | None = None
    rule: str = ""
    nobody: bool = False
    pop: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of `classify.toml`; `reply` is the real reply that it was made for.

    `change` has fields with the values that mend the account; `{mailbox}` and the like stand for what is known of it.
    `pop`: the relay does not know us; an account that logs in by POP3 before does so once more, and tries again.
    `tls`: the relay demands TLS; an account that may, tries again once over TLS.
    """

    name: str
    stages: frozenset[Stage]
    code: re.Pattern[str]
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None
    action: Action
    scope: Scope
    wait: timedelta | None
    cause: str
    advice: str
    change: Mapping[str, str]
    reply: str
    source: str
    pop: bool
    tls: bool

    def matches(self, stage: Stage, reply: Reply, text: str) -> bool:
        """Whether the rule speaks of this reply at this stage; `text` is its text, cut."""
        if not (stage in self.stages or (stage is Stage.TOKEN_LOGIN and Stage.AUTH in self.stages)):
            return False
        if not self.code.fullmatch(str(reply.code)):
            return False
        if self.enhanced is not None and not self.enhanced.fullmatch(reply.enhanced):
            return False
        return self.text is None or self.text.search(text) is not None


@dataclass(frozen=True, slots=True)
class FailureRule:
    """One rule about a connection that could not be had and that no reply explains; `error` is the real one."""

    name: str
    kind: str
    stages: frozenset[str]
    ports: frozenset[int]
    bare_name: bool
    text: re.Pattern[str] | None
    action: Action
    cause: str
    advice: str
    change: Mapping[str, str]
    error: str
    source: str

    def matches(self, kind: str, stage: str, reason: str, host: str, port: int) -> bool:
        """Whether the rule speaks of this failure."""
        return (
            kind == self.kind
            and (not self.stages or stage in self.stages)
            and (not self.ports or port in self.ports)
            and (not self.bare_name or "." not in host)
            and (self.text is None or self.text.search(reason) is not None)
        )


@dataclass(frozen=True, slots=True)
class WaitRule:
    """How a reply names the time after which to come back: groups `h`, `m` and `s` of `text`."""

    text: re.Pattern[str]
    reply: str
    source: str


@dataclass(frozen=True, slots=True)
class NobodyRule:
    """What a refusal says of a recipient that does not exist; `reply` is the real one."""

    name: str
    code: re.Pattern[str]
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None
    unless: re.Pattern[str] | None
    reply: str
    source: str

    def matches(self, reply: Reply, text: str) -> bool:
        """Whether it says so; `text` is that of the reply without what the sender wrote."""
        return (
            self.code.fullmatch(str(reply.code)) is not None
            and (self.enhanced is None or self.enhanced.fullmatch(reply.enhanced) is not None)
            and (self.text is None or self.text.search(text) is not None)
            and (self.unless is None or self.unless.search(text) is None)
        )


@cache
def _data() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(files(__package__).joinpath("classify.toml").read_text("utf-8"))


@cache
def rules() -> tuple[Rule, ...]:
    """The rules about replies, in the order in which they are tried."""
    return tuple(_rule(entry) for entry in _data()["rule"])


@cache
def failure_rules() -> tuple[FailureRule, ...]:
    """The rules about connections that could not be had, in the order in which they are tried."""
    return tuple(_failure_rule(entry) for entry in _data()["failure"])


@cache
def wait_rules() -> tuple[WaitRule, ...]:
    """How replies name times."""
    return tuple(
        WaitRule(re.compile(entry["text"], re.IGNORECASE), entry["reply"], entry["source"]) for entry in _data()["wait"]
    )


@cache
def nobody_rules() -> tuple[NobodyRule, ...]:
    """How replies say that a recipient does not exist."""
    return tuple(
        NobodyRule(
            entry["name"],
            re.compile(entry["code"]),
            _pattern(entry, "enhanced"),
            _pattern(entry, "text"),
            _pattern(entry, "unless"),
            entry["reply"],
            entry["source"],
        )
        for entry in _data()["nobody"]
    )


@cache
def rules_by_name() -> Mapping[str, Rule]:
    """The rules about replies, for `Verdict.rule`."""
    return {rule.name: rule for rule in rules()}


def _rule(entry: dict[str, Any]) -> Rule:
    action = Action(entry["action"])
    return Rule(
        name=entry["name"],
        stages=frozenset(map(Stage, entry["stages"])),
        code=re.compile(entry["code"]),
        enhanced=_pattern(entry, "enhanced"),
        text=_pattern(entry, "text"),
        action=action,
        scope=SCOPES[action] or Scope(entry["scope"]),
        wait=parse_duration(entry["wait"]) if "wait" in entry else None,
        cause=entry["cause"],
        advice=entry["advice"],
        change=entry.get("change", {}),
        reply=entry["reply"],
        source=entry["source"],
        pop=entry.get("pop", False),
        tls=entry.get("tls", False),
    )


def _failure_rule(entry: dict[str, Any]) -> FailureRule:
    return FailureRule(
        name=entry["name"],
        kind=entry["kind"],
        stages=frozenset(entry.get("stages", ())),
        ports=frozenset(entry.get("ports", ())),
        bare_name=entry.get("bare_name", False),
        text=_pattern(entry, "text"),
        action=Action(entry["action"]),
        cause=entry["cause"],
        advice=entry["advice"],
        change=entry.get("change", {}),
        error=entry["error"],
        source=entry["source"],
    )


def load() -> None:
    """Read the rules now (0.2 s), in a thread, so that the first refusal does not hold up everybody's mail for it."""
    for read in (rules, failure_rules, wait_rules, nobody_rules):
        read()


def _pattern(entry: dict[str, Any], key: str) -> re.Pattern[str] | None:
    return re.compile(entry[key], re.IGNORECASE) if key in entry else None


def classify(stage: Stage, reply: Reply) -> Verdict:
    """What the refusal `reply` at `stage` means, and whether it says that the recipient does not exist: which only a
    refusal of a recipient for good can, that no rule puts on something else."""
    verdict = _judged(stage, reply)
    if stage is not Stage.RCPT or verdict.action is not Action.BOUNCE or verdict.scope is not Scope.MESSAGE:
        return verdict
    text = _ADDRESSES.sub("<>", " ".join(reply.lines)[:LOOKED_AT])
    return replace(verdict, nobody=any(rule.matches(reply, text) for rule in nobody_rules()))


def _judged(stage: Stage, reply: Reply) -> Verdict:
    """What the refusal `reply` at `stage` means.

    Without a rule: a refusal before RCPT is the account's, but for a 4yz to MAIL; 5yz to RCPT or the content bounces;
    everything else, codes included that are neither (RFC 5321 section 4.3.2), is tried again. What Graph answers is the
    account's where its HTTP status says so, else it is tried again.
    """
    text = " ".join(reply.lines)[:LOOKED_AT]
    for rule in rules():
        if rule.matches(stage, reply, text):
            status = reply.enhanced or _status(stage, reply, rule.action)
            wait = named_wait(text) or rule.wait
            how = {"pop": rule.pop, "tls": rule.tls}
            return Verdict(rule.action, rule.scope, status, rule.advice, wait, rule.name, **how)
    action = _without_a_rule(stage, reply)
    scope = SCOPES[action] or Scope.MESSAGE
    return Verdict(action, scope, reply.enhanced or _status(stage, reply, action), wait=named_wait(text))


def _without_a_rule(stage: Stage, reply: Reply) -> Action:
    if stage in _MESSAGE_STAGES:
        return Action.BOUNCE if reply.is_permanent else Action.RETRY
    if stage is Stage.GRAPH:  # its codes are those of HTTP: 5yz is trouble of the service, often with one message alone
        return Action.SLEEP if reply.code in _ACCOUNT_STATUSES else Action.RETRY
    # A 4yz to MAIL is often greylisting or a full disk of this one transaction: it must not stop the others.
    return Action.RETRY if stage is Stage.MAIL and reply.is_transient else Action.SLEEP


def _status(stage: Stage, reply: Reply, action: Action) -> str:
    """An enhanced status for a relay that gave none (RFC 3463): x.1.1 for a recipient, x.0.0 for anything else."""
    digit = 5 if action is Action.BOUNCE else 4
    return f"{digit}.{'1.1' if stage is Stage.RCPT and reply.code == 550 else '0.0'}"


def named_wait(text: str) -> timedelta | None:
    """The time after which the words of a reply ask to come back, within bounds; None where they name none."""
    for rule in wait_rules():
        match = rule.text.search(text)
        if match is not None:
            given = {unit: int(number) for unit, number in match.groupdict().items() if number}
            wait = timedelta(hours=given.get("h", 0), minutes=given.get("m", 0), seconds=given.get("s", 0))
            return min(max(wait, SHORTEST_WAIT), LONGEST_WAIT)
    return None


def classify_failure(kind: str, stage: str, reason: str, *, host: str, port: int) -> FailureRule | None:
    """The rule for a connection to `host` that could not be had; without one the account sleeps."""
    found: Sequence[FailureRule] = failure_rules()
    reason = reason[:LOOKED_AT]
    return next((rule for rule in found if rule.matches(kind, stage, reason, host, port)), None)
