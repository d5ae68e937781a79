"""Moves that people and maintenance make: hold, release, retry, cancel, expire, recover, and the removal of old mail.

Each is made in steps, so that a lane with a million deliveries does not stop the intake; a step repeats the condition
on the state, so what was claimed between two steps is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ..crashing import reach
from ..model.queue import DeliveryState, FencingToken, LaneId, MessageId
from . import Selection, subjects
from .definitions import next_number
from .readers import Reader
from .schema import APART_SQL, ASIDE_SQL, SENDING_SQL, WAITING_SQL, first_id_at, micros
from .usage import count_under_way
from .writer import Transaction

#: Deliveries moved in one step.
STEP = 1000
#: Messages removed in one step, and in one call of `reap`.
REAP_STEP = 50
REAP_MOST = 500
#: Messages looked at in one call of `reap`.
REAP_LOOK = 20_000

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
RELEASE = Move((S.HELD,), S.QUEUED, ", due = :now, window_from = :now, unknowns = 0")
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


# --- removal ---


@dataclass(slots=True)
class Reaper:
    """Walks over the messages in the order of their ids, a stretch a call, and begins again at the end: over those that
    have a row in `table`."""

    table: Literal["message", "content"] = "message"
    after: bytes = field(default=b"")

    def find(self, reader: Reader, ended_before: datetime) -> list[MessageId]:
        """Messages all of whose deliveries ended before the time and are reported, of the next stretch."""
        key = "id" if self.table == "message" else "message_id AS id"
        column = key.partition(" ")[0]
        stretch = f"FROM {self.table} WHERE {column} > ? AND {column} < ? ORDER BY {column} LIMIT ?"
        bounds = (self.after, first_id_at(ended_before), REAP_LOOK)
        found = reader.raw.execute(
            f"SELECT id FROM (SELECT {key} {stretch}) AS stretch WHERE NOT EXISTS (SELECT 1 FROM delivery"
            " WHERE message_id = stretch.id AND (ended IS NULL OR ended >= ?))"
            " AND NOT EXISTS (SELECT 1 FROM notice WHERE message_id = stretch.id) LIMIT ?",
            (*bounds, micros(ended_before), REAP_MOST),
        ).fetchall()
        if len(found) == REAP_MOST:
            self.after = found[-1][0]
        else:
            last = reader.raw.execute(f"SELECT {key} {stretch} OFFSET ?", (*bounds[:2], 1, REAP_LOOK - 1)).fetchone()
            self.after = last[0] if last is not None else b""
        return [MessageId(message_id) for (message_id,) in found]


def remove(messages: Sequence[MessageId]) -> Callable[[Transaction], int]:
    """Work for the writer: remove messages that `Reaper.find` named; ended states never change, so none is asked."""

    def work(transaction: Transaction) -> int:
        raw = transaction.raw
        marks = ",".join("?" * len(messages))
        counted = raw.execute(
            f"SELECT lane, state, count(*) FROM delivery WHERE message_id IN ({marks}) GROUP BY lane, state", messages
        )
        for lane, state, count in counted.fetchall():
            transaction.move(LaneId(lane), state, "", count)
        subjects.forget(transaction, messages)
        _remove_chunks(transaction, messages)
        # The newest event stays, as one of no message: cursors and the ids to come go by it.
        newest = "id = (SELECT max(id) FROM event)"
        raw.execute(
            f"UPDATE event SET message_id = NULL, n = NULL WHERE {newest} AND message_id IN ({marks})", messages
        )
        for table in ("content", "attempt", "event", "notice", "delivery"):
            raw.execute(f"DELETE FROM {table} WHERE message_id IN ({marks})", messages)
        removed = raw.change(f"DELETE FROM message WHERE id IN ({marks})", messages)
        reach("D8-purge")
        return removed

    return work


def remove_content(messages: Sequence[MessageId]) -> Callable[[Transaction], int]:
    """Work for the writer: remove the content of messages that `Reaper.find` named; their records stay."""

    def work(transaction: Transaction) -> int:
        marks = ",".join("?" * len(messages))
        _remove_chunks(transaction, messages)
        removed = transaction.raw.change(f"DELETE FROM content WHERE message_id IN ({marks})", messages)
        reach("D8-content")
        return removed

    return work


def _remove_chunks(transaction: Transaction, messages: Sequence[MessageId]) -> None:
    marks = ",".join("?" * len(messages))
    owned = f"SELECT content_id FROM content WHERE message_id IN ({marks})"
    transaction.raw.execute(f"DELETE FROM chunk WHERE content_id IN ({owned})", messages)


def shrink(transaction: Transaction) -> bool:
    """Work for the writer: see `QueueStore.shrink`."""
    more = transaction.raw.shrink()
    reach("D8-vacuum")
    return more


def forget_events(before: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: remove some events of no message that are older, but never the newest event; how many."""

    def work(transaction: Transaction) -> int:
        old = f"{APART_SQL} AND at < ? AND id < (SELECT max(id) FROM event) ORDER BY id LIMIT ?"
        return transaction.raw.change(
            f"DELETE FROM event WHERE id IN (SELECT id FROM event WHERE {old})", (micros(before), STEP)
        )

    return work


def collect(staged_before: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: remove chunks that no message took, some at a time; how many contents."""

    def work(transaction: Transaction) -> int:
        rows = transaction.raw.execute(
            "SELECT content_id FROM staging WHERE staged < ? LIMIT ?", (micros(staged_before), REAP_STEP)
        ).fetchall()
        for row in rows:
            transaction.raw.execute("DELETE FROM chunk WHERE content_id = ?", row)
            transaction.raw.execute("DELETE FROM staging WHERE content_id = ?", row)
        return len(rows)

    return work
