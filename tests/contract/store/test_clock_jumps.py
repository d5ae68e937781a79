"""Silences on record, by which a start judges the clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from postroom.store import Silence
from postroom.store.database import Database
from postroom.store.schema import event

from .examples import NOON

DAY = (NOON - timedelta(hours=24), NOON)


def at(hour: int) -> datetime:
    """So many hours from noon."""
    return NOON + timedelta(hours=hour)


async def keep(store: Database, record: Sequence[tuple[int, int]]) -> None:
    """A record of what happened at these hours, by the ids of the events."""

    def work(connection: Any) -> None:
        connection.execute(delete(event))
        for identity, hour in record:
            micros = round(at(hour).timestamp() * 1_000_000)
            connection.execute(insert(event).values(id=identity, at=micros, kind="x", account="", detail=""))

    await store.write(work)


@pytest.mark.parametrize(
    ("hours", "silence"),
    [
        ([], None),
        ([-3], None),
        ([-3, -2, -1], None),
        ([-30], (-30, None)),
        ([-90, -30], (-30, None)),
        ([-90, -3], (-90, -3)),
        ([-90, -80, -70, -3, -2, -1], (-70, -3)),
        ([-90, -25, -23, -1], (-25, -23)),
        ([-3, 9999], (9999, None)),
        ([9999, -3], (9999, -3)),
    ],
)
async def test_the_silence_before_the_last_day(
    store: Database, hours: list[int], silence: tuple[int, int | None] | None
) -> None:
    await keep(store, [(10 * n + 1, hour) for n, hour in enumerate(hours)])
    found = await store.last_silence(*DAY)
    if silence is None:
        assert found is None
        return
    since, until = silence
    assert found == Silence(at(since), None if until is None else at(until))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=st.dictionaries(st.integers(1, 1000), st.integers(-60, 12), min_size=1, max_size=40))
async def test_a_silence_is_between_two_neighbours_on_record(store: Database, record: dict[int, int]) -> None:
    rows = sorted(record.items())
    await keep(store, rows)
    hours = [hour for _, hour in rows]
    found = await store.last_silence(*DAY)
    if not is_of_the_day(hours[-1]):
        assert found == Silence(at(hours[-1]))
    elif is_of_the_day(hours[0]):
        assert found is None
    else:
        ways_in = [(a, b) for a, b in pairwise(hours) if is_of_the_day(b) and not is_of_the_day(a)]
        assert found in [Silence(at(a), at(b)) for a, b in ways_in]


def is_of_the_day(hour: int) -> bool:
    """Whether it is one of the last 24."""
    return -24 < hour <= 0
