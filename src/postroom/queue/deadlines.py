"""How long mail is tried and when it is given up, account by account, and the time that does not count (SPEC 2.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from ..config import Settings
from ..model.account import Account
from ..model.circuit import Circuit, Health
from ..model.clock import Clock
from ..model.explanation import NOTHING_AHEAD, Times
from ..model.queue import DeliveryState, LaneId
from ..policy.retry import Schedule
from ..policy.standstill import NEVER, Standstill
from ..store import DeliveryRow, LaneEnds
from .delivery import RetryRules


class Deadlines:
    """Knows the rules of each account. `circuit` says how one is, `switch` when sending was off at all."""

    def __init__(
        self,
        clock: Clock,
        settings: Callable[[], Settings],
        accounts: Callable[[], Sequence[Account]],
        circuit: Callable[[LaneId], Circuit],
        switch: Callable[[], Standstill],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._accounts = accounts
        self._circuit = circuit
        self._switch = switch
        self._standstills: dict[LaneId, Standstill] = {}
        self.on_change: list[Callable[[], None]] = []  # called when accounts or circuits have changed

    def load(self, kept: Mapping[LaneId, Standstill]) -> None:
        """When windows stood still before this start."""
        self._standstills = dict(kept)
        self.follow()

    def follow(self) -> None:
        """Accounts or circuits have changed: windows stand still from now on, or go on."""
        now = self._clock.now()
        for account in self._accounts():
            lane = LaneId(account.id)
            stands = not account.enabled or self._circuit(lane).health is Health.NEEDS_ATTENTION
            before = self._standstills.get(lane, NEVER)
            if stands is not before.is_on:
                self._standstills[lane] = before.turned(stands, now)
        for callback in self.on_change:
            callback()

    def standstill(self, lane: LaneId) -> Standstill:
        """When the windows of a lane stood still, for whatever reason."""
        own, switch = self._standstills.get(lane), self._switch()
        return switch if own is None else own.joined(switch)

    def stood_still(self, lane: LaneId, start: datetime, end: datetime) -> timedelta:
        """How much of the time from `start` to `end` counts for no window of the lane."""
        return self.standstill(lane).between(start, end)

    def window(self, account: Account | None) -> timedelta:
        """The account's retry window."""
        own = account.retry.window if account is not None else None
        return self._settings().retry_window if own is None else own

    def give_up(self, account: Account | None) -> timedelta:
        """The age at which the account gives up."""
        own = account.retry.give_up if account is not None else None
        return self._settings().give_up if own is None else own

    def longest_window(self) -> timedelta:
        """Of all accounts."""
        return max([self.window(None), *map(self.window, self._accounts())])

    def rules(self, account: Account, may_expire: Callable[[], bool]) -> RetryRules:
        """How the account tries again."""
        lane = LaneId(account.id)
        schedule = Schedule.parse(account.retry.schedule or self._settings().retry_schedule, "retry_schedule")
        return RetryRules(
            schedule, self.window(account), may_expire, lambda start, end: self.stood_still(lane, start, end)
        )

    def lane_ends(self, now: datetime) -> Iterator[LaneEnds]:
        """What has waited too long at `now`, for each account."""
        for account in self._accounts():
            lane = LaneId(account.id)
            standstill = self.standstill(lane)
            yield LaneEnds(
                lane=lane,
                window=self.window(account),
                began=lambda window, standstill=standstill: standstill.began(window, now),  # type: ignore[misc]
                accepted_before=now - self.give_up(account),
                fails=self._circuit(lane).health is Health.SLEEPING,
            )

    def window_end(self, lane: LaneId, window_from: datetime, own: timedelta | None) -> datetime:
        """When a window ends that began then, if it stands still no more; `own` is the message's own."""
        window = self.window(self._account(lane)) if own is None else own
        return window_from + window + self.stood_still(lane, window_from, self._clock.now())

    def times(self, row: DeliveryRow) -> Times:
        """What is ahead of a delivery."""
        if row.state.is_final:
            return NOTHING_AHEAD
        give_up = self.give_up(self._account(row.lane))
        gives_up = row.accepted + give_up if row.own_give_up is None else row.own_give_up
        if row.state is DeliveryState.HELD:  # a release begins a new window
            return Times(gives_up=gives_up)
        now = self._clock.now()
        end = self.window_end(row.lane, row.window_from, row.own_window)
        stands_still = self.standstill(row.lane).is_on
        # What was never tried outlives its window as long as its account does not fail.
        is_over = end < now and row.state is DeliveryState.QUEUED
        return Times(
            next_try=row.due if row.state is DeliveryState.DEFERRED else None,
            window_ends=None if stands_still or is_over else end,
            window_left=None if is_over else max(end - now, timedelta(0)),
            stands_still=stands_still,
            gives_up=gives_up,
        )

    def _account(self, lane: LaneId) -> Account | None:
        return next((account for account in self._accounts() if account.id == lane), None)
