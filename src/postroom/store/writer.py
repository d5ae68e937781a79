"""Group commit: what was submitted is written in one transaction, committed by a thread, and answered with one call.

Operations of a hot kind are written together, one statement a table. A batch in which one fails is rolled back and
written again one by one under savepoints, so that only the failing one fails.

Where the driver allows it (SQLite) the statements of a light batch run on the loop, between two commits: a thread that
writes them must win the interpreter lock back from the busy loop at every statement, which costs both more than the
statements do (decision 0008). The commit with its fsync, heavy batches and the upkeep of the database are the thread's.
The connection is used by one of them at a time: by the thread while `_busy`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import sqlalchemy
import structlog
from sqlalchemy.exc import DBAPIError

from ..errors import GatewayError, NotRunning, StorageFailed
from ..model.content import CHUNK_BYTES
from ..pending import Pending
from .batch import ALONE, Done, Kind, Operation, failed, fitting, resolve, segments
from .driver import Connection, WritingConnection
from .rows import Rows

_log = structlog.get_logger()

#: Seconds without work after which the upkeep of an idle moment is done.
IDLE_SECONDS = 1.0
#: After a group of that many, a pause before the next begins: what the answers bring about comes in meanwhile, and a
#: commit costs as much for one message as for twenty. One client alone never waits for it.
BUSY_OPERATIONS = 6
PAUSE_SECONDS = 0.0005


#: How long a door waits to learn what became of a commit that was not answered, and the pause between two looks.
DOUBT_SECONDS = 5.0
DOUBT_PAUSE_SECONDS = 0.1
#: What waits for as long as it takes: who asked can do nothing else.
PATIENT = frozenset({Kind.CLAIM, Kind.UNCLAIM, Kind.COMPLETE, Kind.EVENT})


class Uneven(Exception):
    """A group moved fewer rows than it asked for: it must be written one by one to learn whose they were."""


class _Gone(Exception):
    """The database ended the transaction by itself after an error: everything in it must be written again."""


class _GroupFailed(Exception):
    """The transaction could not begin or commit: the whole group fails."""

    def __init__(self, error: Exception, *, committing: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.committing = committing


class Transaction:
    """The transaction under way, as operations see it.

    `raw` is the driver's connection, `core` SQLAlchemy's on the same; neither may commit. `alone` says that the group
    has one operation. `moved` gathers by how much each (lane, state) grows.
    """

    __slots__ = ("alone", "moved", "raw", "token")

    def __init__(self, raw: Connection) -> None:
        self.raw = raw
        self.alone = False
        self.moved: defaultdict[tuple[int, str], int] = defaultdict(int)
        self.token = 0  # the newest fencing token; claims under another are void

    @property
    def core(self) -> sqlalchemy.Connection:
        """SQLAlchemy's connection."""
        return self.raw.core

    def move(self, lane: int, before: str, after: str, count: int) -> None:
        """Note that `count` deliveries of `lane` changed state; an empty state is "no row"."""
        if before:
            self.moved[lane, before] -= count
        if after:
            self.moved[lane, after] += count


#: Writes a group of operations of one kind; one result per payload, in order.
Group = Callable[[Transaction, list[Any]], Sequence[Any]]

_ADD_TALLY = Rows(
    "INSERT INTO tally (lane, state, count) ",
    "iti",
    " ON CONFLICT (lane, state) DO UPDATE SET count = tally.count + excluded.count",
)

F = TypeVar("F", "asyncio.Future[Any]", Pending[Any])


class Writer:
    """The one connection that writes, and its thread. `submit` may be called from the loop only."""

    def __init__(
        self,
        raw: WritingConnection,
        groups: dict[Kind, Group],
        on_broken: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._raw = raw
        self._writes_on_loop = raw.writes_on_loop
        self._upkeep = raw.upkeep(self._break)
        self._transaction = Transaction(raw)
        self._token = 0  # the token before the transaction under way
        self._groups = groups
        self._on_broken = on_broken
        self._gathered: list[Operation] = []  # what waits for its batch
        self._jobs: queue.SimpleQueue[Callable[[], Done] | None] = queue.SimpleQueue()
        self._busy = False
        self._planned = False  # a turn comes before the loop waits again
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False
        self._closing = threading.Event()
        self._batch: list[Operation] = []  # what the transaction under way writes
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._fails = False  # since it last worked
        self.broken: BaseException | None = None
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="postroom-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, kind: Kind, payload: Any, key: bytes = b"", size_bytes: int = 0) -> asyncio.Future[Any]:
        """Write in the next group commit. The future has the result once it is durable."""
        return self._gather(kind, self._loop.create_future(), payload, key, size_bytes)

    def submit_hot(self, kind: Kind, payload: Any, key: bytes, size_bytes: int = 0) -> Pending[Any]:
        """As `submit`, told without a turn of the loop."""
        return self._gather(kind, Pending(), payload, key, size_bytes)

    def _gather(self, kind: Kind, future: F, payload: Any, key: bytes, size_bytes: int) -> F:
        if self._closed:
            future.set_exception(NotRunning("the store is closed"))
            return future
        self._gathered.append(Operation(kind, future, payload, key, size_bytes))
        if not self._planned and not self._busy:
            # Once a turn of the loop: what it submits together is committed together.
            self._planned = True
            self._loop.call_soon(self._turn)
        return future

    async def close(self) -> None:
        """Write what was submitted, empty the log, end the thread, close the connection."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        self._turn()
        await asyncio.shield(self._ended)
        self._thread.join()
        if self.broken is None:
            self._raw.close()
        else:
            self._raw.abandon()

    # --- turns: on the loop ---

    def _turn(self) -> None:
        self._planned = False
        if self._busy:
            return
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._gathered:
            self._begin_batch()
        elif self._closed:
            self._busy = True
            self._jobs.put(None)
        elif self._upkeep.is_left:
            self._idle = self._loop.call_later(IDLE_SECONDS, self._tidy_up)

    def _begin_batch(self) -> None:
        count, size, light = fitting(self._gathered)
        batch, self._gathered = self._gathered[:count], self._gathered[count:]
        self._upkeep.wrote(count, size)
        self._busy = True
        if light and self._writes_on_loop and self.broken is None:
            try:
                done = self._together(batch)
            except Exception:
                pass  # rolled back and written with more care by the thread
            else:
                self._jobs.put(partial(self._committed, batch, done))
                return
        self._jobs.put(partial(self._write, batch))

    def _answered(self, done: Done) -> None:
        resolve(done)
        self._free()

    def _free(self) -> None:
        self._busy = False
        self._planned = True
        self._loop.call_soon(self._turn)

    def _tidy_up(self) -> None:
        self._idle = None
        if not self._busy:
            self._busy = True
            self._jobs.put(self._tidy)

    # --- jobs: in the thread ---

    def _run(self) -> None:
        while job := self._jobs.get():
            done = job()
            is_due = self._upkeep.is_due
            if not is_due and len(done) < BUSY_OPERATIONS:
                self._call(self._answered, done)
                continue
            self._call(resolve, done)  # who waits need wait neither for the upkeep nor for the pause
            if is_due:
                if self.broken is None:
                    self._upkeep.work()
            else:
                time.sleep(PAUSE_SECONDS)
            self._call(self._free)
        self._tidy()
        self._call(self._ended.set_result, None)

    # --- one batch ---

    def _committed(self, batch: list[Operation], done: Done) -> Done:
        try:
            self._commit()
        except _GroupFailed as failure:
            return failed(batch, self._explain(failure))
        except self._raw.Error as error:
            self._rollback()
            return failed(batch, self._explain(error))
        return done

    def _write(self, batch: list[Operation]) -> Done:
        if self._raw.in_transaction:
            self._rollback()  # what the loop began and could not end
        if self.broken is not None:
            return failed(batch, StorageFailed("the store has failed and takes nothing more"))
        self._batch = batch
        passing = any(operation.size_bytes >= CHUNK_BYTES for operation in batch)
        with self._raw.with_care(content_passes=passing):
            return self._with_care(batch)

    def _with_care(self, batch: list[Operation]) -> Done:
        for way in (self._together_at_once, self._one_by_one, self._each_alone):
            try:
                return way(batch)
            except _GroupFailed as failure:
                return failed(batch, self._explain(failure))
            except (_Gone, Uneven, GatewayError, self._raw.Error) as error:
                self._rollback()
                if self._raw.is_fatal(error):
                    return failed(batch, self._explain(error))
            except Exception as error:
                # A fault in a hot group's own code: nothing of the batch is kept, and the thread lives on.
                self._rollback()
                if way == self._each_alone:
                    return failed(batch, error)
        return failed(batch, StorageFailed("the store could not keep it"))

    def _together_at_once(self, batch: list[Operation]) -> Done:
        done = self._together(batch)
        self._commit()
        return done

    def _together(self, batch: list[Operation]) -> Done:
        transaction = self._begin()
        transaction.alone = len(batch) == 1
        done: Done = []
        for groups in segments(batch):
            for kind, operations in sorted(groups.items()):
                if kind == ALONE:
                    for operation in operations:
                        self._under_savepoint(operation, done)
                    continue
                results = self._groups[Kind(kind)](transaction, [operation.payload for operation in operations])
                done.extend(
                    (operation.future, result, None) for operation, result in zip(operations, results, strict=True)
                )
        self._add_tallies()
        return done

    def _one_by_one(self, batch: list[Operation]) -> Done:
        transaction = self._begin()
        transaction.alone = True
        done: Done = []
        for operation in batch:
            self._under_savepoint(operation, done)
        self._add_tallies()
        self._commit()
        return done

    def _each_alone(self, batch: list[Operation]) -> Done:
        done: Done = []
        for operation in batch:
            try:
                self._begin().alone = True
                one: Done = []
                self._under_savepoint(operation, one)
                self._add_tallies()
                self._commit()
                done.extend(one)
            except _GroupFailed as failure:
                done.extend(failed([operation], self._explain(failure)))
            except (_Gone, self._raw.Error) as error:
                self._rollback()
                cause = error.__cause__ if isinstance(error, _Gone) else error
                done.extend(failed([operation], self._explain(cause or error)))
        return done

    def _under_savepoint(self, operation: Operation, done: Done) -> None:
        transaction = self._transaction
        kept = transaction.moved.copy()
        self._raw.execute("SAVEPOINT operation")
        try:
            if operation.kind == ALONE:
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
            self._raw.begin(self._transaction.token)
        except self._raw.Error as error:
            raise _GroupFailed(error) from error
        self._token = self._transaction.token
        return self._transaction

    def _add_tallies(self) -> None:
        moved = [(lane, state, count) for (lane, state), count in self._transaction.moved.items() if count]
        if moved:
            self._raw.run(_ADD_TALLY, [value for row in moved for value in row])

    def _commit(self) -> None:
        try:
            self._raw.commit()
        except self._raw.Error as error:
            self._raw.rollback()  # a COMMIT that raises leaves that to us
            if not (self._raw.is_in_doubt(error) and self._was_kept(error)):
                self._transaction.token = self._token
                raise _GroupFailed(error, committing=True) from error
        self.commits += 1
        if self._fails:
            self._fails = False
            _log.warning("store_works_again")

    def _was_kept(self, error: Exception) -> bool:
        """What became of a commit that was not answered, as soon as that can be known.

        Who can try again elsewhere is told after a while that it is not known; the queue's own verbs wait. What comes
        in meanwhile is refused.

        Returns False where that will not be known: the store is closed, or the database another's now.

        Raises:
            _GroupFailed: it was not kept.
        """
        told_at = time.monotonic() + DOUBT_SECONDS
        while not self._closing.is_set():
            try:
                kept = self._raw.settle()
            except self._raw.Error as fatal:
                self._break(fatal)
                return False
            if kept is not None:
                _log.warning("commit_settled", kept=kept, error=str(error))
                if kept:
                    return True
                lost = "the connection to the database was lost before the commit: nothing was kept"
                raise _GroupFailed(StorageFailed(lost)) from error
            if told_at and time.monotonic() > told_at:
                told_at = 0.0
                unknown = [operation for operation in self._batch if operation.kind not in PATIENT]
                self._call(resolve, failed(unknown, self._explain(_GroupFailed(error, committing=True))))
            self._call(self._refuse, StorageFailed("the database cannot be reached"))
            self._closing.wait(DOUBT_PAUSE_SECONDS)
        return False

    def _refuse(self, error: BaseException) -> None:
        refused, self._gathered = self._gathered, []
        resolve(failed(refused, error))

    def _rollback(self) -> None:
        self._transaction.token = self._token
        self._raw.rollback()

    # --- answers ---

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _explain(self, error: BaseException) -> BaseException:
        committing = isinstance(error, _GroupFailed) and error.committing
        cause = error.error if isinstance(error, _GroupFailed) else _driver_error(error)
        if not isinstance(cause, self._raw.Error):
            return cause
        if self._raw.is_fatal(cause):
            self._break(cause)
        told = self._raw.storage_error(cause, committing=committing)
        if isinstance(cause, self._raw.OperationalError) and not self._fails:
            self._fails = True  # once: what waits for it is tried again and again
            code = getattr(cause, "sqlite_errorname", "") or getattr(cause, "sqlstate", "")
            _log.error("store_fails", reason=str(told), error=str(cause), code=code)
        return told

    def _break(self, error: BaseException) -> None:
        if self.broken is None:
            self.broken = error
            if self._on_broken is not None:
                self._call(self._on_broken, error)

    def _tidy(self) -> Done:
        self._upkeep.tidy(broken=self.broken is not None)
        return []


def _driver_error(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
