"""Connections to PostgreSQL as the store's verbs see them, opened when they are first used and again when lost."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.pool import StaticPool

from ...errors import Fault, GatewayError, InvalidInput
from ..full_text import FullText, TextSearch
from ..rows import Rows
from . import meanings
from .statements import adapt, columns, text_of, translated

#: How long a server may take to answer a new connection, and a client to notice that one is gone.
CONNECT_SECONDS = 5
DEAD_MILLISECONDS = 30_000

_DEFAULTS = {
    "connect_timeout": str(CONNECT_SECONDS),
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": str(DEAD_MILLISECONDS),
    "client_encoding": "UTF8",
}


def parameters(url: str) -> dict[str, Any]:
    """What libpq is told: what `url` says, and defaults for the rest.

    Raises:
        InvalidInput: it cannot be read. The text does not repeat it, as it may hold a password.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        mend = "write postgresql://USER:PASSWORD@HOST:PORT/NAME, with %XX for @ : / ? # in name and password"
        raise InvalidInput(Fault("database", "is not a URL that libpq can read", mend)) from None
    name = f"postroom {socket.gethostname()} {os.getpid()}"
    return {"application_name": name, **_DEFAULTS, **{k: v for k, v in given.items() if v is not None}}


class Connection:
    """See `driver.Connection`. Not used by two threads at a time."""

    Error = psycopg.Error
    OperationalError = psycopg.OperationalError
    full_text: FullText = TextSearch()
    #: What every session sets.
    settings: ClassVar[dict[str, str]] = {
        "timezone": "UTC",
        "jit": "off",  # it would compile what runs for a millisecond
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "60s",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }

    def __init__(self, url: str) -> None:
        self._parameters = parameters(url)
        self._raw: psycopg.Connection[Any] | None = None
        self._core: sqlalchemy.Connection | None = None

    @property
    def core(self) -> sqlalchemy.Connection:
        """See `driver.Connection.core`."""
        if self._core is None:
            raise psycopg.OperationalError("the connection is closed")
        return self._core

    @property
    def raw(self) -> psycopg.Connection[Any]:
        """The driver's connection; raises OperationalError when there is none."""
        if self._raw is None:
            raise psycopg.OperationalError("the connection is closed")
        return self._raw

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._raw is not None and not self._raw.closed

    @property
    def in_transaction(self) -> bool:
        """See `driver.WritingConnection.in_transaction`."""
        return self.is_open and self.raw.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE

    def open(self) -> None:
        """Connect; raises psycopg's errors, and leaves nothing open then."""
        self.close()
        self._raw = psycopg.connect(autocommit=True, prepare_threshold=1, **self._parameters)
        try:
            adapt(self._raw)
            self._raw.execute(
                "; ".join(f"SET {name} = '{value}'" for name, value in self.settings.items()).encode(), prepare=False
            )
            self._prepare()
            # The session's own settings are SQLAlchemy's too; it is told nothing of how it was connected.
            engine = sqlalchemy.create_engine(
                "postgresql+psycopg://", creator=lambda: self.raw, poolclass=StaticPool, use_native_hstore=False
            )
            self._core = engine.connect()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        """What this kind of session needs beside its settings."""

    def close(self) -> None:
        """Close it, if it is open."""
        core, self._core = self._core, None
        raw, self._raw = self._raw, None
        if core is not None:
            core.invalidate()  # else SQLAlchemy would roll back on a connection that may be gone
            core.close()
        if raw is not None:
            raw.close()

    def heed(self, error: BaseException) -> None:
        """Close a session that the server has ended."""
        if self._raw is not None and (self._raw.closed or meanings.is_lost(getattr(error, "orig", error))):
            self.close()

    def execute(self, sql: str, values: Any = (), /) -> psycopg.Cursor[Any]:
        """See `driver.Connection.execute`."""
        return self.raw.execute(translated(sql), values, binary=True)

    def change(self, sql: str, values: Any = (), /) -> int:
        """See `driver.Connection.change`."""
        return self.execute(sql, values).rowcount

    def change_each(self, sql: str, each: Iterable[Any], /) -> int:
        """See `driver.Connection.change_each`."""
        rows = list(each)
        if not rows:
            return 0
        with self.raw.cursor() as cursor:
            cursor.executemany(translated(sql), rows)
            return cursor.rowcount

    def insert(self, sql: str, values: Any, /) -> bool:
        """See `driver.Connection.insert`."""
        return self.change(f"{sql} ON CONFLICT DO NOTHING", values) > 0

    def run(self, rows: Rows, values: list[Any], ahead: tuple[Any, ...] = (), /) -> int:
        """See `driver.Connection.run`."""
        return self._execute_rows(rows, values, ahead).rowcount

    def returned(self, rows: Rows, values: list[Any], /) -> list[Any]:
        """See `driver.Connection.returned`."""
        return self._execute_rows(rows, values, ()).fetchall()

    def _execute_rows(self, rows: Rows, values: list[Any], ahead: tuple[Any, ...]) -> psycopg.Cursor[Any]:
        given = (*ahead, *columns(rows.types, values))
        return self.raw.execute(text_of(rows), given, prepare=True, binary=True)

    def has_table(self, name: str, /) -> bool:
        """See `driver.Connection.has_table`."""
        return self.execute("SELECT 1 WHERE to_regclass(?) IS NOT NULL", (name,)).fetchone() is not None

    def is_roomy(self) -> bool:
        """See `driver.Connection.is_roomy`; the server's autovacuum does that."""
        return False

    def shrink(self) -> bool:
        """See `driver.Connection.shrink`."""
        return False

    def no_room(self) -> Exception:
        """See `driver.Connection.no_room`."""
        return psycopg.errors.DiskFull("no space left on device")


class ReadingConnection(Connection):
    """See `driver.ReadingConnection`."""

    settings: ClassVar[dict[str, str]] = {
        **Connection.settings,
        "default_transaction_read_only": "on",
        "default_transaction_isolation": "repeatable read",
        "plan_cache_mode": "force_custom_plan",  # filters differ widely in what they leave
    }

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._deadline = 0.0

    @contextlib.contextmanager
    def snapshot(self, seconds: float) -> Iterator[None]:
        """See `driver.ReadingConnection.snapshot`. Connects where there is no connection, or none any more."""
        begin = f"BEGIN; SET LOCAL statement_timeout = {int(seconds * 1000)}".encode()
        self._deadline = time.monotonic() + seconds
        try:
            if not self.is_open:
                self.open()
                self.raw.execute(begin, prepare=False)
            else:
                self._begin_or_reopen(begin)
            yield
            self.raw.execute(b"COMMIT")
        except BaseException as error:
            self.heed(error)
            if self.in_transaction:
                with contextlib.suppress(psycopg.Error):
                    self.raw.execute(b"ROLLBACK")
            raise

    def _begin_or_reopen(self, begin: bytes) -> None:
        try:
            self.raw.execute(begin, prepare=False)
        except psycopg.OperationalError as error:
            if self.is_open and not meanings.is_lost(error):
                raise
            self.open()
            self.raw.execute(begin, prepare=False)

    def execute(self, sql: str, values: Any = (), /) -> psycopg.Cursor[Any]:
        """See `driver.Connection.execute`; the server cuts one statement, this the sum of them."""
        if time.monotonic() > self._deadline:
            raise psycopg.errors.QueryCanceled("the read took too long")
        return super().execute(sql, values)

    def was_cut(self, error: BaseException) -> bool:
        """See `driver.ReadingConnection.was_cut`."""
        return meanings.was_cut(error)

    def storage_error(self, error: BaseException) -> GatewayError:
        """See `driver.ReadingConnection.storage_error`."""
        return meanings.storage_error(error)

    def forget_pages(self) -> None:
        """See `driver.ReadingConnection.forget_pages`: the server keeps them, not this process."""
