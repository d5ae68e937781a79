"""The removal of old mail in small steps: what ended before a time, with all that belongs to it; content earlier."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ..crashing import reach
from ..model.queue import LaneId, MessageId
from . import subjects
from .readers import Reader
from .schema import APART_SQL, first_id_at, micros
from .writer import Transaction

#: Messages removed in one step, and in one call of `reap`.
REAP_STEP = 50
REAP_MOST = 500
#: Messages looked at in one call of `reap`.
REAP_LOOK = 20_000
#: Events of no message removed in one step.
EVENTS_STEP = 1000


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
        for table in ("content", "attempt", "event", "notice", "connection", "delivery"):
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
            f"DELETE FROM event WHERE id IN (SELECT id FROM event WHERE {old})", (micros(before), EVENTS_STEP)
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


class Removal:
    """Finds by `read` and removes by `write`, a step after the other."""

    def __init__(
        self,
        read: Callable[[Callable[[Reader], Any]], Awaitable[Any]],
        write: Callable[[Callable[[Transaction], Any]], Awaitable[Any]],
    ) -> None:
        self._read = read
        self._write = write
        self._records = Reaper()
        self._contents = Reaper("content")

    async def reap(self, ended_before: datetime, staged_before: datetime) -> int:
        """See `QueueStore.reap`. Walks on from where the call before ended; content no message took counts nothing."""
        while await self._write(collect(staged_before)) == REAP_STEP:
            pass
        while await self._write(forget_events(ended_before)) == EVENTS_STEP:
            pass
        return await self._remove(self._records, ended_before, remove)

    async def reap_content(self, ended_before: datetime) -> int:
        """See `QueueStore.reap_content`. Walks as `reap` does."""
        return await self._remove(self._contents, ended_before, remove_content)

    async def _remove(
        self,
        reaper: Reaper,
        ended_before: datetime,
        work: Callable[[Sequence[MessageId]], Callable[[Transaction], int]],
    ) -> int:
        messages = await self._read(lambda reader: reaper.find(reader, ended_before))
        removed = 0
        for start in range(0, len(messages), REAP_STEP):
            removed += await self._write(work(messages[start : start + REAP_STEP]))
        return removed

    async def shrink(self) -> bool:
        """See `QueueStore.shrink`."""
        return await self._read(lambda reader: reader.raw.is_roomy()) and bool(await self._write(shrink))
