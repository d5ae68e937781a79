"""An address that a message names is looked at again when it is sent, whatever it goes through."""

from __future__ import annotations

import pytest

from postroom.accounts.own_connections import OpenedConnection
from postroom.gateway import Gateway
from postroom.model.account import Account, AccountKind, Authentication, PopLogin, Proxy, ProxyType
from postroom.net.address_guard import AddressGuard
from postroom.net.stream import ConnectFailed, resolve
from postroom.transports.own_connection import through_proxy
from tests.flow.test_dynamic_connections import send, until
from tests.smarthost import Smarthost

METADATA = "169.254.169.254"


@pytest.mark.parametrize("kind", ProxyType)
@pytest.mark.parametrize("role", ["host", "pop_host"])
async def test_no_proxy_is_told_of_an_address_that_the_guard_refuses(kind: ProxyType, role: str) -> None:
    proxy = Proxy() if kind is ProxyType.NONE else Proxy(type=kind, host="127.0.0.1")
    pop = PopLogin(host=METADATA if role == "pop_host" else "8.8.4.4")
    account = Account(
        id=1, name="a", kind=AccountKind.SMTP, host=METADATA if role == "host" else "8.8.8.8",
        authentication=Authentication.POP, pop=pop, proxy=proxy,
    )  # fmt: skip
    exempt = {("127.0.0.1", 1080)}
    opened = OpenedConnection(account, AddressGuard(()), exempt)
    with pytest.raises(ConnectFailed, match=f"{METADATA} leads to a link-local address"):
        await through_proxy(opened, opened.guard.resolver(resolve, exempt))
    opened = OpenedConnection(account, AddressGuard((METADATA, "8.0.0.0/8")), exempt)
    assert await through_proxy(opened, opened.guard.resolver(resolve, exempt)) == account


async def test_a_network_that_is_taken_from_the_application_is_not_reached_through_the_accounts_proxy(
    gateway: Gateway, other: Smarthost
) -> None:
    await gateway.accounts.edit("relay", {"enabled": False})
    message = await send(gateway, host="127.0.0.9", port=25)
    await gateway.applications.edit("erp", {"may_connect_to": None})
    proxy = {"proxy_type": "socks4", "proxy_host": "127.0.0.1", "proxy_port": other.port}
    await gateway.accounts.edit("relay", proxy | {"enabled": True})
    view = await until(gateway, message, "deferred")
    assert "which the address guard does not let pass" in view.deliveries[0].reply
    assert other.connections == 0
