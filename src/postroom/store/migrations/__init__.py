"""From an empty file, or an older version's, to the tables of `store.schema`: Alembic, run from the package."""

from __future__ import annotations

from pathlib import Path

from ..driver import Connection, WritingConnection
from ..schema import HEAD


def migrate(raw: WritingConnection) -> bool:
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
    config.attributes["connection"] = raw.core
    raw.begin_migration()
    try:
        command.upgrade(config, "head")
        raw.commit()
    except (CommandError, DBAPIError, raw.Error) as error:
        raise StorageFailed(f"the database cannot be migrated: {error}") from error
    finally:
        raw.rollback()
    return True


def revision(raw: Connection) -> str:
    """The revision that the database is at; empty for an empty one."""
    known = raw.has_table("alembic_version")
    row = raw.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return str(row[0]) if row else ""
