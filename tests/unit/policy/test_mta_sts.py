"""TXT records and policies of MTA-STS, as RFC 8461 writes them, and what else is served in their place."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.policy.mta_sts import LONGEST_AGE_SECONDS, Mode, StsPolicy, parse_policy, record_id

POLICY = (
    b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\n"
    b"max_age: 604800\r\n"
)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=a1"], "a1"),
        ([b"v=STSv1 ; id=a1 ; more=x/y"], "a1"),
        ([b"google-site-verification=x", b"v=STSv1; id=a1"], "a1"),
        ([b"v=STSv1; id=a1", b"v=STSv1; id=a2"], ""),
        ([b"v=STSv1; id=a1", b"v=STSv10; id=a2"], "a1"),
        ([b"v=STSv1; id=not-alphanumeric"], ""),
        ([b"v=STSv1; id=" + b"a" * 33], ""),
        ([b"v=STSv1; nonsense; id=a1"], ""),
        ([b"v=STSv1;"], ""),
        ([b"V=STSv1; id=a1"], ""),
        ([b"id=a1; v=STSv1"], ""),
        ([], ""),
    ],
)
def test_one_record_of_this_version_has_the_id(texts: list[bytes], found: str) -> None:
    assert record_id(texts) == found


def test_a_policy_is_read() -> None:
    hosts = ("mail.example.com", "*.example.net", "backupmx.example.com")
    assert parse_policy(POLICY) == StsPolicy(Mode.ENFORCE, timedelta(days=7), hosts)
    assert parse_policy(POLICY.replace(b"\r\n", b"\n").rstrip()) == parse_policy(POLICY)


def test_what_is_not_known_is_passed_over_and_the_first_of_two_counts() -> None:
    more = POLICY + b"mode: none\nfuture_field: anything at all\n"
    assert parse_policy(more) == parse_policy(POLICY)


def test_no_policy_lasts_longer_than_a_year() -> None:
    long = parse_policy(POLICY.replace(b"604800", b"9999999999"))
    assert long.max_age == timedelta(seconds=LONGEST_AGE_SECONDS)


def test_without_mode_none_a_host_is_named() -> None:
    assert parse_policy(b"version: STSv1\nmode: none\nmax_age: 60\n").mode is Mode.NONE
    with pytest.raises(ValueError, match="mx"):
        parse_policy(b"version: STSv1\nmode: testing\nmax_age: 60\n")


@pytest.mark.parametrize(
    "broken",
    [
        POLICY.replace(b"STSv1", b"STSv2"),
        POLICY.replace(b"enforce", b"Enforce"),
        POLICY.replace(b"max_age: 604800", b""),
        POLICY.replace(b"604800", b"a week"),
        POLICY.replace(b"604800", "٦٠".encode()),
        POLICY.replace(b"*.example.net", b"mx.*.example.net"),
        POLICY.replace(b"mail.example.com", b"mail.example.com, mx2.example.com"),
        b"<html><body>Not found</body></html>",
        b"",
        b"\xff\xfe",
    ],
)
def test_what_is_no_policy_is_not_taken_for_one(broken: bytes) -> None:
    with pytest.raises(ValueError):
        parse_policy(broken)


@given(st.binary(max_size=300))
def test_nothing_that_is_served_breaks_the_reader(body: bytes) -> None:
    try:
        assert isinstance(parse_policy(body), StsPolicy)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("mail.example.com", True),
        ("MAIL.example.COM", True),
        ("mx1.example.net", True),
        ("example.net", False),
        ("a.mx1.example.net", False),
        ("mx1.example.net.evil.test", False),
        ("mx1.example.com", False),
    ],
)
def test_hosts_are_compared_label_by_label(host: str, named: bool) -> None:
    """Section 4.1: the wild card stands for one label."""
    assert parse_policy(POLICY).names(host) is named
