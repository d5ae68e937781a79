"""Deliveries that another account takes over, those that come back, and those that a person moves (SPEC section 2.8).

Only what no relay can have is moved: it waits, no try of it ended without an answer, and no crash left it in doubt.
A person may move what is held too, and the rest at the risk of a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from ..model.queue import DeliveryState, LaneId, MessageId
from . import Diversion, Place, Selection, WaitingDelivery
from .hot import INSERT_EVENT
from .readers import Reader
from .rows import Rows
from .schema import ASIDE_SQL, AWAY_SQL, WAITING_SQL, micros
from .writer import Transaction

#: Nothing of it can be anywhere else.
_SURE = "unknowns = 0 AND twice = 0"

_COLUMNS = (
    "delivery.message_id, delivery.n, delivery.lane, delivery.home, delivery.recipient, message.reverse_path,"
    " message.application_id, message.named"
)
_JOIN = " FROM delivery JOIN message ON message.id = delivery.message_id"
_WALK = (
    "(delivery.priority, delivery.flow, delivery.due, delivery.message_id, delivery.n) > (?, ?, ?, ?, ?)"
    " ORDER BY delivery.priority, delivery.flow, delivery.due, delivery.message_id, delivery.n LIMIT ?"
)
_PLACES = "delivery.priority, delivery.flow, delivery.due"
_ON_LANE = f"SELECT {_COLUMNS}, {_PLACES}{_JOIN} WHERE {WAITING_SQL} AND delivery.lane = ? AND {_SURE} AND {_WALK}"
_OWN = "EXISTS (SELECT 1 FROM connection WHERE connection.message_id = delivery.message_id) AS own_connection"
_ALL = f"SELECT {_COLUMNS}, state, {_SURE} AS is_sure, {_OWN}"
_WAITING = f"{_ALL}, {_PLACES}{_JOIN} WHERE {WAITING_SQL} AND delivery.lane = ? AND {_WALK}"
_HELD = (
    f"{_ALL}{_JOIN} WHERE state = 'held' AND {ASIDE_SQL} AND delivery.lane = ?"
    " AND (delivery.message_id, delivery.n) > (?, ?) ORDER BY delivery.message_id, delivery.n LIMIT ?"
)
_OF_MESSAGE = f"{_ALL}{_JOIN} WHERE delivery.message_id = ? AND state IN ('queued','deferred','held')"
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


def _by_hand(state: str, before: str, sure: str) -> Rows:
    return Rows(
        "WITH v(m, n, f, t, h, d) AS (",
        "biiiii",
        f") UPDATE delivery SET lane = v.t, home = v.h, window_from = v.d{state} FROM v WHERE delivery.message_id = v.m"
        f" AND delivery.n = v.n AND delivery.lane = v.f AND delivery.state {before}{sure}"
        " RETURNING message_id, delivery.n, state",
    )


#: What a person moves: what is queued or held stays so, what is deferred is due now. Its window begins anew: when it
#: stood still is known of the account that it leaves alone.
_MOVE = {
    even_unsure: (
        _by_hand("", "IN ('queued','held')", sure),
        _by_hand(", state = 'queued', due = v.d", "= 'deferred'", sure),
    )
    for even_unsure, sure in ((True, ""), (False, f" AND {_SURE}"))
}

#: Before every place of class, flow, due, message and recipient; and behind all that wait, before what is held.
_START: Place = (-1, 0, 0, b"", 0)
_ASIDE: Place = (99, 0, 0, b"", -1)


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


def selected(
    reader: Reader, selection: Selection, after: Place | None, limit: int
) -> tuple[list[WaitingDelivery], Place | None]:
    """See `QueueStore.selected`: on a lane first what waits, then what is held."""
    if selection.message_id is not None:
        rows = reader.raw.execute(_OF_MESSAGE, (selection.message_id,)).fetchall()
        return [_waiting(row) for row in rows if selection.n is None or row[1] == selection.n], None
    place = after or _START
    if place[0] < _ASIDE[0]:
        rows = reader.raw.execute(_WAITING, (selection.lane, *place, limit)).fetchall()
        following = (*rows[-1][11:14], *rows[-1][:2]) if len(rows) == limit else _ASIDE
        return [_waiting(row[:11]) for row in rows], following
    rows = reader.raw.execute(_HELD, (selection.lane, *place[3:], limit)).fetchall()
    return [_waiting(row) for row in rows], (*_ASIDE[:3], *rows[-1][:2]) if len(rows) == limit else None


def head(reader: Reader, message_id: MessageId) -> bytes:
    """The stored head of a message; empty where it was removed."""
    row = reader.raw.execute(_HEAD, (message_id,)).fetchone()
    return bytes(row[0]) if row is not None else b""


def _waiting(row: Sequence[object]) -> WaitingDelivery:
    message_id, n, lane, home, recipient, reverse_path, application_id, named, *more = row
    known = WaitingDelivery(message_id, n, lane, home, recipient, reverse_path, application_id, bool(named))  # type: ignore[arg-type]
    if not more:
        return known
    state, is_sure, own_connection = more
    return replace(known, state=DeliveryState(str(state)), is_sure=bool(is_sure), own_connection=bool(own_connection))


def divert(diversions: Sequence[Diversion], now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: move what still waits where it was; how many deliveries."""

    def work(transaction: Transaction) -> int:
        values = [v for one in diversions for v in (one.message_id, one.n, one.origin, one.target, one.home)]
        moved = transaction.raw.returned(_DIVERT, values)
        return _tell(transaction, diversions, [(message_id, n, state, state) for message_id, n, state in moved], now)

    return work


def reroute(diversions: Sequence[Diversion], now: datetime, *, even_unsure: bool) -> Callable[[Transaction], int]:
    """Work for the writer: see `QueueStore.reroute`."""

    def work(transaction: Transaction) -> int:
        due = micros(now)
        values = [v for one in diversions for v in (one.message_id, one.n, one.origin, one.target, one.home, due)]
        as_it_is, deferred = (transaction.raw.returned(statement, values) for statement in _MOVE[even_unsure])
        moved = [(message_id, n, state, state) for message_id, n, state in as_it_is]
        moved += [(message_id, n, DeliveryState.DEFERRED.value, state) for message_id, n, state in deferred]
        return _tell(transaction, diversions, moved, now)

    return work


def _tell(
    transaction: Transaction,
    diversions: Sequence[Diversion],
    moved: Sequence[tuple[bytes, int, str, str]],
    now: datetime,
) -> int:
    """Count what was moved, with its states before and after, and keep an event of each; how many."""
    wanted = {(one.message_id, one.n): one for one in diversions}
    events: list[object] = []
    for message_id, n, before, after in moved:
        one = wanted[MessageId(message_id), n]
        transaction.move(one.origin, before, "", 1)
        transaction.move(one.target, "", after, 1)
        events += (micros(now), "rerouted", message_id, n, one.account, one.why)
    if events:
        transaction.raw.run(INSERT_EVENT, events)
    return len(moved)
