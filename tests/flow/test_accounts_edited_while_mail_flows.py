"""An account that is edited while mail flows: the next transaction uses the change, one under way ends as it began, and
of every message one copy arrives."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.queue import MessageId
from postroom.net.system_clock import SystemClock
from tests.flow.gateways import hello
from tests.smarthost import Behaviour, Smarthost

EDITS = 24
BETWEEN = 25  # messages submitted before each edit


class MovedClock(SystemClock):
    """A clock that the test sets forward. What connections wait for is reckoned by the loop, and stays as it is."""

    ahead = 0.0

    def now(self) -> datetime:
        """See `Clock`."""
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        """See `Clock`."""
        return super().monotonic() + self.ahead


@dataclass
class Hall:
    """Two relays, and a gateway with one account that is sent from the one to the other."""

    gateway: Gateway
    clock: MovedClock
    relays: tuple[Smarthost, Smarthost]

    def definition(self, number: int) -> dict[str, Any]:
        """Relay, password, fixed sender and connections, by which the relays tell one edit from the other."""
        return {
            "port": self.relays[number % 2].port, "password": f"secret {number}", "fixed_sender": f"s{number}@x.test",
            "max_connections": 1 + number % 3,
        }  # fmt: skip

    async def submit(self, *recipients: str) -> list[MessageId]:
        """A message to each; their ids, once they are durable."""
        accepted = await asyncio.gather(*map(self._submit, recipients))
        return list(accepted)

    async def _submit(self, recipient: str) -> MessageId:
        return (await self.gateway.submit(hello(self.gateway, recipient))).id

    def taken_by(self) -> dict[str, int]:
        """By recipient: under which definition the relays took it, whose parts all fit together."""
        found: dict[str, int] = {}
        for place, relay in enumerate(self.relays):
            for one in relay.taken:
                number = int(one.reverse_path[1:].partition("@")[0])
                login = base64.b64decode(relay.logins[one.connection].split()[-1])
                assert (place, login) == (number % 2, b"\0erp\0secret %d" % number)
                found[one.recipients[0]] = number
        return found


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    """Delivering, by definition 0."""
    relays = Smarthost(Behaviour(offers=("AUTH PLAIN",))), Smarthost(Behaviour(offers=("AUTH PLAIN",)))
    for one in relays:
        await one.start()
    clock, settings = MovedClock(), Settings.load(tmp_path, hostname="gateway.test", smtp={"listeners": []})
    gateway = await Gateway.open(settings, clock=clock)
    hall = Hall(gateway, clock, relays)
    login = {"username": "erp", "allow_clear_password": True}
    relay = {"name": "relay", "host": "127.0.0.1", "security": "none"}
    await gateway.accounts.add(relay | login | hall.definition(0))
    await gateway.applications.add({"name": "erp", "senders": "*"})
    await gateway.start()
    yield hall
    for one in relays:
        one.gate.set()
    await gateway.stop()
    for one in relays:
        await one.stop()


async def test_none_is_lost_none_goes_twice_and_none_goes_by_what_was_before(hall: Hall) -> None:
    since: dict[str, int] = {}
    for number in range(EDITS):
        recipients = [f"r{number}.{n}@y.test" for n in range(BETWEEN)]
        since |= dict.fromkeys(recipients, number)
        submitting = asyncio.ensure_future(hall.submit(*recipients))
        await asyncio.sleep(0)
        if number % 5 == 4:
            await hall.gateway.accounts.edit("relay", {"enabled": False})
            await submitting
            await hall.gateway.accounts.edit("relay", hall.definition(number) | {"enabled": True})
        else:
            await hall.gateway.accounts.edit("relay", hall.definition(number))
            await submitting
    assert await hall.gateway.wait_drained()
    copies = Counter(recipient for relay in hall.relays for one in relay.taken for recipient in one.recipients)
    assert copies == dict.fromkeys(since, 1)
    by = hall.taken_by()
    assert len(set(by.values())) > EDITS / 3  # it flowed meanwhile
    # A message is submitted while the edit is on its way: it may go by the one before.
    assert [(to, number) for to, number in by.items() if number < since[to] - 1] == []
    for relay in hall.relays:
        assert relay.contents == len(relay.taken)


async def test_what_is_under_way_ends_as_it_began_however_long_it_takes(hall: Hall) -> None:
    """Its relay has the content and thinks it over; whoever cut it would not know whether it was taken."""
    old, new = hall.relays
    old.gate.clear()
    (slow,) = await hall.submit("slow@y.test")
    while not old.contents:
        await asyncio.sleep(0)
    await hall.gateway.accounts.edit("relay", hall.definition(1))
    others = []
    for number in range(10):
        others += await hall.submit(f"{number}@y.test")
        while len(new.taken) <= number:
            await asyncio.sleep(0)
        hall.clock.ahead += 60
    await hall.gateway.accounts.edit("relay", hall.definition(2))
    old.gate.set()
    assert await hall.gateway.wait_drained()
    assert hall.taken_by() == {"slow@y.test": 0} | {f"{number}@y.test": 1 for number in range(10)}
    for message in (slow, *others):
        view = await hall.gateway.store.message(message)
        assert view is not None and [attempt.outcome for attempt in view.attempts] == ["delivered"]


async def test_a_gateway_that_stops_waits_for_no_former_definition(hall: Hall) -> None:
    old, _ = hall.relays
    old.gate.clear()
    (slow,) = await hall.submit("slow@y.test")
    while not old.contents:
        await asyncio.sleep(0)
    await hall.gateway.accounts.edit("relay", hall.definition(1))
    stopping = asyncio.ensure_future(hall.gateway.scheduler.stop())
    await asyncio.sleep(0.01)
    hall.clock.ahead += 60
    await stopping
    view = await hall.gateway.store.message(slow)
    assert view is not None and [attempt.outcome for attempt in view.attempts] == ["unknown"]


async def test_connections_of_former_definitions_count_among_those_that_it_may_have(hall: Hall) -> None:
    relay, _ = hall.relays
    relay.gate.clear()
    sent = await hall.submit("0@y.test")
    while not relay.contents:
        await asyncio.sleep(0)
    for number in range(1, 4):
        await hall.gateway.accounts.edit("relay", {"helo_name": f"edited{number}.test"})
        sent += await hall.submit(f"{number}@y.test")
        for message in sent:  # the gateway goes on meanwhile
            assert await hall.gateway.store.message(message) is not None
    assert (relay.contents, relay.connections) == (1, 1)
    relay.gate.set()
    assert await hall.gateway.wait_drained()
    assert sorted(hall.taken_by()) == [f"{number}@y.test" for number in range(4)]
    assert relay.connections == 2
    assert [line for line in relay.commands if line.startswith("EHLO")][1:] == ["EHLO edited3.test"]


async def test_connections_outlast_an_edit_that_they_do_not_use(hall: Hall) -> None:
    relay, _ = hall.relays
    await hall.submit("0@y.test")
    assert await hall.gateway.wait_drained()
    changes: list[dict[str, Any]] = [
        {"description": "the office"}, {"messages_per_day": 1000}, {"sender_patterns": "*@x.test"},
        {"fixed_sender": "s9@x.test", "password": "secret 0"},
    ]  # fmt: skip
    for number, change in enumerate(changes, start=1):
        await hall.gateway.accounts.edit("relay", change)
        await hall.submit(f"{number}@y.test")
        assert await hall.gateway.wait_drained()
    assert [one.reverse_path for one in relay.taken] == ["s0@x.test"] * 4 + ["s9@x.test"]
    assert relay.connections == 1
    await hall.gateway.accounts.edit("relay", {"messages_per_connection": 1})
    await hall.submit("last@y.test")
    assert await hall.gateway.wait_drained()
    assert relay.connections == 2
