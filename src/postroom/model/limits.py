"""Limits of an account or an application (SPEC section 2.7), and their fields: both have the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from . import fields as read
from .fields import FieldSpec

#: No limit that anybody sets is higher; it keeps sums in range.
HIGHEST = 1_000_000_000


class Day(StrEnum):
    """What "a day" of a limit is."""

    ROLLING = "rolling"  # the last 24 hours
    CALENDAR = "calendar"  # from midnight to midnight in `day_zone`


class WhenLimited(StrEnum):
    """What becomes of mail while a limit of its account is reached."""

    WAIT = "wait"  # and goes on by itself
    OVERFLOW = "overflow"  # the next match takes it
    REFUSE = "refuse"  # at intake


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be sent. None: as much as there is; `send_interval` is from start to start of two messages."""

    send_interval: timedelta = timedelta(0)
    messages_per_second: int | None = None
    messages_per_minute: int | None = None
    messages_per_hour: int | None = None
    messages_per_day: int | None = None
    recipients_per_day: int | None = None
    day: Day = Day.ROLLING
    day_zone: str = "UTC"


NO_LIMITS = Limits()


def _most(name: str, description: str) -> FieldSpec:
    parse = read.optional(read.number(1, HIGHEST))
    return FieldSpec(name, parse, description, "number or none", tab="Limits", path=("limits", name))


#: The fields of `Limits`, for every record that has it as `limits`.
LIMIT_FIELDS = (
    FieldSpec(
        "send_interval", read.duration(timedelta(0), timedelta(days=1)),
        "shortest time between the starts of two messages, over all connections", "duration", tab="Limits",
        path=("limits", "send_interval"),
    ),
    _most("messages_per_second", "most messages a second"),
    _most("messages_per_minute", "most messages a minute"),
    _most("messages_per_hour", "most messages an hour"),
    _most("messages_per_day", "most messages a day"),
    _most("recipients_per_day", "most recipients a day"),
    FieldSpec(
        "day", read.choice(Day), "what a day is: the last 24 hours, or a calendar day", ", ".join(Day), tab="Limits",
        path=("limits", "day"),
    ),
    FieldSpec(
        "day_zone", read.zone, "time zone of the calendar day, as in Europe/Berlin", "zone", tab="Limits",
        path=("limits", "day_zone"),
    ),
)  # fmt: skip
