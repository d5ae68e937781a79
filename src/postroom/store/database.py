"""The store on SQLite or PostgreSQL: the verbs of `Store`, each handed to the module of its group."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from ..errors import Fault, InvalidInput
from ..model.circuit import Circuit
from ..model.content import ContentId, StagedBody
from ..model.notice import NoticedMessage
from ..model.queue import (
    Aside,
    AttemptRecord,
    DeliveryState,
    FencingToken,
    LaneId,
    MessageId,
    NewMessage,
    PriorityClass,
)
from ..model.suppression import SuppressionStore
from ..model.token import TokenStore
from ..model.usage import Usage
from ..pending import Pending
from ..policy.standstill import Standstill
from . import (
    NOTHING_IN_HAND,
    Claim,
    DeliveryFilter,
    DeliveryRow,
    Diversion,
    Due,
    EventFilter,
    EventPage,
    InHand,
    LaneEnds,
    MessageView,
    Place,
    Selection,
    Silence,
    WaitingDelivery,
    circuits,
    clock_jumps,
    diverting,
    event_list,
    expiry,
    hot,
    lists,
    notices,
    repetitions,
    selections,
    sqlite,
    sqlite_connection,
    usage,
    views,
    waiting,
)
from .batch import Kind
from .definition_verbs import DefinitionVerbs
from .driver import WritingConnection
from .keyring import Keyring
from .migrations import migrate
from .readers import Readers
from .removal import Removal
from .schema import micros
from .search_index import SearchIndex
from .selections import Move
from .suppressions import SuppressionTable
from .tokens import TokenTable
from .writer import Group, Writer

T = TypeVar("T")

_GROUPS: dict[Kind, Group] = {
    Kind.STAGE: hot.stage,
    Kind.ENQUEUE: hot.enqueue,
    Kind.COMPLETE: hot.complete,
    Kind.UNCLAIM: hot.unclaim,
    Kind.CLAIM: hot.claim,
    Kind.EVENT: hot.record,
}


async def open_store(
    database: str | Path,
    keyring: Keyring | None,
    clock_now: Callable[[], datetime],
    *,
    on_broken: Callable[[BaseException], None] | None = None,
    durable: bool = True,
) -> Database:
    """The store in the SQLite file `database`, or in the PostgreSQL database of that URL, made and migrated as needed,
    for this process alone.

    `on_broken` is called once on the loop when the store fails for good (a failed fsync, a corrupt file, a database
    that another gateway has taken): the process must leave. `durable=False` leaves out every fsync and is for measuring
    their cost only.

    Raises:
        InvalidInput: a kind of database that this version does not have.
        StateConflict: another process has it open.
        StorageFailed: not a database of ours, or it cannot be used.
    """
    name = str(database)
    loop = asyncio.get_running_loop()
    on_restored: list[Callable[[], None]] = []
    held: IO[str] | None = None
    if name.startswith(("postgresql://", "postgres://")):
        tell = partial(_tell, loop, on_restored)
        raw, readers = await loop.run_in_executor(None, _open_postgresql, name, tell, durable)
    elif "://" in name and not name.startswith("sqlite:///"):
        kinds = "give the path of a file, or postgresql://..."
        raise InvalidInput(Fault("database", f"{name.split(':')[0]} is not supported", kinds))
    else:
        file = Path(name.removeprefix("sqlite:///"))
        held = sqlite.lock(file)
        try:
            raw, readers = await loop.run_in_executor(None, _open_sqlite, file, durable)
        except BaseException:
            held.close()
            raise
    writer = Writer(raw, _GROUPS, on_broken)
    writer.start()
    return Database(writer, readers, keyring, clock_now, held, on_restored)


def _tell(loop: asyncio.AbstractEventLoop, listeners: Sequence[Callable[[], None]]) -> None:
    """In the writer's thread: the listeners are called on the loop."""
    with contextlib.suppress(RuntimeError):  # it is closed
        for listener in listeners:
            loop.call_soon_threadsafe(listener)


def _open_sqlite(file: Path, durable: bool) -> tuple[WritingConnection, Readers]:
    raw = sqlite_connection.connect_writer(file, durable=durable)
    try:
        migrate(raw)
        raw.execute(selections.PICKED.format(bytes="BLOB", end="WITHOUT ROWID"))
        return raw, Readers(partial(sqlite_connection.open_reader, file))
    except sqlite3.Error as error:
        raw.close()
        raise sqlite.unopened(file, error) from error
    except BaseException:
        raw.close()
        raise


def _open_postgresql(url: str, tell: Callable[[], None], durable: bool) -> tuple[WritingConnection, Readers]:
    from . import postgresql  # psycopg costs memory where nobody needs it

    picked = selections.PICKED.format(bytes="BYTEA", end="ON COMMIT DELETE ROWS")
    raw = postgresql.connect_writer(url, picked, tell, durable=durable)
    try:
        migrate(raw)
        return raw, Readers(partial(postgresql.ReadingConnection, url))
    except BaseException:
        raw.close()
        raise


class Database(DefinitionVerbs):
    """A `Store`: writes by one thread with group commit, reads by a few others. Made by `open_store`."""

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        keyring: Keyring | None,
        clock_now: Callable[[], datetime],
        held: IO[str] | None,
        on_restored: list[Callable[[], None]],
    ) -> None:
        alone = partial(writer.submit, Kind.ALONE)
        super().__init__(readers.read, alone, keyring, clock_now)
        self.on_restored = on_restored
        self._writer = writer
        self._readers = readers
        self._held = held
        self._submit = writer.submit
        self._submit_hot = writer.submit_hot
        self._removal = Removal(readers.read, alone)
        self._search_index = SearchIndex(readers.read, alone)
        self.suppressions: SuppressionStore = SuppressionTable(readers.read, alone, clock_now)
        self.tokens: TokenStore = TokenTable(readers.read, alone, keyring)

    @property
    def commits(self) -> int:
        """How many group commits were made."""
        return self._writer.commits

    @property
    def broken(self) -> BaseException | None:
        """What made the store unusable; whether the last commit before it was kept is not known."""
        return self._writer.broken

    async def close(self) -> None:
        """See `Store.close`; safe to call twice."""
        await self._readers.close()
        await self._writer.close()
        if self._held is not None:
            self._held.close()

    # --- QueueStore: hot verbs ---

    def stage(self, content_id: ContentId, index: int, chunk: bytes) -> asyncio.Future[None]:
        """See `QueueStore.stage`."""
        staged = hot.StagedChunk(content_id, index, chunk, micros(self._now()))
        return self._submit(Kind.STAGE, staged, content_id, len(chunk))

    def enqueue(self, message: NewMessage) -> Pending[Aside]:
        """See `QueueStore.enqueue`."""
        content = message.content
        return self._submit_hot(Kind.ENQUEUE, message, message.id, content.size_bytes)

    def claim(self, claim: Claim) -> Pending[tuple[int, ...]]:
        """See `QueueStore.claim`."""
        return self._submit_hot(Kind.CLAIM, claim, claim.message_id)

    def unclaim(self, claim: Claim) -> Pending[None]:
        """See `QueueStore.unclaim`."""
        return self._submit_hot(Kind.UNCLAIM, claim, claim.message_id)

    def complete(self, attempt: AttemptRecord) -> Pending[None]:
        """See `QueueStore.complete`."""
        return self._submit_hot(Kind.COMPLETE, attempt, attempt.message_id)

    # --- QueueStore: moves ---

    def recover(self, now: datetime) -> asyncio.Future[tuple[FencingToken, int]]:
        """See `QueueStore.recover`."""
        return self._submit(Kind.ALONE, selections.recover(now))

    async def usage(self) -> Sequence[Usage]:
        """See `QueueStore.usage`."""
        return await self._readers.read(usage.read_usage)

    def count(self, rows: Sequence[Usage]) -> asyncio.Future[None]:
        """See `QueueStore.count`."""
        return self._submit(Kind.ALONE, usage.count(rows))

    async def repeats(self, application_id: int, most: int, now: int) -> bool:
        """See `QueueStore.repeats`."""
        return await self._readers.read(lambda reader: repetitions.repeats(reader, application_id, most, now))

    def forget_usage(self, before: int) -> asyncio.Future[int]:
        """See `QueueStore.forget_usage`."""

        async def find_and_forget() -> int:
            if not await self._readers.read(lambda reader: usage.any_worthless(reader, before)):
                return 0
            forgotten: int = await self._submit(Kind.ALONE, usage.forget(before))
            return forgotten

        return asyncio.ensure_future(find_and_forget())

    def hold(self, selection: Selection, now: datetime, why: str = "") -> asyncio.Future[int]:
        """See `QueueStore.hold`."""
        return self._move(selections.HOLD, selection, now, why)

    def release(self, selection: Selection, now: datetime) -> asyncio.Future[int]:
        """See `QueueStore.release`."""
        return self._move(selections.RELEASE, selection, now)

    def retry(self, selection: Selection, now: datetime) -> asyncio.Future[int]:
        """See `QueueStore.retry`."""
        return self._move(selections.RETRY, selection, now)

    def cancel(self, selection: Selection, now: datetime) -> asyncio.Future[int]:
        """See `QueueStore.cancel`."""
        return self._move(selections.CANCEL, selection, now)

    def _move(self, move: Move, selection: Selection, now: datetime, why: str = "") -> asyncio.Future[int]:
        work = selections.step(move, selection, now, why)
        # The first step is handed over now, so that the verb takes effect at its place among other calls.
        first = self._submit(Kind.ALONE, work)

        async def steps() -> int:
            moved: int = await first
            total = moved
            while moved == selections.STEP:
                moved = await self._submit(Kind.ALONE, work)
                total += moved
            return total

        return asyncio.ensure_future(steps())

    def expire(self, ends: Sequence[LaneEnds], now: datetime) -> asyncio.Future[int]:
        """See `QueueStore.expire`."""

        async def find_and_end() -> int:
            rows = await self._readers.read(lambda reader: expiry.overdue(reader, ends, now))
            if not rows:
                return 0
            ended: int = await self._submit(Kind.ALONE, expiry.expire(rows, now))
            return ended

        return asyncio.ensure_future(find_and_end())

    def reap(self, ended_before: datetime, staged_before: datetime) -> asyncio.Future[int]:
        """See `QueueStore.reap`."""
        return asyncio.ensure_future(self._removal.reap(ended_before, staged_before))

    def reap_content(self, ended_before: datetime) -> asyncio.Future[int]:
        """See `QueueStore.reap_content`."""
        return asyncio.ensure_future(self._removal.reap_content(ended_before))

    def shrink(self) -> asyncio.Future[bool]:
        """See `QueueStore.shrink`."""
        return asyncio.ensure_future(self._removal.shrink())

    def index(self, with_subjects: bool) -> asyncio.Future[bool]:
        """See `QueueStore.index`."""
        return asyncio.ensure_future(self._search_index.advance(with_subjects))

    async def noticed(self, noted_before: datetime) -> Sequence[NoticedMessage]:
        """See `QueueStore.noticed`."""
        return await self._readers.read(lambda reader: notices.gathered(reader, noted_before))

    def report(
        self, noticed: NoticedMessage, message: NewMessage | None, kind: str = "", detail: str = ""
    ) -> asyncio.Future[bool]:
        """See `QueueStore.report`."""
        size = message.content.size_bytes if message is not None else 0
        return self._submit(Kind.ALONE, notices.report(noticed, message, kind, detail, self._now()), size_bytes=size)

    def warn(self, accepted_before: datetime, now: datetime) -> asyncio.Future[int]:
        """See `QueueStore.warn`."""

        async def find_and_note() -> int:
            noted = 0
            while delays := await self._readers.read(lambda reader: notices.delayed(reader, accepted_before, now)):
                noted += await self._submit(Kind.ALONE, notices.warn(delays, now))
            return noted

        return asyncio.ensure_future(find_and_note())

    def bring_back(self, now: datetime, by: timedelta | None, later_than: datetime) -> asyncio.Future[int]:
        """See `QueueStore.bring_back`. Where nothing is far away it reads a little and writes nothing."""

        async def walk() -> int:
            moved = 0
            for strand in await self._readers.read(lambda reader: clock_jumps.strands(reader, later_than)):
                place: clock_jumps.Place | None = clock_jumps.place(later_than)
                while place is not None:
                    work = clock_jumps.due_earlier(strand, place, by, now)
                    count, place = await self._submit(Kind.ALONE, work)
                    moved += count
            while await self._readers.read(lambda reader: clock_jumps.has_far_windows(reader, now)):
                await self._submit(Kind.ALONE, clock_jumps.windows_from_now(now))
            return moved

        return asyncio.ensure_future(walk())

    async def last_silence(self, earliest: datetime, latest: datetime) -> Silence | None:
        """See `QueueStore.last_silence`."""
        return await self._readers.read(lambda reader: clock_jumps.last_silence(reader, earliest, latest))

    def keep_circuit(self, lane: LaneId, revision: int, circuit: Circuit) -> asyncio.Future[None]:
        """See `QueueStore.keep_circuit`."""
        return self._submit(Kind.ALONE, circuits.keep(lane, revision, circuit, self._now()))

    async def standstills(self) -> Mapping[LaneId, Standstill]:
        """See `QueueStore.standstills`."""
        return await self._readers.read(circuits.read_standstills)

    async def circuits(self) -> Mapping[LaneId, tuple[int, Circuit]]:
        """See `QueueStore.circuits`."""
        return await self._readers.read(circuits.read)

    async def divertible(
        self, lane: LaneId, after: Place | None, limit: int
    ) -> tuple[Sequence[WaitingDelivery], Place | None]:
        """See `QueueStore.divertible`."""
        return await self._readers.read(lambda reader: diverting.on_lane(reader, lane, after, limit))

    async def away(self, home: LaneId, after: tuple[MessageId, int] | None, limit: int) -> Sequence[WaitingDelivery]:
        """See `QueueStore.away`."""
        return await self._readers.read(lambda reader: diverting.away(reader, home, after, limit))

    async def head(self, message_id: MessageId) -> bytes:
        """See `QueueStore.head`."""
        return await self._readers.read(lambda reader: diverting.head(reader, message_id))

    def divert(self, diversions: Sequence[Diversion], now: datetime) -> asyncio.Future[int]:
        """See `QueueStore.divert`."""
        return self._submit(Kind.ALONE, diverting.divert(diversions, now))

    async def selected(
        self, selection: Selection, after: Place | None, limit: int
    ) -> tuple[Sequence[WaitingDelivery], Place | None]:
        """See `QueueStore.selected`."""
        return await self._readers.read(lambda reader: diverting.selected(reader, selection, after, limit))

    def reroute(self, diversions: Sequence[Diversion], now: datetime, *, even_unsure: bool) -> asyncio.Future[int]:
        """See `QueueStore.reroute`."""
        return self._submit(Kind.ALONE, diverting.reroute(diversions, now, even_unsure=even_unsure))

    def record(self, kind: str, *, account: str = "", detail: str = "") -> asyncio.Future[None]:
        """See `QueueStore.record`."""
        return self._submit(Kind.EVENT, (micros(self._now()), kind, None, None, account, detail))

    # --- QueueStore: reads ---

    async def due(self, lane: LaneId, now: datetime, limit: int, in_hand: InHand = NOTHING_IN_HAND) -> Due:
        """See `QueueStore.due`."""
        return await self._readers.read(lambda reader: waiting.due(reader, lane, now, limit, in_hand))

    async def next_due(self, lane: LaneId, classes: Sequence[PriorityClass], after: datetime) -> datetime | None:
        """See `QueueStore.next_due`."""
        return await self._readers.read(lambda reader: waiting.next_due(reader, lane, classes, after))

    async def waiting_since(self, lane: LaneId) -> datetime | None:
        """See `QueueStore.waiting_since`."""
        return await self._readers.read(lambda reader: waiting.waiting_since(reader, lane))

    def chunks(self, body: StagedBody) -> AsyncIterator[bytes]:
        """See `QueueStore.chunks`."""
        return waiting.chunks(self._readers, body)

    # --- ViewStore ---

    async def deliveries(self, wanted: DeliveryFilter) -> Sequence[DeliveryRow]:
        """See `ViewStore.deliveries`."""
        return await self._readers.read(lambda reader: lists.read_deliveries(reader, wanted))

    async def message(self, message_id: MessageId) -> MessageView | None:
        """See `ViewStore.message`."""
        return await self._readers.read(lambda reader: views.read_message(reader, message_id))

    async def content(self, message_id: MessageId) -> bytes | None:
        """See `ViewStore.content`."""
        return await self._readers.read(lambda reader: waiting.whole_content(reader, message_id))

    async def counts(self) -> dict[tuple[LaneId, DeliveryState], int]:
        """See `ViewStore.counts`."""
        return await self._readers.read(views.read_counts)

    async def events(self, wanted: EventFilter) -> EventPage:
        """See `ViewStore.events`."""
        return await self._readers.read(lambda reader: event_list.read_events(reader, wanted, self._now()))

    async def last_event(self) -> int:
        """See `ViewStore.last_event`."""
        return await self._readers.read(event_list.last_event)

    # --- DefinitionStore ---

    def write(self, work: Callable[[Any], T]) -> asyncio.Future[T]:
        """See `DefinitionStore.write`. `work` must not commit, and may be run again when its group is rolled back."""
        return self._submit(Kind.ALONE, lambda transaction: work(transaction.core))
