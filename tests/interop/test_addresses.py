"""Whence an account connects and by which name it greets, as Postfix saw it: in its log and in its Received field."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bench.gateways import Postfix
from postroom.model.account import Account, AccountKind, AddressFamily, Security
from postroom.model.envelope import Envelope
from postroom.net.smtp_client import ContentSource, TransactionResult, connect
from postroom.net.stream import Address
from tests.interop.conftest import Certificates
from tests.interop.gateway import SENDER, Gateway, a_message, a_recipient, running_gateway
from tests.interop.node_relay import NodeRelay, running_node_relay
from tests.interop.postfix import log_of, running_postfix


@dataclass
class Place:
    """A gateway on a machine without a full name, and a Postfix at 127.0.0.1 and ::1 with a witness behind it."""

    gateway: Gateway
    postfix: Postfix
    sink: NodeRelay


@pytest.fixture(scope="module")
def place(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Shared by all of this module."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    folder = tmp_path_factory.mktemp("place")
    services = "[::1]:{listen_port} inet n - n - - smtpd\n"
    with (
        running_node_relay(folder, certificates) as sink,
        running_postfix(certificates, sink.plain_port, "postfix_both.cf", services) as postfix,
        running_gateway(folder / "data", POSTROOM_HOSTNAME="box") as gateway,
    ):
        yield Place(gateway, postfix, sink)


CASES = {
    "local-ipv4": (["--local-address", "127.0.0.77"], "[127.0.0.77]", "127.0.0.77"),
    "local-ipv6": (["--host", "::1", "--local-address", "::1"], "[IPv6:::1]", "::1"),
    "family-ipv4": (["--address-family", "ipv4"], "[127.0.0.1]", "127.0.0.1"),
    "host-ipv6": (["--host", "::1"], "[IPv6:::1]", "::1"),
    "name": (["--address-family", "ipv4", "--helo-name", "mail.own.example"], "mail.own.example", "127.0.0.1"),
    "all": (
        ["--local-address", "127.0.0.78", "--address-family", "ipv4", "--helo-name", "both.own.example"],
        "both.own.example",
        "127.0.0.78",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_postfix_saw(place: Place, case: str) -> None:
    options, helo_name, address = CASES[case]
    place.gateway.add_account(case, place.postfix.port, *options)
    recipient = a_recipient()
    message = place.gateway.submit(case, [recipient], a_message(recipient))
    (taken,) = place.sink.witness.to(recipient)
    shown = f"IPv6:{address}" if ":" in address else address
    received = re.search(rb"Received: from (\S+) \(\S+ \[([^]]+)\]\)\s+by postfix\.example .* id (\S+)", taken.content)
    assert received is not None
    assert received.group(1, 2) == (helo_name.encode(), shown.encode())
    assert re.search(rf"{received[3].decode()}: client=\S+\[{re.escape(address)}\]", log_of(place.postfix))
    assert list(place.gateway.states(message).values()) == ["delivered"]


@pytest.mark.parametrize(
    ("family", "shown"), [(AddressFamily.IPV4, b"[127.0.0.1]"), (AddressFamily.IPV6, b"[IPv6:::1]")]
)
async def test_postfix_saw_the_family_of_a_name_that_has_both(
    place: Place, family: AddressFamily, shown: bytes
) -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        return [(socket.AF_INET6, ("::1", port)), (socket.AF_INET, ("127.0.0.1", port))]

    port, recipient = place.postfix.port, a_recipient()
    account = Account(
        id=1, name="relay", kind=AccountKind.SMTP, host="relay.test", port=port, security=Security.NONE,
        address_family=family,
    )  # fmt: skip
    connection = await connect(account, helo_name="", resolver=resolve)
    sent: asyncio.Future[TransactionResult] = asyncio.get_running_loop().create_future()
    connection.start(Envelope(SENDER, (recipient,)), ContentSource(b"", a_message(recipient)), sent.set_result)
    assert (await sent).is_delivered(0)
    await connection.quit()
    (taken,) = await asyncio.to_thread(place.sink.witness.to, recipient)
    assert re.search(rb"Received: from %b \(\S+ %b\)" % (re.escape(shown), re.escape(shown)), taken.content)


def test_check_advises_those_who_have_no_name(place: Place) -> None:
    place.gateway.add_account("named", place.postfix.port, "--helo-name", "own.example")
    place.gateway.add_account("nameless", place.postfix.port)
    said = place.gateway.served.run("check", check=False).stdout
    assert "account nameless: greets with its address, as this machine has no full name" in said
    assert "postroom accounts edit nameless --helo-name NAME" in said
    assert "account named: greets" not in said
