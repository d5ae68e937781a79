"""The write-ahead log of the SQLite file: copied into the database between batches, emptied in idle moments.

Only the writer's thread does this: two connections that checkpoint can lose pages (see `sqlite`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import structlog

from . import sqlite

_log = structlog.get_logger()

CHECKPOINT_BYTES = 16 * 1024 * 1024
#: With the log this long readers that never pause are waited for; while one reads on, as a backup does, only each time
#: that the log has doubled.
LOG_BYTES = 8 * CHECKPOINT_BYTES


class Log:
    """See `driver.Upkeep`. How long the log is, is estimated from what was written, and learnt at each checkpoint."""

    def __init__(self, raw: sqlite3.Connection, on_fatal: Callable[[BaseException], None]) -> None:
        self._raw = raw
        self._on_fatal = on_fatal
        self._frames = 0.0  # estimated, since the last checkpoint
        self._frames_per_unit = 3.0
        self._patient_until = LOG_BYTES
        self._fails = False

    def wrote(self, operations: int, size_bytes: int) -> None:
        """See `driver.Upkeep.wrote`."""
        self._frames += (operations + size_bytes / sqlite.PAGE_BYTES) * self._frames_per_unit

    @property
    def is_due(self) -> bool:
        """See `driver.Upkeep.is_due`."""
        return self._frames * sqlite.PAGE_BYTES >= CHECKPOINT_BYTES

    @property
    def is_left(self) -> bool:
        """See `driver.Upkeep.is_left`."""
        return self._frames > 0

    def work(self) -> None:
        """Copy the log between two batches, and learn from its length how much an operation writes."""
        estimated = self._frames
        try:
            did = sqlite.checkpoint(self._raw)
            if did.frames * sqlite.PAGE_BYTES > self._patient_until:
                emptied = sqlite.checkpoint(self._raw, truncate=True, wait_seconds=sqlite.READ_SECONDS)
                self._patient_until = 2 * did.frames * sqlite.PAGE_BYTES if emptied.busy else LOG_BYTES
        except sqlite3.Error as error:
            self._failed(error)
            return
        self._fails = False
        self._frames = 0.0
        self._frames_per_unit *= min(2.0, max(0.5, did.frames / estimated))

    def tidy(self, *, broken: bool) -> None:
        """Empty the log."""
        self._frames = 0.0
        if broken:
            return
        try:
            sqlite.checkpoint(self._raw, truncate=True)
        except sqlite3.Error as error:
            self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        # The log keeps everything that was committed; without room the copy is tried again after the next batches.
        if sqlite.is_fatal(error):
            self._on_fatal(error)
        if not self._fails:
            self._fails = True  # told once, until one works again
            _log.warning("checkpoint_failed", error=str(error))
