"""What failures and successes do to the circuit of an account: it goes slower, sleeps longer each time, or stops."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from ..model.account import Account
from ..model.circuit import Circuit, Health
from ..model.clock import Clock, Timer
from ..model.outcome import Deferred, Remedy
from ..policy.retry import Schedule
from ..policy.slowdown import Slowdown
from ..store import QueueStore

#: Complaints in a row, with no success between, until an account that only went slower sleeps.
COMPLAINTS_UNTIL_SLEEP = 3

# An enum's member costs a look-up each time.
_HEALTHY, _SLOWED, _ATTENTION = Health.HEALTHY, Health.SLOWED, Health.NEEDS_ATTENTION


class Breaker:
    """Keeps the circuit of one account. `woken` is called when it may send again, `limited` with the most connections
    that it may have (None: as the account says)."""

    def __init__(
        self,
        account: Account,
        store: QueueStore,
        clock: Clock,
        sleep: Schedule,
        *,
        woken: Callable[[], None],
        limited: Callable[[int | None], None],
    ) -> None:
        self.circuit = Circuit(since=clock.now())
        self.may_send = True
        self.pause = 0.0  # seconds between two messages
        self._account = account
        self._store = store
        self._clock = clock
        self.sleep = sleep
        self._woken = woken
        self._limited = limited
        self._failures = 0
        self._complaints = 0
        self._slowdown = Slowdown()
        self._complaint: Deferred | None = None  # the last
        self._sent = float("-inf")
        self._timers: dict[str, Timer] = {}
        self._stopped = False

    def change(self, account: Account) -> None:
        """The account was edited: what was known of it no longer holds."""
        if account.revision != self._account.revision:
            self._cancel("sleep")
            self._failures = self._complaints = 0
            self._slow(Slowdown())
            self._be(Circuit(since=self._clock.now()))
        self._account = account

    def failed(self, failure: Deferred, *, connecting: bool) -> bool:
        """The account failed: it goes slower, sleeps, or stops until a person mends it. Whether it sends no more."""
        if failure.remedy is Remedy.STOP:
            if self.circuit.health is _ATTENTION:
                return False
            self._cancel("sleep")
            self._failures += 1
            self._become(Health.NEEDS_ATTENTION, failure)
            self._note("account.needs_attention", self.circuit.reason)
            return True
        if not self.may_send:
            return False
        if failure.remedy is not Remedy.SLEEP:
            self.complained(failure)
            if not connecting and self._complaints < COMPLAINTS_UNTIL_SLEEP:
                return False
        self._failures += 1
        pause = self._next_sleep(failure, connecting)
        self._become(Health.SLEEPING, failure, pause)
        self._note("account.asleep", f"{pause.total_seconds():g}s: {self.circuit.reason}")
        self._later("sleep", pause.total_seconds(), self.wake_up)
        return True

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

    def succeeded(self) -> None:
        """A transaction that no account's failure ended: the next failure is the first again."""
        if self._failures or self._complaints:
            self._failures = self._complaints = 0

    def sent(self) -> None:
        """A message starts."""
        self._sent = self._clock.monotonic()

    def wait(self) -> float:
        """Seconds until the next message may start."""
        return self._sent + self.pause - self._clock.monotonic() if self.pause else 0.0

    def wake_up(self) -> None:
        """The sleep is over, or a person ended it."""
        self._cancel("sleep")
        if not self.may_send:
            self._note("account.awake", "")
            if self._slowdown and self._complaint is not None:
                self._become(Health.SLOWED, self._complaint)
            else:
                self._be(Circuit(since=self._clock.now(), failures=self._failures))
        self._woken()

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

    def _be(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.may_send = circuit.health is _HEALTHY or circuit.health is _SLOWED

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
            self._limited(slowdown.connections or None)

    def limit_again(self) -> None:
        """Connections are made anew: they go as slowly as those before."""
        if self._slowdown.connections:
            self._limited(self._slowdown.connections)

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
        self._woken()

    def _later(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        if not self._stopped:
            self._timers[name] = self._clock.call_later(max(seconds, 0.0), callback)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _note(self, kind: str, detail: str) -> None:
        noted = self._store.record(kind, account=self._account.name, detail=detail)
        noted.add_done_callback(lambda future: future.cancelled() or future.exception())
