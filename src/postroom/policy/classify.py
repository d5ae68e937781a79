"""What a failure means: the one place that decides (SPEC section 2.8); its rules are data in `classify.toml`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from importlib.resources import files

from ..model.outcome import Scope
from ..model.reply import Reply
from .retry import Schedule


class Stage(StrEnum):
    """Where in the dialogue a reply was given."""

    GREETING = "greeting"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"


#: Without a rule, a refusal at these stages is about the account, at the others about recipient or message.
_ACCOUNT_STAGES = frozenset({Stage.GREETING, Stage.EHLO, Stage.AUTH, Stage.MAIL})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do: bounce or try again, who is to blame, and for how long the account sleeps (None: its schedule)."""

    bounce: bool
    scope: Scope
    status: str
    advice: str = ""
    stop: bool = False
    sleep: timedelta | None = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of `classify.toml`; `reply` is the real reply that it was made for."""

    name: str
    stages: frozenset[Stage]
    code: re.Pattern[str]
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None
    bounce: bool
    scope: Scope
    stop: bool
    sleep: timedelta | None
    advice: str
    reply: str
    source: str

    def matches(self, stage: Stage, reply: Reply) -> bool:
        """Whether the rule speaks of this reply at this stage."""
        if stage not in self.stages or not self.code.fullmatch(str(reply.code)):
            return False
        if self.enhanced is not None and not self.enhanced.fullmatch(reply.enhanced):
            return False
        return self.text is None or self.text.search(" ".join(reply.lines)) is not None


@cache
def rules() -> tuple[Rule, ...]:
    """The rules, in the order in which they are tried."""
    data = tomllib.loads(files(__package__).joinpath("classify.toml").read_text("utf-8"))
    return tuple(_rule(entry) for entry in data["rule"])


def _rule(entry: dict[str, object]) -> Rule:
    def pattern(key: str) -> re.Pattern[str] | None:
        return re.compile(str(entry[key]), re.IGNORECASE) if key in entry else None

    stages = entry["stages"]
    assert isinstance(stages, list)
    return Rule(
        name=str(entry["name"]),
        stages=frozenset(map(Stage, stages)),
        code=re.compile(str(entry["code"])),
        enhanced=pattern("enhanced"),
        text=pattern("text"),
        bounce=entry["action"] == "bounce",
        scope=Scope(str(entry["scope"])),
        stop=bool(entry.get("stop", False)),
        sleep=Schedule.parse(str(entry["sleep"])).steps[0] if "sleep" in entry else None,
        advice=str(entry["advice"]),
        reply=str(entry["reply"]),
        source=str(entry["source"]),
    )


def classify(stage: Stage, reply: Reply) -> Verdict:
    """What the refusal `reply` at `stage` means.

    Without a rule: 4yz defers; 5yz to RCPT or the content bounces; 5yz before that is the account's and defers;
    a code that is neither (RFC 5321 section 4.3.2) defers.
    """
    for rule in rules():
        if rule.matches(stage, reply):
            status = reply.enhanced or _status(stage, reply, rule.bounce)
            return Verdict(rule.bounce, rule.scope, status, rule.advice, rule.stop, rule.sleep, rule.name)
    bounce = reply.is_permanent and stage not in _ACCOUNT_STAGES
    return Verdict(bounce, _default_scope(stage, reply), reply.enhanced or _status(stage, reply, bounce))


def _default_scope(stage: Stage, reply: Reply) -> Scope:
    # A 4yz to MAIL is often greylisting or a full disk of this one transaction: it must not stop the others.
    if stage is Stage.MAIL and reply.is_transient:
        return Scope.MESSAGE
    return Scope.ACCOUNT if stage in _ACCOUNT_STAGES else Scope.MESSAGE


def _status(stage: Stage, reply: Reply, bounce: bool) -> str:
    """An enhanced status for a relay that gave none (RFC 3463): x.1.1 for a recipient, x.0.0 for anything else."""
    return f"{5 if bounce else 4}.{'1.1' if stage is Stage.RCPT and reply.code == 550 else '0.0'}"
