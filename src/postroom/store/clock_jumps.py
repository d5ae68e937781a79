"""Times that a clock which was ahead has put far into the future, brought back in small steps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from ..model.queue import PriorityClass
from .readers import Reader
from .schema import DEFERRED_SQL, WAITING_SQL, micros
from .writer import Transaction

#: Deliveries looked at in one step.
STEP = 1000

#: A retry window that begins so much later than now was set by a clock that was ahead.
TOO_FAR = timedelta(days=1)

#: Where a walk over the index of what waits has got to: due, message and recipient.
Place = tuple[int, bytes, int]

_LATER = (
    f"SELECT due, message_id, n FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ?"
    " AND (due, message_id, n) > (?, ?, ?) ORDER BY due, message_id, n LIMIT ?"
)
_WINDOWS = (
    "UPDATE delivery SET window_from = ? WHERE (message_id, n) IN"
    f" (SELECT message_id, n FROM delivery WHERE {DEFERRED_SQL} AND window_from > ? LIMIT ?)"
)


def lanes(reader: Reader) -> list[tuple[int, int]]:
    """Every lane with every class."""
    found = reader.raw.execute("SELECT DISTINCT lane FROM tally ORDER BY lane").fetchall()
    return [(lane, int(priority)) for (lane,) in found for priority in PriorityClass]


def place(later_than: datetime) -> Place:
    """Before everything that is due after `later_than`."""
    return micros(later_than), b"\xff" * 16, 1 << 30


def due_earlier(
    lane: int, priority: int, after: Place, by: timedelta, now: datetime
) -> Callable[[Transaction], tuple[int, Place | None]]:
    """Work for the writer: up to STEP deliveries after a place come due earlier, but not before now; how many, and the
    place of the next step. What moves goes to places that were passed."""
    microseconds, earliest = by // timedelta(microseconds=1), micros(now)

    def work(transaction: Transaction) -> tuple[int, Place | None]:
        rows = transaction.raw.execute(_LATER, (lane, priority, *after, STEP)).fetchall()
        transaction.raw.change_each(
            "UPDATE delivery SET due = ? WHERE message_id = ? AND n = ?",
            [(max(earliest, due - microseconds), message_id, n) for due, message_id, n in rows],
        )
        return len(rows), rows[-1] if len(rows) == STEP else None

    return work


def windows_from_now(now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: up to STEP retry windows that lie far in the future begin now; how many."""

    def work(transaction: Transaction) -> int:
        return transaction.raw.change(_WINDOWS, (micros(now), micros(now + TOO_FAR), STEP))

    return work
