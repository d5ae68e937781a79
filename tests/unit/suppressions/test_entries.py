"""Entries of the suppression list as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from postroom.errors import InvalidInput
from postroom.model.suppression import SuppressionSource
from postroom.suppressions.entries import parse_entry, parse_key

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
BY_HAND, IMPORT = SuppressionSource.BY_HAND, SuppressionSource.IMPORT


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" Ann@Example.org ", "ann@example.org"),
        ("Ann@BÜCHER.test", "ann@xn--bcher-kva.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("Example.org.", "example.org"),
        ("@example.org", "example.org"),
        ("*@example.org", "example.org"),
        ("@intranet", "intranet"),
        ('"ann lee"@example.org', '"ann lee"@example.org'),
    ],
)
def test_an_address_or_a_domain_has_one_key(text: str, key: str) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize(
    "text",
    ["", "ann", "ann@", "@", "*", "*.example.org", "a b@example.org", "ann@example.org, bob@example.org", "-.test",
     "Ann <ann@example.org>", "exa mple.org", "ann@example.org\r\nbob", "example.org\x00", "x" * 64 + ".test",
     "a." * 127 + "test", "\u202eann@example.org"],
)  # fmt: skip
def test_what_is_neither_is_refused_with_its_mend(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_key(text)
    (fault,) = refused.value.faults
    assert fault.field == "entry"
    assert "write an address" in fault.mend


@pytest.mark.parametrize(
    ("expires", "until"),
    [
        ("", None),
        ("90d", NOW + timedelta(days=90)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T08:00:00+02:00", datetime(2027, 1, 31, 6, tzinfo=UTC)),
    ],
)
def test_it_expires_after_a_duration_or_on_a_date(expires: str, until: datetime | None) -> None:
    entry = parse_entry("ann@x.test", "", expires, BY_HAND, NOW)
    assert (entry.expires, entry.created, entry.reason) == (until, NOW, "added by hand")


@pytest.mark.parametrize("expires", ["90", "soon", "9999999d", "0001-01-01T00:00+14:00", "31.1.2027"])
def test_what_is_no_time_is_refused(expires: str) -> None:
    with pytest.raises(InvalidInput, match="is no duration and no date") as refused:
        parse_entry("ann@x.test", "", expires, BY_HAND, NOW)
    assert "90d" in refused.value.faults[0].mend


def test_every_fault_of_an_entry_is_told_with_its_place() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_entry("ann", "two\nlines", "1", IMPORT, NOW, "line 7, ")
    assert [fault.field for fault in refused.value.faults] == ["line 7, entry", "line 7, reason", "line 7, expires"]


def test_what_is_over_is_refused_by_hand_and_taken_from_a_file() -> None:
    for past in ("2026-11-26", "0s"):
        with pytest.raises(InvalidInput, match="is over already"):
            parse_entry("ann@x.test", "", past, BY_HAND, NOW)
    assert not parse_entry("ann@x.test", "", "2026-11-26", IMPORT, NOW).holds(NOW)
