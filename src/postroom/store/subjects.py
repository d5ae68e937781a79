"""The words of subjects, searched by full text where that is switched on; there is no table of them before.

A message whose words are in the table has `searchable` 2. Switched on, the messages from before are taken in by a walk
from the newest to the oldest; switched off, the same walk takes everything out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..model.queue import MessageId
from .driver import Connection
from .readers import Reader
from .writer import Transaction

#: Messages looked at in one read of the walk, and changed in one step.
LOOK = 20_000
STEP = 500

_DELETE = "DELETE FROM subject_words WHERE rowid BETWEEN ? AND ? AND message_id = ?"

#: Ids so close together that they claim the same row take the next ones.
ROWS = 8
LAST_ROW = 2**63 - 1
_LAST_ID = b"\xff" * 16

Subject = tuple[MessageId, str]


def row_of(message_id: bytes) -> int:
    """The row for a message: rows are ordered as ids are. 48 bits of time, the counter of 12, and 3 that are random."""
    time, counter, rest = message_id[:6], message_id[6:8], message_id[8]
    return (int.from_bytes(time, "big") << 12 | int.from_bytes(counter, "big") & 0xFFF) << 3 | rest >> 3 & 7


def exist(connection: Connection) -> bool:
    """Whether there is a table of words."""
    return connection.has_table("subject_words")


def add(transaction: Transaction, subjects: Iterable[Subject]) -> None:
    """Take the words in; the caller marks the messages."""
    raw = transaction.raw
    full_text = raw.full_text
    if not exist(raw):
        for create in full_text.creates:
            raw.execute(create)
    insert = f"INSERT INTO subject_words (rowid, subject, message_id) VALUES (?, {full_text.place}, ?)"
    for message_id, subject in subjects:
        first, words = row_of(message_id), full_text.stored(subject)
        for row in range(first, first + ROWS):
            if raw.insert(insert, (row, words, message_id)):
                break


def forget(transaction: Transaction, messages: Sequence[bytes]) -> None:
    """Take the words of messages out, where there are any."""
    if exist(transaction.raw):
        rows = ((message_id, row_of(message_id)) for message_id in messages)
        transaction.raw.change_each(_DELETE, [(first, first + ROWS - 1, message_id) for message_id, first in rows])


@dataclass(slots=True)
class Walk:
    """Makes the table what the switch says, a stretch a call, from the newest message to the oldest."""

    wanted: bool = False
    before: bytes = _LAST_ID
    ended: bool = False

    def find(self, reader: Reader, wanted: bool) -> tuple[list[Subject], bool]:
        """Messages of the next stretch that are not as the switch `wanted` says; whether the walk ends with them."""
        if wanted != self.wanted:
            self.wanted, self.before, self.ended = wanted, _LAST_ID, False
        if not wanted and not exist(reader.raw):
            self.ended = True
        if self.ended:
            return [], False
        rows = reader.raw.execute(
            "SELECT id, subject, searchable FROM message WHERE id < ? ORDER BY id DESC LIMIT ?", (self.before, LOOK)
        ).fetchall()
        kept = 1 if wanted else 2
        found = [(MessageId(row[0]), row[1]) for row in rows if row[2] == kept][:STEP]
        if len(found) == STEP:
            self.before = found[-1][0]
        elif len(rows) == LOOK:
            self.before = rows[-1][0]
        else:
            self.ended = True
        return found, self.ended


def change(subjects: Sequence[Subject], *, wanted: bool, last: bool) -> Callable[[Transaction], int]:
    """Work for the writer: take the subjects in or out; with the `last` that go the table goes. How many."""

    def work(transaction: Transaction) -> int:
        raw = transaction.raw
        marks = ",".join("?" * len(subjects)) or "NULL"  # an empty list is SQLite's alone
        ids = [message_id for message_id, _ in subjects]
        was, becomes = (1, 2) if wanted else (2, 1)
        there = raw.execute(f"SELECT id FROM message WHERE id IN ({marks}) AND searchable = {was}", ids).fetchall()
        if wanted:
            still = {message_id for (message_id,) in there}
            add(transaction, (subject for subject in subjects if subject[0] in still))
        else:
            forget(transaction, ids)
        raw.execute(f"UPDATE message SET searchable = {becomes} WHERE id IN ({marks}) AND searchable = {was}", ids)
        if last and not wanted:
            raw.execute("DROP TABLE IF EXISTS subject_words")
        return len(there)

    return work
