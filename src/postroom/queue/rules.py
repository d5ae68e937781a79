"""What the parts of the queue need of the settings; made anew whenever a setting changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..config import Settings
from ..model.account import Account
from ..policy.retry import Schedule
from ..policy.standstill import Standstill
from .bounce import NotificationRules, ReportTo
from .delivery import RetryRules
from .maintenance import MaintenanceRules
from .outgoing import Outgoing

#: How much of the time between two moments no retry window counts.
StoodStill = Callable[[datetime, datetime], timedelta]


@dataclass(frozen=True, slots=True)
class LaneRules:
    """What a lane needs of the settings.

    `noted` is called when something was noted for a report; `outgoing` says what an account does to what it sends.
    """

    retry: RetryRules
    sleep: Schedule
    noted: Callable[[], None] = lambda: None
    outgoing: Callable[[Account], Outgoing | None] = lambda account: None


def lane_rules(
    settings: Settings,
    may_expire: Callable[[], bool],
    stood_still: StoodStill,
    noted: Callable[[], None],
    outgoing: Callable[[Account], Outgoing | None],
) -> LaneRules:
    """How lanes try again and let accounts sleep."""
    schedule = Schedule.parse(settings.retry_schedule, "retry_schedule")
    retry = RetryRules(schedule, settings.retry_window, may_expire, stood_still)
    return LaneRules(retry, Schedule.parse(settings.account_sleep, "account_sleep"), noted, outgoing)


def maintenance_rules(settings: Settings, standstill: Standstill) -> MaintenanceRules:
    """The ages at which things end."""
    delay_warning = settings.notifications.delay_warning
    return MaintenanceRules(settings.retry_window, settings.give_up, settings.retention, delay_warning, standstill)


def notification_rules(settings: Settings, hostname: str, stood_still: StoodStill) -> NotificationRules:
    """Who is told of failures and delays."""
    wanted = settings.notifications
    return NotificationRules(
        to=ReportTo(wanted.to),
        postmaster=settings.postmaster,
        sender=wanted.sender,
        account=wanted.account,
        hostname=hostname,
        retry_window=settings.retry_window,
        max_returned_bytes=wanted.max_returned_bytes,
        stood_still=stood_still,
    )
