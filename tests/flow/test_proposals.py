"""Which relay an address sends by: what is known by heart, what its MX says, what the domain says in the DNS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from postroom.accounts import presets
from postroom.accounts.proposal import Proposals, propose
from postroom.errors import Busy, InvalidInput
from postroom.net.dns import Dns
from tests.flow.conftest import FakeClock
from tests.name_server import SERVFAIL, NameServer

ZONE = {
    "workspace.test MX": ["1 aspmx.l.google.com.", "5 alt1.aspmx.l.google.com."],
    "fast.test MX": ["10 in1-smtp.messagingengine.com."],
    "office.test MX": ["0 office-test.mail.protection.outlook.com."],
    "own.test MX": ["10 mx.own.test."],
    "_submissions._tcp.own.test SRV": ["0 1 465 smtp.own.test."],
    "_submission._tcp.own.test SRV": ["0 1 587 smtp.own.test."],
    "one.test MX": ["10 mx.one.test."],
    "_submission._tcp.one.test SRV": ["20 1 587 second.one.test.", "10 1 587 .", "10 1 2587 smtp.one.test."],
    "hosted.test MX": ["10 mx.hosted.test."],
    "_submission._tcp.hosted.test SRV": ["0 1 587 smtp.elsewhere.test."],
    "only.test MX": ["10 mx.only.test."],
    "_submissions._tcp.only.test SRV": ["0 1 465 smtp.only.test."],
    "nothing.test MX": ["10 mx.nothing.test."],
    "eu.test MX": ["20 mx2.zoho.com.", "10 mx.zoho.eu."],
    "in.test MX": ["10 mx.zoho.in."],
    "lark.test MX": ["10 mx1.larksuite.com."],
    "ionos.test MX": ["10 mx00.ionos.de."],
    "server.test MX": ["10 mx00.kundenserver.de."],
    "us.test MX": ["0 smtp.secureserver.net."],
    "europe.test MX": ["0 smtp.europe.secureserver.net."],
    "trap.test MX": ["10 mx.trap.test."],
    "_submissions._tcp.trap.test SRV": [
        "0 1 465 a\\;reboot.trap.test.",
        "1 1 0 smtp.trap.test.",
        "2 1 465 ok.trap.test.",
    ],
    "broken.test MX": [SERVFAIL],
    "_submission._tcp.broken.test SRV": [SERVFAIL],
    "_submissions._tcp.broken.test SRV": [SERVFAIL],
}


@pytest.fixture
def server() -> Iterator[NameServer]:
    """One with a small zone."""
    with NameServer(ZONE) as running:
        yield running


async def ask(server: NameServer, address: str) -> Proposals:
    """What is proposed for it."""
    return await propose(address, Dns(FakeClock(), [("127.0.0.1", server.port)]))


def fields(found: Proposals) -> list[dict[str, object]]:
    """The fields of each proposal."""
    return [one.fields for one in found.proposals]


async def test_a_domain_known_by_heart_needs_no_dns(server: NameServer) -> None:
    found = await ask(server, "ann@GMail.com")
    assert found.sure and fields(found) == [{"preset": "gmail", "username": "ann@GMail.com"}]
    assert not server.asked


async def test_the_mx_leads_to_the_provider(server: NameServer) -> None:
    found = await ask(server, "ann@fast.test")
    assert found.sure and fields(found) == [{"preset": "fastmail", "username": "ann@fast.test"}]
    assert "in1-smtp.messagingengine.com" in found.proposals[0].because


@pytest.mark.parametrize(
    ("domain", "preset", "region"),
    [
        ("gmx.com", "gmx", "com"),
        ("gmx.de", "gmx", "net"),
        ("eu.test", "zoho", "eu"),
        ("in.test", "zoho", "in"),
        ("lark.test", "feishu", "lark"),
        ("ionos.test", "ionos", "de"),
        ("server.test", "ionos", "de"),
        ("us.test", "godaddy", "us"),
        ("europe.test", "godaddy", "europe"),
    ],
)
async def test_domain_or_mx_tells_the_region(server: NameServer, domain: str, preset: str, region: str) -> None:
    found = await ask(server, f"ann@{domain}")
    assert found.sure
    assert fields(found) == [{"preset": preset, "preset_region": region, "username": f"ann@{domain}"}]


async def test_a_region_that_nobody_tells_is_asked_for(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    zoho = replace(presets.find("zoho"), region_of={})
    monkeypatch.setattr(presets, "presets", lambda: (zoho,))
    found = await ask(server, "ann@eu.test")
    assert not found.sure and fields(found) == [{"preset": "zoho", "username": "ann@eu.test"}]
    assert found.proposals[0].notes[0] == "which of its regions it is has to be said: com, eu, in, au"


async def test_what_no_account_could_name_is_not_proposed(server: NameServer) -> None:
    assert [(one["host"], one["port"]) for one in fields(await ask(server, "ann@trap.test"))] == [("ok.trap.test", 465)]


async def test_a_provider_with_two_ways_is_asked_about(server: NameServer) -> None:
    found = await ask(server, "ann@office.test")
    assert not found.sure
    assert [one["preset"] for one in fields(found)] == ["microsoft-365", "microsoft-graph"]
    assert not (await ask(server, "ann@workspace.test")).sure


async def test_what_the_domain_says_itself(server: NameServer) -> None:
    found = await ask(server, "ann@own.test")
    assert fields(found) == [
        {"host": "smtp.own.test", "port": 465, "security": "tls", "username": "ann@own.test"},
        {"host": "smtp.own.test", "port": 587, "security": "starttls", "username": "ann@own.test"},
    ]
    assert (await ask(server, "ann@only.test")).sure


async def test_the_order_of_its_records_and_what_is_not_offered(server: NameServer) -> None:
    found = await ask(server, "ann@one.test")
    assert [(one["host"], one["port"]) for one in fields(found)] == [("smtp.one.test", 2587), ("second.one.test", 587)]


async def test_a_relay_in_another_domain_is_never_sure(server: NameServer) -> None:
    found = await ask(server, "ann@hosted.test")
    assert not found.sure and found.proposals[0].fields["host"] == "smtp.elsewhere.test"
    assert "another domain" in found.proposals[0].notes[0]


async def test_nobody_knows(server: NameServer) -> None:
    assert (await ask(server, "ann@nothing.test")).proposals == ()
    assert (await ask(server, "ann@absent.test")).proposals == ()


async def test_a_dns_that_does_not_answer_is_said(server: NameServer) -> None:
    with pytest.raises(Busy, match="no preset has broken.test by heart"):
        await ask(server, "ann@broken.test")


@pytest.mark.parametrize("address", ["", "ann", "ann@", "a b@c.test"])
async def test_what_is_no_address_is_refused(server: NameServer, address: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        await ask(server, address)
