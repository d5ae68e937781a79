"""Moves that people and maintenance make: hold, release, retry, cancel, expire, recover, and the removal of old mail.

Each is made in steps, so that a lane with a million deliveries does not stop the intake; a step repeats the condition
on the state, so what was claimed between two steps is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..model.queue import DeliveryState, FencingToken
from . import Selection, own_connections
from .definitions import next_number
from .schema import ASIDE_SQL, SENDING_SQL, WAITING_SQL, micros
from .usage import count_under_way
from .writer import Transaction

#: Deliveries moved in one step.
STEP = 1000

S = DeliveryState
RECOVERED = "the gateway stopped while it was being sent; it may be sent twice"

Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Move:
    """One verb: the states that it moves from, where to, and what else it sets (SQL; `:now` is the time)."""

    before: tuple[DeliveryState, ...]
    after: DeliveryState
    also: str


#: The deliveries of one step, a table of the writer's connection alone; the words in braces are the database's own.
PICKED = (
    "CREATE TEMPORARY TABLE picked (message_id {bytes} NOT NULL, n INTEGER NOT NULL, lane INTEGER NOT NULL,"
    " state TEXT NOT NULL, PRIMARY KEY (message_id, n)) {end}"
)


HOLD = Move((S.QUEUED, S.DEFERRED), S.HELD, ", due = NULL")
RELEASE = Move((S.HELD,), S.QUEUED, ", due = :now, window_from = :now")
RETRY = Move((S.DEFERRED,), S.QUEUED, ", due = :now")
CANCEL = Move((S.QUEUED, S.DEFERRED, S.HELD), S.CANCELLED, ", due = NULL, ended = :now")
EXPIRE = Move((S.QUEUED, S.DEFERRED, S.HELD), S.EXPIRED, ", due = NULL, ended = :now")
RECOVER = Move((S.SENDING,), S.DEFERRED, ", due = :now, twice = 1, token = NULL, status = '4.3.0', reply = :detail")
del S


def step(move: Move, selection: Selection, now: datetime, detail: str = "") -> Callable[[Transaction], int]:
    """Work for the writer: move up to STEP deliveries of the selection, with `detail` in their events; how many."""
    states = [state for state in move.before if not selection.states or state in selection.states]

    def work(transaction: Transaction) -> int:
        left = STEP
        for state in states:
            if left:
                left -= _pick(transaction, state, selection, left)
        return move_picked(transaction, move, now, detail)

    return work


def _pick(transaction: Transaction, state: DeliveryState, selection: Selection, limit: int) -> int:
    where = ["state = ?"]
    values: list[Any] = [state.value]
    if selection.message_id is not None:
        where.append("message_id = ?")
        values.append(selection.message_id)
    else:
        where.append(WAITING_SQL if state is DeliveryState.QUEUED else ASIDE_SQL)
    if selection.n is not None:
        where.append("n = ?")
        values.append(selection.n)
    if selection.lane is not None:
        where.append("lane = ?")
        values.append(selection.lane)
    return transaction.raw.change(
        "INSERT INTO picked (message_id, n, lane, state)"
        f" SELECT message_id, n, lane, state FROM delivery WHERE {' AND '.join(where)} LIMIT ?",
        [*values, limit],
    )


def move_picked(transaction: Transaction, move: Move, now: datetime, detail: str = "") -> int:
    """Move what stands in `picked`, with an event each, and empty it; how many. Whole sets, so that the interpreter
    lock is given up a few times only."""
    raw = transaction.raw
    after = move.after.value
    values = {"after": after, "now": micros(now), "detail": detail}
    moved = 0
    for lane, before, count in raw.execute("SELECT lane, state, count(*) FROM picked GROUP BY lane, state").fetchall():
        transaction.move(lane, before, after, count)
        moved += count
    if moved:
        raw.execute(
            f"UPDATE delivery SET state = :after{move.also} FROM picked"
            " WHERE delivery.message_id = picked.message_id AND delivery.n = picked.n",
            values,
        )
        raw.execute(
            "INSERT INTO event (at, kind, message_id, n, account, detail)"
            " SELECT :now, :after, message_id, n, '', :detail FROM picked",
            values,
        )
        if move.after.is_final:
            own_connections.end_picked(transaction)
        raw.execute("DELETE FROM picked")
    return moved


def recover(now: datetime) -> Callable[[Transaction], tuple[FencingToken, int]]:
    """Work for the writer: see `QueueStore.recover`."""

    def work(transaction: Transaction) -> tuple[FencingToken, int]:
        token = next_number(transaction, "token")
        count_under_way(transaction, token, now)
        transaction.raw.execute(
            "INSERT INTO picked (message_id, n, lane, state)"
            f" SELECT message_id, n, lane, state FROM delivery WHERE {SENDING_SQL} AND token < ?",
            (token,),
        )
        recovered = move_picked(transaction, RECOVER, now, RECOVERED)
        transaction.token = token
        return FencingToken(token), recovered

    return work
