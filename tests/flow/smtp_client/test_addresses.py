"""Which of a relay's addresses is taken (RFC 8305), from which of ours, and by which name we greet there."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from postroom.model.account import Account, AccountKind, AddressFamily, Security
from postroom.net import tcp
from postroom.net.smtp_client import ConnectFailed, SmtpConnection, connect
from postroom.net.tcp import ATTEMPT_DELAY_SECONDS, Address
from tests.smarthost import Behaviour, Smarthost

V4, V6 = socket.AF_INET, socket.AF_INET6
LOOPBACK = {V4: "127.0.0.1", V6: "::1"}


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(V6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@asynccontextmanager
async def relay(address: str = "127.0.0.1", **behaviour: Any) -> AsyncIterator[Smarthost]:
    """A relay there."""
    smarthost = Smarthost(Behaviour(**behaviour), address)
    await smarthost.start()
    yield smarthost
    await smarthost.stop()


@contextmanager
def black_hole(family: socket.AddressFamily) -> Any:
    """An address to which connections are neither taken nor refused: its listener's backlog is full."""
    with socket.socket(family) as listener, socket.socket(family) as filler, socket.socket(family) as more:
        listener.bind((LOOPBACK[family], 0))
        listener.listen(0)
        where = listener.getsockname()
        for one in (filler, more):
            one.setblocking(False)
            one.connect_ex(where)
        yield family, where


def refusing(family: socket.AddressFamily) -> Address:
    """An address where nobody listens."""
    with socket.socket(family) as probe:
        probe.bind((LOOPBACK[family], 0))
        return family, probe.getsockname()


def at(smarthost: Smarthost) -> Address:
    """Where it is."""
    family = V6 if ":" in smarthost.address else V4
    return family, (smarthost.address, smarthost.port)


async def open_to(*addresses: Address, own_name: str = "client.test", **fields: Any) -> SmtpConnection:
    """A connection to a relay with these addresses."""

    async def resolve(host: str, port: int) -> list[Address]:
        return list(addresses)

    account = Account(
        id=1, name="relay", kind=AccountKind.SMTP, host="relay.test", security=Security.NONE, **fields
    )  # fmt: skip
    return await connect(account, helo_name=own_name, resolver=resolve)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The addresses that are tried, in order, as the kernel is asked."""
    found: list[Address] = []
    connected = tcp._connected

    async def noted(address: Address, local_address: str) -> socket.socket:
        found.append(address)
        return await connected(address, local_address)

    monkeypatch.setattr(tcp, "_connected", noted)
    return found


def test_the_next_address_is_tried_after_a_quarter_of_a_second() -> None:
    assert ATTEMPT_DELAY_SECONDS == 0.25  # RFC 8305 section 5


@needs_ipv6
@pytest.mark.parametrize("dead", [black_hole, refusing])
@pytest.mark.parametrize("family", [V4, V6])
async def test_a_dead_address_of_one_family_gives_way_to_the_other(
    tried: list[Address], dead: Callable[[socket.AddressFamily], Any], family: socket.AddressFamily
) -> None:
    async with relay(LOOPBACK[V4 if family is V6 else V6]) as smarthost:
        if dead is black_hole:
            with black_hole(family) as nowhere:
                connection = await open_to(nowhere, at(smarthost))
        else:
            nowhere = refusing(family)
            connection = await open_to(nowhere, at(smarthost))
        assert connection.remote_address == smarthost.address
        assert tried == [nowhere, at(smarthost)]
        await connection.quit()


@needs_ipv6
@pytest.mark.parametrize("first", [V4, V6])
async def test_the_first_address_wins_where_it_answers_and_families_take_turns(
    tried: list[Address], first: socket.AddressFamily
) -> None:
    other = V4 if first is V6 else V6
    async with relay(LOOPBACK[first]) as smarthost:
        nobody = refusing(first), refusing(first), refusing(other)
        connection = await open_to(*nobody, at(smarthost))
        assert tried == [nobody[0], nobody[2], nobody[1], at(smarthost)]
        await connection.quit()
        tried.clear()
        connection = await open_to(at(smarthost), refusing(other))
        assert tried == [at(smarthost)]
        await connection.quit()


@needs_ipv6
async def test_when_none_answers_every_address_was_tried_and_each_failure_is_told(
    tried: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = refusing(V6), refusing(V4), (V4, ("203.0.113.1", 25))
    connected = tcp._connected

    async def unreachable(address: Address, local_address: str) -> socket.socket:
        if address == addresses[2]:
            tried.append(address)
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return await connected(address, local_address)

    monkeypatch.setattr(tcp, "_connected", unreachable)
    with pytest.raises(ConnectFailed, match=r"no connection to relay\.test: .+; Network is unreachable"):
        await open_to(*addresses)
    assert tried == list(addresses)


@needs_ipv6
@pytest.mark.parametrize("family", [AddressFamily.IPV4, AddressFamily.IPV6])
async def test_only_addresses_of_the_accounts_family_are_tried(tried: list[Address], family: AddressFamily) -> None:
    wanted = V6 if family is AddressFamily.IPV6 else V4
    async with relay(LOOPBACK[wanted]) as smarthost:
        connection = await open_to(refusing(V4 if wanted is V6 else V6), at(smarthost), address_family=family)
        assert tried == [at(smarthost)]
        await connection.quit()


@needs_ipv6
@pytest.mark.parametrize("address", ["::1", "127.0.0.77"])
async def test_a_local_address_decides_the_family(tried: list[Address], address: str) -> None:
    async with relay("::1" if ":" in address else "127.0.0.1") as smarthost:
        dead = refusing(V4 if ":" in address else V6)
        connection = await open_to(dead, at(smarthost), local_address=address)
        assert tried == [at(smarthost)]
        await connection.quit()


@pytest.mark.parametrize(
    ("where", "fields", "name"),
    [
        ("127.0.0.1", {"helo_name": "mail.own.test"}, "mail.own.test"),
        ("127.0.0.1", {"helo_name": ""}, "[127.0.0.1]"),
        ("127.0.0.1", {"local_address": "127.0.0.9"}, "[127.0.0.9]"),
        pytest.param("::1", {}, "[IPv6:::1]", marks=needs_ipv6),
        pytest.param("::1", {"helo_name": "[IPv6:2001:db8::1]"}, "[IPv6:2001:db8::1]", marks=needs_ipv6),
    ],
)
@pytest.mark.parametrize("refused", ["", "500 5.5.1 what?", "550 5.7.1 no EHLO here"])
async def test_the_name_in_ehlo_and_in_helo_where_ehlo_is_refused(
    where: str, fields: dict[str, str], name: str, refused: str
) -> None:
    replies = {"EHLO": refused} if refused else {}
    async with relay(where, replies=replies) as smarthost:
        connection = await open_to(at(smarthost), own_name="", **fields)
        await connection.quit()
        greeted = [line for line in smarthost.commands if re.match("EHLO|HELO", line)]
        assert greeted == [f"EHLO {name}", *([f"HELO {name}"] if refused else [])]
