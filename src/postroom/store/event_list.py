"""Events in the order in which they happened, on from one of them or the newest, with filters.

Those of a message have an index, and so have those of no message (accounts, settings, ...), which are few. Everything
else is found by looking through the events, a window at a time: a page may end before the last event, and says so.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, or_, select, text

from ..model.queue import MessageId
from . import EventFilter, EventPage, EventRow
from .readers import Reader
from .schema import APART_SQL, event, micros, moment

#: How old what stands behind a gap must be, so that nothing fills it any more; how many events are looked at for gaps.
_YOUNG = timedelta(seconds=10)
_LATEST = 2000

#: Events looked at in one window, and windows of one page.
LOOK = 100_000
WINDOWS = 5

#: What the kinds of events begin with that are about no message.
_APART = frozenset({"account", "application", "settings", "clock", "restored", "archive"})


def read_events(reader: Reader, wanted: EventFilter, now: datetime) -> EventPage:
    """See `ViewStore.events`."""
    newest = _settled(reader, wanted.after or 0, last_event(reader), now)
    where = _conditions(wanted)
    backwards = wanted.after is None
    rows: list[Row[Any]] = []
    if is_narrow := _is_narrow(wanted):
        where += is_narrow
        windows = [(wanted.after or 0, newest)]
    elif backwards:
        windows = [(max(0, high - LOOK), high) for high in range(newest, 0, -LOOK)][:WINDOWS]
    else:
        first = max(0, wanted.after or 0)
        windows = [(low, min(low + LOOK, newest)) for low in range(first, newest, LOOK)][:WINDOWS]
    looked = wanted.after or 0
    for low, high in windows:
        query = select(event).where(event.c.id > low, event.c.id <= high, *where)
        query = query.order_by(event.c.id.desc() if backwards else event.c.id).limit(wanted.limit - len(rows))
        rows += reader.core.execute(query)
        looked = high
        if len(rows) == wanted.limit:
            break
    if backwards:
        return EventPage(tuple(event_row(row) for row in reversed(rows)), newest, at_end=True)
    is_full = len(rows) == wanted.limit
    cursor = rows[-1].id if is_full else max(looked, wanted.after or 0)
    return EventPage(tuple(map(event_row, rows)), cursor, at_end=not is_full and cursor >= newest)


def _settled(reader: Reader, after: int, newest: int, now: datetime) -> int:
    """Up to which id no more events come. Where several connections write, the one with the lower id may be committed
    later: behind a gap that is young nothing is told yet, or who follows would miss what fills it."""
    if reader.core.dialect.name == "sqlite":
        return newest
    last = max(after, newest - _LATEST)
    young = micros(now - _YOUNG)
    for row in reader.core.execute(select(event.c.id, event.c.at).where(event.c.id > last).order_by(event.c.id)):
        if row.id != last + 1 and row.at > young and last:
            return last
        last = row.id
    return newest


def last_event(reader: Reader) -> int:
    """See `ViewStore.last_event`."""
    return int(reader.core.execute(select(func.max(event.c.id))).scalar() or 0)


def _conditions(wanted: EventFilter) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if wanted.message_id is not None:
        where.append(event.c.message_id == wanted.message_id)
    if wanted.account:
        where.append(event.c.account == wanted.account)
    if wanted.kinds:
        where.append(
            or_(
                *(
                    or_(event.c.kind == kind, event.c.kind.startswith(f"{kind}.", autoescape=True))
                    for kind in wanted.kinds
                )
            )
        )
    return where


def _is_narrow(wanted: EventFilter) -> list[ColumnElement[bool]]:
    """The words of the index that serves the filter; none where events must be looked through."""
    if wanted.message_id is not None:
        return [text("message_id IS NOT NULL")]  # type: ignore[list-item]
    if wanted.kinds and all(kind.partition(".")[0] in _APART for kind in wanted.kinds):
        return [text(APART_SQL)]  # type: ignore[list-item]
    return []


def event_row(row: Row[Any]) -> EventRow:
    """A row of the table."""
    return EventRow(
        id=row.id,
        at=moment(row.at),
        kind=row.kind,
        message_id=None if row.message_id is None else MessageId(row.message_id),
        n=row.n,
        account=row.account,
        detail=row.detail,
    )
