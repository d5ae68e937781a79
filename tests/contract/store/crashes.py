"""What a crash of the process leaves of a store: its files as they are at one moment, in a folder of their own."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path


def copy_as_it_is(database: Path, folder: Path) -> Path:
    """The database and its log as the disk has them now, whatever is under way; the path of the copy.

    A reader keeps the log from being emptied meanwhile, and another process copies: to close a file here would give up
    the locks that SQLite has on it.
    """
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        files = [str(path) for path in (database, Path(f"{database}-wal")) if path.exists()]  # in this order
        subprocess.run(["cp", *files, str(folder)], check=True)
    return folder / database.name
