"""Connections to the SQLite file: one that writes and checkpoints, readers that cannot."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.pool import StaticPool

from ..config.folder import unusable
from ..crashing import fails
from ..errors import GatewayError, StorageFailed
from . import sqlite
from .full_text import Fts5, FullText
from .rows import MOST, Rows
from .schema import APPLICATION_ID
from .sqlite import CACHE_BYTES, PAGE_BYTES, READ_SECONDS, limit_cache, no_room, not_synced, pragma, wait_for_locks
from .sqlite_log import Log

STATEMENTS = 512
#: Steps of SQLite's machine between two looks at the clock; some milliseconds.
_STEPS = 50_000

_FULL = 2  # PRAGMA synchronous: fsync of the log at every commit


class Connection(sqlite3.Connection):
    """See `driver.Connection`; the driver's own connection with the calls that it lacks."""

    core: sqlalchemy.Connection
    full_text: FullText = Fts5()

    def change(self, sql: str, values: Any = (), /) -> int:
        """See `driver.Connection.change`."""
        before = self.total_changes
        self.execute(sql, values)
        return self.total_changes - before

    def change_each(self, sql: str, each: Iterable[Any], /) -> int:
        """See `driver.Connection.change_each`."""
        before = self.total_changes
        self.executemany(sql, each)
        return self.total_changes - before

    def insert(self, sql: str, values: Any, /) -> bool:
        """See `driver.Connection.insert`."""
        try:
            self.execute(sql, values)
        except sqlite3.IntegrityError:
            return False
        return True

    def run(self, rows: Rows, values: list[Any], ahead: tuple[Any, ...] = (), /) -> int:
        """See `driver.Connection.run`."""
        before = self.total_changes
        step = MOST * rows.width
        if len(values) <= step and not ahead:
            self.execute(rows.texts[len(values) // rows.width], values)
        else:
            for start in range(0, len(values), step):
                part = values[start : start + step]
                self.execute(rows.texts[len(part) // rows.width], [*ahead, *part])
        return self.total_changes - before

    def returned(self, rows: Rows, values: list[Any], /) -> list[Any]:
        """See `driver.Connection.returned`."""
        found: list[Any] = []
        step = MOST * rows.width
        for start in range(0, len(values), step):
            part = values[start : start + step]
            found.extend(self.execute(rows.texts[len(part) // rows.width], part).fetchall())
        return found

    def is_roomy(self) -> bool:
        """See `driver.Connection.is_roomy`."""
        return sqlite.spare_pages(self) > 0

    def shrink(self) -> bool:
        """See `driver.Connection.shrink`."""
        spare = sqlite.spare_pages(self)
        for _ in range(min(spare, sqlite.VACUUM_PAGES)):
            self.execute("PRAGMA incremental_vacuum(1)")  # one is all that one call does
        return spare > sqlite.VACUUM_PAGES

    def has_table(self, name: str, /) -> bool:
        """See `driver.Connection.has_table`."""
        found = self.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()
        return found is not None

    def no_room(self) -> Exception:
        """See `driver.Connection.no_room`."""
        return no_room()

    def close(self) -> None:
        """Close it, with SQLAlchemy's connection on it."""
        if hasattr(self, "core"):
            self.core.close()
        super().close()


class WritingConnection(Connection):
    """See `driver.WritingConnection`."""

    writes_on_loop = True

    def begin(self, token: int = 0) -> None:
        """See `driver.WritingConnection.begin`."""
        self.execute("BEGIN IMMEDIATE")

    def begin_migration(self) -> None:
        """See `driver.WritingConnection.begin_migration`."""
        self.begin()

    def commit(self) -> None:
        """See `driver.WritingConnection.commit`. Gives up the interpreter lock once, where execute("COMMIT") does so
        twice."""
        if fails("O1-wal"):
            raise no_room()
        if fails("O2"):
            raise not_synced()
        super().commit()

    def rollback(self) -> None:
        """See `driver.WritingConnection.rollback`."""
        if self.in_transaction:
            self.execute("ROLLBACK")

    @contextlib.contextmanager
    def with_care(self, *, content_passes: bool) -> Iterator[None]:
        """Wait for a stranger's lock, which on the loop would hold up everything. Content that is written once and read
        once would fill the cache with pages that nobody wants again."""
        wait_for_locks(self, sqlite.BUSY_SECONDS)
        if content_passes:
            limit_cache(self, sqlite.PASSING_CACHE_BYTES)
        try:
            yield
        finally:
            wait_for_locks(self, 0.0)
            if content_passes:
                limit_cache(self, CACHE_BYTES)

    def upkeep(self, on_fatal: Callable[[BaseException], None]) -> Log:
        """See `driver.WritingConnection.upkeep`."""
        return Log(self, on_fatal)

    def is_in_doubt(self, error: BaseException) -> bool:
        """See `driver.WritingConnection.is_in_doubt`: what the file holds cannot be asked while it fails."""
        return False

    def settle(self) -> bool | None:
        """See `driver.WritingConnection.settle`."""
        return None

    def is_fatal(self, error: BaseException) -> bool:
        """See `driver.WritingConnection.is_fatal`."""
        return isinstance(error, sqlite3.Error) and sqlite.is_fatal(error)

    def storage_error(self, error: BaseException, *, committing: bool = False) -> GatewayError:
        """See `driver.WritingConnection.storage_error`."""
        assert isinstance(error, sqlite3.Error)
        return sqlite.storage_error(error, committing=committing)

    def abandon(self) -> None:
        """See `driver.WritingConnection.abandon`: SQLite would say goodbye with the syncs that failed."""
        self.core.close()


class ReadingConnection(Connection):
    """See `driver.ReadingConnection`."""

    _deadline = 0.0

    def is_late(self) -> bool:
        """Whether the read under way takes too long: asked by SQLite every few milliseconds."""
        return time.monotonic() > self._deadline

    @contextlib.contextmanager
    def snapshot(self, seconds: float) -> Iterator[None]:
        """See `driver.ReadingConnection.snapshot`."""
        self._deadline = time.monotonic() + seconds
        self.execute("BEGIN")
        try:
            yield
        finally:
            if self.in_transaction:
                self.execute("ROLLBACK")

    def was_cut(self, error: BaseException) -> bool:
        """See `driver.ReadingConnection.was_cut`."""
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT

    def storage_error(self, error: BaseException) -> GatewayError:
        """See `driver.ReadingConnection.storage_error`."""
        assert isinstance(error, sqlite3.Error)
        return sqlite.storage_error(error)

    def forget_pages(self) -> None:
        """See `driver.ReadingConnection.forget_pages`."""
        self.execute("PRAGMA shrink_memory")


class _HintingCompiler(SQLiteCompiler):
    """Writes `with_hint(table, "INDEXED BY name", "sqlite")`, which SQLAlchemy leaves out."""

    def get_from_hint_text(self, table: sqlalchemy.FromClause, text: str | None) -> str | None:
        return text


def core_connection(raw: sqlite3.Connection) -> sqlalchemy.Connection:
    """SQLAlchemy's connection on a driver's connection that somebody else commits and closes."""
    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    engine.dialect.statement_compiler = _HintingCompiler
    return engine.connect()


def connect_writer(path: Path, *, durable: bool = True) -> WritingConnection:
    """The one connection that writes. `durable=False` leaves out every fsync: for measuring their cost only.

    Raises:
        StorageFailed: not a database of ours, cut off, or a setting did not take.
        GatewayError: the file can't be made or opened.
    """
    is_new = _make(path)
    try:
        raw = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
            factory=WritingConnection,
        )
        try:
            _prepare(raw, path, durable)
            raw.core = core_connection(raw)
        except BaseException:
            raw.close()
            raise
    except (sqlite3.Error, StorageFailed) as error:
        if is_new:
            path.unlink(missing_ok=True)  # else it would be there, and empty
        if isinstance(error, sqlite3.Error):
            raise sqlite.unopened(path, error) from error
        raise
    return raw


def _make(path: Path) -> bool:
    """Make the file if there is none; whether it was made.

    SQLite takes an empty file for a new database, and removes a log that may still hold everything.
    """
    log = Path(f"{path}-wal")
    gone = ""
    try:
        if path.exists():
            os.close(os.open(path, os.O_RDWR))
            gone = "" if path.stat().st_size else "is empty"
        elif log.exists() and log.stat().st_size:
            gone = "is missing, and its log is there"
        else:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            return True
    except OSError as error:
        raise unusable(path, error) from None
    if gone:
        begin = f"To begin with an empty queue instead, remove {path} and {log.name}"
        raise StorageFailed(f"{path} {gone}: {sqlite.RESTORE_MEND}. {begin}")
    return False


def _prepare(raw: sqlite3.Connection, path: Path, durable: bool) -> None:
    if pragma(raw, "page_count") == 0:
        # These are fixed by the first table and the switch to WAL.
        raw.execute(f"PRAGMA page_size={PAGE_BYTES}")
        raw.execute("PRAGMA auto_vacuum=INCREMENTAL")
        raw.execute(f"PRAGMA application_id={APPLICATION_ID}")
    elif pragma(raw, "application_id") != APPLICATION_ID:
        raise StorageFailed(f"{path} is not a Postroom database")
    mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StorageFailed(f"{path}: write-ahead logging is not possible here (journal mode {mode})")
    synchronous = _FULL if durable else 0
    raw.execute(f"PRAGMA synchronous={synchronous}")
    if pragma(raw, "synchronous") != synchronous:
        raise StorageFailed(f"{path}: synchronous=FULL did not take")
    wait_for_locks(raw, 0.0)  # the loop's turns never wait; the thread says how long
    raw.execute("PRAGMA fullfsync=ON")
    raw.execute("PRAGMA wal_autocheckpoint=0")
    raw.execute("PRAGMA secure_delete=FAST")
    limit_cache(raw, CACHE_BYTES)
    raw.execute("PRAGMA temp_store=MEMORY")
    _copy_log(raw)


def _copy_log(raw: sqlite3.Connection) -> None:
    """Copy what a crash left in the log: only then does SQLite see that pages are missing from the file, and a start
    that has not looked would acknowledge mail that can't be kept."""
    try:
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        if sqlite.is_fatal(error):
            raise  # else the log keeps it, and it is tried again


def connect_reader(path: Path) -> ReadingConnection:
    """A connection that can only read."""
    raw = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
        timeout=READ_SECONDS,
        factory=ReadingConnection,
    )
    raw.execute("PRAGMA query_only=ON")
    raw.execute("PRAGMA temp_store=MEMORY")
    raw.execute("PRAGMA cache_size=-4096")
    return raw


def open_reader(path: Path) -> ReadingConnection:
    """A connection that can only read, whose reads are cut when they take too long."""
    raw = connect_reader(path)
    raw.core = core_connection(raw)
    raw.set_progress_handler(raw.is_late, _STEPS)
    return raw
