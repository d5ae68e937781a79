"""Limits are never exceeded, wherever between its writing and its answer a MAIL is seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postroom.model.usage import MESSAGES_AT, RECIPIENTS_AT, Usage
from postroom.policy.limits import SECOND, Counted, Limit, Meter, Metered, Reached, Reservation, Span, added, latest

MINUTE = Span(Counted.MESSAGES, 60)
RECIPIENTS = Span(Counted.RECIPIENTS, 3600)


def _meter(limits: Metered, kept: Sequence[Usage] = ()) -> Meter:
    return Meter("a1", [limit.span for limit in limits.limits], kept)


def _send(meter: Meter, now: int, recipients: int = 1) -> list[Usage]:
    return meter.start(meter.reserve(recipients), now)


def test_so_many_and_no_more_until_the_first_leaves_the_window() -> None:
    limits = Metered((Limit(MINUTE, 3),))
    meter = _meter(limits)
    for at in (0, 1, 2):
        assert meter.room(limits, at * SECOND) > 0
        _send(meter, at * SECOND)
    assert meter.room(limits, 3 * SECOND) == 0
    ready = meter.ready_at(limits, 3 * SECOND)
    assert ready is not None
    assert 60 * SECOND <= ready <= 60 * SECOND + MINUTE.width
    assert meter.room(limits, ready - 1) == 0
    assert meter.room(limits, ready) > 0


def test_recipients_count_one_each_and_a_part_of_a_message_may_go() -> None:
    limits = Metered((Limit(RECIPIENTS, 100),))
    meter = _meter(limits)
    _send(meter, 0, 70)
    assert meter.room(limits, 1) == 30


def test_what_is_pending_counts_as_now_and_comes_back_only_if_it_was_not_written() -> None:
    limits = Metered((Limit(MINUTE, 1),))
    meter = _meter(limits)
    pending = meter.reserve(1)
    assert meter.room(limits, 1000 * SECOND) == 0
    assert meter.ready_at(limits, 1000 * SECOND) is None
    meter.give_back(pending)
    assert meter.room(limits, 1000 * SECOND) > 0


def test_the_interval_is_kept_from_start_to_start() -> None:
    limits = Metered(interval=2 * SECOND)
    meter = _meter(limits)
    pending = meter.reserve(1)
    assert meter.room(limits, 0) == 0
    rows = meter.start(pending, 5 * SECOND)
    assert meter.ready_at(limits, 5 * SECOND) == 7 * SECOND
    again = _meter(limits, rows)
    assert again.room(limits, 7 * SECOND - 1) == 0
    assert again.room(limits, 7 * SECOND) > 0


def test_a_calendar_day_ends_at_midnight_of_its_zone() -> None:
    zone = ZoneInfo("Europe/Berlin")
    day = Span(Counted.MESSAGES, 86_400, zone)
    limits = Metered((Limit(day, 1),))
    meter = _meter(limits)
    evening = 1_774_738_800 * SECOND  # 2026-03-29 00:00 +01:00; that day has 23 hours
    _send(meter, evening)
    assert meter.ready_at(limits, evening) == evening + 23 * 3600 * SECOND
    assert meter.room(limits, evening + 23 * 3600 * SECOND - 1) == 0
    assert meter.room(limits, evening + 23 * 3600 * SECOND) > 0


def test_rows_of_one_bucket_are_added_up() -> None:
    limits = Metered((Limit(MINUTE, 10),))
    meter = _meter(limits)
    rows = list(added([*_send(meter, 0), *_send(meter, 10), *_send(meter, SECOND)]))
    counted = sorted((row.bucket, row.count) for row in rows if row.span == MINUTE.name)
    assert counted == [(0, 2), (SECOND // MINUTE.width, 1)]
    assert latest(rows) == SECOND


@pytest.mark.parametrize("span", [MINUTE, Span(Counted.MESSAGES, 86_400)])
def test_a_window_has_at_most_a_thousand_buckets(span: Span) -> None:
    limits = Metered((Limit(span, 1_000_000),))
    meter = _meter(limits)
    for n in range(5000):
        _send(meter, n * span.seconds * SECOND // 2000)
    now = 4999 * span.seconds * SECOND // 2000
    assert meter.used(span, now) <= 2003
    assert len(meter._buckets[span.name]) <= 1002


@dataclass
class _Sent:
    """A MAIL that was seen at some time between its claim and the end of its being pending."""

    reservation: Reservation
    claimed: int
    share: float
    seen: int | None = None
    recipients: int = field(init=False)

    def __post_init__(self) -> None:
        self.recipients = self.reservation.recipients


class LimiterMachine(RuleBasedStateMachine):
    """Messages are claimed as `room` says, seen at any time until they are answered; the process crashes between."""

    spans = (Span(Counted.MESSAGES, 1), Span(Counted.MESSAGES, 60), Span(Counted.RECIPIENTS, 60))
    limits = Metered((Limit(spans[0], 2), Limit(spans[1], 7), Limit(spans[2], 20)), interval=50_000)

    def __init__(self) -> None:
        super().__init__()
        self.now = 10**15
        self.rows: list[Usage] = []
        self.meter = _meter(self.limits)
        self.pending: list[_Sent] = []
        self.seen: list[tuple[int, int]] = []

    @rule(by=st.integers(0, 2_000_000) | st.integers(0, 70 * SECOND))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule()
    def until_there_may_be_room(self) -> None:
        self.now = self.meter.ready_at(self.limits, self.now) or self.now

    @rule(recipients=st.integers(1, 30), share=st.floats(0, 1))
    def claim(self, recipients: int, share: float) -> None:
        room = self.meter.room(self.limits, self.now)
        if room:
            self.pending.append(_Sent(self.meter.reserve(min(room, recipients)), self.now, share))
        else:
            ready = self.meter.ready_at(self.limits, self.now)
            assert ready is None or ready > self.now

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0, 10))
    def answered(self, which: int) -> None:
        sent = self.pending.pop(which % len(self.pending))
        self.rows = list(added([*self.rows, *self.meter.start(sent.reservation, self.now)]))
        self._was_seen(sent)

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0, 10))
    def never_written(self, which: int) -> None:
        self.meter.give_back(self.pending.pop(which % len(self.pending)).reservation)

    @rule(goes_back=st.sampled_from([0, 0, SECOND, 86_400 * SECOND]))
    def crash(self, goes_back: int) -> None:
        """What was claimed is counted at the start after it, whose clock does not go behind what is stored."""
        wall = self.now - goes_back
        at = max(wall, latest(self.rows))
        for sent in self.pending:
            self._was_seen(sent)
            for counted, many in ((MESSAGES_AT, 1), (RECIPIENTS_AT, sent.recipients)):
                self.rows.append(Usage("a1", counted, self.now, many, self.now + 60 * SECOND))
        self.pending.clear()
        # The other side's clock is the real one: a clock that was set back only makes the wait longer.
        self.now = max(self.now, at)
        self.meter = _meter(self.limits, self.rows)

    def _was_seen(self, sent: _Sent) -> None:
        self.seen.append((sent.claimed + int((self.now - sent.claimed) * sent.share), sent.recipients))

    @invariant()
    def no_window_holds_more(self) -> None:
        times = sorted(self.seen)
        for limit in self.limits.limits:
            for start, _ in times:
                within = [many for at, many in times if start <= at < start + limit.span.seconds * SECOND]
                count = len(within) if limit.span.counted is Counted.MESSAGES else sum(within)
                assert count <= limit.most
        for (one, _), (two, _) in itertools.pairwise(times):
            assert two - one >= self.limits.interval


LimiterMachine.TestCase.settings = settings(stateful_step_count=40)
TestLimiter = LimiterMachine.TestCase


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=60))
def test_what_counts_at_once_is_never_over_and_told_when_there_is_room(arrivals: list[tuple[int, int]]) -> None:
    limits = Metered((Limit(MINUTE, 3), Limit(RECIPIENTS, 9)), interval=5 * SECOND)
    meter, taken, now = _meter(limits), list[tuple[int, int]](), 0
    for pause, recipients in arrivals:
        now += pause * SECOND
        reached = meter.reached(limits, now, recipients)
        if reached is None:
            _send(meter, now, recipients)
            taken.append((now, recipients))
            assert sum(at > now - 60 * SECOND for at, _ in taken) <= 3
            assert sum(count for at, count in taken if at > now - 3600 * SECOND) <= 9
            assert all(two - one >= 5 * SECOND for (one, _), (two, _) in itertools.pairwise(taken))
            continue
        assert reached.free_at is not None
        assert reached.free_at > now
        assert meter.reached(limits, reached.free_at, recipients) is None  # copies nothing: time goes on from there
        now = max(now, reached.free_at)


def test_more_recipients_than_the_limit_never_find_room() -> None:
    limits = Metered((Limit(RECIPIENTS, 9),))
    assert _meter(limits).reached(limits, 0, 10) == Reached(limits.limits[0], None)


def test_what_was_not_stored_is_taken_back() -> None:
    limits = Metered((Limit(MINUTE, 2), Limit(RECIPIENTS, 9)))
    meter = _meter(limits)
    _send(meter, 0, 4)
    meter.take_back(_send(meter, SECOND, 5))
    assert [meter.used(limit.span, SECOND) for limit in limits.limits] == [1, 4]
