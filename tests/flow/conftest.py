"""A queue in process: a real store, a clock that the test moves, and transports that answer as the test says."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.model.account import Account, AccountKind
from postroom.model.application import Application
from postroom.model.content import Content, StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Deferred, Delivered, Outcome
from postroom.model.queue import MessageId
from postroom.model.reply import Reply
from postroom.model.submission import Accepted, Door, Submission
from postroom.pending import Pending
from postroom.policy.retry import Schedule
from postroom.policy.routing import RoutingTable
from postroom.queue.admission import Admission
from postroom.queue.delivery import RetryRules
from postroom.queue.fallback import Directory
from postroom.queue.intake import Intake
from postroom.queue.outgoing import Outgoing
from postroom.queue.rules import LaneRules
from postroom.queue.scheduler import Scheduler
from postroom.store import DeliveryRow, EventFilter, Store
from postroom.store.database import open_store
from postroom.transports import STOP_PATIENCE, AccountUnavailable, Slot, Transaction

OK = Delivered(reply=Reply(250, ("ok",), "2.0.0", "DATA"), remote_host="relay.test")


class FakeClock:
    """A clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self._seconds = 0.0
        self._order = itertools.count()
        self._calls: list[tuple[float, int, _Call]] = []

    def now(self) -> datetime:
        """See `Clock`."""
        return self.time

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._seconds

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _Call:
        """See `Clock`."""
        call = _Call(callback)
        heapq.heappush(self._calls, (self._seconds + seconds, next(self._order), call))
        return call

    def advance(self, by: timedelta) -> None:
        """Move on, making the calls that come due."""
        end = self._seconds + by.total_seconds()
        while self._calls and self._calls[0][0] <= end:
            at, _, call = heapq.heappop(self._calls)
            self._move(at)
            call.make()
        self._move(end)

    def _move(self, to: float) -> None:
        self.time += timedelta(seconds=to - self._seconds)
        self._seconds = to

    @property
    def waiting(self) -> list[float]:
        """In how many seconds each call that was not cancelled comes."""
        return sorted(at - self._seconds for at, _, call in self._calls if not call.cancelled)


@dataclass
class _Call:
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def make(self) -> None:
        if not self.cancelled:
            self.callback()


Answer = Outcome | AccountUnavailable | Callable[[Transaction], Coroutine[None, None, Sequence[Outcome]]]


@dataclass
class ScriptedTransport:
    """Answers each transaction with the next answer, then with success; keeps what it was given."""

    answers: deque[Answer] = field(default_factory=deque)
    sent: list[Transaction] = field(default_factory=list)
    capacity: int = 12
    in_use: int = 0
    closed: bool = False
    limits: list[int | None] = field(default_factory=list)
    complain: Callable[[Deferred], None] = lambda failure: None
    _free: asyncio.Event = field(default_factory=asyncio.Event)

    async def reserve(self) -> Slot:
        """See `Transport`."""
        if self.answers and isinstance(self.answers[0], AccountUnavailable):
            failure = self.answers.popleft()
            assert isinstance(failure, AccountUnavailable)
            raise failure
        while self.in_use >= self.capacity:
            self._free.clear()
            await self._free.wait()
        self.in_use += 1
        return _ScriptedSlot(self)

    async def reserve_own(self) -> Slot:
        """See `Transport`."""
        return await self.reserve()

    def listen(self, complained: Callable[[Deferred], None]) -> None:
        """See `Transport`."""
        self.complain = complained

    def limit_connections(self, most: int | None) -> None:
        """See `Transport`."""
        self.limits.append(most)

    def withdraw(self) -> None:
        """See `Transport`; what it is given is sent at once."""

    async def close(self, patience: timedelta | None = STOP_PATIENCE) -> None:
        """See `Transport`."""
        self.closed = True

    def give_back(self) -> None:
        """A slot was settled or cancelled."""
        self.in_use -= 1
        self._free.set()


class _ScriptedSlot:
    def __init__(self, transport: ScriptedTransport) -> None:
        self._transport = transport

    def deliver(self, transaction: Transaction) -> Pending[Sequence[Outcome]]:
        told: Pending[Sequence[Outcome]] = Pending()
        self._transport.sent.append(transaction)
        if transaction.watch is not None and not (self._transport.answers and self._transport.answers[0] is not OK):
            transaction.watch.answered()
        answer = self._transport.answers.popleft() if self._transport.answers else OK
        if isinstance(answer, Outcome):
            told.set_result([answer] * len(transaction.envelope.recipients))
            return told
        assert not isinstance(answer, AccountUnavailable)
        self._task = asyncio.get_running_loop().create_task(answer(transaction))
        self._task.add_done_callback(lambda task: _tell(told, task))
        return told

    def settle(self) -> None:
        self._transport.give_back()

    def durable(self) -> None:
        """Nothing waits for it."""

    def cancel(self) -> None:
        self._transport.give_back()


def _tell(told: Pending[Sequence[Outcome]], task: asyncio.Task[Sequence[Outcome]]) -> None:
    error = task.exception()
    if error is not None:
        told.set_exception(error)
    else:
        told.set_result(task.result())


class Observed:
    """The store, with a bell that rings whenever something became durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bells: set[asyncio.Event] = set()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)

        def observed(*args: Any, **kwargs: Any) -> Any:
            result = verb(*args, **kwargs)
            if isinstance(result, asyncio.Future | Pending):
                result.add_done_callback(self._ring_soon)
            return result

        return observed if callable(verb) else verb

    def _ring_soon(self, _: object) -> None:
        asyncio.get_running_loop().call_soon(self._ring)

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until `condition` holds, looking again after each commit."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            while not await condition():
                await bell.wait()
                bell.clear()
        finally:
            self._bells.discard(bell)


def digest(data: bytes) -> bytes:
    """A hash as the keyring makes it."""
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass
class Room:
    """A mail room in process."""

    clock: FakeClock
    store: Any
    intake: Intake
    scheduler: Scheduler
    accounts: list[Account]
    transports: defaultdict[str, ScriptedTransport]
    applications: list[Application]
    admission: Admission
    noted: list[Callable[[], None]]  # called when something was noted for a report
    outgoing: dict[str, Outgoing]  # what an account does to its mail, by name
    directory: Directory
    rules: LaneRules

    @property
    def application(self) -> Application:
        """Who submits."""
        return self.applications[0]

    @application.setter
    def application(self, changed: Application) -> None:
        self.applications[0] = changed
        self.admission.follow()

    async def submit(self, *recipients: str, body: bytes | StagedBody = b"hello\r\n", **fields: Any) -> MessageId:
        """Take a message from a@x.test; its id once it is durable."""
        accepted: Accepted = await self.intake.submit(self.submission(*recipients, body=body, **fields))
        return accepted.id

    def submission(self, *recipients: str, body: bytes | StagedBody = b"hello\r\n", **fields: Any) -> Submission:
        """A message from a@x.test, not yet taken."""
        return Submission(
            door=Door.SMTP,
            application=fields.pop("application", self.application),
            envelope=fields.pop("envelope", None) or Envelope("a@x.test", recipients or ("b@y.test",)),
            content=Content(fields.pop("head", b"From: a@x.test\r\nSubject: hi\r\n\r\n"), body),
            received=self.clock.now(),
            peer="127.0.0.1",
            **fields,
        )

    async def rows(self, message_id: MessageId) -> tuple[DeliveryRow, ...]:
        """The deliveries of a message."""
        view = await self.store.message(message_id)
        return tuple(view.deliveries)

    async def states(self, message_id: MessageId) -> list[str]:
        """The states of a message's deliveries."""
        return [row.state.value for row in await self.rows(message_id)]

    async def until(self, message_id: MessageId, *states: str) -> tuple[DeliveryRow, ...]:
        """Wait until the message's deliveries are in `states`."""

        async def reached() -> bool:
            return await self.states(message_id) == list(states)

        await self.store.until(reached)
        return await self.rows(message_id)

    async def until_event(self, kind: str) -> str:
        """Wait for an event; its detail."""
        found: list[str] = []

        async def happened() -> bool:
            found[:] = [
                event.detail for event in (await self.store.events(EventFilter(kinds=(kind,), limit=1000))).events
            ]
            return bool(found)

        await self.store.until(happened)
        return found[-1]


def relay(number: int = 1, **fields: Any) -> Account:
    """An account; its transport is scripted."""
    return Account(id=number, name=f"relay{number}", kind=AccountKind.SMTP, host="relay.test", **fields)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """A room with one account, `relay1`, and an application that may do everything; delivering."""
    clock = FakeClock()
    store = Observed(await open_store(tmp_path / "postroom.db", None, clock.now))
    accounts = [relay()]
    transports: defaultdict[str, ScriptedTransport] = defaultdict(ScriptedTransport)
    noted: list[Callable[[], None]] = []
    outgoing: dict[str, Outgoing] = {}

    def ring() -> None:
        for call in noted:
            call()

    rules = LaneRules(
        lambda account: RetryRules(Schedule.parse("1m, 5m*2, 15m, 1h*4, 4h"), timedelta(days=2)),
        Schedule.parse("30s, 1m, 5m"),
        ring,
        lambda account: outgoing.get(account.name),
    )
    applications = [Application(id=1, name="erp", senders=("*",), urgent=True)]
    directory = Directory(
        lambda: RoutingTable(accounts), lambda number: {one.id: one for one in applications}.get(number)
    )
    scheduler = Scheduler(store, clock, rules, lambda account: transports[account.name], lambda: 0.5, directory)
    admission = Admission(scheduler.limiter, lambda: applications, lambda: accounts, digest)
    intake = Intake(store, clock, lambda: RoutingTable(accounts), scheduler.offer, "mx.test", admission=admission)
    await scheduler.start(accounts, paused=False, hold_pending=False)
    yield Room(
        clock,
        store,
        intake,
        scheduler,
        accounts,
        transports,
        applications,
        admission,
        noted,
        outgoing,
        directory,
        rules,
    )
    await scheduler.stop()
    await store.close()
