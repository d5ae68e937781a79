"""How often an application sent the same body to the same recipient, counted in the transaction of the message."""

from __future__ import annotations

from collections.abc import Container

from ..model.queue import NewMessage, RepeatCheck
from .readers import Reader
from .schema import micros
from .writer import Transaction

_ADD = (
    "INSERT INTO repetition (application_id, digest, bucket, count, ends) VALUES (?, ?, ?, 1, ?)"
    " ON CONFLICT (application_id, digest, bucket) DO UPDATE SET count = repetition.count + 1"
)
_COUNT = "SELECT sum(count) FROM repetition WHERE application_id = ? AND digest = ? AND ends > ?"
_ANY = "SELECT 1 FROM repetition WHERE application_id = ? AND ends > ? GROUP BY digest HAVING sum(count) >= ? LIMIT 1"
_HOLD = "UPDATE delivery SET state = 'held', due = NULL WHERE message_id = ? AND n = ?"
_EVENT = "INSERT INTO event (at, kind, message_id, n, account, detail) VALUES (?, ?, ?, ?, '', ?)"


def hold_repeated(
    transaction: Transaction, message: NewMessage, check: RepeatCheck, ended: Container[int] = ()
) -> tuple[int, ...]:
    """Count the deliveries of a message that has just been inserted, and hold those that come too often; which. Those
    that have `ended` do not count."""
    raw = transaction.raw
    held = []
    for delivery, digest in zip(message.deliveries, check.digests, strict=True):
        if delivery.n in ended:
            continue
        raw.change(_ADD, (message.application_id, digest, check.bucket, check.ends))
        (count,) = raw.execute(_COUNT, (message.application_id, digest, check.now)).fetchone()
        if count >= check.most:
            held.append(delivery)
    at = micros(message.accepted)
    for delivery in held:
        raw.change(_HOLD, (message.id, delivery.n))
        transaction.move(delivery.lane, "queued", "held", 1)
        for kind in ("repeat_guard", "held"):
            raw.change(_EVENT, (at, kind, message.id, delivery.n, check.reason))
    return tuple(delivery.n for delivery in held)


def repeats(reader: Reader, application_id: int, most: int, now: int) -> bool:
    """See `QueueStore.repeats`."""
    return reader.raw.execute(_ANY, (application_id, now, most)).fetchone() is not None


def forget(transaction: Transaction, before: int, most: int) -> int:
    """Remove counts that were worthless before that time, at most so many; how many."""
    return transaction.raw.change(
        "DELETE FROM repetition WHERE (application_id, digest, bucket) IN"
        " (SELECT application_id, digest, bucket FROM repetition WHERE ends <= ? LIMIT ?)",
        (before, most),
    )
