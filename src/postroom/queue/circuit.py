"""What failures and successes do to the circuit of an account: it sleeps longer each time, or stops for a person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from ..model.account import Account
from ..model.circuit import Circuit, Health
from ..model.clock import Clock, Timer
from ..model.outcome import Deferred
from ..policy.retry import Schedule
from ..store import QueueStore

_HEALTHY = Health.HEALTHY  # an enum's member costs a look-up each time


class Breaker:
    """Keeps the circuit of one account. `woken` is called when it may send again."""

    def __init__(
        self, account: Account, store: QueueStore, clock: Clock, sleep: Schedule, woken: Callable[[], None]
    ) -> None:
        self.circuit = Circuit()
        self._account = account
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._woken = woken
        self._failures = 0
        self._timer: Timer | None = None
        self._stopped = False

    @property
    def is_healthy(self) -> bool:
        """Whether the account may send."""
        return self.circuit.health is _HEALTHY

    def change(self, account: Account) -> None:
        """The account was edited: what was known of it no longer holds."""
        if account.revision != self._account.revision:
            self._stop_timer()
            self._failures = 0
            self.circuit = Circuit()
        self._account = account

    def failed(self, failure: Deferred, *, connecting: bool) -> bool:
        """The account failed: it sleeps, or stops until a person mends it. False if it was not healthy already."""
        if self.circuit.health is not _HEALTHY:
            return False
        self._failures += 1
        detail = f"{failure.status} {failure.reason}"
        if failure.stop:
            self.circuit = Circuit(Health.NEEDS_ATTENTION, detail, failure.advice, transcript=failure.transcript)
            self._note("account.needs_attention", detail)
            return True
        pause = self._pause(failure, connecting)
        until = self._clock.now() + pause
        self.circuit = Circuit(Health.SLEEPING, detail, failure.advice, until, failure.transcript)
        self._note("account.asleep", f"{pause.total_seconds():g}s: {detail}")
        if not self._stopped:
            self._timer = self._clock.call_later(pause.total_seconds(), self.wake_up)
        return True

    def succeeded(self) -> None:
        """A transaction that no account's failure ended: the next failure is the first again."""
        if self._failures:
            self._failures = 0

    def _pause(self, failure: Deferred, connecting: bool) -> timedelta:
        if failure.retry_after is not None:
            return failure.retry_after
        if connecting and self._failures == 1:
            return self._account.connect_retry
        return self._sleep.delay(self._failures)

    def wake_up(self) -> None:
        """The sleep is over, or a person ended it."""
        self._stop_timer()
        if self.circuit.health is not _HEALTHY:
            self.circuit = Circuit()
            self._note("account.awake", "")
        self._woken()

    def stop(self) -> None:
        """Wake nobody any more."""
        self._stopped = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, kind: str, detail: str) -> None:
        noted = self._store.record(kind, account=self._account.name, detail=detail)
        noted.add_done_callback(lambda future: future.cancelled() or future.exception())
