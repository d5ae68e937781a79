"""The address guard: what is public passes, whatever way an address is written or carried in another."""

from __future__ import annotations

import socket

import pytest

from postroom.net.address_guard import GUARDED, AddressGuard
from postroom.net.stream import Address, ConnectFailed

GUARD = AddressGuard()

REFUSED = {
    "127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "0.0.0.0": "unspecified",
    "::": "unspecified", "10.1.2.3": "private", "172.16.0.1": "private", "192.168.1.1": "private",
    "169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "fd00:ec2::254": "private",
    "fec0::1": "private", "100.64.0.1": "shared", "100.100.100.200": "shared", "224.0.0.1": "multicast",
    "ff02::1": "multicast", "255.255.255.255": "private", "240.0.0.1": "private", "192.0.0.192": "reserved",
    "168.63.129.16": "metadata", "::ffff:127.0.0.1": "loopback", "::ffff:10.0.0.1": "private",
    "::127.0.0.1": "reserved", "64:ff9b::7f00:1": "loopback", "64:ff9b::a00:1": "private",
    "64:ff9b:1::1": "reserved", "2002:7f00:1::": "loopback", "2002:a9fe:a9fe::": "link-local",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "private", "198.18.0.1": "private", "2001:db8::1": "private",
    "192.88.99.1": "reserved", "::ffff:0:127.0.0.1": "reserved", "3fff::1": "reserved", "4000::1": "reserved",
    "5f00::1": "reserved", "1fff::1": "reserved",
}  # fmt: skip


@pytest.mark.parametrize(("address", "kind"), REFUSED.items())
def test_what_is_not_public_is_refused(address: str, kind: str) -> None:
    assert kind in GUARD.refuses(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "193.0.6.139",
        "2001:67c:2e8:22::c100:68b",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "3ffe::1",
    ],
)
def test_what_is_public_passes(address: str) -> None:
    assert GUARD.refuses(address) == ""


def test_exceptions_are_networks_and_names() -> None:
    guard = AddressGuard(["10.1.0.0/16", "fd00:1::/32", "relay.inside.test", "*.lan.test"])
    passing = ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5")
    assert [guard.refuses(one) for one in passing] == ["", "", ""]
    assert guard.refuses("10.2.0.1") and guard.refuses("fd00:2::5")
    known = {"relay.inside.test": True, "RELAY.inside.test.": True, "a.b.lan.test": True, "lan.test": False}
    assert {name: guard.knows(name) for name in known} == known
    assert not guard.knows("evil-relay.inside.test") and not guard.knows("x.relay.inside.test")


def test_this_machine_is_known_by_name_and_other_names_need_the_dns() -> None:
    assert GUARD.refuses_host("localhost") and GUARD.refuses_host("x.LocalHost.")
    assert GUARD.refuses_host("mail.example.org") == GUARD.refuses_host("localhost.example.org") == ""
    assert AddressGuard(["localhost"]).refuses_host("localhost") == ""


def address_of(text: str) -> Address:
    """As a resolver gives it."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return family, (text, 25)


async def test_names_are_looked_at_after_they_were_resolved() -> None:
    zone = {"mixed.test": ["10.0.0.1", "8.8.8.8"], "inside.test": ["10.0.0.1", "::1"], "gone.test": []}

    async def resolve(host: str, port: int) -> list[Address]:
        return [address_of(text) for text in zone[host]]

    guarded = GUARD.resolver(resolve, {("inside.test", 587)})
    assert await guarded("mixed.test", 25) == [address_of("8.8.8.8")]
    assert await guarded("gone.test", 25) == []
    assert await guarded("inside.test", 587) == [address_of("10.0.0.1"), address_of("::1")]
    with pytest.raises(ConnectFailed, match="leads to a private address") as failed:
        await guarded("inside.test", 25)
    assert failed.value.kind == GUARDED
    assert "10.0.0.1" not in failed.value.reason
