"""The message that a test sends counts for the limits of its account, as any other: at once, and on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.diagnosis.connection_test import Result
from postroom.gateway import Gateway, Wanted
from tests.smarthost import Smarthost

WANTED = Wanted("b@y.test", "a@x.test", send=True)


@pytest.fixture
async def relay() -> AsyncIterator[Smarthost]:
    """Where the account leads."""
    relay = Smarthost()
    await relay.start()
    yield relay
    await relay.stop()


async def opened(folder: Path, **account: Any) -> Gateway:
    """A gateway on this folder, with that account if it shall be made."""
    gateway = await Gateway.open(Settings.load(folder, hostname="gateway.example.test", smtp={"listeners": []}))
    if account:
        await gateway.accounts.add({"name": "relay", "host": "127.0.0.1", "security": "none"} | account)
    return gateway


async def ended_test(gateway: Gateway) -> Result:
    """A test with a real message."""
    return await gateway.trials.run(gateway.accounts.get("relay"), WANTED)


def outcome(result: Result) -> tuple[str, str]:
    """What became of the message."""
    (stage,) = [stage for stage in result.stages if stage.name == "message"]
    return stage.outcome.value, stage.detail


REACHED = ("skipped", "none was sent: the account has reached its limit of 1 messages a day")


async def test_tests_at_once_send_no_more_than_the_limit(tmp_path: Path, relay: Smarthost) -> None:
    gateway = await opened(tmp_path, port=relay.port, messages_per_day=1)
    await gateway.start()
    results = await asyncio.gather(*(ended_test(gateway) for _ in range(3)))
    await gateway.stop()
    assert sorted(map(outcome, results)) == [("passed", ""), REACHED, REACHED]
    assert len(relay.taken) == 1


@pytest.mark.parametrize("first", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("second", [True, False], ids=["up", "down"])
async def test_what_a_test_sent_is_on_record(tmp_path: Path, relay: Smarthost, first: bool, second: bool) -> None:
    gateway = await opened(tmp_path, port=relay.port, messages_per_day=1)
    await gateway.start(deliver=first)
    assert outcome(await ended_test(gateway)) == ("passed", "")
    await gateway.stop()
    gateway = await opened(tmp_path)
    await gateway.start(deliver=second)
    assert outcome(await ended_test(gateway)) == REACHED
    await gateway.stop()
    assert len(relay.taken) == 1


async def test_it_is_on_record_before_the_relay_hears_of_it(tmp_path: Path, relay: Smarthost) -> None:
    gateway = await opened(tmp_path, port=relay.port, messages_per_day=1)
    await gateway.start(deliver=False)
    relay.gate.clear()
    testing = asyncio.create_task(ended_test(gateway))
    while not relay.contents:
        await asyncio.sleep(0)
    assert await gateway.store.usage()
    relay.gate.set()
    await testing
    await gateway.stop()
