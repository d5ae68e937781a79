"""Durations and sizes as people write them: `500ms`, `60s`, `5m`, `2h`, `3d`; `25MiB` (SPEC, introduction)."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(r"([0-9]{1,12}) ?(ms|s|m|h|d)\Z")
_SIZE = re.compile(r"([0-9]{1,12}) ?(KiB|MiB|GiB|B)\Z", re.IGNORECASE)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")

_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_OCTETS = {"b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}

#: No duration that anybody sets is longer; it keeps sums with times of day in range.
LONGEST = timedelta(days=36_500)


class QuantityFault(ValueError):
    """Text that is no duration or size: `fault` says what is wrong with it, `mend` what to write instead."""

    def __init__(self, fault: str, mend: str) -> None:
        super().__init__(f"{fault} ({mend})")
        self.fault = fault
        self.mend = mend


def parse_duration(value: object) -> timedelta:
    """The duration that `value` writes; a timedelta is taken as it is.

    Raises:
        QuantityFault: a bare number, or no duration at all.
    """
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    match = _DURATION.match(text)
    if match:
        duration = int(match[1]) * _MICROSECONDS[match[2]]
        if duration > LONGEST / timedelta(microseconds=1):
            raise QuantityFault(f"{text!r} is too long", "write at most 36500d")
        return timedelta(microseconds=duration)
    if _NUMBER.match(text):
        raise QuantityFault(f"{text} has no unit", _duration_mend(text))
    raise QuantityFault(f"{text!r} is not a duration", "write a whole number and a unit, as in 500ms, 60s, 5m, 2h, 3d")


def _duration_mend(number: str) -> str:
    if not number.isdigit():
        return "write a whole number and a unit, as in 500ms or 2s"
    seconds = int(number) // 1000 if len(number) > 3 and number.endswith("000") else int(number)
    return f"write {int(number)}ms or {seconds}s"


def format_duration(duration: timedelta) -> str:
    """`duration` in the largest unit that holds it whole; `parse_duration` reads it back (to the millisecond)."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    for unit in ("d", "h", "m", "s"):
        size = _MICROSECONDS[unit] // 1000
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def duration_in_words(duration: timedelta) -> str:
    """`duration` as people say it, to be read and not to be parsed: `45 s`; over a minute its two largest units, as in
    `1m 30s`, `10m`, `1d 4h`, from an hour on to the minute."""
    if duration <= timedelta(minutes=1):
        return f"{duration.total_seconds():g} s"
    step = 1 if duration < timedelta(hours=1) else 60
    left = round(duration.total_seconds() / step) * step
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        parts.append(f"{number}{unit}" if number else "")
    first = next(place for place, part in enumerate(parts) if part)
    return " ".join(filter(None, parts[first : first + 2]))


def parse_size(value: object) -> int:
    """The number of octets that `value` writes, as in `25MiB`.

    Raises:
        QuantityFault: a bare number, or no size at all.
    """
    text = str(value).strip()
    match = _SIZE.match(text)
    if match:
        return int(match[1]) * _OCTETS[match[2].lower()]
    if _NUMBER.match(text):
        whole = text if text.isdigit() else "25"
        raise QuantityFault(f"{text} has no unit", f"write {whole}B, {whole}KiB or {whole}MiB")
    raise QuantityFault(f"{text!r} is not a size", "write a whole number and a unit, as in 512KiB or 25MiB")


def format_size(octets: int) -> str:
    """`octets` in the largest unit that holds them whole; `parse_size` reads it back."""
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if octets and octets % size == 0:
            return f"{octets // size}{unit}"
    return f"{octets}B"
