"""What the parts of the queue need of the settings; made anew whenever a setting changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ..config import Settings
from ..model.account import Account, AccountKind
from ..policy.retry import Schedule
from ..policy.staging import StagingGuard
from .alerts import AlertRules
from .bounce import NotificationRules, ReportTo
from .deadlines import Deadlines
from .delivery import RetryRules
from .maintenance import MaintenanceRules
from .outgoing import Outgoing
from .retention import Ages


@dataclass(frozen=True, slots=True)
class LaneRules:
    """What a lane needs of the settings.

    `noted` is called when something was noted for a report, `circuit_changed` when an account is in another state;
    `outgoing` says what an account does to what it sends, `guard` who alone may get it. `suppress_for`: for how long
    recipients that do not exist go on the suppression list (zero: until somebody takes them off; None: they don't).
    """

    retry: Callable[[Account], RetryRules]
    sleep: Schedule
    noted: Callable[[], None] = lambda: None
    outgoing: Callable[[Account], Outgoing | None] = lambda account: None
    circuit_changed: Callable[[], None] = lambda: None
    suppress_for: timedelta | None = None
    guard: StagingGuard | None = None


def lane_rules(
    settings: Settings,
    deadlines: Deadlines,
    may_expire: Callable[[], bool],
    noted: Callable[[], None],
    outgoing: Callable[[Account], Outgoing | None],
) -> LaneRules:
    """How lanes try again and let accounts sleep."""
    return LaneRules(
        lambda account: deadlines.rules(account, may_expire),
        Schedule.parse(settings.account_sleep, "account_sleep"),
        noted,
        outgoing,
        deadlines.follow,
        settings.suppress_hard_bounces_for if settings.suppress_hard_bounces else None,
        staging_guard(settings),
    )


def staging_guard(settings: Settings) -> StagingGuard | None:
    """The guard, where it is on."""
    wanted = settings.staging_guard
    return StagingGuard(wanted.only_to, wanted.redirect_to, wanted.subject_prefix) if wanted.enabled else None


def redirected_to(settings: Settings, account: Account | None, recipient: str) -> str:
    """Who gets mail of `account` in the place of `recipient`; "" where that one does. Of a sandbox nothing leaves."""
    guard = staging_guard(settings)
    is_kept = account is not None and account.kind is AccountKind.SANDBOX
    return "" if guard is None or is_kept or not guard.redirects(recipient) else guard.redirect_to


def maintenance_rules(settings: Settings, deadlines: Deadlines) -> MaintenanceRules:
    """The ages at which things end."""
    return MaintenanceRules(deadlines.lane_ends, deadlines.longest_window(), settings.notifications.delay_warning)


def kept_for(settings: Settings) -> Ages:
    """For how long what ended is kept."""
    return Ages(settings.retention, settings.content_retention)


def alert_rules(settings: Settings, hostname: str) -> AlertRules:
    """Who is told of what is wrong with the gateway, and from when on."""
    wanted = settings.alerts
    return AlertRules(
        to=wanted.to,
        sender=settings.notifications.sender,
        account=wanted.account,
        hostname=hostname,
        oldest=wanted.oldest,
        bounce_percent=wanted.bounce_percent,
        free_bytes=wanted.free_bytes,
    )


def notification_rules(settings: Settings, hostname: str, deadlines: Deadlines) -> NotificationRules:
    """Who is told of failures and delays."""
    wanted = settings.notifications
    return NotificationRules(
        to=ReportTo(wanted.to),
        postmaster=settings.postmaster,
        sender=wanted.sender,
        account=wanted.account,
        hostname=hostname,
        max_returned_bytes=wanted.max_returned_bytes,
        window_end=deadlines.window_end,
    )
