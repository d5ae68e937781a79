"""What a server must be so that what was acknowledged is kept; looked at when the store opens, and by `check`."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from ...errors import StorageFailed
from .connection import Connection
from .meanings import explained

#: The oldest major version that is taken; older ones had their last release before this was written.
OLDEST = 130_000


def refuse_unsafe(raw: psycopg.Connection[object]) -> None:
    """Raises StorageFailed where the server is too old, or would lose what it has committed."""
    for fault in unsafe(raw):
        raise StorageFailed(f"the database cannot be used: {fault}")
    if _setting(raw, "synchronous_commit") not in ("on", "remote_apply"):
        raise StorageFailed("the database cannot be used: synchronous_commit = on did not take")


def unsafe(raw: psycopg.Connection[object]) -> Iterator[str]:
    """Why mail must not be kept there, in words."""
    if raw.info.server_version < OLDEST:
        yield f"PostgreSQL {raw.info.server_version // 10000} is too old: 13 is the oldest that works"
    if _setting(raw, "server_encoding") != "UTF8":
        yield f"its encoding is {_setting(raw, 'server_encoding')}: make one with ENCODING 'UTF8'"
    if _setting(raw, "fsync") != "on":
        yield "fsync is off on this server, so a power cut loses what was acknowledged: set fsync = on"


def doubtful(raw: psycopg.Connection[object]) -> Iterator[str]:
    """What lets mail be lost in rarer accidents, in words."""
    if _setting(raw, "full_page_writes") != "on":
        yield "full_page_writes is off: a power cut may damage pages; set it on"
    if _setting(raw, "data_checksums") != "on":
        yield "data checksums are off: damage of the disk is not noticed (pg_checksums --enable)"


def _setting(raw: psycopg.Connection[object], name: str) -> str:
    row = raw.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert isinstance(row, tuple)
    return str(row[0])


def look(url: str) -> tuple[str, list[str], list[str]]:
    """For `check`: what the database is, why it must not be used, and what is doubtful about it."""
    connection = Connection(url)
    try:
        connection.open()
        raw = connection.raw
        major, minor = divmod(raw.info.server_version, 10000)
        what = f"PostgreSQL {major}.{minor}, database {raw.info.dbname} at {raw.info.host}:{raw.info.port}"
        return what, list(unsafe(raw)), list(doubtful(raw))
    except psycopg.Error as error:
        return "", [f"cannot be reached: {explained(error)}"], []
    finally:
        connection.close()
