"""A store with millions of messages, made by INSERT ... SELECT and spread over a month, on either kind of database."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from postroom.model.ids import new_message_id
from postroom.store import sqlite
from postroom.store.driver import WritingConnection
from postroom.store.schema import micros

from .traffic import RECIPIENT

#: Messages made in one transaction.
AT_ONCE = 100_000
SPREAD = timedelta(days=29)
LANES = 20
#: The account, application, domain and tag that few messages have.
RARE = 99

_MIXER = 2_654_435_761  # the golden ratio in 32 bits: neighbours are far apart

_IS_RARE = "k % 100000 = 7"
# Of a thousand messages: 30 bounced, 5 expired, 2 cancelled, 5 deferred, 1 held; the rest delivered.
_STATE = (
    "CASE WHEN :lane > 0 THEN :state WHEN k % 1000 < 30 THEN 'bounced' WHEN k % 1000 < 35 THEN 'expired'"
    " WHEN k % 1000 < 37 THEN 'cancelled' WHEN k % 1000 < 42 THEN 'deferred' WHEN k % 1000 < 43 THEN 'held'"
    " ELSE :state END"
)
_NUMBERS = (
    "WITH RECURSIVE series(i) AS (SELECT CAST(:first AS BIGINT) UNION ALL SELECT i + 1 FROM series WHERE i < :last),"
    f" numbers(i, k) AS (SELECT i, (i * {_MIXER}) % 4294967296 FROM series)"
)
_MESSAGE = (
    f"{_NUMBERS} INSERT INTO message (id, door, application_id, application, reverse_path, eight_bit, smtputf8,"
    " accepted, subject, header_message_id, peer, priority, size_bytes, tag, searchable)"
    f" SELECT made_id(i), 'smtp', 1, CASE WHEN {_IS_RARE} THEN 'app{RARE}' ELSE 'app' || ((k / 1000) % {LANES}) END,"
    " 'sender' || ((k / 7) % 300) || '@source' || ((k / 7) % 40) || '.example', 0, 0, made_at(i),"
    f" 'Order ' || (k % 1000003) || ' of ' || CASE WHEN {_IS_RARE} THEN 'porcelain' ELSE 'things' END,"
    " '<' || k || '.' || i || '@source.example>', '192.0.2.1', 1, 4096,"
    f" CASE WHEN {_IS_RARE} THEN 'tag{RARE}' WHEN k % 10 = 0 THEN 'tag' || (k % 7) ELSE '' END, 1 FROM numbers"
)
_DELIVERY = (
    f"{_NUMBERS}, states AS (SELECT i, k, {_STATE} AS state FROM numbers)"
    " INSERT INTO delivery (message_id, n, lane, priority, state, recipient, due, window_from, attempts, tries,"
    " unknowns, twice, ended, status, reply, searchable)"
    " SELECT made_id(i), 0,"
    f" CASE WHEN :lane > 0 THEN :lane WHEN {_IS_RARE} THEN {RARE} ELSE 1 + (k / 1000) % {LANES} END, 1, state,"
    f" CASE WHEN :lane > 0 THEN '{RECIPIENT}' ELSE 'user' || (k % 3000017) || '@' || CASE"
    f" WHEN k % 200000 = 7 THEN 'rare{RARE}.example' WHEN (k / 1000) % 5 < 2 THEN 'large.example'"
    " ELSE 'domain' || (k % 20011) || '.example' END END,"
    " CASE WHEN state IN ('queued','deferred') THEN made_at(i) END, made_at(i), 1, 1, 0, 0,"
    " CASE WHEN state NOT IN ('queued','deferred','held') THEN made_at(i) END, '2.0.0', '250 2.0.0 Ok: queued as 4F1B',"
    " 1 FROM states"
)
_CONTENT = (
    "INSERT INTO content (message_id, head, body, chunks, body_bytes) SELECT id, :head, :body, 0, :size FROM message"
    " WHERE id >= :from"
)
_ATTEMPT = (
    "INSERT INTO attempt (message_id, n, number, account, started, ended, outcome, status, reply, command, advice,"
    " remote_host, transcript) SELECT message_id, n, 1, 'relay', window_from, window_from, 'delivered', status, reply,"
    " 'DATA', '', 'relay.example [192.0.2.1]', '' FROM delivery WHERE message_id >= :from"
)
_EVENTS = (
    "INSERT INTO event (at, kind, message_id, n, account, detail) SELECT window_from, kind, message_id,"
    " CASE kind WHEN 'accepted' THEN NULL ELSE n END, CASE kind WHEN 'accepted' THEN '' ELSE 'relay' END,"
    " CASE kind WHEN 'accepted' THEN '' ELSE reply END FROM delivery,"
    " (SELECT 'accepted' AS kind UNION ALL SELECT 'delivered') AS kinds WHERE message_id >= :from"
)
_COUNT = "INSERT INTO tally (lane, state, count) SELECT lane, state, count(*) FROM delivery GROUP BY lane, state"

#: What PostgreSQL makes ids of; SQLite asks Python.
_FUNCTIONS = (
    "CREATE FUNCTION pg_temp.made_at(i bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS"
    " $$ SELECT {first} + i * {step} $$",
    "CREATE FUNCTION pg_temp.made_id(i bigint) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT decode("
    "lpad(to_hex(({first} + i * {step}) / 1000), 12, '0') || '7' || lpad(to_hex(i & 4095), 3, '0') || '8'"
    " || lpad(to_hex(i * {mixer}), 15, '0'), 'hex') $$",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the messages are: all in `state` on `lane`, or most without a lane, on many; with content or history; over
    how long a time they were accepted."""

    state: str = "delivered"
    lane: int = 0
    head: bytes = b""
    body: bytes = b""
    with_history: bool = False
    spread: timedelta = SPREAD


def fill(raw: WritingConnection, messages: int, kind: Kind, *, until: datetime | None = None) -> None:
    """Make so many messages of one recipient, the last one accepted at `until`, searchable all."""
    first = micros((until or datetime.now(UTC)) - kind.spread)
    step = kind.spread // timedelta(microseconds=1) // messages
    prefix = _make_functions(raw, first, step)
    for start in range(1, messages + 1, AT_ONCE):
        values = {"first": start, "last": min(start + AT_ONCE - 1, messages), "state": kind.state, "lane": kind.lane}
        raw.begin()
        for sql in (_MESSAGE, _DELIVERY):
            raw.execute(sql.replace("made_", f"{prefix}made_"), values)
        place = {"from": ((first + start * step) // 1000).to_bytes(6, "big")}
        if kind.body:
            raw.execute(_CONTENT, {"head": kind.head, "body": kind.body, "size": len(kind.body), **place})
        if kind.with_history:
            raw.execute(_ATTEMPT, place)
            raw.execute(_EVENTS, place)
        raw.commit()
        if isinstance(raw, sqlite3.Connection):
            sqlite.checkpoint(raw)
    raw.begin()
    raw.execute(_COUNT)
    raw.commit()
    if isinstance(raw, sqlite3.Connection):
        sqlite.checkpoint(raw, truncate=True)
    else:
        raw.execute("ANALYZE")  # as the server does by itself, some time later


def _make_functions(raw: WritingConnection, first: int, step: int) -> str:
    if not isinstance(raw, sqlite3.Connection):
        raw.execute("SET statement_timeout = 0")
        for sql in _FUNCTIONS:
            raw.execute(sql.format(first=first, step=step, mixer=_MIXER))
        return "pg_temp."

    def made_at(i: int) -> int:
        return first + i * step

    def made_id(i: int) -> bytes:
        random = (0x7000 | i & 0xFFF).to_bytes(2, "big") + (0x8 << 60 | i * _MIXER).to_bytes(8, "big")
        return new_message_id(made_at(i) // 1000, random)

    raw.create_function("made_at", 1, made_at, deterministic=True)
    raw.create_function("made_id", 1, made_id, deterministic=True)
    return ""
