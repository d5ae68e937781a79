"""Connections that messages bring: kept sealed with their message, and emptied in the transaction that ends it.

What people may see of one stays until the message is removed; the rest goes when no delivery of the message can need
it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..model.connection import SealedConnection
from ..model.queue import NewMessage
from .schema import micros
from .writer import Transaction

#: The event of a message that brings one.
KIND = "own_connection"

_INSERT = "INSERT INTO connection (message_id, application_id, target, shown, sealed) VALUES (?, ?, ?, ?, ?)"
_EVENT = "INSERT INTO event (at, kind, message_id, n, account, detail) VALUES (?, ?, ?, NULL, '', ?)"
_HAS_ENDED = (
    " NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.message_id = connection.message_id"
    " AND delivery.state IN ('queued','sending','deferred','held'))"
)
_EMPTY = f"UPDATE connection SET sealed = ? WHERE message_id = ? AND{_HAS_ENDED}"
_EMPTY_PICKED = (
    "UPDATE connection SET sealed = ? WHERE message_id IN (SELECT message_id FROM picked) AND sealed <> ?"
    f" AND{_HAS_ENDED}"
)

#: What a read of a message joins, and gives to `sealed_connection`.
COLUMNS = "connection.application_id, connection.target, connection.shown, connection.sealed"
JOIN = " LEFT JOIN connection ON connection.message_id = message.id"


def keep(transaction: Transaction, message: NewMessage, connection: SealedConnection) -> None:
    """Keep the connection of a message just inserted, with an event that tells of it."""
    row = (message.id, connection.application_id, connection.target, connection.shown, connection.sealed)
    transaction.raw.execute(_INSERT, row)
    transaction.raw.execute(_EVENT, (micros(message.accepted), KIND, message.id, connection.target))


def end(transaction: Transaction, messages: Sequence[bytes]) -> None:
    """Deliveries of these messages have ended: where they were the last, the connection does too."""
    transaction.raw.change_each(_EMPTY, [(b"", message_id) for message_id in messages])


def end_picked(transaction: Transaction) -> None:
    """As `end`, of the messages of the deliveries in `picked`."""
    transaction.raw.execute(_EMPTY_PICKED, (b"", b""))


def sealed_connection(message_id: bytes, row: Sequence[Any]) -> SealedConnection | None:
    """The connection of a message, by its `COLUMNS`; None where it brought none."""
    application_id, target, shown, sealed = row
    if target is None:
        return None
    return SealedConnection(message_id, application_id, target, shown, sealed)


def reseal(transaction: Transaction, again: Callable[[bytes], bytes]) -> int:
    """Seal anew by `again` what is sealed; how many."""
    found = transaction.raw.execute("SELECT message_id, sealed FROM connection WHERE sealed <> ?", (b"",)).fetchall()
    transaction.raw.change_each(
        "UPDATE connection SET sealed = ? WHERE message_id = ?",
        [(again(sealed), message_id) for message_id, sealed in found],
    )
    return len(found)
