"""SQLite as the store uses it: its file, its lock, its errors, and the checkpoints.

Two connections that checkpoint can lose pages in SQLite before 3.51.3 (the WAL-reset bug), so automatic checkpoints
are off everywhere and only the writer calls `checkpoint`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..config.folder import unusable
from ..crashing import fails
from ..errors import GatewayError, MaybeStored, StateConflict, StorageFailed, StorageFull

PAGE_BYTES = 8192
#: Pages that the writer keeps in memory, and how many of them it keeps while large content passes through.
CACHE_BYTES = 32 * 1024 * 1024
PASSING_CACHE_BYTES = 4 * 1024 * 1024
#: Free pages that stay in the file in any case, and those given back in one step; some 10 ms.
SPARE_PAGES = 1024
VACUUM_PAGES = 256
#: How long the writer waits for a stranger's lock.
BUSY_SECONDS = 5.0
#: How long a read waits for a lock, and emptying the log for readers.
READ_SECONDS = 2.0

_BUSY, _LOCKED_TABLE, _IOERR, _CORRUPT, _SQLITE_FULL, _NOTADB = 5, 6, 10, 11, 13, 26
_FSYNC = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint did: frames in the log, frames of it that are in the database now."""

    busy: int
    frames: int
    copied: int


def storage_error(error: sqlite3.Error, *, committing: bool = False) -> GatewayError:
    """What a failing statement or COMMIT means to those who wait for it."""
    if _primary(error) == _SQLITE_FULL:
        return StorageFull("no room to store it")
    if committing and is_fatal(error):
        # All of it stands in the log, and a recovery may find it there: neither yes nor no is true.
        return MaybeStored(f"the store could not keep it for sure: {error}")
    return StorageFailed(f"the store could not keep it: {error}{_LOCKED_MEND if _is_locked(error) else ''}")


_LOCKED_MEND = " by another program (a database shell, a copy under way): end it, or wait until it has ended"


def unopened(path: Path, error: sqlite3.Error) -> GatewayError:
    """Why the database at `path` can't be opened, and the mend."""
    code = _primary(error)
    if code == _SQLITE_FULL or (code == _IOERR and _has_no_room(path.parent)):
        return StorageFull(f"there is no room for {path}: make room on its file system, then start again")
    mend = _MENDS.get(code, "the kernel's log may say more")
    return StorageFailed(f"{path} cannot be opened: {error}: {mend}")


RESTORE_MEND = (
    "it was cut off or overwritten; bring back the newest backup: postroom restore BACKUP --replace (which sets this"
    " file aside)"
)
_LOCKED = "end the program that has it open (a database shell, a copy under way), then start again"
_RIGHTS = "give this user the right to write it and the files beside it (-wal, -shm)"
_MENDS = {
    _BUSY: _LOCKED,
    _LOCKED_TABLE: _LOCKED,
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    _CORRUPT: RESTORE_MEND,
    _NOTADB: RESTORE_MEND,
}


def _has_no_room(folder: Path) -> bool:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < PAGE_BYTES * 16


def _is_locked(error: sqlite3.Error) -> bool:
    return _primary(error) in (_BUSY, _LOCKED_TABLE)


def is_fatal(error: sqlite3.Error) -> bool:
    """After it nothing that this process believes about the file can be trusted: a failed fsync may have dropped the
    pages it was to write, and is never retried (RELIABILITY section 2)."""
    return getattr(error, "sqlite_errorcode", 0) in _FSYNC or _primary(error) in (_CORRUPT, _NOTADB)


def no_room() -> sqlite3.Error:
    """What SQLite says on a full disk, for the points of `crashing`."""
    return _said(sqlite3.SQLITE_FULL, "database or disk is full")


def not_synced() -> sqlite3.Error:
    """What SQLite says when an fsync of the log has failed, for the points of `crashing`."""
    return _said(sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error")


def _said(code: int, text: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def lock(path: Path) -> IO[str]:
    """Keep every other process (and a second store in this one) off the file until the result is closed.

    Raises:
        StateConflict: another has it.
        GatewayError: the file beside it that says so can't be made.
    """
    name = Path(f"{path}.lock")
    try:
        handle = open(name, "a+", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise unusable(name, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        owner = handle.read(32).strip() or "unknown"
        handle.close()
        raise StateConflict(f"{path} is in use by another gateway (process {owner})") from None
    with contextlib.suppress(OSError):  # on a full disk the lock holds, and only does not say whose it is
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), f"{os.getpid()}\n".encode())
    return handle


def limit_cache(raw: sqlite3.Connection, size_bytes: int) -> None:
    """Keep no more than these octets of pages in memory; what is over goes now, the longest unused first."""
    raw.execute(f"PRAGMA cache_size=-{size_bytes // 1024}")


def pragma(raw: sqlite3.Connection, name: str) -> int:
    """The number that a setting has."""
    return int(raw.execute(f"PRAGMA {name}").fetchone()[0])


def spare_pages(raw: sqlite3.Connection) -> int:
    """Free pages beyond what is kept for what comes: a tenth of the file, and SPARE_PAGES at least."""
    free = pragma(raw, "freelist_count")
    return max(0, free - max(SPARE_PAGES, pragma(raw, "page_count") // 10))


def checkpoint(raw: sqlite3.Connection, *, truncate: bool = False, wait_seconds: float = 0.0) -> Checkpoint:
    """Copy the log into the database; with `truncate` empty the log file too if no reader uses it any more.

    Raises:
        sqlite3.Error: the log stays whole.
    """
    if fails("O1-checkpoint"):
        raise no_room()
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
