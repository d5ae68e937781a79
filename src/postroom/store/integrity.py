"""Is the database file sound and set as it must be: for `check`, on a connection that can only read."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from . import sqlite, sqlite_connection
from .schema import APPLICATION_ID

#: After this long the integrity check is given up; it reads every page.
PATIENCE_SECONDS = 20.0

_STEPS_BETWEEN_LOOKS = 100_000
_AUTO_VACUUM_INCREMENTAL = 2


class Unfinished(Exception):
    """The check took too long; nothing wrong was found so far."""


async def faults(path: Path, patience_seconds: float = PATIENCE_SECONDS) -> list[str]:
    """What is wrong with the database at `path`, in words; empty when nothing is.

    Raises:
        Unfinished: the file is too large to be read in time.
    """
    return await asyncio.to_thread(_faults, path, patience_seconds)


def _faults(path: Path, patience_seconds: float) -> list[str]:
    try:
        raw = sqlite_connection.connect_reader(path)
    except sqlite3.Error as error:
        return [f"{path} cannot be read: {error}"]
    try:
        return _wrong_settings(raw) + _broken_pages(raw, patience_seconds)
    except sqlite3.Error as error:
        return [f"{path} cannot be read: {error}"]
    finally:
        raw.close()


def _wrong_settings(raw: sqlite3.Connection) -> list[str]:
    wanted = {
        "application_id": APPLICATION_ID,
        "page_size": sqlite.PAGE_BYTES,
        "auto_vacuum": _AUTO_VACUUM_INCREMENTAL,
    }
    found = {name: sqlite.pragma(raw, name) for name in wanted}
    wrong = [f"PRAGMA {name} is {found[name]}, not {value}" for name, value in wanted.items() if found[name] != value]
    mode = raw.execute("PRAGMA journal_mode").fetchone()[0]
    return wrong if mode == "wal" else [*wrong, f"PRAGMA journal_mode is {mode}, not wal"]


def _broken_pages(raw: sqlite3.Connection, patience_seconds: float) -> list[str]:
    deadline = time.monotonic() + patience_seconds
    raw.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
    try:
        rows = raw.execute("PRAGMA quick_check(10)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise Unfinished from None
        raise
    return [row[0] for row in rows if row[0] != "ok"]
