"""Connections that messages bring have a place each among those of their account and of the node, and wait for it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest

from postroom.gateway import Gateway
from postroom.transports.budget import ConnectionBudget
from tests.flow.gateways import hello
from tests.flow.test_dynamic_connections import send, until, view_of
from tests.smarthost import Smarthost


@pytest.fixture
async def third() -> AsyncIterator[Smarthost]:
    """One more target."""
    host = Smarthost()
    await host.start()
    yield host
    await host.stop()


def waiting(gateway: Gateway) -> int:
    """How many wait for a connection of the node."""
    return len(gateway._transports._budget._waiting)


async def test_all_that_wait_for_the_nodes_connections_get_one(
    gateway: Gateway, relay: Smarthost, other: Smarthost, third: Smarthost
) -> None:
    await gateway.configuration.change({"max_connections_in_all": 1})
    await gateway.accounts.edit("relay", {"max_connections": 8, "messages_per_connection": 1})
    relay.gate.clear()
    plain = await send(gateway)
    while not relay.contents:
        await asyncio.sleep(0)
    own = [await send(gateway, port=port) for port in (other.port, third.port, other.port, third.port)]
    while not waiting(gateway):
        await asyncio.sleep(0)
    relay.gate.set()
    for message in (plain, *own):
        await until(gateway, message, "delivered")
    assert (other.connections, third.connections) == (2, 2)


async def test_what_waits_for_the_node_goes_by_the_account_as_it_is_then(
    gateway: Gateway, relay: Smarthost, other: Smarthost
) -> None:
    """An edit needn't wait for it, and rights that are taken meanwhile are gone."""
    await gateway.configuration.change({"max_connections_in_all": 1})
    await gateway.accounts.edit("relay", {"max_connections": 8, "messages_per_connection": 1})
    relay.gate.clear()
    plain = await send(gateway)
    while not relay.contents:
        await asyncio.sleep(0)
    own = await send(gateway, port=other.port)
    while not waiting(gateway):
        await asyncio.sleep(0)
    await gateway.accounts.edit("relay", {"helo_name": "edited.example.test"})
    while not waiting(gateway):
        await asyncio.sleep(0)
    await gateway.applications.edit("erp", {"dynamic": False})
    relay.gate.set()
    await until(gateway, plain, "delivered")
    view = await until(gateway, own, "deferred")
    assert "may not bring a connection of its own" in view.deliveries[0].reply
    assert [one.outcome for one in view.attempts] == ["deferred"]
    assert other.connections == 0


async def test_a_connection_of_the_node_that_an_edited_account_waited_for_goes_to_the_next(
    gateway: Gateway, relay: Smarthost, other: Smarthost, third: Smarthost
) -> None:
    await gateway.configuration.change({"max_connections_in_all": 1})
    one_each = {"host": "127.0.0.1", "security": "none", "messages_per_connection": 1}
    await gateway.accounts.edit("relay", {"messages_per_connection": 1})
    for name, host in (("second", other), ("third", third)):
        await gateway.accounts.add({"name": name, "port": host.port} | one_each)
    relay.gate.clear()
    sent = [await send(gateway)]
    while not relay.contents:
        await asyncio.sleep(0)
    for count, name in enumerate(("second", "third"), start=1):
        submission = dataclasses.replace(hello(gateway), account=name)
        sent.append((await gateway.submit(submission)).id)
        while waiting(gateway) < count:
            await asyncio.sleep(0)
    await gateway.accounts.edit("second", {"enabled": False, "helo_name": "edited.example.test"})
    relay.gate.set()
    await until(gateway, sent[0], "delivered")
    await until(gateway, sent[2], "delivered")
    await gateway.accounts.edit("second", {"enabled": True})
    await until(gateway, sent[1], "delivered")


class Asking:
    """Waits for a connection; `wants` says how it answers an offer."""

    def __init__(self, budget: ConnectionBudget, wants: str) -> None:
        self.budget = budget
        self.wants = wants
        self.offers = 0

    def grow(self) -> bool:
        """See `Growing`."""
        self.offers += 1
        return self.wants == "later" or (self.wants == "now" and self.budget.take(self))


async def test_a_connection_that_one_does_not_want_is_offered_to_the_next_and_to_one_at_a_time() -> None:
    budget = ConnectionBudget(0)
    asking = [Asking(budget, wants) for wants in ("not", "later", "now", "now")]
    for one in asking:
        assert not budget.take(one)
    budget.give_back()
    assert [one.offers for one in asking] == [1, 1, 0, 0]
    assert budget.take(asking[1])  # the next turn of the loop
    budget.give_back()
    assert [one.offers for one in asking] == [1, 1, 1, 0]
    budget.change(1)
    assert [one.offers for one in asking] == [1, 1, 1, 1]


async def test_who_gives_up_waiting_leaves_the_connection_to_the_next() -> None:
    budget = ConnectionBudget(0)
    first, second = (asyncio.ensure_future(budget.taken()) for _ in range(2))
    await asyncio.sleep(0)
    budget.give_back()
    first.cancel()  # as it gets it
    await second
    assert first.cancelled()


class SlowToLeave:
    """A relay that answers QUIT when it is let; how many connections it has had open at once."""

    def __init__(self) -> None:
        self.goodbye = asyncio.Event()
        self.open = self.most = self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open += 1
        self.most = max(self.most, self.open)
        writer.write(b"220 slow.test\r\n")
        content = False
        while raw := await reader.readline():
            line = raw.rstrip(b"\r\n")
            if content and line != b".":
                continue
            if line == b"QUIT":
                self.asked += 1
                await self.goodbye.wait()
                break
            content = line == b"DATA"
            writer.write(b"354 go on\r\n" if content else b"250 2.0.0 ok\r\n")
        self.open -= 1
        writer.write(b"221 2.0.0 bye\r\n")
        writer.close()


async def test_a_connection_keeps_its_place_until_it_has_ended(gateway: Gateway) -> None:
    await gateway.accounts.edit("relay", {"max_connections": 1})
    slow = SlowToLeave()
    server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    first, *others = [await send(gateway, port=port) for _ in range(4)]
    await until(gateway, first, "delivered")
    while not slow.asked:
        await asyncio.sleep(0)
    for _ in range(20):  # the gateway goes on meanwhile
        await view_of(gateway, first)
    assert slow.most == 1
    slow.goodbye.set()
    for message in others:
        await until(gateway, message, "delivered")
    assert slow.most == 1
    server.close()
