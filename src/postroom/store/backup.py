"""A copy of the database while it is in use, and the proof that the copy is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageFailed, StorageFull
from ..model.quantity import format_size
from . import sqlite, sqlite_connection
from .migrations import revision
from .schema import APPLICATION_ID, HEAD

_READ_BYTES = 1024 * 1024

#: A file of SQLite begins with it.
_MAGIC = b"SQLite format 3\0"

#: What a copy leaves free: the gateway that may run on the same disk must not be stopped by it.
_RESERVE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CopyFacts:
    """What a copy holds: its revision, SHA-256 in hex, messages, and deliveries by state."""

    revision: str
    sha256: str
    messages: int
    deliveries: dict[str, int]


def copy(path: Path, target: Path) -> CopyFacts:
    """Copy the database at `path`, as it is at one moment, to the new file `target` (0600), and prove it.

    Others may read and write meanwhile: in write-ahead mode one step under one snapshot disturbs nobody, but the log
    grows by all that is written until it ends.

    Raises:
        StorageFull: there is not enough room for it.
        StorageFailed: the copy can't be written, or is not what it should be; it is removed then.
        FileExistsError: `target` is there.
    """
    need_room(target.parent, (path, Path(f"{path}-wal")))
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _copy(path, target)
        sync(target)
        return verify(target)
    except sqlite3.Error as error:
        target.unlink()
        raise sqlite.storage_error(error) from error
    except BaseException:
        target.unlink()
        raise


def _copy(path: Path, target: Path) -> None:
    source, copied = sqlite_connection.connect_reader(path), sqlite3.connect(target, isolation_level=None)
    try:
        source.backup(copied, pages=-1)
        copied.execute("PRAGMA journal_mode=DELETE")  # one file, with no log beside it
    finally:
        copied.close()
        source.close()


def verify(path: Path) -> CopyFacts:
    """Read all of a copy: pages and indexes are sound, and the counters agree with the deliveries.

    Raises:
        StorageFailed: it is not a sound database of ours, or of a newer version.
    """
    try:
        name = path.absolute().as_uri() + "?mode=ro&immutable=1"
        raw = sqlite3.connect(name, uri=True, isolation_level=None, factory=sqlite_connection.Connection)
        try:
            return _verified(raw, path)
        finally:
            raw.close()
    except sqlite3.Error as error:
        raise StorageFailed(f"{path} can't be read: {error}") from error


def _verified(raw: sqlite_connection.Connection, path: Path) -> CopyFacts:
    if sqlite.pragma(raw, "application_id") != APPLICATION_ID:
        raise StorageFailed(f"{path} is not a Postroom database")
    found = revision(raw)
    if found > HEAD:
        raise StorageFailed(f"{path} was written by a newer version (revision {found})")
    wrong = [row[0] for row in raw.execute("PRAGMA integrity_check(5)").fetchall() if row[0] != "ok"]
    if wrong:
        raise StorageFailed(f"{path} is damaged: {'; '.join(wrong)}")
    counted = dict(raw.execute("SELECT state, count(*) FROM delivery GROUP BY state").fetchall())
    kept = dict(raw.execute("SELECT state, sum(count) FROM tally GROUP BY state HAVING sum(count) <> 0").fetchall())
    if counted != kept:
        raise StorageFailed(f"{path}: its counters say {kept}, and it holds {counted}")
    (messages,) = raw.execute("SELECT count(*) FROM message").fetchone()
    return CopyFacts(found, digest(path), messages, counted)


def settle(path: Path) -> None:
    """Bring what is in the log of a database that nobody uses into its file, and remove the log, where that is
    possible; what is no database stays as it is."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:  # SQLite throws the log of an empty file away
            return
    with contextlib.suppress(sqlite3.Error):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("PRAGMA synchronous=FULL")
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def need_room(folder: Path, files: tuple[Path, ...]) -> None:
    """Whether copies of `files` fit into `folder` with something to spare.

    Raises:
        StorageFull: they don't.
    """
    wanted = sum(file.stat().st_size for file in files if file.exists())
    free = shutil.disk_usage(folder).free
    if free < wanted + _RESERVE_BYTES:
        spare = format_size(_RESERVE_BYTES)
        raise StorageFull(f"{folder} has {free} octets free, and the copy takes {wanted}; {spare} must stay free")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to the new file `target` (0600), whole or not at all, and durable when this returns."""
    fresh = target.with_name(f"{target.name}.copying")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with source.open("rb") as read, os.fdopen(descriptor, "wb") as written:
            while part := read.read(_READ_BYTES):
                written.write(part)
            written.flush()
            os.fsync(written.fileno())
        give_name(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)
    sync(target.parent)


def give_name(path: Path, name: Path) -> None:
    """Let a file also be known as `name`, or only so where the file system has no links.

    Raises:
        FileExistsError: something is called so.
    """
    try:
        os.link(path, name)
    except FileExistsError:
        raise
    except OSError:
        if name.exists():
            raise FileExistsError(name) from None
        os.rename(path, name)


def sync(path: Path) -> None:
    """fsync of a file, or of a folder and so of the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
