"""Deliveries that another account takes over, and those that come back (SPEC section 2.8).

Only what no relay can have is moved: it waits, no try of it ended without an answer, and no crash left it in doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ..model.queue import LaneId, MessageId
from . import Diversion, Place, WaitingDelivery
from .hot import INSERT_EVENT
from .readers import Reader
from .rows import Rows
from .schema import AWAY_SQL, WAITING_SQL, micros
from .writer import Transaction

#: Nothing of it can be anywhere else.
_SURE = "unknowns = 0 AND twice = 0"

_COLUMNS = (
    "delivery.message_id, delivery.n, delivery.lane, delivery.home, delivery.recipient, message.reverse_path,"
    " message.application_id, message.named"
)
_JOIN = " FROM delivery JOIN message ON message.id = delivery.message_id"
_ON_LANE = (
    f"SELECT {_COLUMNS}, delivery.priority, delivery.flow, delivery.due{_JOIN}"
    f" WHERE delivery.{WAITING_SQL} AND delivery.lane = ? AND {_SURE}"
    " AND (delivery.priority, delivery.flow, delivery.due, delivery.message_id, delivery.n) > (?, ?, ?, ?, ?)"
    " ORDER BY delivery.priority, delivery.flow, delivery.due, delivery.message_id, delivery.n LIMIT ?"
).replace("delivery.state", "state")
_AWAY = (
    f"SELECT {_COLUMNS}{_JOIN} WHERE {AWAY_SQL} AND home = ? AND {_SURE}"
    " AND (delivery.message_id, delivery.n) > (?, ?) ORDER BY delivery.message_id, delivery.n LIMIT ?"
)
_HEAD = "SELECT head FROM content WHERE message_id = ?"

_DIVERT = Rows(
    "WITH v(m, n, f, t, h) AS (",
    "biiii",
    f") UPDATE delivery SET lane = v.t, home = v.h FROM v WHERE delivery.message_id = v.m AND delivery.n = v.n"
    f" AND delivery.lane = v.f AND delivery.{WAITING_SQL} AND {_SURE} RETURNING message_id, delivery.n, state",
)


#: Before every place of class, flow, due, message and recipient.
_START: Place = (-1, 0, 0, b"", 0)


def on_lane(
    reader: Reader, lane: LaneId, after: Place | None, limit: int
) -> tuple[list[WaitingDelivery], Place | None]:
    """What waits on `lane` and may be moved, behind a place; and the place of the next read, None at the end."""
    rows = reader.raw.execute(_ON_LANE, (lane, *(after or _START), limit)).fetchall()
    found = [_waiting(row[:8]) for row in rows]
    if len(rows) < limit:
        return found, None
    message_id, n, *_, priority, flow, due = rows[-1]
    return found, (priority, flow, due, message_id, n)


def away(reader: Reader, home: LaneId, after: tuple[MessageId, int] | None, limit: int) -> list[WaitingDelivery]:
    """What belongs to `home` and waits elsewhere, behind a message and recipient."""
    return [_waiting(row) for row in reader.raw.execute(_AWAY, (home, *(after or (b"", -1)), limit)).fetchall()]


def head(reader: Reader, message_id: MessageId) -> bytes:
    """The stored head of a message; empty where it was removed."""
    row = reader.raw.execute(_HEAD, (message_id,)).fetchone()
    return bytes(row[0]) if row is not None else b""


def _waiting(row: Sequence[object]) -> WaitingDelivery:
    message_id, n, lane, home, recipient, reverse_path, application_id, named = row
    return WaitingDelivery(message_id, n, lane, home, recipient, reverse_path, application_id, bool(named))  # type: ignore[arg-type]


def divert(diversions: Sequence[Diversion], now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: move what still waits where it was; how many deliveries."""

    def work(transaction: Transaction) -> int:
        wanted = {(one.message_id, one.n): one for one in diversions}
        values = [v for one in diversions for v in (one.message_id, one.n, one.origin, one.target, one.home)]
        moved = transaction.raw.returned(_DIVERT, values)
        events: list[object] = []
        for message_id, n, state in moved:
            one = wanted[message_id, n]
            transaction.move(one.origin, state, "", 1)
            transaction.move(one.target, "", state, 1)
            events += (micros(now), "rerouted", message_id, n, one.account, one.why)
        if events:
            transaction.raw.run(INSERT_EVENT, events)
        return len(moved)

    return work
