"""What limits refuse at intake: those of applications, and those of accounts that say `refuse` (SPEC section 2.7); and
what the repeat guard asks.

A message counts from when it is taken; its rows are stored in its transaction. One that is not kept counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

from ..errors import LimitReached, Refused
from ..model.account import Account
from ..model.application import Application, RepeatGuard
from ..model.limits import WhenLimited
from ..model.queue import LaneId, NewMessage, RepeatCheck
from ..model.usage import Usage
from ..policy.limits import Counted, Meter, Metered, Reached, metered
from .limiter import Limiter, meter_name
from .repeat_guard import Digest, Watched, check_of

_MICROSECONDS = 1_000_000
_MICROSECOND = timedelta(microseconds=1)


class IntakeLimit:
    """The limits of one application or account as intake asks them; `whose` says it in errors."""

    def __init__(self, whose: str, limits: Metered, meter: Meter) -> None:
        self.whose = whose
        self.limits = limits
        self.meter = meter


class Admitted:
    """A message that the limits let in: the rows to store with it, or to `take_back` when it was not kept."""

    __slots__ = ("_counted", "rows")

    def __init__(self) -> None:
        self._counted: list[tuple[Meter, list[Usage]]] = []
        self.rows: tuple[Usage, ...] = ()

    def count(self, meter: Meter, recipients: int, now: int) -> None:
        """It counts there."""
        rows = meter.start(meter.reserve(recipients), now)
        self._counted.append((meter, rows))
        self.rows += tuple(rows)

    def take_back(self) -> None:
        """It was not kept."""
        for meter, rows in self._counted:
            meter.take_back(rows)


class Admission:
    """Asks the limits of applications and accounts as they are now; `follow` comes first, and with each change."""

    def __init__(
        self,
        limiter: Limiter,
        applications: Callable[[], Iterable[Application]],
        accounts: Callable[[], Sequence[Account]],
        digest: Digest,
    ) -> None:
        self._limiter = limiter
        self._all_applications = applications
        self._all_accounts = accounts
        self._digest = digest
        self._guards: Mapping[int, RepeatGuard] = {}
        self._names: Mapping[int, str] = {}
        # Until when what guards held counts; those that were not asked yet may have held something before this start.
        self._held_until: dict[int, int] = {}
        self._applications: Mapping[int, IntakeLimit] = {}
        self._accounts: Mapping[LaneId, IntakeLimit] = {}
        #: Whether anything counts at intake: else it need not be asked.
        self.counts = False

    def follow(self) -> None:
        """An application or an account has changed; what was counted stays counted."""
        self._applications = {
            one.id: self._limit(f"application {one.name!r}", limits, f"app/{one.id}")
            for one in self._all_applications()
            if (limits := metered(one.limits))
        }
        self._accounts = {LaneId(account.id): limit for account, limit in self._of_accounts(self._all_accounts())}
        guarded = [one for one in self._all_applications() if one.repeat_guard.count]
        self._guards = {one.id: one.repeat_guard for one in guarded}
        self._names = {one.id: one.name for one in guarded}
        now = self._limiter.clock.now()
        for number, guard in self._guards.items():
            self._held_until.setdefault(number, now + guard.within // _MICROSECOND)
        self.counts = bool(self._applications or self._accounts or self._guards)

    def _of_accounts(self, accounts: Sequence[Account]) -> Iterable[tuple[Account, IntakeLimit]]:
        """Accounts that refuse, and those that use up the same quota."""
        # The interval is a pace, not an amount: what comes faster waits, also where the amount is refused.
        refusing = {
            account.id: Metered(limits.limits)
            for account in accounts
            if account.when_limited is WhenLimited.REFUSE and (limits := metered(account.limits)).limits
        }
        meters = {meter_name(account) for account in accounts if account.id in refusing}
        for account in accounts:
            if (name := meter_name(account)) in meters:
                limits = refusing.get(account.id, Metered())
                yield account, self._limit(f"account {account.name!r}", limits, f"accepted/{name}")

    def _limit(self, whose: str, limits: Metered, meter: str) -> IntakeLimit:
        return IntakeLimit(whose, limits, self._limiter.meter(meter, limits))

    def repeats(self, message: NewMessage) -> RepeatCheck | None:
        """What the repeat guard asks of a message that is let in."""
        guard = self._guards.get(message.application_id)
        return None if guard is None else check_of(guard, message, self._digest, self._limiter.clock.now())

    def held(self, message: NewMessage) -> None:
        """The repeat guard held some of it."""
        if message.repeats is not None:
            self._held_until[message.application_id] = message.repeats.ends

    def watched(self) -> list[Watched]:
        """The guards that may be holding what comes now."""
        now = self._limiter.clock.now()
        return [
            Watched(number, self._names[number], guard, now)
            for number, guard in self._guards.items()
            if self._held_until[number] > now
        ]

    def admit(self, message: NewMessage) -> Admitted:
        """Count a message.

        Raises:
            LimitReached: there is no room for it now; nothing of it counts.
            Refused: there never is, for so many recipients.
        """
        now = self._limiter.clock.now()
        asked: dict[LaneId, int] = {}
        for delivery in message.deliveries:
            asked[delivery.lane] = asked.get(delivery.lane, 0) + 1
        wanted = [(self._applications.get(message.application_id), len(message.deliveries))]
        wanted += [(self._accounts.get(lane), recipients) for lane, recipients in asked.items()]
        admitted = Admitted()
        for limit, recipients in wanted:
            if limit is None:
                continue
            reached = limit.meter.reached(limit.limits, now, recipients)
            if reached is not None:
                admitted.take_back()
                raise self._refusal(limit, reached, recipients, now)
            admitted.count(limit.meter, recipients, now)
        return admitted

    def _refusal(self, limit: IntakeLimit, reached: Reached, recipients: int, now: int) -> LimitReached | Refused:
        what = "its send interval" if reached.limit is None else f"its limit of {reached.limit}"
        if reached.free_at is None:
            reason = f"{limit.whose}: {recipients} recipients in one message are over {what}"
            return Refused(f"{reason}: send it in parts", status="5.5.3")
        seconds = math.ceil((reached.free_at - now) / _MICROSECONDS)
        until = self._limiter.clock.moment_in(seconds).isoformat(timespec="seconds")
        left = ""
        if reached.limit is not None and reached.limit.span.counted is Counted.RECIPIENTS and recipients > 1:
            room = max(0, reached.limit.most - limit.meter.used(reached.limit.span, now))
            left = f", with room for {room} of the {recipients} recipients"
        return LimitReached(
            f"{limit.whose} has reached {what}{left}; room again at {until}", retry_after=timedelta(seconds=seconds)
        )
