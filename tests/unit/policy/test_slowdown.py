"""How far an account slows down, and how it comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postroom.policy.slowdown import LONGEST_PAUSE, Slowdown

TIMES = st.lists(st.tuples(st.floats(0, 1000), st.booleans()), max_size=40)


def test_each_complaint_doubles_the_pause_and_a_burst_is_one() -> None:
    slow = Slowdown().slower(0).slower(1).slower(4.9)
    assert slow.pause == 0.1
    assert slow.slower(5).pause == 0.2


def test_a_minute_without_a_complaint_halves_the_pause() -> None:
    slow = Slowdown().slower(0).slower(10).slower(20)
    assert slow.pause == 0.4
    assert slow.next_step() == 80
    assert slow.back(79.9, 4).pause == 0.4
    assert slow.back(80, 4).pause == 0.2
    assert not slow.back(80 + 120, 4)


@given(TIMES, st.integers(1, 10))
def test_there_is_always_a_connection_and_all_comes_back(complaints: list[tuple[float, bool]], most: int) -> None:
    slow, now = Slowdown(), 0.0
    for pause, is_rate in complaints:
        now += pause
        slow = slow.back(now, most)
        slow = slow.slower(now) if is_rate else slow.fewer(now, most)
        assert 0 <= slow.pause <= LONGEST_PAUSE
        assert slow.connections >= (0 if is_rate else 1)
        assert slow.connections <= max(1, most - 1)
    assert not slow.back(now + 600.0 * (most + 1) + 60.0 * 20, most)
