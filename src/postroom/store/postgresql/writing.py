"""The connection that writes, and with it the lock of the database; both come back by themselves when they are lost."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import psycopg
import structlog

from ...crashing import fails
from ...errors import GatewayError, StateConflict, StorageFailed
from ..driver import Upkeep
from ..schema import APPLICATION_ID
from . import meanings
from .connection import Connection
from .meanings import InDoubt, TakenOver
from .server import refuse_unsafe

_log = structlog.get_logger()

#: Waits between two attempts to connect, doubled from the first to the last.
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 2.0
#: How long the lock is waited for: a session whose process was killed lives on for a moment.
LOCK_SECONDS = 5.0
_LOCK_PAUSE_SECONDS = 0.05

#: One gateway for each schema of a database.
_LOCK = f"({APPLICATION_ID}, hashtext(current_schema()))"
_HOLDER = (
    "SELECT a.application_name, host(a.client_addr), a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid::int8 ="
    " (hashtext(current_schema())::int8 & 4294967295) AND l.database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
)

#: Every transaction leaves its mark, in the one row of this name.
_SET_MARK = (
    "INSERT INTO sequence (name, last) VALUES ('commit', {}) ON CONFLICT (name) DO UPDATE SET last = excluded.last"
)
_MARK = b"SELECT last FROM sequence WHERE name = 'commit'"


class NothingToDo:
    """See `driver.Upkeep`: the server looks after itself."""

    is_due = False
    is_left = False

    def wrote(self, operations: int, size_bytes: int) -> None:
        """Nothing follows from it."""

    def work(self) -> None:
        """Nothing."""

    def tidy(self, *, broken: bool) -> None:
        """Nothing."""


class WritingConnection(Connection):
    """See `driver.WritingConnection`. `picked` makes the writer's own table; `on_restored` is called, in the thread,
    when the database is there again."""

    writes_on_loop = False
    settings: ClassVar[dict[str, str]] = {
        **Connection.settings,
        "statement_timeout": "60s",
        # Every statement goes by a key or an index, as on SQLite; a plan made while the tables were small must too.
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }

    def __init__(self, url: str, picked: str, on_restored: Callable[[], None], *, durable: bool = True) -> None:
        super().__init__(url)
        self._picked = picked
        self._on_restored = on_restored
        self._durable = durable
        self._token = 0
        self._mark = secrets.randbits(62)  # of the transaction under way; no other has, or had, the same
        self._session: tuple[int, object] | None = None  # process and start of the newest backend
        self._pause_seconds = 0.0
        self._not_before = 0.0
        self._why: Exception | None = None

    # --- the session ---

    def _prepare(self) -> None:
        raw = self.raw
        if not self._durable:
            raw.execute("SET synchronous_commit = off")
        else:
            raw.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') <> 'remote_apply'"
            )
            refuse_unsafe(raw)
        self._lock()
        self._refuse_newer_token()
        raw.execute(self._picked.encode())
        row = raw.execute("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()
        assert row is not None
        self._session = (row[0], row[1])

    def _lock(self) -> None:
        """Keep every other gateway off this database until the session ends.

        Raises:
            StateConflict: another has it.
        """
        raw = self.raw
        if self._session is not None:
            # Our own session of before, which the server may take for alive long after the network has lost it.
            raw.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s",
                self._session,
            )
        end = time.monotonic() + LOCK_SECONDS
        while True:
            row = raw.execute(f"SELECT pg_try_advisory_lock{_LOCK}".encode()).fetchone()
            if row is not None and row[0]:
                return
            if time.monotonic() > end:
                raise self._held()
            time.sleep(_LOCK_PAUSE_SECONDS)

    def _held(self) -> Exception:
        row = self.raw.execute(_HOLDER.encode(), (APPLICATION_ID,)).fetchone()
        who = f" ({row[0] or 'unknown'}{f' from {row[1]}' if row[1] else ''}, backend {row[2]})" if row else ""
        text = f"the database {self.raw.info.dbname} is in use by another gateway{who}"
        return TakenOver(text) if self._session is not None else StateConflict(text)

    def _refuse_newer_token(self) -> None:
        """Another gateway that has had the database meanwhile has taken a token, and what we believe is void."""
        if not self._token:
            return
        row = self.raw.execute("SELECT last FROM sequence WHERE name = 'token'").fetchone()
        if row is not None and row[0] > self._token:
            raise TakenOver("another gateway has used the database since the connection was lost")

    def _open_again(self) -> None:
        """Connect anew; soon after an attempt that failed, fail as it did."""
        if self._why is not None and time.monotonic() < self._not_before:
            raise psycopg.OperationalError(f"not connected: {meanings.explained(self._why)}") from self._why
        try:
            self.open()
        except (psycopg.Error, GatewayError) as error:
            self._why = error
            self._pause_seconds = min(LAST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * self._pause_seconds))
            self._not_before = time.monotonic() + self._pause_seconds
            if isinstance(error, psycopg.Error):
                raise
            raise psycopg.OperationalError(str(error)) from error
        self._why = None
        self._pause_seconds = 0.0
        _log.warning("database_connected_again")
        self._on_restored()

    # --- transactions ---

    def begin(self, token: int = 0) -> None:
        """See `driver.WritingConnection.begin`. A connection that is found lost is made anew: nothing hangs on it."""
        self._token = token
        # The mark tells later what became of a commit that was not answered. The transaction's number would not: after
        # a crash the server gives numbers again whose transactions never came to its log.
        self._mark += 1
        self._begin(f"BEGIN; {_SET_MARK.format(self._mark)}".encode())

    def begin_migration(self) -> None:
        """See `driver.WritingConnection.begin_migration`."""
        self._begin(b"BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")

    def _begin(self, statements: bytes) -> None:
        if not self.is_open:
            self._open_again()
        try:
            self.raw.execute(statements, prepare=False)  # one round trip
        except psycopg.OperationalError as error:
            self.heed(error)
            if self.is_open:
                raise
            self._open_again()
            self.raw.execute(statements, prepare=False)

    def commit(self) -> None:
        """See `driver.WritingConnection.commit`. Raises InDoubt where the connection is lost with it."""
        if fails("O1-wal"):
            raise self.no_room()
        try:
            done = self.raw.execute(b"COMMIT").statusmessage
        except psycopg.Error as error:
            self.heed(error)
            if self.is_open:
                raise
            raise InDoubt(meanings.in_a_line(error)) from error
        if done != "COMMIT":  # the server rolls back what has failed, and says so without an error
            raise psycopg.InternalError("the transaction had failed and was rolled back")

    def settle(self) -> bool | None:
        """See `driver.WritingConnection.settle`. Once the lock is ours again the old session has ended, and with it
        the transaction."""
        try:
            if not self.is_open:
                self._open_again()
            row = self.raw.execute(_MARK).fetchone()
        except TakenOver:
            raise
        except psycopg.Error as error:
            self.heed(error)
            return None
        return row is not None and row[0] == self._mark

    def rollback(self) -> None:
        """See `driver.WritingConnection.rollback`."""
        if self.in_transaction:
            try:
                self.raw.execute(b"ROLLBACK")
            except psycopg.Error as error:
                self.heed(error)
                if self.is_open:
                    self.close()  # the server rolls back what is left

    @contextlib.contextmanager
    def with_care(self, *, content_passes: bool) -> Iterator[None]:
        """See `driver.WritingConnection.with_care`: all is written in the thread, nothing need change."""
        yield

    def upkeep(self, on_fatal: Callable[[BaseException], None]) -> Upkeep:
        """See `driver.WritingConnection.upkeep`."""
        return NothingToDo()

    def is_fatal(self, error: BaseException) -> bool:
        """See `driver.WritingConnection.is_fatal`."""
        return isinstance(error, TakenOver)

    def is_in_doubt(self, error: BaseException) -> bool:
        """See `driver.WritingConnection.is_in_doubt`."""
        return isinstance(error, InDoubt)

    def storage_error(self, error: BaseException, *, committing: bool = False) -> GatewayError:
        """See `driver.WritingConnection.storage_error`."""
        return meanings.storage_error(error)

    def abandon(self) -> None:
        """See `driver.WritingConnection.abandon`."""
        self.close()

    def execute(self, sql: str, values: Any = (), /) -> psycopg.Cursor[Any]:
        """See `driver.Connection.execute`."""
        try:
            return super().execute(sql, values)
        except psycopg.Error as error:
            self.heed(error)
            raise


def connect_writer(
    url: str, picked: str, on_restored: Callable[[], None], *, durable: bool = True
) -> WritingConnection:
    """The connection that writes, open and with the lock; see `WritingConnection`.

    Raises:
        InvalidInput: the URL can't be read.
        StateConflict: another gateway has the database.
        StorageFailed: it can't be reached, or can't be used.
    """
    connection = WritingConnection(url, picked, on_restored, durable=durable)
    try:
        connection.open()
    except psycopg.Error as error:
        mend = "look whether the server runs and takes this user, and at the setting `database`"
        raise StorageFailed(f"the database cannot be opened: {meanings.explained(error)}; {mend}") from None
    return connection
