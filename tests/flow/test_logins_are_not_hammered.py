"""How often a relay that does not behave sees a login in half a day: by the account's sleeps, however much waits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.circuit import Circuit
from postroom.model.queue import LaneId
from tests.flow.conftest import FakeClock
from tests.flow.gateways import hello
from tests.smarthost import Behaviour, Smarthost

HALF_A_DAY = timedelta(hours=12)

#: 30 s, 1, 5, 15 and then every 30 minutes (SPEC section 2.8), and the first.
SLEEPS = 5 + 24

#: How often the loop turns until the clock moves a second on for what waits on it meanwhile.
TURNS = 2000


async def asleep(gateway: Gateway, clock: FakeClock) -> Circuit:
    """How the account is, once it sends no more; pytest's limit is the patience."""
    lane = LaneId(gateway.accounts.get("relay").id)
    turns = 0
    while (circuit := gateway.scheduler.circuit(lane)).may_send:
        await asyncio.sleep(0)
        turns += 1
        if turns % TURNS == 0:
            clock.advance(timedelta(seconds=1))
    return circuit


@pytest.mark.parametrize("waiting", [1, 60])
@pytest.mark.parametrize(
    ("behaviour", "most"),
    [
        ({"replies": {"AUTH": "535 5.7.8 wrong password"}}, 1),
        ({"replies": {"AUTH": "454 4.7.0 not now"}}, SLEEPS),
        ({"close_after": "AUTH"}, SLEEPS),
        # The next connection may be opened before the account is told what became of the last.
        ({"replies": {"MAIL": "421 4.3.2 going down"}}, 2 * SLEEPS),
    ],
)
async def test_logins(tmp_path: Path, behaviour: dict[str, Any], most: int, waiting: int) -> None:
    assert 1 <= await logins(tmp_path, behaviour, waiting) <= most


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_relay_that_breaks_off(tmp_path: Path, verb: str) -> None:
    """The message is blamed for one connection that breaks off, the account for two in a row."""
    assert 2 <= await logins(tmp_path, {"close_after": verb}, 60) <= 2 * SLEEPS


async def logins(tmp_path: Path, behaviour: dict[str, Any], waiting: int) -> int:
    """How many the relay saw."""
    smarthost, clock = Smarthost(Behaviour(offers=("AUTH PLAIN",), **behaviour)), FakeClock()
    await smarthost.start()
    settings = Settings.load(tmp_path, hostname="gateway.test", smtp={"listeners": []})
    gateway = await Gateway.open(settings, clock=clock, random_unit=lambda: 0.5)
    relay = {"name": "relay", "host": "127.0.0.1", "port": smarthost.port, "security": "none", "max_connections": 1}
    await gateway.accounts.add(relay | {"username": "erp", "password": "secret", "allow_clear_password": True})
    await gateway.applications.add({"name": "erp", "senders": "*"})
    for number in range(waiting):
        await gateway.submit(hello(gateway, f"r{number}@y.test"))
    end = clock.now() + HALF_A_DAY
    await gateway.start()
    while (circuit := await asleep(gateway, clock)).until is not None and circuit.until < end:
        clock.advance(circuit.until - clock.now())
    clock.advance(end - clock.now())
    assert smarthost.taken == []
    stopping = asyncio.ensure_future(gateway.stop())
    while not stopping.done():
        clock.advance(timedelta(seconds=1))
        await asyncio.sleep(0)
    await smarthost.stop()
    return sum(line.startswith("AUTH") for line in smarthost.commands)
