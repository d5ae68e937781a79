"""Policies of MTA-STS are fetched from a local HTTPS server, kept by id and age, and never taken from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import trustme

from postroom.net import mta_sts
from postroom.net.dns import Dns
from postroom.net.mta_sts import PolicyUnavailable, StsPolicies
from postroom.net.tls import client_context
from postroom.policy.mta_sts import Mode, StsPolicy
from tests.flow.conftest import FakeClock
from tests.name_server import SERVFAIL, NameServer
from tests.policy_host import PolicyHost


def policy(mode: str = "enforce", max_age: int = 604800, mx: str = "mx.y.test") -> bytes:
    """A policy as it is served."""
    return f"version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: {max_age}\r\n".encode()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Whom the tests trust."""
    return trustme.CA()


@pytest.fixture
def host(authority: trustme.CA) -> Iterator[PolicyHost]:
    """Serves mta-sts.y.test, by a certificate for that name."""
    with PolicyHost(authority, "mta-sts.y.test", body=policy()) as served:
        yield served


@pytest.fixture
def server() -> Iterator[NameServer]:
    """Publishes that y.test has a policy, and other.test, at the same host."""
    with NameServer(
        {
            "_mta-sts.y.test TXT": ['"v=STSv1; id=a1"'],
            "mta-sts.y.test A": ["127.0.0.1"],
            "_mta-sts.other.test TXT": ['"v=STSv1; id=a1"'],
            "mta-sts.other.test A": ["127.0.0.1"],
        },
        ttl=0,
    ) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    """Moved by the test."""
    return FakeClock()


@pytest.fixture
def policies(server: NameServer, host: PolicyHost, clock: FakeClock, authority: trustme.CA) -> StsPolicies:
    """Trusts `authority`."""
    context = client_context(ca_bundle=authority.cert_pem.bytes().decode())
    return StsPolicies(Dns(clock, [("127.0.0.1", server.port)]), clock, port=host.port, context=context)


async def test_a_policy_is_fetched_by_its_name(policies: StsPolicies, host: PolicyHost) -> None:
    found = await policies.policy("y.test")
    assert found == StsPolicy(Mode.ENFORCE, timedelta(days=7), ("mx.y.test",))
    assert host.asked == [("mta-sts.y.test", "/.well-known/mta-sts.txt")]
    assert host.names == ["mta-sts.y.test"]


async def test_a_domain_without_a_record_is_not_asked(policies: StsPolicies, host: PolicyHost) -> None:
    assert await policies.policy("plain.test") is None
    assert host.asked == []


async def test_a_kept_policy_holds_while_its_id_stands(
    policies: StsPolicies, host: PolicyHost, server: NameServer, clock: FakeClock
) -> None:
    await policies.policy("y.test")
    host.body = policy("none")
    clock._move(100)
    first = await policies.policy("y.test")
    assert first is not None
    assert first.enforces
    assert len(host.asked) == 1
    server.zone["_mta-sts.y.test TXT"] = ['"v=STSv1; id=a2"']
    clock._move(200)
    second = await policies.policy("y.test")
    assert second is not None
    assert second.mode is Mode.NONE


async def test_a_record_that_is_gone_or_cannot_be_asked_takes_back_nothing(
    policies: StsPolicies, host: PolicyHost, server: NameServer, clock: FakeClock
) -> None:
    """RFC 8461 section 5.1: who can suppress the record must not be rid of the policy."""
    host.body = policy(max_age=1000)
    kept = await policies.policy("y.test")
    server.zone["_mta-sts.y.test TXT"] = [SERVFAIL]
    clock._move(500)
    assert await policies.policy("y.test") == kept
    del server.zone["_mta-sts.y.test TXT"]
    clock._move(999)
    assert await policies.policy("y.test") == kept
    clock._move(1001)
    assert await policies.policy("y.test") is None


async def test_a_fetch_that_fails_leaves_what_is_kept_and_is_not_tried_at_once(
    policies: StsPolicies, host: PolicyHost, server: NameServer, clock: FakeClock
) -> None:
    kept = await policies.policy("y.test")
    server.zone["_mta-sts.y.test TXT"] = ['"v=STSv1; id=a2"']
    host.status = 503
    clock._move(100)
    for _ in range(3):
        assert await policies.policy("y.test") == kept
    assert len(host.asked) == 2
    host.status, host.body = 200, policy("testing")
    clock._move(100 + mta_sts.FAILED_SECONDS)
    found = await policies.policy("y.test")
    assert found is not None
    assert found.mode is Mode.TESTING


async def test_a_policy_is_fetched_anew_well_before_it_ends(
    policies: StsPolicies, host: PolicyHost, clock: FakeClock
) -> None:
    await policies.policy("y.test")
    clock._move(mta_sts.REFRESH_SECONDS + 1)
    await policies.policy("y.test")
    assert len(host.asked) == 2


async def test_a_certificate_for_another_name_gives_no_policy(policies: StsPolicies, host: PolicyHost) -> None:
    assert await policies.policy("other.test") is None
    with pytest.raises(PolicyUnavailable, match="certificate"):
        await policies.fetch("other.test")
    assert host.asked == []


async def test_an_authority_that_nobody_trusts_gives_no_policy(
    server: NameServer, host: PolicyHost, clock: FakeClock
) -> None:
    policies = StsPolicies(Dns(clock, [("127.0.0.1", server.port)]), clock, port=host.port)
    with pytest.raises(PolicyUnavailable, match="certificate"):
        await policies.fetch("y.test")


@pytest.mark.parametrize(
    ("status", "headers", "body", "why"),
    [
        (301, {"Location": "https://mta-sts.y.test/elsewhere", "Content-Type": "text/plain"}, b"", "301"),
        (404, {"Content-Type": "text/plain"}, policy(), "404"),
        (200, {"Content-Type": "text/html"}, policy(), "text/plain"),
        (200, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}, policy(), "coded"),
        (200, {"Content-Type": "text/plain"}, policy() + b"x: " + b"a" * 70_000, "more than"),
        (200, {"Content-Type": "text/plain; charset=utf-8"}, b"hello", "no line"),
    ],
)
async def test_what_is_not_served_as_it_must_be_is_no_policy(
    policies: StsPolicies, host: PolicyHost, status: int, headers: dict[str, str], body: bytes, why: str
) -> None:
    host.status, host.headers, host.body = status, headers, body
    with pytest.raises(PolicyUnavailable, match=why):
        await policies.fetch("y.test")
    assert len(host.asked) == 1, "redirects are not followed (RFC 8461 section 3.3)"


async def test_only_so_many_domains_are_kept(
    policies: StsPolicies, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mta_sts, "MOST_DOMAINS", 2)
    for n in range(5):
        server.zone[f"_mta-sts.d{n}.test TXT"] = ['"v=STSv1; id=a1"']
        await policies.policy(f"d{n}.test")
    assert len(policies._kept) == 2
