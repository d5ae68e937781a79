"""From an empty file, or an older version's, to the tables of `store.schema`: Alembic, run from the package."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Connection

from ..schema import HEAD


def migrate(raw: sqlite3.Connection, core: Connection) -> bool:
    """Bring the store to HEAD in one transaction; whether anything was done.

    Raises:
        StorageFailed: it was written by a newer version, or a migration failed (nothing of it was kept).
    """
    if revision(raw) == HEAD:
        return False
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
    from sqlalchemy.exc import DBAPIError

    from ...errors import StorageFailed

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = core
    raw.execute("BEGIN IMMEDIATE")
    try:
        command.upgrade(config, "head")
        raw.execute("COMMIT")
    except (CommandError, DBAPIError, sqlite3.Error) as error:
        raise StorageFailed(f"the database cannot be migrated: {error}") from error
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
    return True


def revision(raw: sqlite3.Connection) -> str:
    """The revision that the file is at; empty for an empty file."""
    known = raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = raw.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return str(row[0]) if row else ""
