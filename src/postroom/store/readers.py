"""Reads: a few connections that cannot write, each used by one thread at a time and cut when a read takes too long."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from ..errors import Busy, NotRunning
from .driver import ReadingConnection

T = TypeVar("T")

READERS = 3

#: How long a read may take.
READ_SECONDS = 2.0


class Reader:
    """One connection that reads: `raw` is the driver's, `core` SQLAlchemy's on the same."""

    def __init__(self, raw: ReadingConnection) -> None:
        self.raw = raw

    @property
    def core(self) -> sqlalchemy.Connection:
        """SQLAlchemy's connection."""
        return self.raw.core


class Readers:
    """A few readers and their threads."""

    def __init__(
        self, connect: Callable[[], ReadingConnection], count: int = READERS, seconds: float = READ_SECONDS
    ) -> None:
        self._seconds = seconds
        self._all = [Reader(connect()) for _ in range(count)]
        self._free: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        for reader in self._all:
            self._free.put(reader)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="postroom-reader")
        self._closed = False

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` in a thread with a reader, in one snapshot.

        Raises:
            Busy: it took too long and was cut.
            StorageFailed: the database cannot be read.
        """
        if self._closed:
            raise NotRunning("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, work)

    def _read(self, work: Callable[[Reader], T]) -> T:
        reader = self._free.get()
        raw = reader.raw
        try:
            with raw.snapshot(self._seconds):
                return work(reader)
        except (raw.Error, DBAPIError) as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            if raw.was_cut(cause):
                mend = "narrow it, by dates or by more of an address"
                raise Busy(f"the search took longer than {self._seconds:g}s and was stopped: {mend}") from error
            if isinstance(cause, raw.Error):
                raise raw.storage_error(cause) from error
            raise
        finally:
            self._free.put(reader)

    async def close(self) -> None:
        """Wait for reads under way and close."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for reader in self._all:
            reader.raw.close()
