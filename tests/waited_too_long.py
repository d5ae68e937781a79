"""Rules by which the mail of a few lanes has waited too long, alike for all of them."""

from __future__ import annotations

from datetime import datetime, timedelta

from postroom.model.queue import LaneId
from postroom.queue.maintenance import MaintenanceRules
from postroom.store import LaneEnds

LANES = tuple(LaneId(number) for number in range(1, 8))


def ends(window_began_before: datetime, accepted_before: datetime, *, fails: bool = False) -> tuple[LaneEnds, ...]:
    """Windows are over that began before the one time, and mail is given up that was accepted before the other."""
    return tuple(
        LaneEnds(
            lane=lane, window=timedelta(days=2), began=lambda window: window_began_before,
            accepted_before=accepted_before, fails=fails,
        )
        for lane in LANES
    )  # fmt: skip


def rules(window: timedelta, give_up: timedelta, warning: timedelta = timedelta(0)) -> MaintenanceRules:
    """Of maintenance."""
    return MaintenanceRules(lambda now: ends(now - window, now - give_up), window, warning)
