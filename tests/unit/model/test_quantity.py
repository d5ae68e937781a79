"""Durations and sizes are read as people write them; bare numbers are refused with the mend."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.model.quantity import (
    QuantityFault,
    duration_in_words,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("60s", timedelta(minutes=1)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        (" 0s ", timedelta(0)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("value", "fault", "mend"),
    [
        ("2000", "2000 has no unit", "write 2000ms or 2s"),
        (2000, "2000 has no unit", "write 2000ms or 2s"),
        ("30", "30 has no unit", "write 30ms or 30s"),
        (1.5, "1.5 has no unit", "write a whole number and a unit, as in 500ms or 2s"),
        ("1w", "'1w' is not a duration", "write a whole number and a unit, as in 500ms, 60s, 5m, 2h, 3d"),
        ("-5m", "'-5m' is not a duration", "write a whole number and a unit, as in 500ms, 60s, 5m, 2h, 3d"),
        ("5M", "'5M' is not a duration", "write a whole number and a unit, as in 500ms, 60s, 5m, 2h, 3d"),
        ("\u0665m", "'\u0665m' is not a duration", "write a whole number and a unit, as in 500ms, 60s, 5m, 2h, 3d"),
        (True, "'True' is not a duration", "write a whole number and a unit, as in 500ms, 60s, 5m, 2h, 3d"),
        ("99999d", "'99999d' is too long", "write at most 36500d"),
    ],
)
def test_bad_durations(value: object, fault: str, mend: str) -> None:
    with pytest.raises(QuantityFault) as refused:
        parse_duration(value)
    assert (refused.value.fault, refused.value.mend) == (fault, mend)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_duration_reads_back(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "octets"), [("25MiB", 25 * 1024**2), ("1kib", 1024), ("7B", 7), ("2GiB", 2 * 1024**3)]
)
def test_sizes(text: str, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("100", "write 100B, 100KiB or 100MiB"),
        ("1MB", "write a whole number and a unit, as in 512KiB or 25MiB"),
        ("", "write a whole number and a unit, as in 512KiB or 25MiB"),
    ],
)
def test_bad_sizes(text: str, mend: str) -> None:
    with pytest.raises(QuantityFault) as refused:
        parse_size(text)
    assert refused.value.mend == mend


@given(st.integers(min_value=0, max_value=10**12 - 1))
def test_a_size_reads_back(octets: int) -> None:
    assert parse_size(format_size(octets)) == octets


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.5, "0.5 s"), (60, "60 s"), (90, "1m 30s"), (600, "10m"), (3599, "59m 59s"), (3661, "1h 1m"),
        (172_799, "2d"), (172_800 + 300, "2d"), (100_000, "1d 3h"), (14 * 86_400, "14d"),
    ],
)  # fmt: skip
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert duration_in_words(timedelta(seconds=seconds)) == words
