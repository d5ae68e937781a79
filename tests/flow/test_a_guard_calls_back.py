"""What a connection was given and the relay has heard nothing of is called back when the guard is put on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.queue import DeliveryState
from tests.flow.gateways import hello
from tests.smarthost import Behaviour, Smarthost

INBOX = "inbox@staging.example"


@pytest.fixture(params=[True, False], ids=["pipelining", "one-by-one"])
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[Smarthost]:
    """One that gives its reply to a content only when it is let."""
    running = Smarthost(Behaviour(pipelining=request.param))
    await running.start()
    running.gate.clear()
    yield running
    await running.stop()


@pytest.fixture
async def gateway(relay: Smarthost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """One that sends over a single connection to the relay."""
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)
    made = await Gateway.open(Settings.load(tmp_path, hostname="gateway.test", smtp={"listeners": []}))
    account = {"name": "relay", "host": "127.0.0.1", "port": relay.port, "security": "none", "max_connections": 1}
    await made.accounts.add(account)
    await made.applications.add({"name": "erp", "senders": "*"})
    await made.start()
    yield made
    relay.gate.set()
    await made.stop()


async def sending(gateway: Gateway) -> int:
    """How many deliveries are under way."""
    return sum(count for (_, state), count in (await gateway.store.counts()).items() if state is DeliveryState.SENDING)


async def test_nothing_begins_for_who_is_not_listed(gateway: Gateway, relay: Smarthost) -> None:
    for n in range(5):
        await gateway.submit(hello(gateway, f"real{n}@customer.example"))
    while await sending(gateway) < 2 or relay.contents < 1:
        pass
    await gateway.configuration.change({"staging_guard.redirect_to": INBOX, "staging_guard.enabled": True})
    relay.gate.set()
    assert await gateway.wait_drained()
    # With PIPELINING the envelope of the second was written behind the content of the first.
    begun = 2 if relay.behaviour.pipelining else 1
    names = [name for taken in relay.taken for name in taken.recipients]
    assert names == [f"real{n}@customer.example" for n in range(begun)] + [INBOX] * (5 - begun)
