"""What failures and successes do to the circuit of an account: it goes slower, sleeps longer each time, or stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..model.account import Account
from ..model.circuit import Circuit, Health
from ..model.clock import Clock, Timer
from ..model.outcome import Deferred, Remedy
from ..model.queue import LaneId
from ..policy.retry import Schedule
from ..policy.slowdown import Slowdown
from ..store import QueueStore

#: Complaints in a row, with no success between, until an account that only went slower sleeps.
COMPLAINTS_UNTIL_SLEEP = 3

# An enum's member costs a look-up each time.
_SLOWED, _ATTENTION = Health.SLOWED, Health.NEEDS_ATTENTION


#: What changes when an account is moved in the list.
_PLACE: dict[str, Any] = {"position": 0, "revision": 0}


class Sending(Protocol):
    """Who sends for the account."""

    def look(self) -> None:
        """It may send again."""

    def circuit_changed(self) -> None:
        """It is in another state."""

    def limit_connections(self, most: int | None) -> None:
        """It may have so many connections at most; None: as the account says."""


class Breaker:
    """Keeps the circuit of one account for its `lane`; `kept` is how it was when it was last kept."""

    def __init__(
        self,
        account: Account,
        store: QueueStore,
        clock: Clock,
        sleep: Schedule,
        *,
        lane: Sending,
        kept: Circuit | None = None,
    ) -> None:
        self.circuit = kept or Circuit(since=clock.now())
        self.may_send = self.circuit.may_send
        self.pause = 0.0  # seconds between two messages
        self._account = account
        self._store = store
        self._clock = clock
        self.sleep = sleep
        self._lane = lane
        self._failures = self.circuit.failures
        self.failing_since = self.circuit.failing_since  # until a transaction succeeds
        self._complaints = 0
        self._slowdown = Slowdown()
        self._complaint: Deferred | None = None  # the last
        self._sent = float("-inf")
        self._wakes = 0.0
        self._timers: dict[str, Timer] = {}
        self._stopped = False
        if self.circuit.health is Health.SLEEPING:
            self._sleep_on()

    def change(self, account: Account) -> None:
        """The account was edited: what was known of it no longer holds."""
        before, self._account = self._account, account
        if account.revision == before.revision:
            return
        if account.position != before.position and replace(account, **_PLACE) == replace(before, **_PLACE):
            self._be(self.circuit)  # it was moved in the list
        else:
            self._cancel("sleep")
            self._failures = self._complaints = 0
            self.failing_since = None
            self._slow(Slowdown())
            if not self.may_send:
                self._note("account.awake", "it was edited")
            self._be(Circuit(since=self._clock.now()))

    def failed(self, failure: Deferred, *, connecting: bool) -> bool:
        """The account failed: it goes slower, sleeps, or stops until a person mends it. Whether it sends no more."""
        if failure.remedy is Remedy.STOP:
            if self.circuit.health is _ATTENTION:
                return False
            self._cancel("sleep")
            self._fails()
            self._become(Health.NEEDS_ATTENTION, failure)
            self._note("account.needs_attention", self.circuit.reason)
            return True
        if not self.may_send:
            return False
        if failure.remedy is not Remedy.SLEEP:
            self.complained(failure)
            if not connecting and self._complaints < COMPLAINTS_UNTIL_SLEEP:
                return False
        self._fails()
        pause = self._next_sleep(failure, connecting)
        self._become(Health.SLEEPING, failure, pause)
        self._note("account.asleep", f"{pause.total_seconds():g}s: {self.circuit.reason}")
        self._sleep_on()
        return True

    def put_to_sleep(self, pause: timedelta) -> None:
        """A person puts the account to sleep, for so long from now."""
        self._cancel("sleep")
        self._failures = self._complaints = 0
        self.failing_since = self._clock.now()
        self._be(asleep_by_hand(self._clock.now(), pause))
        self._note("account.asleep", f"{pause.total_seconds():g}s: {self.circuit.reason}")
        self._sleep_on()

    def clock_jumped(self) -> None:
        """The end of the sleep was reckoned by another time of day; the timer was not: tell the time anew."""
        if self.circuit.until is not None and "sleep" in self._timers:
            left = timedelta(seconds=self._wakes - self._clock.monotonic())
            self._be(replace(self.circuit, until=self._clock.now() + left))

    def complained(self, failure: Deferred) -> None:
        """The relay complains of rate or connections, and others work: the account goes slower."""
        now, most = self._clock.monotonic(), self._account.max_connections
        if failure.remedy is Remedy.SLOWER:
            slowdown = self._slowdown.slower(now)
        elif failure.remedy is Remedy.FEWER:
            slowdown = self._slowdown.fewer(now, most)
        else:
            return
        if slowdown is self._slowdown:
            return
        self._complaints += 1
        self._complaint = failure
        self._slow(slowdown)
        self._note("account.slowed", f"{self._how_slow()}: {failure.status} {failure.reason}")
        if self.may_send:
            self._become(Health.SLOWED, failure)
        self._step_later()

    def succeeded(self) -> bool:
        """A transaction that no account's failure ended: the next failure is the first again. Whether one before."""
        if self._failures or self._complaints or self.failing_since is not None:
            self._failures = self._complaints = 0
            self.failing_since = None
            return True
        return False

    def sent(self) -> None:
        """A message starts."""
        self._sent = self._clock.monotonic()

    def wait(self) -> float:
        """Seconds until the next message may start."""
        return self._sent + self.pause - self._clock.monotonic() if self.pause else 0.0

    def wake_up(self, *, by_hand: bool = False) -> None:
        """The sleep is over, or a person ended it: then nothing of what was before counts."""
        self._cancel("sleep")
        if by_hand or self.circuit.by_hand:
            self._failures = self._complaints = 0
            self.failing_since = None
        if not self.may_send:
            self._note("account.awake", "")
            if self._slowdown and self._complaint is not None:
                self._become(Health.SLOWED, self._complaint)
            else:
                self._be(Circuit(since=self._clock.now(), failures=self._failures))
        self._lane.look()

    def stop(self) -> None:
        """Wake nobody any more."""
        self._stopped = True
        for name in list(self._timers):
            self._cancel(name)

    # Inside

    def _become(self, health: Health, failure: Deferred, pause: timedelta | None = None) -> None:
        now = self._clock.now()
        reason = f"{failure.status} {failure.reason}"
        if health is _SLOWED:
            reason = f"{self._how_slow()}: {reason}"
        self._be(
            Circuit(
                health=health, reason=reason, advice=failure.advice, since=now,
                until=None if pause is None else now + pause, transcript=failure.transcript, failures=self._failures,
            )
        )  # fmt: skip

    def _fails(self) -> None:
        self._failures += 1
        if self.failing_since is None:
            self.failing_since = self._clock.now()

    def _be(self, circuit: Circuit) -> None:
        is_kept = not self.may_send
        self.circuit = circuit = replace(circuit, failing_since=self.failing_since)
        self.may_send = circuit.may_send
        if is_kept or not self.may_send:
            self._store.keep_circuit(LaneId(self._account.id), self._account.revision, circuit).add_done_callback(_seen)
            self._lane.circuit_changed()

    def _sleep_on(self) -> None:
        left = self._left()
        self._wakes = self._clock.monotonic() + left
        self._later("sleep", left, self.wake_up)

    def _left(self) -> float:
        """Seconds until the sleep is over; never more than it was to last, whatever became of the time of day."""
        until, since = self.circuit.until, self.circuit.since
        assert until is not None
        assert since is not None
        return max(min(until - self._clock.now(), until - since).total_seconds(), 0.0)

    def _next_sleep(self, failure: Deferred, connecting: bool) -> timedelta:
        if failure.retry_after is not None and failure.remedy is Remedy.SLEEP:
            return failure.retry_after
        if connecting and self._failures == 1:
            return self._account.connect_retry
        return self.sleep.delay(self._failures)

    def _slow(self, slowdown: Slowdown) -> None:
        before, self._slowdown = self._slowdown, slowdown
        self.pause = slowdown.pause
        if slowdown.connections != before.connections:
            self._lane.limit_connections(slowdown.connections or None)

    def limit_again(self) -> None:
        """Connections are made anew: they go as slowly as those before."""
        if self._slowdown.connections:
            self._lane.limit_connections(self._slowdown.connections)

    def _how_slow(self) -> str:
        slowdown = self._slowdown
        ways = [f"{slowdown.pause:g}s between two messages"] if slowdown.pause else []
        ways += [f"at most {slowdown.connections} connection(s)"] if slowdown.connections else []
        return ", ".join(ways)

    def _step_later(self) -> None:
        self._cancel("slow")
        if self._slowdown:
            self._later("slow", self._slowdown.next_step() - self._clock.monotonic(), self._step_back)

    def _step_back(self) -> None:
        self._slow(self._slowdown.back(self._clock.monotonic(), self._account.max_connections))
        if self.circuit.health is _SLOWED:
            if not self._slowdown:
                self._be(Circuit(since=self._clock.now()))
                self._note("account.healthy", "")
            elif self._complaint is not None:
                self._become(Health.SLOWED, self._complaint)
        self._step_later()
        self._lane.look()

    def _later(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        if not self._stopped:
            self._timers[name] = self._clock.call_later(max(seconds, 0.0), callback)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _note(self, kind: str, detail: str) -> None:
        self._store.record(kind, account=self._account.name, detail=detail).add_done_callback(_seen)


def asleep_by_hand(now: datetime, pause: timedelta) -> Circuit:
    """The circuit of an account that a person puts to sleep."""
    reason = "a person put it to sleep"
    return Circuit(health=Health.SLEEPING, reason=reason, since=now, until=now + pause, by_hand=True)


def _seen(future: asyncio.Future[None]) -> None:
    """What the store could not keep holds up nothing."""
    if not future.cancelled():
        future.exception()
