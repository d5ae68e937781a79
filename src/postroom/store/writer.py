"""Group commit: one thread takes what waits, writes it in one transaction, and wakes all who wait with one call.

Operations of a hot kind are written together, one statement a table. A batch in which one fails is rolled back and
written again one by one under savepoints, so that only the failing one fails.
"""

from __future__ import annotations

import asyncio
import enum
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ..errors import GatewayError, NotRunning, StorageFailed
from . import sqlite
from .rows import Rows

BATCH_OPERATIONS = 256
BATCH_BYTES = 4 * 1024 * 1024
CHECKPOINT_BYTES = 16 * 1024 * 1024
#: With the log this long readers that never pause are waited for.
LOG_BYTES = 8 * CHECKPOINT_BYTES
#: Seconds without work after which the log is emptied.
IDLE_SECONDS = 1.0
import os
LINGER_SECONDS = float(os.environ.get("LINGER", "0"))
BUSY_OPERATIONS = 6
#: Free pages given back to the file system in one idle moment.
VACUUM_PAGES = 2048


class Kind(enum.IntEnum):
    """Kinds of operations, in the order in which a batch writes them; a later kind may depend on an earlier one."""

    STAGE = 0
    ENQUEUE = 1
    COMPLETE = 2
    UNCLAIM = 3
    CLAIM = 4
    EVENT = 5
    ALONE = 6


class Operation(NamedTuple):
    """One call of a verb. `key` names the message that it is about (operations on one message keep their order);
    `payload` is the verb's argument, for ALONE a function of the transaction."""

    kind: int
    future: asyncio.Future[Any]
    payload: Any
    key: bytes
    size_bytes: int


class Uneven(Exception):
    """A group moved fewer rows than it asked for: it must be written one by one to learn whose they were."""


class _Gone(Exception):
    """SQLite ended the transaction by itself after an error: everything in it must be written again."""


class _GroupFailed(Exception):
    """The transaction could not begin or commit: the whole group fails."""

    def __init__(self, error: sqlite3.Error) -> None:
        super().__init__(str(error))
        self.error = error


class Transaction:
    """The transaction under way, as operations see it.

    `raw` is the driver's connection, `core` SQLAlchemy's on the same; neither may commit. `alone` says that the group
    has one operation. `moved` gathers by how much each (lane, state) grows.
    """

    __slots__ = ("alone", "core", "moved", "raw", "token")

    def __init__(self, raw: sqlite3.Connection, core: Connection) -> None:
        self.raw = raw
        self.core = core
        self.alone = False
        self.moved: defaultdict[tuple[int, str], int] = defaultdict(int)
        self.token = 0  # the newest fencing token; claims under another are void

    def move(self, lane: int, before: str, after: str, count: int) -> None:
        """Note that `count` deliveries of `lane` changed state; an empty state is "no row"."""
        if before:
            self.moved[lane, before] -= count
        if after:
            self.moved[lane, after] += count


#: Writes a group of operations of one kind; one result per payload, in order.
Group = Callable[[Transaction, list[Any]], Sequence[Any]]

_ADD_TALLY = Rows(
    "INSERT INTO tally (lane, state, count) VALUES ",
    3,
    " ON CONFLICT (lane, state) DO UPDATE SET count = tally.count + excluded.count",
)

_Done = list[tuple["asyncio.Future[Any]", Any, BaseException | None]]


class Writer:
    """The writer thread. `submit` may be called from the loop only."""

    def __init__(
        self,
        raw: sqlite3.Connection,
        core: Connection,
        groups: dict[Kind, Group],
        on_broken: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._raw = raw
        self._transaction = Transaction(raw, core)
        self._token = 0  # the token before the transaction under way
        self._groups = groups
        self._on_broken = on_broken
        self._gathered: list[Operation] = []  # submitted in this turn of the loop
        self._waiting: queue.SimpleQueue[list[Operation] | None] = queue.SimpleQueue()
        self._was_busy = False
        self._taken: list[Operation] = []  # the thread's own: what did not fit into the batch before
        self._closed = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._since_checkpoint = 0.0  # estimated frames in the log
        self._frames_per_unit = 3.0
        self.broken: BaseException | None = None
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="postroom-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, kind: Kind, payload: Any, key: bytes = b"", size_bytes: int = 0) -> asyncio.Future[Any]:
        """Write in the next group commit. The future has the result once it is durable."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(NotRunning("the store is closed"))
            return future
        gathered = self._gathered
        gathered.append(Operation(kind, future, payload, key, size_bytes))
        if len(gathered) == 1:
            # One hand-over a turn: what the loop submits together is committed together, and wakes the thread once.
            self._loop.call_soon(self._hand_over)
        return future

    def _hand_over(self) -> None:
        if self._gathered:
            self._waiting.put(self._gathered)
            self._gathered = []

    async def close(self) -> None:
        """Write what was submitted, empty the log, end the thread, close the connection."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        self._waiting.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()
        self._transaction.core.close()
        self._raw.close()

    def _run(self) -> None:
        while batch := self._batch():
            self._answer(self._write(batch))
            self._after(len(batch), sum(operation.size_bytes for operation in batch))
        self._tidy()
        self._call(self._ended.set_result, None)

    def _batch(self) -> list[Operation]:
        """What is written together next, waiting for it; empty at the end."""
        taken = self._taken or self._next() or []
        if self._was_busy and LINGER_SECONDS and taken:
            time.sleep(LINGER_SECONDS)
        size = sum(operation.size_bytes for operation in taken)
        while taken and len(taken) < BATCH_OPERATIONS and size < BATCH_BYTES:
            try:
                more = self._waiting.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._waiting.put(None)  # the end comes after this batch
                break
            taken = taken + more
            size += sum(operation.size_bytes for operation in more)
        fitting = _fitting(taken)
        self._was_busy = fitting >= BUSY_OPERATIONS
        self._taken = taken[fitting:]
        return taken[:fitting]

    def _next(self) -> list[Operation] | None:
        if self._since_checkpoint:
            try:
                return self._waiting.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._tidy()
        return self._waiting.get()

    # --- one batch ---

    def _write(self, batch: list[Operation]) -> _Done:
        if self.broken is not None:
            return _failed(batch, StorageFailed("the store has failed and takes nothing more"))
        for way in (self._together, self._one_by_one, self._each_alone):
            try:
                return way(batch)
            except _GroupFailed as failure:
                return _failed(batch, self._explain(failure.error))
            except (_Gone, Uneven, GatewayError, sqlite3.Error) as error:
                self._rollback()
                if isinstance(error, sqlite3.Error) and sqlite.is_fatal(error):
                    return _failed(batch, self._explain(error))
            except Exception as error:
                # A fault in a hot group's own code: nothing of the batch is kept, and the thread lives on.
                self._rollback()
                if way == self._each_alone:
                    return _failed(batch, error)
        return _failed(batch, StorageFailed("the store could not keep it"))

    def _together(self, batch: list[Operation]) -> _Done:
        transaction = self._begin()
        transaction.alone = len(batch) == 1
        done: _Done = []
        for groups in _segments(batch):
            for kind, operations in sorted(groups.items()):
                if kind == Kind.ALONE:
                    for operation in operations:
                        self._under_savepoint(operation, done)
                    continue
                results = self._groups[Kind(kind)](transaction, [operation.payload for operation in operations])
                done.extend(
                    (operation.future, result, None) for operation, result in zip(operations, results, strict=True)
                )
        self._commit()
        return done

    def _one_by_one(self, batch: list[Operation]) -> _Done:
        transaction = self._begin()
        transaction.alone = True
        done: _Done = []
        for operation in batch:
            self._under_savepoint(operation, done)
        self._commit()
        return done

    def _each_alone(self, batch: list[Operation]) -> _Done:
        done: _Done = []
        for operation in batch:
            try:
                self._begin().alone = True
                one: _Done = []
                self._under_savepoint(operation, one)
                self._commit()
                done.extend(one)
            except _GroupFailed as failure:
                done.extend(_failed([operation], self._explain(failure.error)))
            except (_Gone, sqlite3.Error) as error:
                self._rollback()
                cause = error.__cause__ if isinstance(error, _Gone) else error
                done.extend(_failed([operation], self._explain(cause or error)))
        return done

    def _under_savepoint(self, operation: Operation, done: _Done) -> None:
        transaction = self._transaction
        kept = transaction.moved.copy()
        self._raw.execute("SAVEPOINT operation")
        try:
            if operation.kind == Kind.ALONE:
                result = operation.payload(transaction)
            else:
                result = self._groups[Kind(operation.kind)](transaction, [operation.payload])[0]
        except Exception as error:
            if not self._raw.in_transaction:
                raise _Gone from _driver_error(error)
            self._raw.execute("ROLLBACK TO operation")
            self._raw.execute("RELEASE operation")
            transaction.moved = kept
            done.append((operation.future, None, self._explain(error)))
        else:
            self._raw.execute("RELEASE operation")
            done.append((operation.future, result, None))

    def _begin(self) -> Transaction:
        self._transaction.moved.clear()
        self._transaction.alone = False
        try:
            self._raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise _GroupFailed(error) from error
        self._token = self._transaction.token
        return self._transaction

    def _commit(self) -> None:
        moved = [(lane, state, count) for (lane, state), count in self._transaction.moved.items() if count]
        if moved:
            _ADD_TALLY.run(self._raw, [value for row in moved for value in row])
        try:
            self._raw.commit()  # gives up the interpreter lock once, execute("COMMIT") twice
        except sqlite3.Error as error:
            # A COMMIT that raises leaves the transaction to be rolled back by us.
            self._rollback()
            raise _GroupFailed(error) from error
        self.commits += 1

    def _rollback(self) -> None:
        self._transaction.token = self._token
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    # --- answers ---

    def _answer(self, done: _Done) -> None:
        self._call(_resolve, done)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _explain(self, error: BaseException) -> BaseException:
        cause = _driver_error(error)
        if not isinstance(cause, sqlite3.Error):
            return cause
        if sqlite.is_fatal(cause):
            self._break(cause)
        return sqlite.storage_error(cause)

    def _break(self, error: BaseException) -> None:
        if self.broken is None:
            self.broken = error
            if self._on_broken is not None:
                self._call(self._on_broken, error)

    # --- the log ---

    def _after(self, operations: int, size_bytes: int) -> None:
        self._since_checkpoint += (operations + size_bytes / sqlite.PAGE_BYTES) * self._frames_per_unit
        if self._since_checkpoint * sqlite.PAGE_BYTES >= CHECKPOINT_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Copy the log between two batches, and learn from its length how much an operation writes."""
        if self.broken is not None:
            return
        estimated = self._since_checkpoint
        try:
            did = sqlite.checkpoint(self._raw)
            if did.frames * sqlite.PAGE_BYTES > LOG_BYTES:
                sqlite.checkpoint(self._raw, truncate=True, wait_seconds=sqlite.READ_SECONDS)
        except sqlite3.Error as error:
            self._checkpoint_failed(error)
            return
        self._since_checkpoint = 0.0
        self._frames_per_unit *= min(2.0, max(0.5, did.frames / estimated))

    def _tidy(self) -> None:
        """With nothing to do: empty the log, and give back free pages where they are more than a quarter."""
        if self.broken is not None:
            return
        try:
            free = sqlite.pragma(self._raw, "freelist_count")
            if free > VACUUM_PAGES and free * 4 > sqlite.pragma(self._raw, "page_count"):
                self._raw.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            sqlite.checkpoint(self._raw, truncate=True)
        except sqlite3.Error as error:
            self._checkpoint_failed(error)
        self._since_checkpoint = 0.0

    def _checkpoint_failed(self, error: sqlite3.Error) -> None:
        # The log keeps everything that was committed; without room the copy is tried again after the next batches.
        if sqlite.is_fatal(error):
            self._break(error)


def _segments(batch: list[Operation]) -> list[dict[int, list[Operation]]]:
    """Cut a batch where writing by kind would change the order of two operations on one message, and around ALONE."""
    segments: list[dict[int, list[Operation]]] = []
    groups: dict[int, list[Operation]] = {}
    latest: dict[bytes, int] = {}
    for operation in batch:
        kind = operation.kind
        key = operation.key
        if groups and (kind == Kind.ALONE or Kind.ALONE in groups or latest.get(key, 0) > kind):
            segments.append(groups)
            groups = {}
            latest = {}
        latest[key] = kind
        if kind in groups:
            groups[kind].append(operation)
        else:
            groups[kind] = [operation]
    segments.append(groups)
    return segments


def _driver_error(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _fitting(operations: list[Operation]) -> int:
    """How many of `operations` one batch takes."""
    size = 0
    for count, operation in enumerate(operations[:BATCH_OPERATIONS], 1):
        size += operation.size_bytes
        if size >= BATCH_BYTES:
            return count
    return min(len(operations), BATCH_OPERATIONS)


def _failed(batch: list[Operation], error: BaseException) -> _Done:
    return [(operation.future, None, error) for operation in batch]


def _resolve(done: _Done) -> None:
    for future, result, error in done:
        if future.done():
            continue  # its waiter was cancelled; the write stands
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
