"""Connection tests run in process, and what the command prints of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from postroom.cli.connection_test import _print_event
from postroom.diagnosis.connection_test import Result, run
from postroom.diagnosis.order import House, Order, RealMessage, Tokens
from postroom.diagnosis.stages import Stage
from postroom.model.account import Account, AccountKind, Authentication, Security
from postroom.model.envelope import Envelope
from postroom.model.token import TokenStore
from postroom.net.stream import Address, Resolver
from postroom.net.system_clock import SystemClock
from postroom.oauth.service import TokenService, TrialTokens
from tests.flow.smtp_client.talk import Line

LOGIN: dict[str, Any] = {
    "authentication": Authentication.PASSWORD,
    "username": "erp@x.test",
    "password": "hunter2",
    "allow_clear_password": True,
}


@dataclass
class Tried:
    """A test that was run, with all that was told of it."""

    result: Result
    events: list[dict[str, Any]] = field(default_factory=list)

    def stage(self, name: str) -> Stage:
        """The last one of that name."""
        return next(stage for stage in reversed(self.result.stages) if stage.name == name)

    @property
    def failed(self) -> list[str]:
        """The stages that failed."""
        return [stage.name for stage in self.result.stages if stage.outcome == "failed"]

    @property
    def rules(self) -> list[str]:
        """The rules whose advice was given."""
        return [advice.rule for stage in self.result.stages for advice in stage.advice]

    def print(self, name: str = "relay") -> None:
        """As the command prints it, with what was said."""
        for event in self.events:
            _print_event(event, transcript=True, name=name)


def to(port: int) -> Resolver:
    """Every name is this machine, and every port is `port`."""

    async def resolver(host: str, asked: int) -> Sequence[Address]:
        return [(socket.AF_INET, ("127.0.0.1", port))]

    return resolver


def asked_anew() -> TrialTokens:
    """Tokens of an application with rights of its own: nothing is stored of them."""
    return TrialTokens(TokenService(cast(TokenStore, None), SystemClock()), None)


async def real_message() -> RealMessage:
    """A short one."""
    return RealMessage(Envelope("a@x.test", ("b@y.test",)), b"Subject: hi\r\n\r\n", b"hello\r\n")


async def tried(
    resolver: Resolver,
    *,
    sender: str = "a@x.test",
    recipient: str = "b@y.test",
    send: bool = False,
    order: dict[str, Any] | None = None,
    tokens: Tokens | None = None,
    **fields: Any,
) -> Tried:
    """A test of an account of these fields, at `relay.test` and in clear unless they say otherwise."""
    given: dict[str, Any] = {"name": "relay", "host": "relay.test", "security": Security.NONE} | fields
    account = Account(id=1, kind=given.pop("kind", AccountKind.SMTP), **given)
    events: list[dict[str, Any]] = []
    message = real_message if send else None
    wanted = Order(account, sender, recipient, message=message, **(order or {}))
    house = House(SystemClock(), "gateway.x.test", resolver=resolver, tokens=tokens or asked_anew())
    result = await run(wanted, house, events.append)
    return Tried(result, events)


class Server:
    """A relay that answers as it should, but for `refusals`: what it says at which stage in the place of yes."""

    def __init__(self, *offered: str, **refusals: str) -> None:
        self.offered = offered
        self.refusals = refusals
        self.commands: list[str] = []

    async def __call__(self, line: Line) -> None:
        """One connection."""
        if not self._say(line, "greeting", "220 relay.test ESMTP"):
            await line.end()
            return
        while command := (await line.line()).decode("latin-1").strip():
            self.commands.append(command)
            verb = command.split(" ")[0].split(":")[0].upper()
            if verb in ("EHLO", "HELO"):
                if self._say(line, "ehlo", ""):
                    line.offer(*self.offered)
            elif verb == "DATA":
                if self._say(line, "data", "354 go on"):
                    await line.content()
                    self._say(line, "content", "250 2.0.0 kept as 42")
            elif verb == "QUIT":
                line.say("221 bye")
                return
            else:
                self._say(line, verb.lower(), "235 in" if verb == "AUTH" else "250 2.0.0 ok")

    def _say(self, line: Line, stage: str, yes: str) -> bool:
        refusal = self.refusals.get(stage)
        said = refusal if refusal is not None else yes
        if said:
            line.say(*said.split("\n"))
        return refusal is None


async def nothing(line: Line) -> None:
    """Takes the connection and says nothing."""
    await line.end()


async def until_cancelled() -> None:
    """Waits for good."""
    await asyncio.Event().wait()
