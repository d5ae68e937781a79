"""The stages of a connection test: how each went, how long it took, and what to do where it failed (SPEC section 7)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..model.clock import Clock
from ..net.observer import Observer
from ..net.transcript import HIDDEN
from .certificates import tls_facts

#: What is shorter is not looked for in what servers say.
SHORTEST_SECRET = 4


class Outcome(StrEnum):
    """How a stage went; only `failed` fails the test."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Advice:
    """Why it is so and what to do. `change` has fields of the account with the values that mend it, where there are
    such, `command` what else mends it; `record` what the DNS should have. `rule` is the rule's name, empty where none
    knows."""

    cause: str
    advice: str
    rule: str = ""
    change: Mapping[str, str] = field(default_factory=dict)
    record: str = ""
    command: tuple[str, ...] = ()


@dataclass(slots=True)
class Stage:
    """One stage; `detail` says in words how it went, `facts` what it found."""

    name: str
    outcome: Outcome = Outcome.PASSED
    milliseconds: float = 0.0
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    advice: list[Advice] = field(default_factory=list)

    def worsen(self, outcome: Outcome, detail: str, *advice: Advice) -> None:
        """It went no better than `outcome`: a failure stays one."""
        if self.outcome is not Outcome.FAILED:
            self.outcome = outcome
        self.detail = f"{self.detail}; {detail}" if self.detail else detail
        self.advice += advice

    def show(self) -> dict[str, Any]:
        """As doors show it."""
        advice = [
            {"rule": one.rule, "cause": one.cause, "advice": one.advice, "change": dict(one.change)}
            | ({"record": one.record} if one.record else {})
            | ({"command": list(one.command)} if one.command else {})
            for one in self.advice
        ]
        return {
            "stage": self.name,
            "outcome": self.outcome.value,
            "milliseconds": round(self.milliseconds, 1),
            "detail": self.detail,
            "facts": self.facts,
            "advice": advice,
        }


#: Is told what happens: `{"event": "began" | "stage" | "said", ...}`.
Tell = Callable[[dict[str, Any]], None]


class Recorder(Observer):
    """Writes the stages of one test down as they come, and tells each to whoever waits for it."""

    def __init__(self, clock: Clock, tell: Tell) -> None:
        self._clock = clock
        self._tell = tell
        self._since = 0.0
        self._current: Stage | None = None
        self._secrets: set[str] = set()
        self.look_over: Callable[[Stage], None] | None = None  # asked at the end of each
        self.stages: list[Stage] = []
        self.lines: list[str] = []

    def began(self, stage: str) -> None:
        """See `Observer.began`: the one before has ended."""
        self.end()
        self._current = Stage(stage)
        self._since = self._clock.monotonic()
        self._tell({"event": "began", "stage": stage})

    def found(self, **facts: object) -> None:
        """See `Observer.found`."""
        if self._current is not None:
            self._current.facts |= facts

    def secured(self, tls: ssl.SSLObject) -> None:
        """See `Observer.secured`."""
        self.found(**tls_facts(tls, self._clock.now()))

    def said(self, line: str) -> None:
        """See `Observer.said`."""
        line = self._clean(line)
        self.lines.append(line)
        self._tell({"event": "said", "line": line})

    def hide(self, *secrets: str) -> None:
        """Let none of them stand in what is told from now on: servers like to repeat what they did not understand."""
        self._secrets |= {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, HIDDEN)
        elif isinstance(value, list):
            value = [self._clean(one) for one in value]
        elif isinstance(value, dict):
            value = {name: self._clean(one) for name, one in value.items()}
        return value

    @property
    def current(self) -> Stage:
        """The stage that it is in."""
        assert self._current is not None
        return self._current

    @property
    def is_open(self) -> bool:
        """Whether it is in a stage."""
        return self._current is not None

    def has_begun(self, name: str) -> bool:
        """Whether it is in the stage of that name."""
        return self._current is not None and self._current.name == name

    def named(self, name: str) -> Stage | None:
        """The last stage of that name so far."""
        return next((stage for stage in reversed(self.stages) if stage.name == name), None)

    def stop_clock(self) -> None:
        """What follows is no longer the stage's own time."""
        if self._current is not None and not self._current.milliseconds:
            self._current.milliseconds = (self._clock.monotonic() - self._since) * 1000

    def end(self) -> None:
        """The stage that it is in has ended."""
        stage = self._current
        if stage is None:
            return
        self.stop_clock()
        self._current = None
        if self.look_over is not None:
            self.look_over(stage)
        stage.detail, stage.facts = self._clean(stage.detail), self._clean(stage.facts)
        self.stages.append(stage)
        self._tell({"event": "stage"} | stage.show())

    def skip(self, name: str, why: str, *advice: Advice) -> None:
        """A stage that was not gone through."""
        self.began(name)
        self.current.worsen(Outcome.SKIPPED, why, *advice)
        self.end()
