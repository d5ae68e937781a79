"""What searches go by is written some time after the intake, many messages at a time.

A key lands on some page of its index: with each message for itself its pages would be written again and again, on the
loop, while somebody waits for the answer. A thousand at a time share their pages. Until then a message is found by
looking through all that are not searchable yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from . import subjects
from .readers import Reader
from .schema import UNSEARCHABLE_SQL
from .writer import Transaction

#: Messages made searchable in one step; some 15 ms.
STEP = 1000

_NEXT = f"SELECT id FROM message WHERE {UNSEARCHABLE_SQL} ORDER BY id LIMIT {STEP}"


def is_behind(reader: Reader) -> bool:
    """Whether a message is not searchable yet."""
    return reader.raw.execute(f"SELECT 1 FROM message WHERE {UNSEARCHABLE_SQL} LIMIT 1").fetchone() is not None


def step(with_subjects: bool) -> Callable[[Transaction], int]:
    """Work for the writer: make the oldest messages that are not searchable so; how many."""

    def work(transaction: Transaction) -> int:
        raw = transaction.raw
        if with_subjects:
            subjects.add(transaction, raw.execute(f"SELECT id, subject FROM message WHERE id IN ({_NEXT})").fetchall())
        raw.execute(f"UPDATE delivery SET searchable = 1 WHERE message_id IN ({_NEXT})")
        level = 2 if with_subjects else 1
        return raw.change(f"UPDATE message SET searchable = {level} WHERE id IN ({_NEXT})")

    return work


class SearchIndex:
    """Looks by `read` and writes by `write`, a step a call."""

    def __init__(
        self,
        read: Callable[[Callable[[Reader], Any]], Awaitable[Any]],
        write: Callable[[Callable[[Transaction], Any]], Awaitable[Any]],
    ) -> None:
        self._read = read
        self._write = write
        self._walk = subjects.Walk()

    async def advance(self, with_subjects: bool) -> bool:
        """See `QueueStore.index`. The newest come first; then the walk over the subjects of older ones."""
        if await self._read(is_behind):
            await self._write(step(with_subjects))
            return True
        found, ended = await self._read(lambda reader: self._walk.find(reader, with_subjects))
        if found or ended:
            await self._write(subjects.change(found, wanted=with_subjects, last=ended))
        return bool(found) or not self._walk.ended
