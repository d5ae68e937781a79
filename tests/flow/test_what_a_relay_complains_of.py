"""A relay that has had enough: the account is slowed or sleeps until the right time, comes back by itself, and no
message is to blame (SPEC section 2.7). Over SMTP, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.application import Application
from postroom.model.circuit import Circuit, Health
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.queue import MessageId
from postroom.model.submission import Door, Submission
from postroom.store import EventFilter
from tests.smarthost import Smarthost

from .conftest import FakeClock, Observed

LOGIN = {"authentication": "password", "username": "ann", "password": "p", "allow_clear_password": True}


@dataclass
class Complaints:
    """A gateway whose account is at a relay that answers as the test says."""

    gateway: Gateway
    relay: Smarthost
    clock: FakeClock
    store: Any

    async def answer(self, verb: str, *replies: str, **fields: Any) -> None:
        """The relay's first replies to a verb; the last one stays."""
        self.relay.behaviour.replies = {verb: replies}
        where = {"name": "relay", "host": "127.0.0.1", "port": self.relay.port, "security": "none"}
        await self.gateway.accounts.add(where | fields)

    async def submit(self, *recipients: str) -> MessageId:
        """Take a message."""
        accepted = await self.gateway.submit(
            Submission(
                door=Door.SMTP, application=Application(id=1, name="erp", senders=("*",)),
                envelope=Envelope("a@x.test", recipients or ("b@y.test",)),
                content=Content(b"From: a@x.test\r\n\r\n", b"hello\r\n"), received=self.clock.now(),
            )
        )  # fmt: skip
        return accepted.id

    def circuit(self) -> Circuit:
        """How the account is."""
        return self.gateway.answers.circuit(self.gateway.accounts.get("relay"))

    async def until(self, message: MessageId, state: str) -> None:
        """All deliveries of the message are in that state, after one try that counts at most."""

        async def reached() -> bool:
            view = await self.store.message(message)
            return {row.state.value for row in view.deliveries} == {state}

        await self.store.until(reached)

    async def until_event(self, kind: str) -> None:
        """It happened."""

        async def happened() -> bool:
            return bool((await self.store.events(EventFilter(kinds=(kind,), limit=1))).events)

        await self.store.until(happened)


@pytest.fixture
async def complaints(tmp_path: Path) -> AsyncIterator[Complaints]:
    """No account yet; delivering."""
    clock, relay = FakeClock(), Smarthost()
    relay.behaviour.offers = ("AUTH PLAIN", "ENHANCEDSTATUSCODES")
    await relay.start()
    settings = Settings.load(tmp_path, hostname="gateway.example.test", account_sleep="40s, 1m")
    gateway = await Gateway.open(settings, clock=clock, random_unit=lambda: 0.5)
    store = Observed(gateway.store)
    for user in (gateway.scheduler, gateway._intake):
        user._store = store
    await gateway.start()
    yield Complaints(gateway, relay, clock, store)
    await gateway.stop()
    await relay.stop()


SLEEPS: list[tuple[str, Sequence[str], timedelta, dict[str, Any]]] = [
    ("GREETING", ["421 4.3.2 Service not available", "220 hi"], timedelta(seconds=30), {}),  # connect_retry
    ("GREETING", ["421 4.7.0 Try again in 300 seconds", "220 hi"], timedelta(seconds=300), {}),
    ("AUTH", ["454 4.7.0 Temporary authentication failure", "235 2.7.0 ok"], timedelta(seconds=30), LOGIN),
    ("AUTH", ["454 4.7.0 Too many login attempts, please try again later.", "235 ok"], timedelta(minutes=10), LOGIN),
    ("MAIL", ["450 4.2.1 Peak SMTP relay limit exceeded for customer.", "250 ok"], timedelta(minutes=10), {}),
    ("CONTENT", ["454 Throttling failure: Daily message quota exceeded.", "250 ok"], timedelta(hours=1), {}),
    ("MAIL", ["550 5.4.5 Daily user sending limit exceeded.", "250 ok"], timedelta(days=1), {}),
]


@pytest.mark.parametrize(("verb", "replies", "sleep", "fields"), SLEEPS, ids=lambda value: str(value)[:40])
async def test_the_account_sleeps_until_the_right_time_and_comes_back(
    complaints: Complaints, verb: str, replies: Sequence[str], sleep: timedelta, fields: dict[str, Any]
) -> None:
    await complaints.answer(verb, *replies, **fields)
    message = await complaints.submit()
    await complaints.until_event("account.asleep")
    circuit = complaints.circuit()
    assert (circuit.health, circuit.until) == (Health.SLEEPING, complaints.clock.time + sleep)
    complaints.clock.advance(sleep - timedelta(seconds=1))
    assert complaints.circuit().health is Health.SLEEPING
    assert complaints.relay.taken == []
    complaints.clock.advance(timedelta(seconds=1))
    await complaints.until(message, "delivered")
    assert complaints.circuit().health is Health.HEALTHY
    view = await complaints.store.message(message)
    assert [row.tries for row in view.deliveries] == [1], "what the account fails at uses up no try"


SLOWED: list[tuple[str, str, str, timedelta]] = [
    ("CONTENT", "454 Throttling failure: Maximum sending rate exceeded.", "0.1s between", timedelta(minutes=1)),
    ("MAIL", "450 4.7.1 Error: too much mail from 192.0.2.7", "0.1s between", timedelta(minutes=1)),
    ("MAIL", "432 4.3.2 Concurrent connections limit exceeded.", "at most 3 connection", timedelta(minutes=10)),
    ("MAIL", "421 4.3.2 Service shutting down", "at most 3 connection", timedelta(minutes=10)),
]


@pytest.mark.parametrize(("verb", "reply", "how", "healthy"), SLOWED, ids=lambda value: str(value)[:40])
async def test_the_account_goes_slower_and_is_healthy_again_by_itself(
    complaints: Complaints, verb: str, reply: str, how: str, healthy: timedelta
) -> None:
    await complaints.answer(verb, reply, "250 ok")
    message = await complaints.submit()
    await complaints.until_event("account.slowed")
    assert complaints.circuit().health is Health.SLOWED
    assert how in complaints.circuit().reason
    await complaints.until(message, "deferred")
    complaints.clock.advance(timedelta(seconds=59))
    await complaints.until(message, "delivered")
    complaints.clock.advance(healthy)
    assert complaints.circuit().health is Health.HEALTHY
    view = await complaints.store.message(message)
    assert [row.tries for row in view.deliveries] == [1]


async def test_what_does_not_fit_into_one_transaction_goes_at_once_with_the_next(complaints: Complaints) -> None:
    await complaints.answer("RCPT", "250 ok", "250 ok", "452 4.5.3 Error: limit reached", "250 ok")
    to = [f"{n}@y.test" for n in range(4)]
    message = await complaints.submit(*to)
    await complaints.until(message, "delivered")
    assert complaints.circuit().health is Health.HEALTHY
    assert sorted(one for taken in complaints.relay.taken for one in taken.recipients) == to
    assert len(complaints.relay.taken) == 2
