"""What PostgreSQL's errors mean to those who wait for the store."""

from __future__ import annotations

import psycopg

from ...errors import GatewayError, MaybeStored, StorageFailed, StorageFull

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_DISK_FULL = "53100"
_TOO_MANY_CONNECTIONS = "53300"
_QUERY_CANCELED = "57014"
_STARTING_UP = "57P03"
_READ_ONLY = "25006"
_LOCK_NOT_AVAILABLE = "55P03"

_MENDS = {
    _TOO_MANY_CONNECTIONS: "raise max_connections of the server, or end other clients",
    _STARTING_UP: "it is starting or stopping: wait",
    _READ_ONLY: "it is a standby, or set read-only: name the primary",
    _LOCK_NOT_AVAILABLE: "another session has locked a table: end it, or wait until it has ended",
}


class TakenOver(psycopg.OperationalError):
    """Another gateway has, or has had, the database since this one lost its connection."""


class InDoubt(psycopg.OperationalError):
    """The connection was lost while a commit was under way."""


def is_lost(error: BaseException) -> bool:
    """Whether the server ended the session with it, though the socket may not say so yet."""
    if not isinstance(error, psycopg.Error):
        return False
    return error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def was_cut(error: BaseException) -> bool:
    """Whether a statement took too long and was ended."""
    return isinstance(error, psycopg.Error) and error.sqlstate == _QUERY_CANCELED


def storage_error(error: BaseException) -> GatewayError:
    """What a failing statement or COMMIT means."""
    if isinstance(error, InDoubt):
        return MaybeStored(f"the connection to the database was lost at a commit: {in_a_line(error)}")
    if isinstance(error, psycopg.Error) and error.sqlstate == _DISK_FULL:
        return StorageFull("no room to store it")
    return StorageFailed(f"the store could not keep it: {explained(error)}")


def explained(error: BaseException) -> str:
    """The error in one line, with its mend where there is one."""
    mend = _MENDS.get(getattr(error, "sqlstate", None) or "", "")
    return in_a_line(error) + (f" ({mend})" if mend else "")


def in_a_line(error: BaseException) -> str:
    """psycopg's text without its line ends; it never holds the password."""
    return " ".join(str(error).split()) or type(error).__name__


def passes(error: psycopg.Error) -> bool:
    """Whether a connection may succeed a little later: nobody listens, or the server starts or is full."""
    return error.sqlstate in (None, _TOO_MANY_CONNECTIONS, _STARTING_UP)
