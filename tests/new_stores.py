"""SQLite stores of tests begin as copies of one that was migrated: to migrate each anew takes longer than most tests.

That a new file is migrated, and to what, is asked by those who call `migrate` themselves, and by the installed command.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from pathlib import Path
from typing import Any

from postroom.store import database, sqlite_connection
from postroom.store.migrations import migrate

_open = database._open_sqlite


@functools.cache
def migrated() -> bytes:
    """The file of an empty store; made at the first call."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "postroom.db"
        with contextlib.closing(sqlite_connection.connect_writer(path)) as raw:
            migrate(raw)
        return path.read_bytes()


def _open_copy(file: Path, durable: bool) -> Any:
    if not file.exists() and not Path(f"{file}-wal").exists():
        with contextlib.suppress(OSError):  # the store itself says what is wrong
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(made, "wb") as copy:
                copy.write(migrated())
    return _open(file, durable)


def copy_stores() -> None:
    """From now on, in this process and its forks."""
    database._open_sqlite = _open_copy
