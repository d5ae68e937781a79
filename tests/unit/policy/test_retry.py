"""The retry schedule: text to delays, jitter, and the end of the window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import InvalidInput
from postroom.model.account import Retry
from postroom.policy.retry import Schedule, jittered, own_terms, window_has_ended


def test_the_default_schedule_gives_its_steps_in_order_and_repeats_the_last() -> None:
    schedule = Schedule.parse("1m, 5m*2, 15m, 1h*4, 4h")
    minutes = [schedule.delay(failure).total_seconds() / 60 for failure in range(1, 13)]
    assert minutes == [1, 5, 5, 15, 60, 60, 60, 60, 240, 240, 240, 240]


@pytest.mark.parametrize("text", ["", "5", "1m,", "1x", "m", "1m*", "-1m", "1m 2m", "١m"])
def test_a_step_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match="retry_schedule"):
        Schedule.parse(text, "retry_schedule")


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_jitter_stays_within_a_tenth(chance: float) -> None:
    assert timedelta(seconds=90) <= jittered(timedelta(seconds=100), chance) <= timedelta(seconds=110)


def test_the_window_ends_before_a_try_that_would_come_after_it() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    window = timedelta(days=2)
    assert not window_has_ended(began, window, began + window)
    assert window_has_ended(began, window, began + window + timedelta(seconds=1))


def test_the_rules_that_a_message_brings() -> None:
    assert own_terms("", "", "") is None
    assert own_terms("1m, 1h", "", "") == Retry(schedule="1m, 1h")
    assert own_terms("", "2h", "5d") == Retry(window=timedelta(hours=2), give_up=timedelta(days=5))


def test_each_rule_that_cannot_be_read_is_told_with_its_mend() -> None:
    with pytest.raises(InvalidInput) as refused:
        own_terms("soon", "2", "400d")
    assert [(fault.field, fault.mend) for fault in refused.value.faults] == [
        ("retry_schedule", "write steps as in 1m, 5m*2, 1h"),
        ("retry_window", "write 2ms or 2s"),
        ("give_up", "write a time such as 2h or 5d"),
    ]
