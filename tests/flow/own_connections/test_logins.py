"""A message logs in as its account does, which stays the business of that, or by itself, and then nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from postroom.gateway import Gateway
from postroom.model.circuit import Health
from postroom.store import Selection
from tests.flow.test_dynamic_connections import OWN, logins, send, until, view_of
from tests.pop3_server import Pop3Server
from tests.smarthost import Behaviour, Smarthost

HELO = {"helo_name": "own.example.test"}
GUEST = {"username": "guest", "password": OWN, "allow_clear_password": True}


async def test_where_the_accounts_login_is_refused_the_account_stops(gateway: Gateway, relay: Smarthost) -> None:
    relay.behaviour = Behaviour(offers=("AUTH PLAIN",), replies={"AUTH": ["535 5.7.8 no", "235 2.7.0 welcome"]})
    first = await send(gateway, **HELO)
    view = await until(gateway, first, "deferred")
    assert view.deliveries[0].tries == 0
    circuit = gateway.answers.circuit(gateway.accounts.get("relay"))
    assert (circuit.health, "535" in circuit.reason or "no" in circuit.reason) == (Health.NEEDS_ATTENTION, True)
    others = [await send(gateway, **HELO) for _ in range(5)]
    for message in others:
        assert [row.state.value for row in (await view_of(gateway, message)).deliveries] == ["queued"]
    assert len(logins(relay)) == 1
    await gateway.accounts.edit("relay", {"password": "another"})
    for message in (first, *others):
        await until(gateway, message, "delivered")


def by_pop(pop: Pop3Server) -> dict[str, Any]:
    """Fields of an account that logs in there."""
    return {
        "authentication": "pop-before-smtp", "username": None, "password": None, "pop_host": "127.0.0.1",
        "pop_port": pop.port, "pop_username": "ann", "pop_password": "tanstaaf",
    }  # fmt: skip


async def test_one_pop3_login_of_the_account_serves_all(gateway: Gateway, relay: Smarthost) -> None:
    async with Pop3Server() as pop:
        await gateway.accounts.edit("relay", by_pop(pop))
        for message in [await send(gateway, **HELO) for _ in range(5)]:
            await until(gateway, message, "delivered")
        assert pop.logins == 1
        await until(gateway, await send(gateway, local_address="127.0.0.1"), "delivered")
        assert pop.logins == 2, "a relay knows who has logged in by the address"
        await until(gateway, await send(gateway), "delivered")
        assert pop.logins == 2


async def test_who_is_denied_after_the_accounts_pop3_login_goes_again_after_one_more(
    gateway: Gateway, relay: Smarthost
) -> None:
    relay.behaviour = Behaviour(replies={"RCPT": ["550 5.7.1 relaying denied", "250 ok"]})
    async with Pop3Server() as pop:
        await gateway.accounts.edit("relay", by_pop(pop))
        view = await until(gateway, await send(gateway, **HELO), "delivered")
        assert (pop.logins, view.deliveries[0].tries) == (2, 1)


@pytest.mark.parametrize("moved", [False, True])
async def test_its_password_goes_to_no_host_that_it_was_not_given_for(
    gateway: Gateway, relay: Smarthost, other: Smarthost, moved: bool
) -> None:
    await gateway.accounts.edit("relay", {"enabled": False})
    bound, named = await send(gateway, **GUEST), await send(gateway, **GUEST, host="127.0.0.1", port=relay.port)
    if moved:
        elsewhere = {"name": "spare", "host": "127.0.0.1", "port": other.port, "security": "none", "dynamic": True}
        await gateway.accounts.add(elsewhere)
        for message in (bound, named):
            await gateway.reroute(Selection(message_id=message), "spare", may_duplicate=False)
    else:
        await gateway.accounts.edit("relay", {"port": other.port, "enabled": True})
    view = await until(gateway, bound, "deferred")
    assert f"its password was not given for 127.0.0.1:{other.port}" in view.deliveries[0].reply
    await until(gateway, named, "delivered")
    assert (other.connections, logins(relay)) == (0, [f":guest:{OWN}"])
