"""Reads: a few connections that cannot write, each used by one thread at a time and cut when a read takes too long."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from ..errors import Busy, NotRunning
from . import sqlite

T = TypeVar("T")

READERS = 3

#: Steps of SQLite's machine between two looks at the clock; some milliseconds.
_STEPS = 50_000


def core_connection(raw: sqlite3.Connection) -> Connection:
    """SQLAlchemy's connection on a driver's connection that somebody else commits and closes."""
    return create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool).connect()


class Reader:
    """One connection that reads: `raw` is the driver's, `core` SQLAlchemy's on the same."""

    def __init__(self, path: Path) -> None:
        self.raw = sqlite.connect_reader(path)
        self.core = core_connection(self.raw)
        self._deadline = 0.0
        self.raw.set_progress_handler(self._is_late, _STEPS)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    @contextmanager
    def snapshot(self, seconds: float) -> Iterator[None]:
        """All reads within see the same moment; together they take at most `seconds`."""
        self._deadline = time.monotonic() + seconds
        self.raw.execute("BEGIN")
        try:
            yield
        finally:
            if self.raw.in_transaction:
                self.raw.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self.core.close()
        self.raw.close()


class Readers:
    """A few readers and their threads."""

    def __init__(self, path: Path, count: int = READERS, seconds: float = sqlite.READ_SECONDS) -> None:
        self._seconds = seconds
        self._all = [Reader(path) for _ in range(count)]
        self._free: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        for reader in self._all:
            self._free.put(reader)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="postroom-reader")
        self._closed = False

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` in a thread with a reader, in one snapshot.

        Raises:
            Busy: it took too long and was cut.
            StorageFailed: the file cannot be read.
        """
        if self._closed:
            raise NotRunning("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, work)

    def _read(self, work: Callable[[Reader], T]) -> T:
        reader = self._free.get()
        try:
            with reader.snapshot(self._seconds):
                return work(reader)
        except (sqlite3.Error, DBAPIError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise Busy(f"the search took longer than {self._seconds:g}s and was stopped") from error
            if isinstance(cause, sqlite3.Error):
                raise sqlite.storage_error(cause) from error
            raise
        finally:
            self._free.put(reader)

    async def close(self) -> None:
        """Wait for reads under way and close."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for reader in self._all:
            reader.close()
