"""The limits of this node's accounts at work: who may start now, when to ask again, and what is stored (SPEC 2.7).

Accounts of one quota group share a meter, each with its own limits. The clock of limits starts at the time of day, or
where the last send on record lies later, and goes on by the monotonic clock: one that is set back or ahead allows no
more.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from ..model.account import Account
from ..model.circuit import Circuit
from ..model.clock import Clock
from ..model.usage import Usage, lane_meter
from ..policy.limits import Counted, Meter, Metered, Reservation, latest, metered
from ..store import QueueStore

_MICROSECOND = 1e-6


class LimitClock:
    """Microseconds that never go back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = int(clock.now().timestamp() * 1_000_000)
        self._monotonic = clock.monotonic()

    def is_after(self, at: int) -> None:
        """What is on record was at `at`: the time is that at least."""
        self._start += max(0, at - self.now())

    def moment_in(self, seconds: int) -> datetime:
        """The time of day in so many seconds."""
        return self._clock.now() + timedelta(seconds=seconds)

    def now(self) -> int:
        """The time."""
        return self._start + int((self._clock.monotonic() - self._monotonic) * 1_000_000)


class Send:
    """One message under limits, from its claim to the end of its transaction; a `Watch` of transports."""

    __slots__ = ("_begun", "_limit", "_reservation", "_rows")

    def __init__(self, limit: AccountLimit, reservation: Reservation) -> None:
        self._limit = limit
        self._reservation = reservation
        self._begun = False
        self._rows: list[Usage] = []

    def answered(self) -> None:
        """See `Watch.answered`."""
        self._rows += self._limit.start(self._reservation)

    def was_begun(self) -> None:
        """See `Watch.was_begun`."""
        self._begun = True

    def end(self) -> tuple[Usage, ...]:
        """The transaction is over, or never was: what is to be stored with its outcome."""
        if self._begun:
            self.answered()
        else:
            self._limit.give_back(self._reservation)
        return tuple(self._rows)


class AccountLimit:
    """The limits of one account. `changed` is called when a send of its meter is over, which may make room."""

    def __init__(self, limits: Metered, meter: Meter, clock: LimitClock, changed: Callable[[], None]) -> None:
        self._limits = limits
        self._meter = meter
        self._clock = clock
        self._changed = changed

    def room(self) -> int:
        """For how many recipients one message may start now; 0: none may."""
        return self._meter.room(self._limits, self._clock.now())

    @property
    def ever(self) -> int:
        """For how many recipients one message may start at best."""
        counted = [limit.most for limit in self._limits.limits if limit.span.counted is Counted.RECIPIENTS]
        return min(counted, default=1 << 30)

    @property
    def reached(self) -> str:
        """Which limit lets nothing start now, in words; empty where none does."""
        now = self._clock.now()
        if self._meter.room(self._limits, now):
            return ""
        binding = self._meter.binding(self._limits, now)
        return "its send interval" if binding is None else f"its limit of {binding}"

    @property
    def is_full(self) -> bool:
        """Whether a limit on a number is reached; the interval alone makes nothing full."""
        return self._meter.binding(self._limits, self._clock.now()) is not None

    def shown_in(self, circuit: Circuit, now: datetime) -> Circuit:
        """`circuit` with the limit that is reached, and until when."""
        reached = self.reached
        if not reached:
            return circuit
        seconds = self.wait_seconds()
        until = None if seconds is None else now + timedelta(seconds=seconds)
        return dataclasses.replace(circuit, limit=reached, limit_until=until)

    def wait_seconds(self) -> float | None:
        """After how long to ask again; None: when `changed` is called."""
        now = self._clock.now()
        ready = self._meter.ready_at(self._limits, now)
        return None if ready is None else max(0, ready - now) * _MICROSECOND

    def reserve(self, recipients: int) -> Send:
        """A message is claimed."""
        return Send(self, self._meter.reserve(recipients))

    def start(self, reservation: Reservation) -> list[Usage]:
        """It counts from now on."""
        rows = self._meter.start(reservation, self._clock.now())
        if rows:
            self._changed()
        return rows

    def give_back(self, reservation: Reservation) -> None:
        """It never began."""
        if not reservation.is_over:
            self._meter.give_back(reservation)
            self._changed()


class Limiter:
    """The meters of this node. `load` comes first, then `follow` with each change of the accounts.

    Loading again brings in what others than these meters have put on record.
    """

    def __init__(self, store: QueueStore, clock: Clock) -> None:
        self._store = store
        self.clock = LimitClock(clock)
        self._kept: dict[str, list[Usage]] = {}
        self._meters: dict[str, Meter] = {}
        self._limits: dict[int, AccountLimit] = {}
        self._waiting: defaultdict[str, dict[int, Callable[[], None]]] = defaultdict(dict)

    async def load(self) -> None:
        """Read what is on record, and set the clock behind it."""
        rows = await self._store.usage()
        self.clock.is_after(latest(rows))
        self._kept = defaultdict(list)
        for row in rows:
            self._kept[row.meter].append(row)

    def follow(self, accounts: Iterable[Account]) -> None:
        """The accounts as they are now; what was counted stays counted."""
        self._limits = {}
        for account in accounts:
            limits = metered(account.limits)
            if limits:
                meter = self.meter(meter_name(account), limits)
                under_way = self._kept.pop(lane_meter(account.id), ())
                meter.take_over(dataclasses.replace(row, meter=meter.name) for row in under_way)
                self._limits[account.id] = AccountLimit(limits, meter, self.clock, self._teller(meter.name))

    def of(self, account: Account, wake: Callable[[], None]) -> AccountLimit | None:
        """The limits of `account`, None where it has none. `wake` is called when there may be room again."""
        limit = self._limits.get(account.id)
        for waiting in self._waiting.values():
            waiting.pop(account.id, None)
        if limit is not None:
            self._waiting[meter_name(account)][account.id] = wake
        return limit

    def beside_its_lane(self, account: Account) -> AccountLimit | None:
        """The limits of `account` for a send that its lane knows nothing of; None where it has none."""
        return self._limits.get(account.id)

    def meter(self, name: str, limits: Metered) -> Meter:
        """The meter of that name, which counts what `limits` ask for."""
        meter = self._meters.get(name)
        if meter is None:
            meter = self._meters[name] = Meter(name, (), self._kept.pop(name, ()))
        for limit in limits.limits:
            meter.watch(limit.span)
        return meter

    def _teller(self, meter: str) -> Callable[[], None]:
        def tell() -> None:
            for wake in tuple(self._waiting[meter].values()):
                wake()

        return tell


def meter_name(account: Account) -> str:
    """The meter that counts what `account` sends."""
    return f"quota/{account.quota_group.lower()}" if account.quota_group else f"account/{account.id}"
