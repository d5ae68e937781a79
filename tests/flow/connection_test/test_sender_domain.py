"""SPF, DKIM and DMARC of the sender's domain, by a name server whose zone says what a domain may say."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postroom.diagnosis.sender_domain import SenderDomainTest
from postroom.diagnosis.stages import Recorder, Stage
from postroom.model.account import Account, AccountKind, Dkim
from postroom.net.dns import Dns
from postroom.net.spf import Check
from postroom.net.system_clock import SystemClock
from tests.name_server import SERVFAIL, NameServer

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
PUBLIC = base64.b64encode(
    KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
).decode()
OTHER = base64.b64encode(b"o" * 32).decode()
SIGNS: dict[str, Any] = {"dkim": Dkim(domain="x.test", ed25519_selector="s1", ed25519_key=PEM)}
GOOD = {
    "x.test TXT": ['"v=spf1 include:_spf.relay.test ~all"'],
    "_spf.relay.test TXT": ['"v=spf1 ip4:192.0.2.0/24 -all"'],
    "s1._domainkey.x.test TXT": [f'"v=DKIM1; k=ed25519; p={PUBLIC}"'],
    "_dmarc.x.test TXT": ['"v=DMARC1; p=reject; rua=mailto:d@x.test"'],
}


@pytest.fixture
def server() -> Iterator[NameServer]:
    """A name server; its zone is the test's."""
    with NameServer(GOOD) as running:
        yield running


async def looked(
    server: NameServer, *, sender: str = "a@x.test", include: str = "_spf.relay.test", address: str = "", **fields: Any
) -> dict[str, Stage]:
    """The stages by name; `address` is where the connection went to, or came from."""
    clock = SystemClock()
    recorder = Recorder(clock, lambda event: None)
    if address:
        recorder.began("connect")
        recorder.found(address=address, local_address=address)
    kind = fields.pop("kind", AccountKind.SMTP)
    account = Account(id=1, name="relay", kind=kind, host="relay.test", **fields)
    names = Dns(clock, [("127.0.0.1", server.port)])
    await SenderDomainTest(account, names, include, "gateway.x.test")(recorder, sender)
    return {stage.name: stage for stage in recorder.stages}


def rules(stage: Stage) -> list[str]:
    """Whose advice was given."""
    return [advice.rule for advice in stage.advice]


async def test_a_domain_that_is_well_passes(server: NameServer) -> None:
    found = await looked(server, **SIGNS)
    assert {name: stage.outcome.value for name, stage in found.items()} == dict.fromkeys(
        ("spf", "dkim", "dmarc"), "passed"
    )
    assert found["spf"].facts["included"] == "_spf.relay.test"
    assert found["dmarc"].facts["policy"] == "reject"
    assert found["dmarc"].facts["aligned_by"] == ["dkim", "spf"]


@pytest.mark.parametrize(
    ("records", "outcome", "rule", "proposed"),
    [
        (None, "warning", "spf-missing", "v=spf1 include:_spf.relay.test ~all"),
        (["v=spf1 mx ~all", "v=spf1 a ~all"], "failed", "spf-several", ""),
        (["v=spf1 mx -all"], "warning", "spf-provider-missing", "v=spf1 mx include:_spf.relay.test -all"),
        (["v=spf1 include:_spf.relay.test"], "warning", "spf-without-all", "v=spf1 include:_spf.relay.test ~all"),
        (["v=spf1 include:_spf.relay.test +all"], "failed", "spf-open", "v=spf1 include:_spf.relay.test ~all"),
        (["v=spf1 include:_spf.relay.test ipv4:192.0.2.1 ~all"], "failed", "spf-broken", ""),
        (["v=spf1 include:_spf.relay.test include:nowhere.test ~all"], "failed", "spf-broken", ""),
        (["v=spf1 include:_spf.relay.test ptr ~all"], "warning", "spf-ptr", ""),
        (["v=spf1 include:_spf.relay.test " + "a:h.x.test " * 10 + "~all"], "failed", "spf-too-many-lookups", ""),
        ([SERVFAIL], "warning", "dns-silent", ""),
    ],
)
async def test_what_is_wrong_with_spf_is_told_with_the_record_to_publish(
    server: NameServer, records: list[str] | None, outcome: str, rule: str, proposed: str
) -> None:
    del server.zone["x.test TXT"]
    if records is not None:
        server.zone["x.test TXT"] = [one if one == SERVFAIL else f'"{one}"' for one in records]
    spf = (await looked(server))["spf"]
    assert (spf.outcome.value, rules(spf)[:1]) == (outcome, [rule])
    assert proposed in spf.advice[0].record
    assert "{" not in spf.advice[0].cause + spf.advice[0].advice


async def test_lookups_are_counted_through_all_that_is_included(server: NameServer) -> None:
    server.zone["x.test TXT"] = ['"v=spf1 include:a.test mx ~all"']
    server.zone["a.test TXT"] = ['"v=spf1 include:b.test a:h.test redirect=c.test"']
    server.zone["b.test TXT"] = ['"v=spf1 exists:%{i}.b.test ?all"']
    server.zone["c.test TXT"] = ['"v=spf1 include:x.test -all"']  # a circle
    spf = (await looked(server, include=""))["spf"]
    assert spf.facts["lookups"] == 7


@pytest.mark.parametrize(
    ("address", "outcome", "rule"),
    [("8.8.8.8", "failed", "spf-address-missing"), ("1.1.1.1", "passed", ""), ("10.0.0.1", "passed", "spf-not-known")],
)
async def test_the_address_of_a_direct_account_is_checked_where_it_is_known(
    server: NameServer, address: str, outcome: str, rule: str
) -> None:
    server.zone["x.test TXT"] = ['"v=spf1 ip4:1.1.1.1 -all"']
    spf = (await looked(server, include="", kind=AccountKind.DIRECT, address=address))["spf"]
    assert spf.outcome.value == outcome
    assert rules(spf) == ([rule] if rule else [])
    if rule == "spf-address-missing":
        assert "v=spf1 ip4:1.1.1.1 ip4:8.8.8.8 -all" in spf.advice[0].record


@pytest.mark.parametrize(
    ("record", "outcome", "rule"),
    [
        (None, "failed", "dkim-not-published"),
        (f"v=DKIM1; k=ed25519; p={OTHER}", "failed", "dkim-other-key"),
        ("v=DKIM1; k=ed25519; p=", "failed", "dkim-revoked"),
        (f"v=DKIM1; t=y; k=ed25519; p={PUBLIC}", "warning", "dkim-testing"),
        (SERVFAIL, "warning", "dns-silent"),
    ],
)
async def test_what_is_wrong_with_dkim_is_told(server: NameServer, record: str | None, outcome: str, rule: str) -> None:
    del server.zone["s1._domainkey.x.test TXT"]
    if record is not None:
        server.zone["s1._domainkey.x.test TXT"] = [record if record == SERVFAIL else f'"{record}"']
    dkim = (await looked(server, **SIGNS))["dkim"]
    assert (dkim.outcome.value, rules(dkim)) == (outcome, [rule])
    if outcome == "failed":
        assert PUBLIC in dkim.advice[0].record


async def test_several_keys_at_one_name_are_told(server: NameServer) -> None:
    server.zone["s1._domainkey.x.test TXT"] = [f'"v=DKIM1; k=ed25519; p={key}"' for key in (PUBLIC, OTHER)]
    assert rules((await looked(server, **SIGNS))["dkim"]) == ["dkim-several"]


async def test_keys_that_are_none_and_accounts_that_do_not_sign_are_told(server: NameServer) -> None:
    broken: dict[str, Any] = {"dkim": Dkim(domain="x.test", ed25519_selector="s1", ed25519_key="rubbish")}
    assert rules((await looked(server, **broken))["dkim"]) == ["dkim-key-unusable"]
    unsigned = (await looked(server))["dkim"]
    assert (unsigned.outcome.value, rules(unsigned)) == ("skipped", ["dkim-not-signed"])


@pytest.mark.parametrize(
    ("records", "outcome", "rule"),
    [
        ([], "warning", "dmarc-missing"),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], "failed", "dmarc-several"),
        (["v=DMARC1; p=perhaps"], "failed", "dmarc-broken"),
        (["v=DMARC1; rua=mailto:a@x.test"], "failed", "dmarc-broken"),
    ],
)
async def test_what_is_wrong_with_dmarc_is_told(
    server: NameServer, records: list[str], outcome: str, rule: str
) -> None:
    server.zone["_dmarc.x.test TXT"] = [f'"{one}"' for one in records]
    dmarc = (await looked(server, **SIGNS))["dmarc"]
    assert (dmarc.outcome.value, rules(dmarc)) == (outcome, [rule])


async def test_a_signature_of_another_domain_does_not_answer_for_from(server: NameServer) -> None:
    server.zone |= {
        "y.test TXT": ['"v=spf1 -all"'],
        "_dmarc.y.test TXT": ['"v=DMARC1; p=quarantine"'],
    }
    dmarc = (await looked(server, sender="a@y.test", **SIGNS))["dmarc"]
    assert (dmarc.outcome.value, rules(dmarc)) == ("failed", ["dmarc-not-aligned"])
    silent = (await looked(server, sender="a@y.test"))["dmarc"]
    assert (silent.outcome.value, rules(silent)) == ("warning", ["dmarc-nothing-aligned"])


async def test_the_policy_of_the_domain_above_holds_and_its_signature_counts_unless_it_is_strict(
    server: NameServer,
) -> None:
    server.zone["_dmarc.x.test TXT"] = ['"v=DMARC1; p=reject; sp=quarantine"']
    below = (await looked(server, sender="a@shop.x.test", **SIGNS))["dmarc"]
    assert below.facts["policy"] == "quarantine" and below.facts["aligned_by"] == ["dkim"]
    server.zone["_dmarc.x.test TXT"] = ['"v=DMARC1; p=reject; adkim=s"']
    strict = (await looked(server, sender="a@shop.x.test", **SIGNS))["dmarc"]
    assert rules(strict) == ["dmarc-not-aligned"]


@pytest.mark.parametrize(
    ("record", "address", "result"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "192.0.2.9", "pass"),
        ("v=spf1 ip4:192.0.2.0/24 -all", "198.51.100.1", "fail"),
        ("v=spf1 ip6:2001:db8::/32 ~all", "2001:db8::1", "pass"),
        ("v=spf1 a:h.x.test/24 ?all", "203.0.113.77", "pass"),
        ("v=spf1 mx -all", "203.0.113.5", "pass"),
        ("v=spf1 exists:%{ir}.%{v}.%{l}.lists.test -all", "192.0.2.9", "pass"),
        ("v=spf1 exists:%{d2}.nowhere.test ~all", "192.0.2.9", "softfail"),
        ("v=spf1 include:_spf.relay.test -all", "192.0.2.9", "pass"),
        ("v=spf1 redirect=_spf.relay.test", "203.0.113.9", "fail"),
        ("v=spf1 ip4:203.0.113.0/24", "192.0.2.9", "neutral"),
        ("v=spf1 ip4:300.1.1.1 -all", "192.0.2.9", "permerror"),
        ("v=spf1 include:none.test -all", "192.0.2.9", "permerror"),
        ("v=spf1 include:broken.test -all", "192.0.2.9", "temperror"),
        ("v=spf1 " + "a:none.test " * 11 + "-all", "192.0.2.9", "permerror"),
    ],
)
async def test_a_record_comes_to_what_rfc_7208_says(server: NameServer, record: str, address: str, result: str) -> None:
    server.zone |= {
        "x.test TXT": [f'"{record}"'],
        "x.test MX": ["10 h.x.test."],
        "h.x.test A": ["203.0.113.5"],
        "9.2.0.192.in-addr.a.lists.test A": ["127.0.0.2"],
        "broken.test TXT": [SERVFAIL],
    }
    names = Dns(SystemClock(), [("127.0.0.1", server.port)])
    assert await Check(names, address=address, sender="a@x.test", helo="h.test").run("x.test") == result


# What leaves by Microsoft Graph

EXCHANGE = {
    "x.test TXT": ['"v=spf1 include:spf.protection.test -all"'],
    "spf.protection.test TXT": ['"v=spf1 ip4:192.0.2.0/24 -all"'],
    "selector1._domainkey.x.test TXT": [f'"v=DKIM1; k=rsa; p={OTHER}"'],
    "_dmarc.x.test TXT": ['"v=DMARC1; p=reject"'],
}


async def by_graph(server: NameServer, zone: dict[str, list[str]]) -> dict[str, Stage]:
    """The stages of an account of kind graph, which was asked at an address that mail does not leave from."""
    server.zone = zone
    return await looked(server, kind=AccountKind.GRAPH, include="spf.protection.test", address="203.0.113.1")


async def test_exchange_signs_for_the_domain_where_its_keys_are_published(server: NameServer) -> None:
    found = await by_graph(server, EXCHANGE)
    assert {stage.outcome.value for stage in found.values()} == {"passed"}
    assert found["dkim"].facts["selectors"] == ["selector1"]
    assert found["dmarc"].facts["aligned_by"] == ["dkim", "spf"]
    assert "checked_address" not in found["spf"].facts


async def test_without_the_keys_of_exchange_it_is_told_where_they_are(server: NameServer) -> None:
    zone = {"x.test TXT": ['"v=spf1 mx -all"'], "_dmarc.x.test TXT": ['"v=DMARC1; p=reject"']}
    found = await by_graph(server, zone)
    assert rules(found["dkim"]) == ["dkim-of-exchange"]
    assert rules(found["dmarc"]) == ["dmarc-nothing-of-exchange"]
    assert "spf-provider-missing" in rules(found["spf"])
