"""Retry windows that stand still while sending is off, or the account is off or needs attention."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.config import Settings
from postroom.model.account import Account, AccountKind, Retry
from postroom.model.circuit import Circuit, Health
from postroom.model.ids import new_message_id
from postroom.model.queue import DeliveryState, LaneId, MessageId, PriorityClass
from postroom.policy.standstill import NEVER
from postroom.queue.deadlines import Deadlines
from postroom.store import DeliveryRow

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LANE = LaneId(1)
SETTINGS = Settings.model_construct(
    retry_window=timedelta(days=2), give_up=timedelta(days=14), retry_schedule="1m, 5m"
)  # fmt: skip
ROW = DeliveryRow(
    message_id=MessageId(new_message_id(1, bytes(10))), n=0, recipient="b@y.test", state=DeliveryState.DEFERRED,
    lane=LANE, priority=PriorityClass.NORMAL, tries=1, unknowns=0, may_be_sent_twice=False, due=NOON + HOUR,
    window_from=NOON, ended=None, status="", reply="", reverse_path="a@x.test", subject="", accepted=NOON,
    size_bytes=1,
)  # fmt: skip


class House:
    """One account, on a clock of its own."""

    def __init__(self, **fields: object) -> None:
        self.time = NOON
        self.account = Account(id=1, name="relay", kind=AccountKind.SMTP, host="relay.test", **fields)  # type: ignore[arg-type]
        self.health = Health.HEALTHY
        self.off = NEVER
        self.deadlines = self.made()

    def now(self) -> datetime:
        """See `Clock`."""
        return self.time

    def made(self) -> Deadlines:
        """As at a start."""
        return Deadlines(
            self,  # type: ignore[arg-type]
            lambda: SETTINGS,
            lambda: [self.account],
            lambda lane: Circuit(health=self.health),
            lambda: self.off,
        )

    def restart(self) -> None:
        """The store kept what it was told; nothing else is known."""
        kept = dict(self.deadlines._standstills)
        self.deadlines = self.made()
        self.deadlines.load(kept)

    @property
    def stands(self) -> bool:
        """What the windows should do now."""
        return not self.account.enabled or self.health is Health.NEEDS_ATTENTION or self.off.is_on


ACTS = st.lists(
    st.tuples(st.sampled_from(["off", "on", "attention", "sleep", "well", "switch off", "switch on", "restart"]),
              st.integers(0, 30)),
    max_size=25,
)  # fmt: skip


@given(acts=ACTS)
def test_exactly_the_time_that_stood_still_is_added(acts: list[tuple[str, int]]) -> None:
    house, counted = House(), timedelta(0)
    for act, hours in acts:
        if act in ("off", "on"):
            house.account = replace(house.account, enabled=act == "on")
        elif act.startswith("switch"):
            house.off = house.off.turned(act == "switch off", house.time)
        elif act == "restart":
            house.restart()
        else:
            house.health = {"attention": Health.NEEDS_ATTENTION, "sleep": Health.SLEEPING}.get(act, Health.HEALTHY)
        house.deadlines.follow()
        if not house.stands:
            counted += hours * HOUR
        house.time += hours * HOUR
        times = house.deadlines.times(ROW)
        assert times.window_left == max(timedelta(days=2) - counted, timedelta(0))
        assert times.stands_still is house.stands
        assert (times.window_ends is None) is house.stands
        (end,) = house.deadlines.lane_ends(house.time)
        assert (end.began(end.window) > NOON) is (counted > timedelta(days=2))
        assert (times.next_try, times.gives_up) == (NOON + HOUR, NOON + timedelta(days=14))


@pytest.mark.parametrize(
    ("state", "next_try", "window_ends", "gives_up"),
    [
        ("queued", None, 48, 14),
        ("deferred", 1, 48, 14),
        ("held", None, None, 14),
        ("delivered", None, None, None),
    ],
)
def test_what_is_ahead_in_each_state(
    state: str, next_try: int | None, window_ends: int | None, gives_up: int | None
) -> None:
    times = House().deadlines.times(replace(ROW, state=DeliveryState(state)))
    assert times.next_try == (None if next_try is None else NOON + next_try * HOUR)
    assert times.window_ends == (None if window_ends is None else NOON + window_ends * HOUR)
    assert times.gives_up == (None if gives_up is None else NOON + timedelta(days=gives_up))


def test_the_message_goes_before_the_account_and_the_account_before_the_settings() -> None:
    house = House(retry=Retry(schedule="7m", window=3 * HOUR, give_up=5 * HOUR))
    times = house.deadlines.times(ROW)
    assert (times.window_ends, times.gives_up) == (NOON + 3 * HOUR, NOON + 5 * HOUR)
    times = house.deadlines.times(replace(ROW, own_window=HOUR, own_give_up=NOON + 2 * HOUR))
    assert (times.window_ends, times.gives_up) == (NOON + HOUR, NOON + 2 * HOUR)
    rules = house.deadlines.rules(house.account, lambda: True)
    assert (rules.schedule.steps, rules.window) == ((timedelta(minutes=7),), 3 * HOUR)
    (end,) = house.deadlines.lane_ends(NOON)
    assert (end.window, end.accepted_before) == (3 * HOUR, NOON - 5 * HOUR)
    assert house.deadlines.longest_window() == timedelta(days=2)


def test_what_was_never_tried_outlives_its_window_while_its_account_does_not_fail() -> None:
    house = House()
    house.time += timedelta(days=3)
    times = house.deadlines.times(replace(ROW, state=DeliveryState.QUEUED))
    assert (times.window_ends, times.window_left) == (None, None)
    (end,) = house.deadlines.lane_ends(house.time)
    assert not end.fails
    house.health = Health.SLEEPING
    (end,) = house.deadlines.lane_ends(house.time)
    assert end.fails
