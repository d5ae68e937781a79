"""However much mail waits for a target that hangs, the account's other mail goes past it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from postroom.gateway import Gateway
from postroom.queue import ready
from tests.flow.gateways import hello
from tests.flow.test_dynamic_connections import send, until
from tests.smarthost import Smarthost


@pytest.mark.parametrize("full", [{"READY_MESSAGES": 5}, {"READY_BYTES": 1}])
async def test_more_than_memory_keeps_holds_up_nothing_else(
    gateway: Gateway, relay: Smarthost, other: Smarthost, monkeypatch: pytest.MonkeyPatch, full: dict[str, int]
) -> None:
    for name, value in full.items():
        monkeypatch.setattr(ready, name, value)
    await gateway.applications.add({"name": "shop", "senders": "*"})
    other.gate.clear()
    slow = [await send(gateway, port=other.port) for _ in range(12)]
    while not other.contents:
        await asyncio.sleep(0)
    for _ in range(3):
        await until(gateway, await send(gateway), "delivered")
        submission = dataclasses.replace(hello(gateway), application=gateway.applications.get("shop"))
        await until(gateway, (await gateway.submit(submission)).id, "delivered")
    (lane,) = gateway.scheduler._lanes.values()
    assert lane._ready.own is not None and lane._ready.own.count < len(slow) - 1, "the rest waits in the store"
    other.gate.set()
    for message in slow:
        await until(gateway, message, "delivered")
    assert (len(relay.taken), len(other.taken)) == (6, 12)
