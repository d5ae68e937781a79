"""The retry schedule: text to delays, jitter, and the end of the window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import InvalidInput
from postroom.policy.retry import Schedule, jittered, window_has_ended


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
