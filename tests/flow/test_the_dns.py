"""What direct delivery asks of the DNS, over real sockets, and how long it believes the answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postroom.net import dns
from postroom.net.dns import Dns, DnsFailed, NoSuchName
from postroom.policy.mail_exchange import MailExchanger
from tests.flow.conftest import FakeClock
from tests.name_server import SERVFAIL, SILENT, NameServer


@pytest.fixture
def server() -> Iterator[NameServer]:
    """One with a small zone."""
    with NameServer(
        {
            "y.test MX": ["20 MX2.y.test.", "10 mx1.y.test."],
            "null.test MX": ["0 ."],
            "mx1.y.test A": ["192.0.2.1", "192.0.2.2"],
            "mx1.y.test AAAA": ["2001:db8::1"],
            "four.test A": ["192.0.2.4"],
            "four.test AAAA": [SERVFAIL],
            "broken.test MX": [SERVFAIL],
            "silent.test MX": [SILENT],
            "text.test TXT": ['"v=STSv1; " "id=a1"', '"other"'],
        }
    ) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    """Stands still."""
    return FakeClock()


@pytest.fixture
def resolver(server: NameServer, clock: FakeClock) -> Dns:
    """Asks `server`."""
    return Dns(clock, [("127.0.0.1", server.port)])


async def test_mx_records_come_with_names_in_lower_case(resolver: Dns) -> None:
    found = await resolver.mail_exchangers("Y.test.")
    assert sorted(found, key=lambda one: one.preference) == [
        MailExchanger(10, "mx1.y.test"),
        MailExchanger(20, "mx2.y.test"),
    ]
    assert await resolver.mail_exchangers("null.test") == (MailExchanger(0, ""),)
    assert await resolver.mail_exchangers("text.test") == ()


async def test_addresses_of_both_versions(resolver: Dns) -> None:
    first, *others = await resolver.addresses("mx1.y.test")
    assert (first, sorted(others)) == ("2001:db8::1", ["192.0.2.1", "192.0.2.2"])
    assert sorted(await resolver.addresses("mx1.y.test", ipv6=False)) == ["192.0.2.1", "192.0.2.2"]
    assert await resolver.addresses("four.test") == ("192.0.2.4",), "one version that fails is no reason to wait"


async def test_a_failure_that_may_pass_goes_before_one_for_good(resolver: Dns, server: NameServer) -> None:
    server.zone["odd.test A"] = [SERVFAIL]
    with pytest.raises(DnsFailed):
        await resolver.addresses("odd.test")


async def test_a_text_in_pieces_is_one(resolver: Dns) -> None:
    assert set(await resolver.texts("text.test")) == {b"v=STSv1; id=a1", b"other"}


async def test_no_such_name_is_not_the_same_as_no_answer(
    resolver: Dns, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoSuchName, match="nowhere.test"):
        await resolver.mail_exchangers("nowhere.test")
    with pytest.raises(NoSuchName):
        await resolver.mail_exchangers(f"{'a' * 64}.test")
    with pytest.raises(DnsFailed, match="broken.test"):
        await resolver.mail_exchangers("broken.test")
    monkeypatch.setattr(dns, "PATIENCE_SECONDS", 0.2)
    impatient = Dns(FakeClock(), [("127.0.0.1", server.port)])
    with pytest.raises(DnsFailed, match="silent.test"):
        await impatient.mail_exchangers("silent.test")


async def test_a_long_answer_comes_over_tcp(resolver: Dns, server: NameServer) -> None:
    server.zone["long.test MX"] = [f"{n} a-host-with-a-long-name-{n}.long.test." for n in range(100)]
    assert len(await resolver.mail_exchangers("long.test")) == 100
    assert server.over_tcp == 1


@pytest.mark.parametrize(("ttl", "seconds"), [(300, 300), (0, dns.SHORTEST_SECONDS), (86400, dns.LONGEST_SECONDS)])
async def test_answers_are_kept_for_their_ttl_within_bounds(
    resolver: Dns, server: NameServer, clock: FakeClock, ttl: int, seconds: float
) -> None:
    server.ttl = ttl
    for moment, asked in ((0.0, 1), (seconds - 1, 1), (seconds + 1, 2)):
        clock._move(moment)
        await resolver.mail_exchangers("y.test")
        assert server.asked["y.test MX"] == asked


async def test_that_there_is_no_such_name_is_kept_for_a_minute_and_a_failure_not_at_all(
    resolver: Dns, server: NameServer, clock: FakeClock
) -> None:
    for _ in range(2):
        with pytest.raises(NoSuchName):
            await resolver.mail_exchangers("nowhere.test")
    assert server.asked["nowhere.test MX"] == 1
    server.zone["nowhere.test MX"] = ["10 mx1.y.test."]
    clock._move(dns.NO_SUCH_NAME_SECONDS + 1)
    assert await resolver.mail_exchangers("nowhere.test") == (MailExchanger(10, "mx1.y.test"),)
    with pytest.raises(DnsFailed):
        await resolver.mail_exchangers("broken.test")
    server.zone["broken.test MX"] = ["10 mx1.y.test."]
    assert await resolver.mail_exchangers("broken.test") == (MailExchanger(10, "mx1.y.test"),)


async def test_only_so_many_answers_are_kept(resolver: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "MOST_ANSWERS", 3)
    for n in range(10):
        with pytest.raises(NoSuchName):
            await resolver.mail_exchangers(f"{n}.nowhere.test")
    assert len(resolver._answers) == 3
