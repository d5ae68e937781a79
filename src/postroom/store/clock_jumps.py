"""What a clock that jumped leaves in the store: silences on record, and times far in the future, which are brought back
in small steps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from ..model.queue import PriorityClass
from . import Silence
from .readers import Reader
from .schema import DEFERRED_SQL, WAITING_SQL, micros, moment
from .waiting import flows
from .writer import Transaction

#: Deliveries looked at in one step.
STEP = 1000

#: A retry window that begins so much later than now was set by a clock that was ahead.
TOO_FAR = timedelta(days=1)

#: Lane, class and flow.
Strand = tuple[int, int, int]

#: Where a walk over the index of what waits has got to: due, message and recipient.
Place = tuple[int, bytes, int]

_LATER = (
    f"SELECT due, message_id, n FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ? AND flow = ?"
    " AND (due, message_id, n) > (?, ?, ?){also} ORDER BY due, message_id, n LIMIT ?"
)
# A message with a window of its own may be due later than the windows of accounts let be.
_NOT_OWN = " AND own_window IS NULL"
_ANY_LATER = (
    f"SELECT 1 FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ? AND flow = ? AND due > ? LIMIT 1"
)
_ANY_WINDOW = f"SELECT 1 FROM delivery WHERE {DEFERRED_SQL} AND window_from > ? LIMIT 1"
_WINDOWS = (
    "UPDATE delivery SET window_from = ? WHERE (message_id, n) IN"
    f" (SELECT message_id, n FROM delivery WHERE {DEFERRED_SQL} AND window_from > ? LIMIT ?)"
)


_NEWEST = "SELECT id, at FROM event ORDER BY id DESC LIMIT 1"
_OLDEST = "SELECT id, at FROM event ORDER BY id LIMIT 1"
_UP_TO = "SELECT id, at FROM event WHERE id <= ? ORDER BY id DESC LIMIT 1"


def last_silence(reader: Reader, earliest: datetime, latest: datetime) -> Silence | None:
    """See `QueueStore.last_silence`. By halves: a day can have millions of events."""
    raw = reader.raw
    first, last = micros(earliest), micros(latest)
    newest = raw.execute(_NEWEST).fetchone()
    if newest is None:
        return None
    high, until = newest
    if not first < until <= last:
        return Silence(moment(until))
    low, since = raw.execute(_OLDEST).fetchone()
    if first < since <= last:
        return None
    while (
        high - low > 1
    ):  # `since` is the time of the last event up to `low`, which was at another time, `until` of `high`
        middle = (low + high) // 2
        found, at = raw.execute(_UP_TO, (middle,)).fetchone()
        if found > low and first < at <= last:
            high, until = found, at
        elif found > low:
            low, since = middle, at
        else:
            low = middle
    return Silence(moment(since), moment(until))


def strands(reader: Reader, later_than: datetime) -> list[Strand]:
    """Every lane, class and flow in which something that waits is due after `later_than`."""
    raw, at = reader.raw, micros(later_than)
    lanes = [lane for (lane,) in raw.execute("SELECT DISTINCT lane FROM tally ORDER BY lane").fetchall()]
    return [
        (lane, int(priority), flow)
        for lane in lanes
        for priority in PriorityClass
        for flow in flows(reader, lane, int(priority))
        if raw.execute(_ANY_LATER, (lane, int(priority), flow, at)).fetchone()
    ]


def has_far_windows(reader: Reader, now: datetime) -> bool:
    """Whether a retry window lies far in the future."""
    return reader.raw.execute(_ANY_WINDOW, (micros(now + TOO_FAR),)).fetchone() is not None


def place(later_than: datetime) -> Place:
    """Before everything that is due after `later_than`."""
    return micros(later_than), b"\xff" * 16, 1 << 30


def due_earlier(
    strand: Strand, after: Place, by: timedelta | None, now: datetime
) -> Callable[[Transaction], tuple[int, Place | None]]:
    """Work for the writer: up to STEP deliveries after a place come due earlier, but not before now (None: now); how
    many, and the place of the next step. What moves goes to places that were passed."""
    earliest = micros(now)
    microseconds = None if by is None else by // timedelta(microseconds=1)

    def work(transaction: Transaction) -> tuple[int, Place | None]:
        later = _LATER.format(also=_NOT_OWN if by is None else "")
        rows = transaction.raw.execute(later, (*strand, *after, STEP)).fetchall()
        transaction.raw.change_each(
            "UPDATE delivery SET due = ? WHERE message_id = ? AND n = ?",
            [(earliest if microseconds is None else max(earliest, due - microseconds), *key) for due, *key in rows],
        )
        return len(rows), rows[-1] if len(rows) == STEP else None

    return work


def windows_from_now(now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: up to STEP retry windows that lie far in the future begin now; how many."""

    def work(transaction: Transaction) -> int:
        return transaction.raw.change(_WINDOWS, (micros(now), micros(now + TOO_FAR), STEP))

    return work
