"""A lane: the order and the ready messages of one account (DESIGN section 5).

Messages reach a lane in two ways: handed over in memory at the moment they become durable, or loaded from the store
when they are due. Either way they are only candidates until the claim says that they may be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

import structlog

from ..crashing import reach
from ..errors import NotRunning
from ..model.account import Account, AccountKind, connects_alike
from ..model.circuit import Circuit, Health
from ..model.clock import Clock, Timer
from ..model.connection import share
from ..model.ids import message_id_text
from ..model.limits import WhenLimited
from ..model.outcome import Bounced, Deferred, Outcome, Scope
from ..model.queue import AttemptRecord, DeliveryState, DueMessage, FencingToken, LaneId
from ..pending import Pending
from ..policy.staging import StagingGuard
from ..store import Claim, QueueStore
from ..transports import Slot, Transport
from . import delivery
from .circuit import Breaker
from .delivery import Begun
from .limiter import AccountLimit, Limiter
from .loader import Loader
from .pump import Pump
from .ready import Ready
from .ready_by_domain import ReadyByDomain
from .ready_whole import ROOM_PATIENCE, ReadyWhole
from .ready_with_own import ReadyWithOwn
from .rules import LaneRules
from .successors import Successors

_log = structlog.get_logger()

#: How long a lane that stops waits for the outcomes of what its closed connections had under way.
STOP_SECONDS = 1.0

#: How long a lane waits when the store refuses a claim or an outcome.
STORE_PATIENCE = 1.0


#: Gives the store an outcome.
Verb = Callable[[], Pending[None]]


class Lane:
    """Sends what is due on one account, in order of class, then age."""

    def __init__(
        self,
        account: Account,
        *,
        store: QueueStore,
        clock: Clock,
        token: FencingToken,
        rules: LaneRules,
        make_transport: Callable[[Account], Transport],
        random: Callable[[], float],
        kept: Circuit | None = None,
        limiter: Limiter,
        successors: Successors,
        off_since: datetime | None = None,
    ) -> None:
        self.account = account
        self._store = store
        self._clock = clock
        self._token = token
        self._rules = rules
        self._make_transport = make_transport
        self._random = random
        self.transport = self._open_transport(account)
        self._outgoing = rules.outgoing(account)
        self._retry = rules.retry(account)
        self.delivered = self.bounced = 0  # since the start
        self._ready = self._make_ready()
        self._ready.follow(self._guard())
        self._loader = Loader(self._ready, store, clock, LaneId(account.id), self.wake)
        self.breaker = Breaker(account, store, clock, rules.sleep, lane=self, kept=kept)
        self._successors = successors
        self._off_since = None if account.enabled else off_since or clock.now()
        self._limiter = limiter
        self._limit = limiter.of(account, self.wake)
        self._timers: dict[str, Timer] = {}
        self._under_way = 0  # messages between claim and durable outcome
        self._all_ended: asyncio.Event | None = None
        self._closings: dict[asyncio.Future[None], Transport] = {}  # those of former definitions
        self._paused = False
        self._stopping = False
        self._retiring: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._pump = Pump(self, self._ready, lambda transport: transport.reserve(), f"lane {account.name}")
        self._own_pump: Pump | None = None  # of messages that bring a connection of their own, once there is one

    # What others tell the lane ------------------------------------------------------------------------------------

    def offer(self, message: DueMessage) -> None:
        """A message that has just become durable, with its content."""
        self._loader.offer(message)
        if not self.can_send:
            self._successors.look()
        self.wake()

    def look(self) -> None:
        """The store may hold more that is due: after a release, a retry, or when a time has come."""
        self._loader.look()
        self._successors.look()

    def forget(self) -> None:
        """What waits in memory may have moved to another account."""
        self._loader.discard()

    def clock_jumped(self) -> None:
        """When to look next was reckoned by another time of day."""
        self.breaker.clock_jumped()
        self._loader.forget_times()
        self.look()

    def change(self, account: Account) -> None:
        """The account was edited: the next transaction uses it, those under way end under the old definition."""
        before, self.account = self.account, account
        if account.enabled != before.enabled:
            self._off_since = None if account.enabled else self._clock.now()
        if account.revision != before.revision:
            if not connects_alike(account, before):
                self.renew()
            self.follow(self._rules)
        self.breaker.change(account)
        self._limit = self._limiter.of(account, self.wake)
        self._successors.look()
        self.wake()

    def follow(self, rules: LaneRules) -> None:
        """The settings were changed: what comes to an end, or fails, from now on goes by these."""
        self._rules = rules
        self.breaker.sleep = rules.sleep
        if self._guard() != self._ready.guard:
            self._ready.clear()
            self._ready.follow(self._guard())
            self.transport.withdraw()
            self._loader.look()
        self._outgoing = rules.outgoing(self.account)
        self._retry = rules.retry(self.account)

    def _make_ready(self) -> Ready:
        kind = self.account.kind
        if kind is AccountKind.DIRECT:
            return ReadyByDomain(lambda: self.account.max_connections)
        if kind is AccountKind.GRAPH:
            return ReadyWhole()
        return ReadyWithOwn(lambda: share(self.account.max_connections)) if kind is AccountKind.SMTP else Ready()

    def _guard(self) -> StagingGuard | None:
        """What keeps mail in; of a sandbox nothing leaves."""
        return None if self.account.kind is AccountKind.SANDBOX else self._rules.guard

    def renew(self) -> None:
        """What connections are made with has changed: the next transaction has a new one."""
        self._close_in_background(self.transport)
        self.transport = self._open_transport(self.account)
        self.breaker.limit_again()

    def beat(self, at: datetime | None) -> None:
        """Send what is due then, and no more until the next beat; None: everything as soon as it is due."""
        self._loader.beat(at)

    def pause(self, paused: bool) -> None:
        """The master switch: nothing is claimed while paused."""
        self._paused = paused
        self.wake()

    def cease(self) -> None:
        """Claim nothing more."""
        self._stopping = True

    def retire(self) -> None:
        """The account is gone: stop in the background."""
        self.cease()
        self._retiring = asyncio.create_task(self.stop())

    async def stop(self) -> None:
        """Claim nothing more, let what is being sent end, close the connections."""
        self._stopping = True
        for pump in self._pumps():
            pump.task.cancel()
        self._loader.stop()
        self.breaker.stop()
        for timer in self._timers.values():
            timer.cancel()
        await asyncio.gather(*(transport.close() for transport in (self.transport, *self._closings.values())))
        self._all_ended = asyncio.Event()
        if self._under_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._all_ended.wait()
        await asyncio.wait([*(pump.task for pump in self._pumps()), *self._closings], timeout=STOP_SECONDS)

    @property
    def may_send(self) -> bool:
        """Whether claims are allowed now."""
        return self.account.enabled and not self._paused and not self._stopping and self.breaker.may_send

    @property
    def can_send(self) -> bool:
        """Whether the account is on and its circuit lets it send."""
        return self.account.enabled and self.breaker.may_send

    @property
    def failing_since(self) -> datetime | None:
        """Since when the account sends nothing because it is off or failing; None: it is well, or not known to fail."""
        since = [at for at in (self._off_since, self.breaker.failing_since) if at is not None]
        return min(since, default=None)

    @property
    def is_limited(self) -> bool:
        """Whether a limit of the account is reached."""
        return self._limit is not None and self._limit.is_full

    @property
    def why_out(self) -> str:
        """Why the account sends nothing now, in words."""
        if not self.account.enabled:
            return "it is off"
        circuit = self.circuit
        if circuit.may_send and circuit.limit:
            return f"it has reached {circuit.limit}"
        return f"it {'sleeps' if circuit.health is Health.SLEEPING else 'needs attention'}: {circuit.reason}"

    # The pumps ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """See `Pumped.wake`."""
        if self.may_send:
            if self._loader.is_due:
                self._loader.load()
            ready = self._ready
            if ready.may_go:
                self._pump.work.set()
            if ready.own is not None and ready.own.count and ready.own.may_go:
                self._work_on_own(ready.own)

    def _work_on_own(self, own: Ready) -> None:
        if self._own_pump is None:
            name = f"lane {self.account.name}, own connections"
            self._own_pump = Pump(self, own, lambda transport: transport.reserve_own(), name)
        self._own_pump.work.set()

    def _pumps(self) -> list[Pump]:
        return [self._pump] if self._own_pump is None else [self._pump, self._own_pump]

    def _work_again(self) -> None:
        for pump in self._pumps():
            pump.work.set()

    @property
    def pause_seconds(self) -> float:
        """See `Pumped.pause_seconds`."""
        return self.breaker.wait()

    def wait(self, seconds: float) -> None:
        """See `Pumped.wait`."""
        self._later("pause", seconds, self._work_again)

    def room(self) -> int:
        """See `Pumped.room`."""
        most = self._ready.most(self.account)
        return most if self._limit is None else self._ready.fitted(min(most, self._limit.room()), self._limit.ever)

    def wait_for_room(self) -> None:
        """See `Pumped.wait_for_room`."""
        if self.account.when_limited is WhenLimited.OVERFLOW:
            self._successors.look()
        seconds = self._limit.wait_seconds() if self._limit is not None else 0.0
        if not seconds and self._limit is not None and self._limit.room():
            seconds = ROOM_PATIENCE  # there is some, and the next message needs more
        timer = self._timers.pop("limit", None)
        if timer is not None:
            timer.cancel()
        if seconds is not None:  # else the end of a send wakes the lane
            self._later("limit", seconds, self._work_again)

    @property
    def limit(self) -> AccountLimit | None:
        """The limits of the account, where it has any."""
        return self._limit

    # One message --------------------------------------------------------------------------------------------------

    # Callbacks rather than a task: between a relay's reply and its commit, and between a commit and the next content,
    # no turn of the loop passes.

    def send(self, slot: Slot, message: DueMessage) -> None:
        """See `Pumped.send`."""
        claim = Claim(message.id, tuple([d.n for d in message.deliveries]), message.lane, self._token)
        self._under_way += 1
        if self.breaker.pause:
            self.breaker.sent()
        begun = Begun(slot, message, claim, self.account.name, self._clock.now(), self._ready.guard)
        if self._outgoing is not None and not begun.redirected_to:
            begun.altered = self._outgoing.alter(message, begun.started)  # while the claim is on its way
        if self._limit is not None:
            begun.send = self._limit.reserve(begun.recipients)
        self._store.claim(claim).add_done_callback(partial(self._claimed, begun))

    def _claimed(self, begun: Begun, claimed: Pending[tuple[int, ...]]) -> None:
        numbers = () if claimed.exception() is not None else claimed.result()
        if len(numbers) != len(begun.claim.recipients):
            # Cancelled or held in the meantime: the claim wins. Or the store could not take it.
            begun.keep_only(numbers)
            if not numbers:
                begun.slot.cancel()
                begun.usage()
                self._ended(begun)
                if claimed.exception() is not None:
                    self._later("store", STORE_PATIENCE, self.look)
                return
        reach("D1")
        if begun.redirected_to:  # only now is known for whom
            begun.altered = begun.redirect(self._outgoing)
        if begun.altered is None:
            self._deliver(begun, begun.message)
        else:
            begun.altered.add_done_callback(partial(self._altered, begun))

    def _altered(self, begun: Begun, altered: Pending[DueMessage]) -> None:
        error = altered.exception()
        if error is None:
            self._deliver(begun, dataclasses.replace(altered.result(), deliveries=begun.message.deliveries))
            return
        _log.error("not_signed", account=begun.account, message=message_id_text(begun.message.id), exc_info=error)
        self._answered(begun, delivery.answered_at_once(delivery.could_not_be_made(begun, error)))

    def _deliver(self, begun: Begun, message: DueMessage) -> None:
        if begun.guard != self._ready.guard:
            self._answered(begun, delivery.answered_at_once(delivery.was_changed(begun)))
            return
        try:
            leaving = delivery.transaction(message, begun, lambda: begun.guard == self._ready.guard)
            sending = begun.slot.deliver(leaving)
        except Exception as error:
            self._fault(begun, error)
        else:
            sending.add_done_callback(partial(self._answered, begun))

    def _fault(self, begun: Begun, error: BaseException) -> None:
        """A fault of ours: what was written is not known, so the claim stays, and the next start marks it."""
        message = message_id_text(begun.message.id)
        _log.error("delivery_failed", account=begun.account, message=message, exc_info=error)
        if begun.send is not None:
            begun.send.was_begun()
            begun.usage()
        begun.slot.settle()
        begun.slot.durable()
        self._ended(begun)

    def _answered(self, begun: Begun, answered: Pending[Sequence[Outcome]]) -> None:
        error = answered.exception()
        if error is not None:
            self._fault(begun, error)
            return
        outcomes, now = begun.for_each(answered.result()), self._clock.now()
        failed, failure, said, then = False, None, "", None
        usage = begun.usage()
        if not delivery.all_succeeded(outcomes):
            failed = True
            unsent = delivery.not_sent(outcomes)
            if unsent:
                rest = begun.split(unsent, usage if len(unsent) == len(outcomes) else ())
                then = partial(self._store.unclaim, rest)
                if len(unsent) == len(outcomes):
                    begun.slot.settle()
                    self._keep(begun, then, [now])
                    return
                outcomes = [outcome for n, outcome in enumerate(outcomes) if n not in unsent]
            failure, said = delivery.account_failure(outcomes), delivery.transcript(outcomes)
        reach("D5")
        claim = begun.claim
        is_own = begun.message.connection is not None  # whatever comes of it says nothing of the account or its relay
        handed_over = self._handed_over(begun, outcomes)
        together = bool(begun.redirected_to) or self._ready.is_whole  # those who share a copy are tried together again
        chance = self._random() if together else 0.0
        random = (lambda: chance) if together else self._random
        results = delivery.results(begun.message, outcomes, self._retry, now, random, handed_over)
        if failed:
            self.bounced += sum([result.state is DeliveryState.BOUNCED for result in results])
            self.delivered += sum([result.state is DeliveryState.DELIVERED for result in results])
            if self._rules.suppress_for is not None and not begun.redirected_to and not is_own:
                results = delivery.with_suppressions(begun.message, outcomes, results, self._rules.suppress_for, now)
        else:
            self.delivered += len(results)
        record = AttemptRecord(
            claim.message_id, claim.lane, claim.token, begun.account, begun.started, now, outcomes[0].remote_host,
            results, said, usage, begun.redirected_to, is_own,
        )  # fmt: skip
        begun.is_noted = any(result.notice for result in results)
        begun.slot.settle()
        if failure is not None:
            self.fail(failure, connecting=False)
        elif not is_own and (not failed or delivery.was_answered(outcomes)) and self.breaker.succeeded():
            self._successors.look()
        self._keep(begun, partial(self._store.complete, record), [r.due for r in results if r.due is not None], then)
        if handed_over:
            self._successors.take(self.account, begun.claim, handed_over)

    def _handed_over(self, begun: Begun, outcomes: Sequence[Outcome]) -> dict[int, Account]:
        """Who takes each delivery whose sender this account refuses for good, by recipient number."""
        found: dict[int, Account] = {}
        for one, outcome in zip(begun.message.deliveries, outcomes, strict=True):
            if isinstance(outcome, Bounced) and outcome.scope is Scope.SENDER and not (one.unknowns or one.twice):
                account = self._successors.refused(self.account, begun.message, one)
                if account is not None:
                    found[one.n] = account
        return found

    def _keep(self, begun: Begun, verb: Verb, due: Sequence[datetime], then: Verb | None = None) -> None:
        """Store an outcome, again and again until the store takes it: what the relay said must not be forgotten."""
        verb().add_done_callback(partial(self._kept, begun, verb, due, then))

    def _kept(
        self, begun: Begun, verb: Verb, due: Sequence[datetime], then: Verb | None, stored: Pending[None]
    ) -> None:
        if isinstance(stored.exception(), NotRunning):
            return  # the store is closed: the next start finds the claim and marks it
        if stored.exception() is not None:
            self._clock.call_later(STORE_PATIENCE, lambda: self._keep(begun, verb, due, then))
            return
        if then is not None:
            self._keep(begun, then, [*due, self._clock.now()])
            return
        reach("D6")
        begun.slot.durable()
        self._ended(begun)
        if begun.is_noted:
            self._rules.noted()
        if due:
            self._loader.look_at(min(due))
            if not self.can_send:  # what it could not take waits from now on
                self._successors.look()

    def _ended(self, begun: Begun) -> None:
        if self._ready.leave(begun.taken):
            self.wake()
        self._under_way -= 1
        if self.may_send and self._loader.is_due:
            self._loader.load()
        if not self._under_way and self._all_ended is not None:
            self._all_ended.set()

    # The account --------------------------------------------------------------------------------------------------

    @property
    def circuit(self) -> Circuit:
        """How the account is, and which of its limits is reached."""
        circuit = self.breaker.circuit
        return circuit if self._limit is None else self._limit.shown_in(circuit, self._clock.now())

    def _open_transport(self, account: Account) -> Transport:
        transport = self._make_transport(account)
        transport.listen(lambda failure: self.breaker.complained(failure))
        return transport

    def limit_connections(self, most: int | None) -> None:
        """The account is slowed (None: no more)."""
        self.transport.limit_connections(most)

    def circuit_changed(self) -> None:
        """The account is in another state."""
        self._rules.circuit_changed()

    def fail(self, failure: Deferred, *, connecting: bool) -> None:
        """See `Pumped.fail`; no message is to blame."""
        if self.breaker.failed(failure, connecting=connecting):
            self._loader.forget()
            self._successors.look()

    def _later(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        if name not in self._timers and not self._stopping:

            def fire() -> None:
                self._timers.pop(name, None)
                callback()

            self._timers[name] = self._clock.call_later(seconds, fire)

    def _close_in_background(self, transport: Transport) -> None:
        closing: Awaitable[None] = transport.close(patience=None)
        task = asyncio.ensure_future(closing)
        self._closings[task] = transport
        task.add_done_callback(self._closings.pop)
