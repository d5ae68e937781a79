"""A lane: the order and the ready messages of one account (DESIGN section 5).

Messages reach a lane in two ways: handed over in memory at the moment they become durable, or loaded from the store
when they are due. Either way they are only candidates until the claim says that they may be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

import structlog

from ..crashing import reach
from ..errors import NotRunning
from ..model.account import Account
from ..model.circuit import Circuit
from ..model.clock import Clock, Timer
from ..model.ids import message_id_text
from ..model.outcome import Deferred, Outcome
from ..model.queue import AttemptRecord, DueMessage, FencingToken, LaneId, MessageId, PriorityClass
from ..pending import Pending
from ..store import Claim, QueueStore
from ..transports import AccountUnavailable, Slot, Transport, TransportClosed
from . import delivery
from .circuit import Breaker
from .delivery import Begun
from .rules import LaneRules

_log = structlog.get_logger()

#: What a lane keeps in memory of messages that wait for a slot; the rest stays in the store until there is room.
READY_BYTES = 16 * 1024 * 1024
READY_MESSAGES = 2000

#: Deliveries loaded from the store at a time, and the ready messages below which more are loaded.
LOAD_LIMIT = 200
LOAD_BELOW = 50

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
    ) -> None:
        self.account = account
        self._store = store
        self._clock = clock
        self._token = token
        self._rules = rules
        self._make_transport = make_transport
        self._random = random
        self._transport = self._open_transport(account)
        self._outgoing = rules.outgoing(account)
        self._ready: dict[PriorityClass, deque[DueMessage]] = {priority: deque() for priority in PriorityClass}
        self._ready_count = 0
        self._ready_bytes = 0
        self._in_hand: set[MessageId] = set()
        self._left_while_loading: set[MessageId] | None = None
        self._cold = set(PriorityClass)  # classes of which the store may hold due deliveries that are not in memory
        self._loading: asyncio.Task[None] | None = None
        self._arrived: list[DueMessage] = []  # offered while older ones are read from the store
        self._look_again = False
        self.breaker = Breaker(account, store, clock, rules.sleep, lane=self, kept=kept)
        self._timers: dict[str, Timer] = {}
        self._work = asyncio.Event()
        self._under_way = 0  # messages between claim and durable outcome
        self._all_ended: asyncio.Event | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._paused = False
        self._beat: datetime | None = None  # with a batch interval: what is due later waits for the next one
        self._stopping = False
        self._retiring: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._pump = self._loop.create_task(self._run(), name=f"lane {account.name}")

    # What others tell the lane ------------------------------------------------------------------------------------

    def offer(self, message: DueMessage) -> None:
        """A message that has just become durable, with its content."""
        if self._beat is not None:
            return  # the next beat finds it in the store
        rooms = 2 if message.priority is PriorityClass.URGENT else 1  # a backlog leaves room for what is urgent
        is_full = self._ready_count >= READY_MESSAGES * rooms or self._ready_bytes >= READY_BYTES * rooms
        if message.priority in self._cold or is_full:
            self._cold.add(message.priority)  # first come, first served: what is in the store goes before it
        elif self._loading is not None:
            self._arrived.append(message)
        elif message.id not in self._in_hand:
            self._admit(message)
        self._wake()

    def look(self) -> None:
        """The store may hold more that is due: after a release, a retry, or when a time has come."""
        self._cold = set(PriorityClass)
        self._look_again = self._loading is not None
        self._wake()

    def clock_jumped(self) -> None:
        """When to look next was reckoned by another time of day."""
        self.breaker.clock_jumped()
        timer = self._timers.pop("due", None)
        if timer is not None:
            timer.cancel()
        self.look()

    def change(self, account: Account) -> None:
        """The account was edited: the next transaction uses it, those under way end under the old definition."""
        is_edited = account.revision != self.account.revision
        self.account = account
        if is_edited:
            self.renew()
            self._outgoing = self._rules.outgoing(account)
        self.breaker.change(account)
        self._wake()

    def follow(self, rules: LaneRules) -> None:
        """The settings were changed: what comes to an end, or fails, from now on goes by these."""
        self._rules = rules
        self.breaker.sleep = rules.sleep
        self._outgoing = rules.outgoing(self.account)

    def renew(self) -> None:
        """What connections are made with has changed: the next transaction has a new one."""
        self._close_in_background(self._transport)
        self._transport = self._open_transport(self.account)
        self.breaker.limit_again()

    def beat(self, at: datetime | None) -> None:
        """Send what is due then, and no more until the next beat; None: everything as soon as it is due."""
        self._beat = at
        self.look()

    def pause(self, paused: bool) -> None:
        """The master switch: nothing is claimed while paused."""
        self._paused = paused
        self._wake()

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
        self._pump.cancel()
        if self._loading is not None:
            self._loading.cancel()
        self.breaker.stop()
        for timer in self._timers.values():
            timer.cancel()
        await self._transport.close()
        self._all_ended = asyncio.Event()
        if self._under_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._all_ended.wait()
        await asyncio.wait([self._pump, *self._closings], timeout=STOP_SECONDS)

    @property
    def may_send(self) -> bool:
        """Whether claims are allowed now."""
        return self.account.enabled and not self._paused and not self._stopping and self.breaker.may_send

    # The pump -----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self.may_send:
            if self._should_load():
                self._load()
            if self._ready_count:
                self._work.set()

    def _should_load(self) -> bool:
        """Little is ready, or the store may hold what goes before everything that is."""
        if not self._cold:
            return False
        if self._ready_count < LOAD_BELOW:
            return True
        return min(self._cold) < min(priority for priority, queue in self._ready.items() if queue)

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            if not (self._ready_count and self.may_send):
                self._work.clear()
                self._wake()
                continue
            if (wait := self.breaker.wait()) > 0:
                self._work.clear()
                self._later("pause", wait, self._work.set)
                continue
            try:
                slot = await self._transport.reserve()
            except AccountUnavailable as unavailable:
                self._fail(unavailable.failure, connecting=True)
                continue
            except TransportClosed:  # the account was edited; the next transport is there already
                continue
            message = self._next() if self.may_send else None
            if message is None:
                slot.cancel()
                continue
            self._send(slot, message)

    def _next(self) -> DueMessage | None:
        """The first ready message: urgent before normal before bulk; at most what one transaction may carry."""
        for queue in self._ready.values():
            if queue:
                message = queue.popleft()
                limit = self.account.recipients_per_transaction
                if len(message.deliveries) > limit:
                    queue.appendleft(dataclasses.replace(message, deliveries=message.deliveries[limit:]))
                    return dataclasses.replace(message, deliveries=message.deliveries[:limit])
                self._ready_count -= 1
                self._ready_bytes -= _weight(message)
                return message
        return None

    def _admit(self, message: DueMessage, *, first: bool = False) -> None:
        queue = self._ready[message.priority]
        if first:
            queue.appendleft(message)
        else:
            queue.append(message)
        self._in_hand.add(message.id)
        self._ready_count += 1
        self._ready_bytes += _weight(message)

    def _leave(self, message: DueMessage) -> None:
        self._in_hand.discard(message.id)
        if self._left_while_loading is not None:
            self._left_while_loading.add(message.id)
        if self._cold and self.may_send and self._should_load():
            self._load()

    # One message --------------------------------------------------------------------------------------------------

    # Callbacks rather than a task: between a relay's reply and its commit, and between a commit and the next content,
    # no turn of the loop passes.

    def _send(self, slot: Slot, message: DueMessage) -> None:
        claim = Claim(message.id, tuple([d.n for d in message.deliveries]), message.lane, self._token)
        self._under_way += 1
        if self.breaker.pause:
            self.breaker.sent()
        begun = Begun(slot, message, claim, self.account.name, self._clock.now())
        if self._outgoing is not None:
            begun.altered = self._outgoing.alter(message, begun.started)  # while the claim is on its way
        self._store.claim(claim).add_done_callback(partial(self._claimed, begun))

    def _claimed(self, begun: Begun, claimed: Pending[tuple[int, ...]]) -> None:
        numbers = () if claimed.exception() is not None else claimed.result()
        if len(numbers) != len(begun.claim.recipients):
            # Cancelled or held in the meantime: the claim wins. Or the store could not take it.
            begun.keep_only(numbers)
            if not numbers:
                begun.slot.cancel()
                self._ended(begun)
                if claimed.exception() is not None:
                    self._later("store", STORE_PATIENCE, self.look)
                return
        reach("D1")
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
        answered: Pending[Sequence[Outcome]] = Pending()
        answered.set_result(delivery.could_not_be_made(begun.message, error))
        self._answered(begun, answered)

    def _deliver(self, begun: Begun, message: DueMessage) -> None:
        try:
            sending = begun.slot.deliver(delivery.transaction(message))
        except Exception as error:
            self._fault(begun, error)
        else:
            sending.add_done_callback(partial(self._answered, begun))

    def _fault(self, begun: Begun, error: BaseException) -> None:
        """A fault of ours: what was written is not known, so the claim stays, and the next start marks it."""
        message = message_id_text(begun.message.id)
        _log.error("delivery_failed", account=begun.account, message=message, exc_info=error)
        begun.slot.settle()
        begun.slot.durable()
        self._ended(begun)

    def _answered(self, begun: Begun, answered: Pending[Sequence[Outcome]]) -> None:
        error = answered.exception()
        if error is not None:
            self._fault(begun, error)
            return
        outcomes, now = answered.result(), self._clock.now()
        failure, said, then = None, "", None
        if not delivery.all_succeeded(outcomes):
            unsent = delivery.not_sent(outcomes)
            if unsent:
                rest = begun.split(unsent)
                then = partial(self._store.unclaim, rest)
                if len(unsent) == len(outcomes):
                    begun.slot.settle()
                    self._keep(begun, then, [now])
                    return
                outcomes = [outcome for n, outcome in enumerate(outcomes) if n not in unsent]
            failure, said = delivery.account_failure(outcomes), delivery.transcript(outcomes)
        reach("D5")
        claim = begun.claim
        results = delivery.results(begun.message, outcomes, self._rules.retry, now, self._random)
        record = AttemptRecord(
            claim.message_id, claim.lane, claim.token, begun.account, begun.started, now, outcomes[0].remote_host,
            results, said,
        )  # fmt: skip
        begun.is_noted = any(result.notice for result in results)
        begun.slot.settle()
        if failure is not None:
            self._fail(failure, connecting=False)
        else:
            self.breaker.succeeded()
        self._keep(begun, partial(self._store.complete, record), [r.due for r in results if r.due is not None], then)

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
            self._look_at(min(due))

    def _ended(self, begun: Begun) -> None:
        self._leave(begun.message)
        self._under_way -= 1
        if not self._under_way and self._all_ended is not None:
            self._all_ended.set()

    # The account --------------------------------------------------------------------------------------------------

    def _open_transport(self, account: Account) -> Transport:
        transport = self._make_transport(account)
        transport.listen(lambda failure: self.breaker.complained(failure))
        return transport

    def limit_connections(self, most: int | None) -> None:
        """The account is slowed (None: no more)."""
        self._transport.limit_connections(most)

    def _fail(self, failure: Deferred, *, connecting: bool) -> None:
        """The account failed; no message is to blame."""
        if self.breaker.failed(failure, connecting=connecting):
            self._cold = set(PriorityClass)

    # Loading ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        if self._loading is None and not self._stopping:
            self._loading = asyncio.create_task(self._load_due())
            self._loading.add_done_callback(self._loaded)

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        self._left_while_loading = None
        arrived, self._arrived = self._arrived, []
        for message in arrived:
            self.offer(message)
        if not task.cancelled() and task.exception() is not None:
            self._cold = set(PriorityClass)
            self._later("store", STORE_PATIENCE, self.look)
            return
        if self._ready_count:
            self._work.set()
        if self._look_again:
            self._look_again = False
            self.look()

    async def _load_due(self) -> None:
        self._cold = set()
        self._left_while_loading = set()
        lane, beat = LaneId(self.account.id), self._beat
        now = beat or self._clock.now()
        messages = await self._store.due(lane, now, LOAD_LIMIT)
        fresh = 0
        for message in messages:
            # A message that left while the store was read may stand there as it was before.
            if message.id not in self._in_hand and message.id not in self._left_while_loading:
                self._admit(message)
                fresh += 1
        read = list(PriorityClass)
        if sum(len(message.deliveries) for message in messages) >= LOAD_LIMIT:
            # They came in order of class: what is more urgent than the last has all been read.
            read = [priority for priority in PriorityClass if priority < messages[-1].priority]
            self._cold.update(priority for priority in PriorityClass if priority not in read)
        elif fresh < len(messages):
            self._cold = set(PriorityClass)  # read again once what is in hand has left
        if beat is not None:
            return  # the next beat looks again
        due = await self._store.next_due(lane, read, now)
        if due is not None:
            self._look_at(due)

    def _look_at(self, due: datetime) -> None:
        """Look into the store at `due`, unless an earlier look is planned."""
        if self._beat is not None and due > self._beat:
            return
        seconds = (due - self._clock.now()).total_seconds()
        if seconds <= 0:
            self.look()
            return
        timer = self._timers.get("due")
        if timer is not None and self._next_look <= due:
            return
        if timer is not None:
            timer.cancel()
            del self._timers["due"]
        self._next_look = due
        self._later("due", seconds, self.look)

    _next_look: datetime

    def _later(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        if name not in self._timers and not self._stopping:

            def fire() -> None:
                self._timers.pop(name, None)
                callback()

            self._timers[name] = self._clock.call_later(seconds, fire)

    def _close_in_background(self, transport: Transport) -> None:
        closing: Awaitable[None] = transport.close()
        task = asyncio.ensure_future(closing)
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)


def _weight(message: DueMessage) -> int:
    body = message.content.body
    return len(message.content.head) + (len(body) if isinstance(body, bytes) else 0)
