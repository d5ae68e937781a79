"""What has waited too long, lane by lane: read apart from the writer, then ended where it still holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from . import LaneEnds
from .notices import note_picked
from .readers import Reader
from .rows import Rows
from .schema import ASIDE_SQL, DEFERRED_SQL, OWN_GIVE_UP_SQL, WAITING_SQL, first_id_at, micros
from .selections import EXPIRE, STEP, move_picked
from .writer import Transaction

#: A delivery as it was read: it ends only if state and window are the same still.
Overdue = tuple[bytes, int, str, int]

_KEY = "SELECT message_id, n, state, window_from FROM delivery WHERE"
_WINDOW = f"{_KEY} {DEFERRED_SQL} AND lane = ? AND own_window IS NULL AND window_from < ? LIMIT ?"
_OWN_WINDOW = f"{_KEY} {DEFERRED_SQL} AND lane = ? AND own_window = ? AND window_from < ? LIMIT ?"
_NEXT_OWN_WINDOW = f"SELECT min(own_window) FROM delivery WHERE {DEFERRED_SQL} AND lane = ? AND own_window > ?"
# Never tried: that is looked at only while the account fails, so a walk over what waits there will do.
_QUEUED = (
    "SELECT message_id, n, state, window_from, own_window FROM delivery"
    f" WHERE {WAITING_SQL} AND lane = ? AND state = 'queued' AND window_from < ?"
)
_OWN_GIVE_UP = f"{_KEY} {OWN_GIVE_UP_SQL} AND own_give_up < ? LIMIT ?"
_OLD = "own_give_up IS NULL AND message_id < ?"


def overdue(reader: Reader, ends: Sequence[LaneEnds], now: datetime) -> list[Overdue]:
    """Deliveries that `expire` may move, at most STEP."""
    found: dict[tuple[bytes, int], Overdue] = {}
    for row in islice(_all(reader, ends, now), 2 * STEP):
        found.setdefault((row[0], row[1]), row)
        if len(found) == STEP:
            break
    return list(found.values())


def _all(reader: Reader, ends: Sequence[LaneEnds], now: datetime) -> Iterator[Overdue]:
    raw = reader.raw
    for one in ends:
        yield from raw.execute(_WINDOW, (one.lane, micros(one.began(one.window)), STEP)).fetchall()
        own = 0
        while (own := raw.execute(_NEXT_OWN_WINDOW, (one.lane, own)).fetchone()[0]) is not None:
            began = one.began(timedelta(microseconds=own))
            yield from raw.execute(_OWN_WINDOW, (one.lane, own, micros(began), STEP)).fetchall()
        if one.fails:
            yield from _queued(reader, one, now)
    yield from _old(reader, ends)
    yield from raw.execute(_OWN_GIVE_UP, (micros(now), STEP)).fetchall()


def _queued(reader: Reader, one: LaneEnds, now: datetime) -> Iterator[Overdue]:
    default = micros(one.began(one.window))
    for message_id, n, state, window_from, own in reader.raw.execute(_QUEUED, (one.lane, micros(now))):
        began = default if own is None else micros(one.began(timedelta(microseconds=own)))
        if window_from < began:
            yield message_id, n, state, window_from


def _old(reader: Reader, ends: Sequence[LaneEnds]) -> Iterator[Overdue]:
    """Whatever its state, of messages that are too old; most lanes give up at the same age."""
    together: dict[datetime, list[int]] = {}
    for one in ends:
        together.setdefault(one.accepted_before, []).append(one.lane)
    for accepted_before, lanes in together.items():
        marks = f" AND lane IN ({','.join('?' * len(lanes))})" if len(together) > 1 else ""
        values: tuple[Any, ...] = (first_id_at(accepted_before), *(lanes if marks else ()), STEP)
        for states in (f"{ASIDE_SQL} AND state = 'deferred'", f"{ASIDE_SQL} AND state = 'held'", WAITING_SQL):
            yield from reader.raw.execute(f"{_KEY} {states} AND {_OLD}{marks} LIMIT ?", values).fetchall()


_PICK = Rows(
    "WITH v(m, n, state, window_from) AS (",
    "biti",
    ") INSERT INTO picked (message_id, n, lane, state) SELECT delivery.message_id, delivery.n, lane, delivery.state"
    " FROM v CROSS JOIN delivery WHERE delivery.message_id = v.m AND delivery.n = v.n AND delivery.state = v.state"
    " AND delivery.window_from = v.window_from",
)


def expire(rows: Iterable[Overdue], now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: end those of `rows` that are as they were read."""
    values = [value for row in rows for value in row]

    def work(transaction: Transaction) -> int:
        transaction.raw.run(_PICK, values)
        note_picked(transaction, now)
        return move_picked(transaction, EXPIRE, now)

    return work
