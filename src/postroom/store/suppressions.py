"""The suppression list: looked up by key in the transaction of a message, so that what was acknowledged applies to the
next one; filled by hand, by imports, and in the transaction of an outcome that says that a recipient does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from ..model.queue import MessageId, NewMessage
from ..model.suppression import Suppression, SuppressionSource
from .readers import Reader
from .rows import Rows
from .schema import maybe_moment, micros, moment
from .writer import Transaction

T = TypeVar("T")

#: Entries removed in one step once they are of no use.
STEP = 1000

#: Status of a delivery that ended by the list (RFC 3463 section 3.8: not authorised).
STATUS = "5.7.1"

_EVENT_CHARACTERS = 200

_COLUMNS = "key, reason, source, created, expires, message_id"
_SAVE = Rows(
    f"INSERT INTO suppression ({_COLUMNS}) ",
    "tttiib",
    " ON CONFLICT (key) DO UPDATE SET reason = excluded.reason, source = excluded.source, created = excluded.created,"
    " expires = excluded.expires, message_id = excluded.message_id",
)
# CROSS JOIN: SQLite walks over the few keys and looks each up.
_FIND = Rows(
    "WITH v(key) AS (",
    "t",
    ") SELECT suppression.key, reason, expires FROM v CROSS JOIN suppression WHERE suppression.key = v.key",
)
_BOUNCE = Rows(
    "WITH v(m, n, ended, reply) AS (",
    "biit",
    f") UPDATE delivery SET state = 'bounced', due = NULL, ended = v.ended, status = '{STATUS}', reply = v.reply"
    " FROM v WHERE delivery.message_id = v.m AND delivery.n = v.n",
)
_EVENTS = Rows("INSERT INTO event (at, kind, message_id, n, account, detail) ", "itbitt")


def bounce_suppressed(transaction: Transaction, messages: Sequence[NewMessage]) -> dict[MessageId, tuple[int, ...]]:
    """End the deliveries of messages just inserted whose recipients are on the list; which, by message."""
    found = _found(transaction, {key for message in messages for keys in message.suppressible for key in keys})
    if not found:
        return {}
    ended: dict[MessageId, tuple[int, ...]] = {}
    rows: list[Any] = []
    events: list[Any] = []
    for message in messages:
        at = micros(message.accepted)
        numbers = []
        for delivery, keys in zip(message.deliveries, message.suppressible, strict=True):
            hit = next((key for key in keys if key in found and _holds(found[key], at)), None)
            if hit is None:
                continue
            reason = f"{hit} is on the suppression list: {found[hit][0]}"
            rows += (message.id, delivery.n, at, reason)
            events += (at, "bounced", message.id, delivery.n, "", f"{STATUS} {reason}"[:_EVENT_CHARACTERS])
            transaction.move(delivery.lane, "queued", "bounced", 1)
            numbers.append(delivery.n)
        if numbers:
            ended[message.id] = tuple(numbers)
    if rows:
        transaction.raw.run(_BOUNCE, rows)
        transaction.raw.run(_EVENTS, events)
    return ended


_Found = dict[str, tuple[str, int | None]]


def _found(transaction: Transaction, keys: Iterable[str]) -> _Found:
    rows = transaction.raw.returned(_FIND, list(keys))
    return {key: (reason, expires) for key, reason, expires in rows}


def _holds(entry: tuple[str, int | None], now: int) -> bool:
    return entry[1] is None or entry[1] > now


def save(entries: Sequence[Suppression], told: str, now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: put entries with different keys on the list, each in the place of the one that is there,
    with an event that says `told`; how many were not on it, or had expired."""

    def work(transaction: Transaction) -> int:
        at = micros(now)
        known = sum(_holds(one, at) for one in _found(transaction, [entry.key for entry in entries]).values())
        transaction.raw.run(_SAVE, [value for entry in entries for value in _row(entry)])
        _tell(transaction, "suppression.added", at, told)
        return len(entries) - known

    return work


def add_bounced(transaction: Transaction, account: str, entry: Suppression) -> None:
    """Put a recipient that does not exist on the list. What a person put there stays as it is while it holds; an event
    tells of what is new."""
    at = micros(entry.created)
    row = transaction.raw.execute("SELECT source, expires FROM suppression WHERE key = ?", (entry.key,)).fetchone()
    is_known = row is not None and _holds(row, at)
    if is_known and row[0] != SuppressionSource.HARD_BOUNCE:
        return
    transaction.raw.run(_SAVE, list(_row(entry)))
    if not is_known:
        _tell(transaction, "suppression.added", at, f"{entry.key}: {entry.reason}", account, entry.message_id)


def remove(key: str, now: datetime) -> Callable[[Transaction], bool]:
    """Work for the writer: take an entry off the list; whether it was there."""

    def work(transaction: Transaction) -> bool:
        removed = transaction.raw.change("DELETE FROM suppression WHERE key = ?", (key,)) > 0
        if removed:
            _tell(transaction, "suppression.removed", micros(now), key)
        return removed

    return work


def _tell(
    transaction: Transaction, kind: str, at: int, detail: str, account: str = "", message: bytes | None = None
) -> None:
    transaction.raw.run(_EVENTS, [at, kind, message, None, account, detail[:_EVENT_CHARACTERS]])


def _row(entry: Suppression) -> tuple[Any, ...]:
    expires = None if entry.expires is None else micros(entry.expires)
    return entry.key, entry.reason, entry.source.value, micros(entry.created), expires, entry.message_id


def _entry(row: Sequence[Any]) -> Suppression:
    key, reason, source, created, expires, message_id = row
    return Suppression(
        key=key,
        reason=reason,
        source=SuppressionSource(source),
        created=moment(created),
        expires=maybe_moment(expires),
        message_id=message_id,
    )


class SuppressionTable:
    """See `SuppressionStore`: `read` runs work with a reader, `write` gives work to the writer."""

    def __init__(
        self,
        read: Callable[[Callable[[Reader], Any]], Awaitable[Any]],
        write: Callable[[Callable[[Transaction], Any]], asyncio.Future[Any]],
        now: Callable[[], datetime],
    ) -> None:
        self._read = read
        self._write = write
        self._now = now

    def save(self, entries: Sequence[Suppression], told: str) -> asyncio.Future[int]:
        """See `SuppressionStore.save`."""
        return self._write(save(entries, told, self._now()))

    def remove(self, key: str) -> asyncio.Future[bool]:
        """See `SuppressionStore.remove`."""
        return self._write(remove(key, self._now()))

    def forget(self, expired_before: datetime) -> asyncio.Future[int]:
        """See `SuppressionStore.forget`."""
        before = micros(expired_before)
        expired = "SELECT key FROM suppression WHERE expires IS NOT NULL AND expires < ? LIMIT ?"

        async def find_and_forget() -> int:
            found = await self._read(lambda reader: reader.raw.execute(expired, (before, 1)).fetchone())
            if found is None:
                return 0
            forget = f"DELETE FROM suppression WHERE key IN ({expired})"
            forgotten: int = await self._write(lambda transaction: transaction.raw.change(forget, (before, STEP)))
            return forgotten

        return asyncio.ensure_future(find_and_forget())

    async def get(self, key: str) -> Suppression | None:
        """See `SuppressionStore.get`."""
        one = f"SELECT {_COLUMNS} FROM suppression WHERE key = ?"
        row = await self._read(lambda reader: reader.raw.execute(one, (key,)).fetchone())
        return None if row is None else _entry(row)

    async def page(self, prefix: str, after: str, limit: int) -> Sequence[Suppression]:
        """See `SuppressionStore.page`."""
        # One lower bound: with two SQLite may begin at the smaller.
        lower, first = (">", after) if after >= prefix else (">=", prefix)
        listed = f"SELECT {_COLUMNS} FROM suppression WHERE key {lower} ? AND key < ? ORDER BY key LIMIT ?"
        values = (first, prefix + "\U0010ffff", limit)
        rows = await self._read(lambda reader: reader.raw.execute(listed, values).fetchall())
        return [_entry(row) for row in rows]
