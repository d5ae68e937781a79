"""The order of the hosts of a domain."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from postroom.policy.mail_exchange import MOST_HOSTS, MailExchanger, before_ourselves, is_null, ranks

records = st.lists(
    st.builds(MailExchanger, st.integers(0, 3), st.sampled_from([f"mx{n}.y.test" for n in range(8)])), max_size=12
)


@given(records, st.integers())
def test_every_host_comes_once_at_its_best_preference(given: list[MailExchanger], seed: int) -> None:
    found = ranks(given, random.Random(seed).random)
    hosts = [host for rank in found for host in rank]
    assert sorted(hosts) == sorted({record.host for record in given})
    best = {host: min(one.preference for one in given if one.host == host) for host in hosts}
    assert [best[host] for host in hosts] == sorted(best.values())
    assert all(len({best[host] for host in rank}) == 1 for rank in found)


def test_hosts_of_one_preference_share_the_load() -> None:
    drawn = random.Random(1)
    pair = [MailExchanger(10, "a.test"), MailExchanger(10, "b.test"), MailExchanger(5, "first.test")]
    found = [ranks(pair, drawn.random) for _ in range(200)]
    assert {rank[0][0] for rank in found} == {"first.test"}
    assert {rank[1][0] for rank in found} == {"a.test", "b.test"}


def test_a_domain_that_publishes_very_many_is_cut() -> None:
    many = [MailExchanger(n, f"mx{n}.y.test") for n in range(500)]
    assert [host for rank in ranks(many, lambda: 0.5) for host in rank] == [f"mx{n}.y.test" for n in range(MOST_HOSTS)]


def test_one_record_for_the_root_says_that_there_is_no_mail() -> None:
    assert is_null([MailExchanger(0, "")])
    assert not is_null([MailExchanger(0, ""), MailExchanger(10, "mx.y.test")])
    assert not is_null([])
    assert ranks([MailExchanger(0, ""), MailExchanger(10, "mx.y.test")], lambda: 0.5) == [["mx.y.test"]]


def test_a_backup_sends_only_to_those_before_it() -> None:
    """RFC 5321 section 5.1: those of our own preference would send back here as well."""
    given = [MailExchanger(30, "last.test"), MailExchanger(20, "us.test"), MailExchanger(20, "twin.test"),
             MailExchanger(10, "first.test")]  # fmt: skip
    assert [one.host for one in before_ourselves(given, {"us.test"})] == ["first.test"]
    assert len(before_ourselves(given, {"elsewhere.test"})) == 4
    assert before_ourselves(given[1:2], {"us.test"}) == []
