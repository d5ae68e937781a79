"""SQLite as the store uses it: one connection that writes and checkpoints, readers that cannot, and its errors.

Two connections that checkpoint can lose pages in SQLite before 3.51.3 (the WAL-reset bug), so automatic checkpoints
are off everywhere and only the writer calls `checkpoint`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from ..errors import GatewayError, StateConflict, StorageFailed, StorageFull
from .schema import APPLICATION_ID

PAGE_BYTES = 8192
STATEMENTS = 512
#: Pages that the writer keeps in memory, and how many of them it keeps while large content passes through.
CACHE_BYTES = 32 * 1024 * 1024
PASSING_CACHE_BYTES = 4 * 1024 * 1024
#: How long the writer waits for a stranger's lock.
BUSY_SECONDS = 5.0
#: How long a read may take.
READ_SECONDS = 2.0

_FULL = 2  # PRAGMA synchronous: fsync of the log at every commit
_IOERR, _CORRUPT, _SQLITE_FULL, _NOTADB = 10, 11, 13, 26
_FSYNC = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint did: frames in the log, frames of it that are in the database now."""

    busy: int
    frames: int
    copied: int


def storage_error(error: sqlite3.Error) -> GatewayError:
    """What a failing statement or COMMIT means to those who wait for it."""
    if _primary(error) == _SQLITE_FULL:
        return StorageFull("no room to store it")
    return StorageFailed(f"the store could not keep it: {error}")


def is_fatal(error: sqlite3.Error) -> bool:
    """After it nothing that this process believes about the file can be trusted: a failed fsync may have dropped the
    pages it was to write, and is never retried (RELIABILITY section 2)."""
    return getattr(error, "sqlite_errorcode", 0) in _FSYNC or _primary(error) in (_CORRUPT, _NOTADB)


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def lock(path: Path) -> IO[str]:
    """Keep every other process (and a second store in this one) off the file until the result is closed.

    Raises:
        StateConflict: another has it.
    """
    handle = open(f"{path}.lock", "a+", opener=lambda name, flags: os.open(name, flags, 0o600))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        owner = handle.read(32).strip() or "unknown"
        handle.close()
        raise StateConflict(f"{path} is in use by another gateway (process {owner})") from None
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle


def connect_writer(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """The one connection that writes. `durable=False` leaves out every fsync: for measuring their cost only.

    Raises:
        StorageFailed: not a database of ours, or a setting did not take.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS)
    try:
        _prepare(raw, path, durable)
    except sqlite3.Error as error:
        raw.close()
        raise StorageFailed(f"{path} cannot be opened: {error}") from error
    except StorageFailed:
        raw.close()
        raise
    return raw


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


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that can only read."""
    raw = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
        timeout=READ_SECONDS,
    )
    raw.execute("PRAGMA query_only=ON")
    raw.execute("PRAGMA temp_store=MEMORY")
    raw.execute("PRAGMA cache_size=-4096")
    return raw


def limit_cache(raw: sqlite3.Connection, size_bytes: int) -> None:
    """Keep no more than these octets of pages in memory; what is over goes now, the longest unused first."""
    raw.execute(f"PRAGMA cache_size=-{size_bytes // 1024}")


def pragma(raw: sqlite3.Connection, name: str) -> int:
    """The number that a setting has."""
    return int(raw.execute(f"PRAGMA {name}").fetchone()[0])


def checkpoint(raw: sqlite3.Connection, *, truncate: bool = False, wait_seconds: float = 0.0) -> Checkpoint:
    """Copy the log into the database; with `truncate` empty the log file too if no reader uses it any more.

    Raises:
        sqlite3.Error: the log stays whole.
    """
    if not truncate:
        return Checkpoint(*raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())
    wait_for_locks(raw, wait_seconds)
    try:
        return Checkpoint(*raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    finally:
        wait_for_locks(raw, 0.0)


def wait_for_locks(raw: sqlite3.Connection, seconds: float) -> None:
    """How long statements from now on wait for a lock that another process holds."""
    raw.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
