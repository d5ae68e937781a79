"""Windows that stand still while sending is off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from postroom.policy.standstill import NEVER, Standstill

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hours: float) -> datetime:
    """So many hours after noon."""
    return NOON + hours * HOUR


def test_what_stood_still_does_not_count() -> None:
    off = Standstill(((at(1), at(3)), (at(5), None)))
    assert off.between(at(0), at(4)) == 2 * HOUR
    assert off.between(at(2), at(6)) == 2 * HOUR
    assert off.between(at(3), at(5)) == 0 * HOUR
    assert NEVER.between(at(0), at(9)) == 0 * HOUR


def test_the_beginning_of_a_window_that_is_just_over() -> None:
    off = Standstill(((at(1), at(3)), (at(5), None)))
    assert off.began(HOUR, at(9)) == at(4)
    assert off.began(3 * HOUR, at(9)) == at(0)
    assert NEVER.began(HOUR, at(9)) == at(8)
    assert Standstill(((at(1), at(3)),)).began(HOUR, at(4)) == at(1)  # what began in the pause has had its hour too


def test_pauses_begin_once_end_once_and_are_forgotten() -> None:
    once = NEVER.begun(at(1)).begun(at(2))
    assert once.is_on
    over = once.ended(at(4), forget_before=at(0))
    assert over.pauses == ((at(1), at(4)),)
    assert not over.is_on
    assert over.ended(at(5), forget_before=at(0)) == over
    assert over.ended(at(5), forget_before=at(4)) == NEVER
    assert NEVER.begun(at(2)).ended(at(1), forget_before=at(0)).pauses == ((at(2), at(2)),)  # the clock went back


HOURS = st.lists(st.integers(0, 200), min_size=0, max_size=12, unique=True).map(sorted)


def standing(edges: list[int]) -> Standstill:
    """Standing still from each other edge to the next."""
    ends: list[int | None] = [*edges[1::2]]
    pauses = zip(edges[::2], ends if len(edges) % 2 == 0 else [*ends, None], strict=True)
    return Standstill(tuple((at(since), None if until is None else at(until)) for since, until in pauses))


@given(edges=HOURS, window=st.integers(1, 100))
def test_both_views_agree(edges: list[int], window: int) -> None:
    off = standing(edges)
    began = off.began(window * HOUR, at(200))
    assert at(200) - began == window * HOUR + off.between(began, at(200))


@given(one=HOURS, other=HOURS, hour=st.integers(0, 200))
def test_joined_stands_still_where_one_of_them_does(one: list[int], other: list[int], hour: int) -> None:
    first, second = standing(one), standing(other)
    joined = first.joined(second)
    moment, next_moment = at(hour), at(hour + 1)
    alone = max(first.between(moment, next_moment), second.between(moment, next_moment))
    assert joined.between(moment, next_moment) == alone  # edges are whole hours
    assert joined.is_on is (first.is_on or second.is_on)
    assert joined == second.joined(first)


def test_turned_begins_and_ends_once() -> None:
    off = NEVER.turned(False, at(0))
    assert off == NEVER
    on = off.turned(True, at(1)).turned(True, at(2))
    assert on.pauses == ((at(1), None),)
    assert on.turned(False, at(3)).turned(False, at(4)).pauses == ((at(1), at(3)),)
