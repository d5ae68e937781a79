"""Lists of deliveries, newest message first, page by key, each by an index.

A search goes by the index of its most selective condition and looks at the rows for the others. Indexes of searches
hold keys by stretch of time (`schema.stretch_of`): they are asked from the newest stretch back until the page is full.
What the intake has just taken is not in them yet (`store.search_index`) and is looked through beside them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, and_, func, literal, or_, select, text

from ..model.queue import DeliveryState, MessageId
from . import DeliveryFilter, DeliveryRow, subjects
from .readers import Reader
from .schema import (
    ASIDE_SQL,
    SEARCHABLE_SQL,
    SENDING_SQL,
    STRETCH_BYTES,
    TAGGED_SQL,
    UNSEARCHABLE_SQL,
    WAITING_SQL,
    delivery,
    domain_of,
    first_id_at,
    folded,
    message,
    stretch_of,
    tally,
)
from .views import ROW, delivery_row

Condition = ColumnElement[bool]
Key = tuple[bytes, int]

#: So many waiting deliveries are sorted; with more, the newest are found by walking back from the newest message.
_SORTED = 20_000
#: So many rows are counted to find the most selective of several conditions.
_PROBED = 1000
#: Stretches asked at once, at first; four times as many each time after.
_STRETCHES = 1

#: Messages with the words of a subject looked at together, at first and at most.
_WORDED = 200
_WORDED_MOST = 5000

#: Rows of words looked up in one statement.
_PLACES = 4000

#: Words that so many of the newest have are those of many.
_MANY_WORDED = 40

_LAST_TEXT = "\U0010ffff"
_LAST_ID = b"\xff" * 16
_HEXADECIMAL = re.compile(r"[0-9a-fA-F-]{1,36}\Z")

S = DeliveryState
_ASIDE = frozenset({S.DEFERRED, S.HELD, S.CAPTURED, S.BOUNCED, S.EXPIRED, S.CANCELLED})

# Each time that a message begins, back from the newest one: the stretches that are there.
_STRETCHES_FROM = text(
    "WITH RECURSIVE stretch(k) AS ("
    "SELECT substr((SELECT id FROM message WHERE id <= :newest ORDER BY id DESC LIMIT 1), 1, 3) UNION ALL"
    " SELECT substr((SELECT id FROM message WHERE id < stretch.k ORDER BY id DESC LIMIT 1), 1, 3) FROM stretch"
    " WHERE stretch.k IS NOT NULL) SELECT k FROM stretch WHERE k >= :oldest LIMIT :most"
)


@dataclass(frozen=True, slots=True)
class _Access:
    """One way to rows that may match: an index of `table` ("": its key), and the conditions that it serves."""

    table: Table
    index: str
    where: tuple[Condition, ...] = ()
    by_stretch: bool = False
    lacks_the_newest: bool = False

    @property
    def identity(self) -> Column[bytes]:
        """The id of the message."""
        return message.c.id if self.table is message else delivery.c.message_id


def read_deliveries(reader: Reader, wanted: DeliveryFilter) -> list[DeliveryRow]:
    """See `ViewStore.deliveries`."""
    if not _may_match(reader, wanted):
        return []
    if not wanted.subject:
        found = _keys_of(reader, wanted)
    elif _words_lead(reader, wanted):
        found = _worded(reader, wanted)
    else:
        found = _with_words(reader, wanted)
    keys = sorted(found, key=_in_order, reverse=True)[: wanted.limit]
    rows = reader.core.execute(ROW.where(delivery.c.message_id.in_([message_id for message_id, _ in keys])))
    by_key = {(row.message_id, row.n): row for row in rows}
    return [delivery_row(by_key[key]) for key in keys]


def _keys_of(reader: Reader, wanted: DeliveryFilter) -> set[Key]:
    """The first keys of the page, by the indexes of all conditions but words of subjects."""
    return {key for access in _accesses(reader, wanted) for key in _keys(reader, access, wanted)}


def _may_match(reader: Reader, wanted: DeliveryFilter) -> bool:
    """Whether any delivery is in the states and on the lane asked for, by the counters."""
    if not wanted.states and wanted.lane is None:
        return True
    return _counted(reader, wanted) > 0


def _counted(reader: Reader, wanted: DeliveryFilter) -> int:
    where: list[Condition] = []
    if wanted.states:
        where.append(tally.c.state.in_([state.value for state in wanted.states]))
    if wanted.lane is not None:
        where.append(tally.c.lane == wanted.lane)
    return int(reader.core.execute(select(func.sum(tally.c.count)).where(*where)).scalar() or 0)


# --- conditions ---


def _begins(key: ColumnElement[str], value: str) -> Condition:
    """The folded key is `value` or begins with it."""
    first = value.encode().lower().decode()  # as the database folds: ASCII alone
    return and_(key >= first, key < first + _LAST_TEXT)


def _has_id(value: str) -> Condition | None:
    """Our message id is `value` or begins with it; None where it is no beginning of one."""
    digits = value.replace("-", "").lower()
    if not _HEXADECIMAL.match(value) or not 0 < len(digits) <= 32:
        return None
    return message.c.id.between(bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f")))


def _has_header_id(value: str) -> Condition:
    return _begins(folded(message.c.header_message_id), value if value.startswith("<") else f"<{value}")


def _of_message(wanted: DeliveryFilter) -> list[Condition]:
    """The conditions on columns of `message`."""
    where: list[Condition] = []
    if wanted.sender:
        where.append(_begins(folded(message.c.reverse_path), wanted.sender))
    if wanted.message_id:
        ours = _has_id(wanted.message_id)
        header = _has_header_id(wanted.message_id)
        where.append(header if ours is None else or_(ours, header))
    if wanted.application:
        where.append(message.c.application == wanted.application)
    if wanted.tag:
        where.append(message.c.tag == wanted.tag)
    return where


def _of_delivery(wanted: DeliveryFilter) -> list[Condition]:
    """The conditions on columns of `delivery`, the key apart."""
    where: list[Condition] = []
    if wanted.states:
        where.append(delivery.c.state.in_([state.value for state in wanted.states]))
    if wanted.lane is not None:
        where.append(delivery.c.lane == wanted.lane)
    if wanted.recipient:
        where.append(_begins(folded(delivery.c.recipient), wanted.recipient))
    if wanted.domain:
        where.append(_begins(domain_of(delivery.c.recipient), wanted.domain))
    return where


def _in_bounds(identity: ColumnElement[bytes], wanted: DeliveryFilter) -> list[Condition]:
    """Behind the page before, and within the dates."""
    where: list[Condition] = []
    if wanted.since is not None:
        where.append(identity >= first_id_at(wanted.since))
    if wanted.until is not None:
        where.append(identity < first_id_at(wanted.until))
    if wanted.after is not None:
        message_id, n = wanted.after
        where += [identity <= message_id, or_(identity < message_id, delivery.c.n > n)]
    return where


def _words(condition: str, table: Table) -> Condition:
    """The words of a partial index, for `table`."""
    return text(re.sub(r"\b(state|searchable|tag)\b", rf"{table.name}.\1", condition))  # type: ignore[return-value]


# --- which index ---


def _accesses(reader: Reader, wanted: DeliveryFilter) -> list[_Access]:
    """The ways that together lead to everything that matches."""
    ways = _ways(reader, wanted)
    if not ways:
        return [_Access(delivery, "")]
    best = ways[0] if len(ways) == 1 else min(ways, key=lambda way: _probe(reader, way, wanted))
    if any(access.lacks_the_newest for access in best):
        best = [*best, _Access(message, "message_unsearchable", (_words(UNSEARCHABLE_SQL, message),))]
    return best


def _ways(reader: Reader, wanted: DeliveryFilter) -> list[list[_Access]]:
    """For each condition that has an index, the accesses by it, the most selective first as a rule."""
    if wanted.message_id:
        ours = _has_id(wanted.message_id)
        return [
            [_searched(message, "message_header_id", _has_header_id(wanted.message_id), by_stretch=True)]
            + ([] if ours is None else [_Access(message, "", (ours,))])
        ]
    ways: list[list[_Access]] = []
    if wanted.recipient:
        condition = _begins(folded(delivery.c.recipient), wanted.recipient)
        ways.append([_searched(delivery, "delivery_recipient", condition, by_stretch=True)])
    if wanted.domain:
        condition = _begins(domain_of(delivery.c.recipient), wanted.domain)
        ways.append([_searched(delivery, "delivery_domain", condition, by_stretch=True)])
    if wanted.tag:
        ways.append([_Access(message, "message_tag", (_words(TAGGED_SQL, message), message.c.tag == wanted.tag))])
    if wanted.sender:
        condition = _begins(folded(message.c.reverse_path), wanted.sender)
        ways.append([_searched(message, "message_sender", condition, by_stretch=True)])
    by_state = [_by_state(reader, state, wanted) for state in wanted.states]
    if by_state and None not in by_state:
        ways.append([access for access in by_state if access is not None])
    if wanted.application:
        ways.append([_searched(message, "message_application", message.c.application == wanted.application)])
    if wanted.lane is not None:
        ways.append([_searched(delivery, "delivery_lane", delivery.c.lane == wanted.lane)])
    return ways


def _searched(table: Table, index: str, condition: Condition, *, by_stretch: bool = False) -> _Access:
    where = (_words(SEARCHABLE_SQL, table), condition)
    return _Access(table, index, where, by_stretch=by_stretch, lacks_the_newest=True)


def _by_state(reader: Reader, state: DeliveryState, wanted: DeliveryFilter) -> _Access | None:
    """The access to deliveries in one state; None where the newest are found sooner by walking back."""
    is_it = delivery.c.state == state.value
    if state in _ASIDE:
        return _Access(delivery, "delivery_aside", (_words(ASIDE_SQL, delivery), is_it))
    if state is S.SENDING:
        return _Access(delivery, "delivery_sending", (_words(SENDING_SQL, delivery), is_it))
    if state is S.QUEUED and _counted(reader, replace(wanted, states=(S.QUEUED, S.DEFERRED))) <= _SORTED:
        return _Access(delivery, "delivery_due", (_words(WAITING_SQL, delivery), is_it))
    return None


def _probe(reader: Reader, way: list[_Access], wanted: DeliveryFilter) -> int:
    """How many rows the way has among the newest, up to a limit."""
    newest = _stretches(reader, wanted, wanted.after[0] if wanted.after else _LAST_ID, 1)
    if not newest:
        return 0
    found = 0
    for access in way:
        identity = access.identity
        within = stretch_of(identity) == newest[0] if access.by_stretch else identity >= newest[0]
        rows = _hinted(select(literal(1)), access).select_from(access.table).where(*access.where, within).limit(_PROBED)
        found += int(reader.core.execute(select(func.count()).select_from(rows.subquery())).scalar_one())
    return found


# --- rows ---


def _keys(reader: Reader, access: _Access, wanted: DeliveryFilter) -> list[Key]:
    """The first keys of the page that the access leads to."""
    identity = access.identity
    conditions = [*access.where, *_of_delivery(wanted), *_of_message(wanted), *_in_bounds(identity, wanted)]
    # An index by stretches is not in the order of the ids. Said so, lest PostgreSQL walk back through all by their key.
    order = func.substr(identity, 1) if access.by_stretch else identity
    query = _hinted(select(identity, delivery.c.n), access).where(*conditions).order_by(order.desc(), delivery.c.n)
    if access.table is message:
        query = query.select_from(message.join(delivery, delivery.c.message_id == message.c.id))
    elif _of_message(wanted):
        query = query.select_from(delivery.join(message, message.c.id == delivery.c.message_id))
    if not access.by_stretch:
        return _key_rows(reader, query.limit(wanted.limit))
    keys: list[Key] = []
    newest = _LAST_ID if wanted.after is None else wanted.after[0]
    most = _STRETCHES
    while len(keys) < wanted.limit and (stretches := _stretches(reader, wanted, newest, most)):
        within = query.where(stretch_of(identity).in_(stretches)).limit(wanted.limit - len(keys))
        keys += _key_rows(reader, within)
        newest = _before(stretches[-1])
        most *= 4
    return keys


def _words_lead(reader: Reader, wanted: DeliveryFilter) -> bool:
    """Whether fewer of the newest messages have the words than meet any other condition."""
    ways = _ways(reader, replace(wanted, subject=()))
    if not ways or not subjects.exist(reader.raw):
        return True
    fewest = min(_probe(reader, way, wanted) for way in ways)
    newest = _stretches(reader, wanted, wanted.after[0] if wanted.after else _LAST_ID, 1)
    if not newest or fewest >= _PROBED:
        return True
    full_text = reader.raw.full_text
    first = subjects.row_of(newest[0].ljust(len(_LAST_ID), b"\0"))
    count = (
        f"SELECT count(*) FROM (SELECT 1 FROM subject_words WHERE {full_text.match} AND rowid >= ? LIMIT ?) AS newest"
    )
    return int(reader.raw.execute(count, (full_text.wanted(wanted.subject), first, fewest + 1)).fetchone()[0]) <= fewest


def _worded(reader: Reader, wanted: DeliveryFilter) -> set[Key]:
    """The first keys of the page among the messages that have the words, some at a time from the newest."""
    if not subjects.exist(reader.raw):
        return set()
    full_text = reader.raw.full_text
    words = full_text.wanted(wanted.subject)
    newest = subjects.LAST_ROW if wanted.after is None else subjects.row_of(wanted.after[0]) + subjects.ROWS
    query = full_text.match.join(full_text.of_many if _of_many(reader, words, newest) else full_text.of_few)
    keys: list[Key] = []
    most = _WORDED
    while len(keys) < wanted.limit:
        rows = reader.raw.execute(query, (words, newest, most)).fetchall()
        access = _Access(message, "", (message.c.id.in_([message_id for _, message_id in rows]),))
        keys += _keys(reader, access, replace(wanted, limit=wanted.limit - len(keys)))
        if len(rows) < most:
            break
        newest = rows[-1][0]
        most = min(2 * most, _WORDED_MOST)
    return set(keys)


def _of_many(reader: Reader, words: str, newest: int) -> bool:
    """Whether many of the messages before the row `newest` have the words, where that makes a difference."""
    full_text = reader.raw.full_text
    if not full_text.newest[0]:
        return True
    row = reader.raw.execute(full_text.match.join(full_text.newest), (newest, words)).fetchone()
    return int(row[0]) >= _MANY_WORDED


def _with_words(reader: Reader, wanted: DeliveryFilter) -> set[Key]:
    """The first keys of the page among the deliveries that meet the other conditions, some at a time."""
    full_text = reader.raw.full_text
    words = full_text.wanted(wanted.subject)
    keys: list[Key] = []
    page = replace(wanted, subject=())
    while len(keys) < wanted.limit:
        found = sorted(_keys_of(reader, page), key=_in_order, reverse=True)[: page.limit]
        worded = _worded_of(reader, words, {id_ for id_, _ in found})
        keys += [key for key in found if key[0] in worded]
        if len(found) < page.limit:
            break
        after = (MessageId(found[-1][0]), found[-1][1])
        page = replace(page, after=after, limit=min(2 * page.limit, _WORDED_MOST))
    return set(keys)


def _worded_of(reader: Reader, words: str, ids: set[bytes]) -> set[bytes]:
    """Those of the messages that have the words: first where theirs stand, then whether they are these."""
    places = [row for id_ in ids for row in range(subjects.row_of(id_), subjects.row_of(id_) + subjects.ROWS)]
    there = _of_rows(reader, "SELECT rowid, message_id FROM subject_words WHERE", (), places)
    rows = [row for row, id_ in there if id_ in ids]
    match = reader.raw.full_text.match
    query = f"SELECT rowid, message_id FROM subject_words WHERE {match} AND"
    return {id_ for _, id_ in _of_rows(reader, query, (words,), rows)}


def _of_rows(reader: Reader, query: str, values: tuple[str, ...], rows: list[int]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(rows), _PLACES):
        some = rows[start : start + _PLACES]
        marks = ",".join("?" * len(some))
        found += reader.raw.execute(f"{query} rowid IN ({marks})", (*values, *some)).fetchall()
    return found


def _in_order(key: Key) -> tuple[bytes, int]:
    return key[0], -key[1]


def _stretches(reader: Reader, wanted: DeliveryFilter, newest: bytes, most: int) -> list[bytes]:
    """The stretches of messages up to the id `newest`, the newest first."""
    if wanted.until is not None:
        newest = min(newest, first_id_at(wanted.until))
    oldest = b"" if wanted.since is None else first_id_at(wanted.since)[:STRETCH_BYTES]
    values = {"newest": newest, "oldest": oldest, "most": most}
    return [row[0] for row in reader.core.execute(_STRETCHES_FROM, values)]


def _before(stretch: bytes) -> bytes:
    """The last id before a stretch."""
    number = int.from_bytes(stretch, "big")
    return b"" if not number else (number - 1).to_bytes(STRETCH_BYTES, "big") + _LAST_ID[STRETCH_BYTES:]


def _key_rows(reader: Reader, query: Select[Any]) -> list[Key]:
    return [(row[0], row[1]) for row in reader.core.execute(query)]


def _hinted(query: Select[Any], access: _Access) -> Select[Any]:
    return query.with_hint(access.table, f"INDEXED BY {access.index}", "sqlite") if access.index else query
