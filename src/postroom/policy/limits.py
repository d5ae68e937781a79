"""How many messages and recipients may be sent in a time: counting, never over (SPEC section 2.7).

Times are microseconds of one clock that never goes back. A send is *pending* from its claim until its MAIL was
answered, and counts as now as long as it is: wherever in between the other side saw its MAIL, no window there ever
holds more than the limit. A window has at most 1,000 buckets and the oldest counts whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo

from ..model.limits import Day, Limits
from ..model.usage import LAST, MESSAGES_AT, RECIPIENTS_AT, Usage

SECOND = 1_000_000
DAY_SECONDS = 86_400
BUCKETS = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Counted(StrEnum):
    """What a limit counts."""

    MESSAGES = "messages"
    RECIPIENTS = "recipients"


@dataclass(frozen=True, slots=True)
class Span:
    """A time over which sends are counted: the last `seconds`, or the calendar day in `zone` that it is now."""

    counted: Counted
    seconds: int
    zone: tzinfo | None = None

    @property
    def name(self) -> str:
        """Under which name its buckets are stored; spans of the same name hold the same counts."""
        return f"{self.counted}/{self.seconds}" if self.zone is None else f"{self.counted}/day {self.zone}"

    @property
    def width(self) -> int:
        """Of a bucket, in microseconds."""
        return self.seconds * SECOND // BUCKETS

    def bucket(self, at: int) -> int:
        """The bucket of a send at `at`."""
        return at // self.width if self.zone is None else _local(at, self.zone).toordinal()

    def ends(self, bucket: int) -> int:
        """From when `bucket` counts no more."""
        if self.zone is None:
            return (bucket + 1) * self.width + self.seconds * SECOND
        midnight = datetime.fromordinal(bucket + 1).replace(tzinfo=self.zone)
        return (midnight - _EPOCH) // timedelta(microseconds=1)


def _local(at: int, zone: tzinfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at)).astimezone(zone)


_PER = {1: "a second", 60: "a minute", 3600: "an hour", DAY_SECONDS: "a day"}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` within `span`."""

    span: Span
    most: int

    def __str__(self) -> str:
        return f"{self.most} {self.span.counted} {_PER[self.span.seconds]}"


@dataclass(frozen=True, slots=True)
class Metered:
    """The limits of an account or an application as a meter asks them; `interval` is the least time from start to
    start, in microseconds."""

    limits: tuple[Limit, ...] = ()
    interval: int = 0

    def __bool__(self) -> bool:
        return bool(self.limits or self.interval)


_AT = {Counted.MESSAGES: MESSAGES_AT, Counted.RECIPIENTS: RECIPIENTS_AT}


@dataclass(frozen=True, slots=True)
class Reached:
    """What lets a message not start: `limit` (None: the interval), until `free_at` (None: it never lets it)."""

    limit: Limit | None
    free_at: int | None


class Reservation:
    """One message of so many recipients on its way: counts as now until it has started or was given back."""

    __slots__ = ("is_over", "recipients", "was_written")

    def __init__(self, recipients: int) -> None:
        self.recipients = recipients
        self.was_written = False
        self.is_over = False


class Meter:
    """What was sent under one account, quota group or application. Not safe for threads."""

    def __init__(self, name: str, spans: Iterable[Span] = (), kept: Iterable[Usage] = ()) -> None:
        self.name = name
        self._spans: dict[str, Span] = {}
        self._buckets: dict[str, dict[int, int]] = {}
        self._sums: dict[str, int] = {}
        self._pending = {Counted.MESSAGES: 0, Counted.RECIPIENTS: 0}
        self._last = -(1 << 62)
        self._kept = list(kept)
        for span in spans:
            self.watch(span)
        for count in self._kept:
            self._last = max(self._last, at(count))

    def watch(self, span: Span) -> None:
        """Count in `span` from now on, and what is known of before."""
        if span.name in self._spans:
            return
        self._spans[span.name] = span
        found: dict[int, int] = {}
        for count in self._kept:
            if count.span == span.name:
                found[count.bucket] = found.get(count.bucket, 0) + count.count
            elif count.span == _AT[span.counted]:
                bucket = span.bucket(count.bucket)
                found[bucket] = found.get(bucket, 0) + count.count
        self._buckets[span.name] = dict(sorted(found.items()))  # the oldest first, as later ones are added
        self._sums[span.name] = sum(found.values())

    def take_over(self, rows: Iterable[Usage]) -> None:
        """Sends of which only the time is known, made under this meter."""
        for row in rows:
            self._kept.append(row)
            self._last = max(self._last, at(row))
            for span in self._spans.values():
                if row.span == _AT[span.counted]:
                    bucket = span.bucket(row.bucket)
                    buckets = self._buckets[span.name]
                    buckets[bucket] = buckets.get(bucket, 0) + row.count
                    self._buckets[span.name] = dict(sorted(buckets.items()))
                    self._sums[span.name] += row.count

    # What may start ------------------------------------------------------------------------------------------------

    def room(self, limits: Metered, now: int) -> int:
        """For how many recipients one message may start now; 0: none may."""
        if limits.interval and (self._pending[Counted.MESSAGES] or now < self._last + limits.interval):
            return 0
        room = 1 << 30
        for limit in limits.limits:
            left = limit.most - self.used(limit.span, now)
            if limit.span.counted is Counted.MESSAGES:
                left = room if left > 0 else 0
            room = min(room, left)
        return max(0, room)

    def ready_at(self, limits: Metered, now: int) -> int | None:
        """When `room` may be found again, as far as time alone makes it; None: when a pending send is over."""
        ready = now
        if limits.interval:
            if self._pending[Counted.MESSAGES]:
                return None
            ready = max(ready, self._last + limits.interval)
        for limit in limits.limits:
            free_at = self._free_at(limit, now)
            if free_at is None:
                return None
            ready = max(ready, free_at)
        return ready

    def binding(self, limits: Metered, now: int) -> Limit | None:
        """The first limit that is reached; None: the interval."""
        return next((limit for limit in limits.limits if self.used(limit.span, now) >= limit.most), None)

    def used(self, span: Span, now: int) -> int:
        """How many count in `span` now, those that are pending too."""
        self.watch(span)
        buckets = self._buckets[span.name]
        while buckets and span.ends(oldest := next(iter(buckets))) <= now:
            self._sums[span.name] -= buckets.pop(oldest)
        return self._sums[span.name] + self._pending[span.counted]

    def reached(self, limits: Metered, now: int, recipients: int) -> Reached | None:
        """What keeps one message for so many recipients from starting now, for the longest time; None: nothing does.

        For meters on which nothing is ever pending.
        """
        found: Reached | None = None
        if limits.interval and (ready := self._last + limits.interval) > now:
            found = Reached(None, ready)
        for limit in limits.limits:
            free_at = self._free_at(limit, now, 1 if limit.span.counted is Counted.MESSAGES else recipients)
            if free_at is None:
                return Reached(limit, None)
            if free_at > now and (found is None or found.free_at is None or found.free_at < free_at):
                found = Reached(limit, free_at)
        return found

    def _free_at(self, limit: Limit, now: int, wanted: int = 1) -> int | None:
        over = self.used(limit.span, now) - limit.most + wanted
        if over <= 0:
            return now
        buckets = self._buckets[limit.span.name]
        for bucket in buckets:
            over -= buckets[bucket]
            if over <= 0:
                return limit.span.ends(bucket)
        return None  # only what is pending can make room, or the limit is less than is wanted

    # What happens ---------------------------------------------------------------------------------------------------

    def reserve(self, recipients: int) -> Reservation:
        """A message is claimed."""
        self._pending[Counted.MESSAGES] += 1
        self._pending[Counted.RECIPIENTS] += recipients
        return Reservation(recipients)

    def start(self, reservation: Reservation, now: int) -> list[Usage]:
        """Its MAIL was answered, or nobody will know: it counts at `now`. The rows to store; none when it is over."""
        if reservation.is_over:
            return []
        self._end(reservation)
        self._last = max(self._last, now)
        rows = [Usage(self.name, LAST, 0, now, now + 86_400 * SECOND)]
        for span in self._spans.values():
            count = 1 if span.counted is Counted.MESSAGES else reservation.recipients
            bucket = span.bucket(now)
            buckets = self._buckets[span.name]
            buckets[bucket] = buckets.get(bucket, 0) + count
            self._sums[span.name] += count
            rows.append(Usage(self.name, span.name, bucket, count, span.ends(bucket)))
        return rows

    def take_back(self, rows: Iterable[Usage]) -> None:
        """What `start` counted, and was not stored, did not happen; the interval runs from it all the same."""
        for row in rows:
            buckets = self._buckets.get(row.span, {})
            if row.bucket in buckets:
                buckets[row.bucket] -= row.count
                self._sums[row.span] -= row.count

    def give_back(self, reservation: Reservation) -> None:
        """Its MAIL was never written."""
        if not reservation.is_over:
            self._end(reservation)

    def _end(self, reservation: Reservation) -> None:
        reservation.is_over = True
        self._pending[Counted.MESSAGES] -= 1
        self._pending[Counted.RECIPIENTS] -= reservation.recipients


def added(counts: Iterable[Usage]) -> Iterator[Usage]:
    """The same rows with those of one bucket added up; of the last starts the latest."""
    sums: dict[tuple[str, str, int], Usage] = {}
    last: dict[str, Usage] = {}
    for row in counts:
        if row.span == LAST:
            if row.meter not in last or last[row.meter].count < row.count:
                last[row.meter] = row
            continue
        key = (row.meter, row.span, row.bucket)
        found = sums.get(key)
        sums[key] = row if found is None else Usage(*key, found.count + row.count, max(found.ends, row.ends))
    yield from sums.values()
    yield from last.values()


def latest(counts: Sequence[Usage]) -> int:
    """The latest time that any of `counts` tells of: the clock of limits starts there at the earliest."""
    return max(map(at, counts), default=0)


def at(row: Usage) -> int:
    """The time that a row tells of, where it tells one."""
    if row.span == LAST:
        return row.count
    return row.bucket if row.span in (MESSAGES_AT, RECIPIENTS_AT) else 0


def metered(limits: Limits) -> Metered:
    """`limits` as a meter asks them."""
    zone = ZoneInfo(limits.day_zone) if limits.day is Day.CALENDAR else None
    spans = (
        (limits.messages_per_second, Span(Counted.MESSAGES, 1)),
        (limits.messages_per_minute, Span(Counted.MESSAGES, 60)),
        (limits.messages_per_hour, Span(Counted.MESSAGES, 3600)),
        (limits.messages_per_day, Span(Counted.MESSAGES, DAY_SECONDS, zone)),
        (limits.recipients_per_day, Span(Counted.RECIPIENTS, DAY_SECONDS, zone)),
    )
    found = tuple(Limit(span, most) for most, span in spans if most is not None)
    return Metered(found, limits.send_interval // timedelta(microseconds=1))
