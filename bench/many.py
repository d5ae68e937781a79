"""A store with millions of messages, made by INSERT ... SELECT: records without content, spread over a month."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from postroom.model.ids import new_message_id
from postroom.store import sqlite
from postroom.store.migrations import migrate
from postroom.store.schema import micros
from postroom.store.sqlite_connection import connect_writer

#: Messages made in one transaction.
AT_ONCE = 100_000
SPREAD = timedelta(days=29)
LANES = 20
#: The account, application, domain and tag that few messages have.
RARE = 99

_MIXER = 2_654_435_761  # the golden ratio in 32 bits: neighbours are far apart

# Of a thousand messages: 30 bounced, 5 expired, 2 cancelled, 5 deferred, 1 held; the rest delivered, or queued.
_STATE = (
    "CASE WHEN k % 1000 < 30 THEN 'bounced' WHEN k % 1000 < 35 THEN 'expired' WHEN k % 1000 < 37 THEN 'cancelled'"
    " WHEN k % 1000 < 42 THEN 'deferred' WHEN k % 1000 < 43 THEN 'held' ELSE :others END"
)
_NUMBERS = (
    "WITH RECURSIVE series(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM series WHERE i < :last),"
    f" numbers(i, k) AS (SELECT i, (i * {_MIXER}) % 4294967296 FROM series)"
)
_MESSAGE = (
    f"{_NUMBERS} INSERT INTO message (id, door, application_id, application, reverse_path, eight_bit, smtputf8,"
    " accepted, subject, header_message_id, peer, priority, size_bytes, tag)"
    f" SELECT made_id(i), 'smtp', 1, CASE WHEN k % 100000 = 7 THEN 'app{RARE}'"
    f" ELSE 'app' || ((k / 1000) % {LANES}) END,"
    " 'sender' || ((k / 7) % 300) || '@source' || ((k / 7) % 40) || '.example', 0, 0, made_at(i),"
    " 'Order ' || (k % 1000003) || ' of ' || CASE WHEN k % 100000 = 7 THEN 'porcelain' ELSE 'things' END,"
    " '<' || k || '.' || i || '@source.example>', '192.0.2.1', 1, 4096,"
    f" CASE WHEN k % 100000 = 7 THEN 'tag{RARE}' WHEN k % 10 = 0 THEN 'tag' || (k % 7) ELSE '' END FROM numbers"
)
_DELIVERY = (
    f"{_NUMBERS}, states AS (SELECT i, k, {_STATE} AS state FROM numbers)"
    " INSERT INTO delivery (message_id, n, lane, priority, state, recipient, due, window_from, attempts, tries,"
    " unknowns, twice, ended, status, reply)"
    f" SELECT made_id(i), 0, CASE WHEN k % 100000 = 7 THEN {RARE} ELSE 1 + (k / 1000) % {LANES} END, 1, state,"
    " 'user' || (k % 3000017) || '@' || CASE WHEN (k / 1000) % 5 < 2 THEN 'large.example' WHEN k % 100000 = 7"
    f" THEN 'rare{RARE}.example' ELSE 'domain' || (k % 20011) || '.example' END,"
    " CASE WHEN state IN ('queued','deferred') THEN made_at(i) END, made_at(i), 1, 1, 0, 0,"
    " CASE WHEN state NOT IN ('queued','deferred','held') THEN made_at(i) END, '2.0.0', '250 2.0.0 Ok: queued as 4F1B'"
    " FROM states"
)
_COUNT = "INSERT INTO tally (lane, state, count) SELECT lane, state, count(*) FROM delivery GROUP BY lane, state"


def fill(path: Path, messages: int, *, others: str = "delivered", now: datetime | None = None) -> None:
    """Make the store at `path` with so many messages of one recipient; `others`: the state of most of them."""
    raw = connect_writer(path, durable=False)
    migrate(raw)
    first = (now or datetime.now(UTC)) - SPREAD
    step = SPREAD / messages

    def made_at(i: int) -> int:
        return micros(first + step * i)

    def made_id(i: int) -> bytes:
        return new_message_id(
            made_at(i) // 1000, (i & 0xFFF).to_bytes(2, "big") + (i * _MIXER % 2**64).to_bytes(8, "big")
        )

    raw.create_function("made_at", 1, made_at, deterministic=True)
    raw.create_function("made_id", 1, made_id, deterministic=True)
    for start in range(1, messages + 1, AT_ONCE):
        values = {"first": start, "last": min(start + AT_ONCE - 1, messages), "others": others}
        raw.execute("BEGIN")
        raw.execute(_MESSAGE, values)
        raw.execute(_DELIVERY, values)
        raw.execute("COMMIT")
        sqlite.checkpoint(raw)
    raw.execute(_COUNT)
    sqlite.checkpoint(raw, truncate=True)
    raw.close()


def make_searchable(raw: sqlite3.Connection) -> None:
    """Put everything into the indexes of searches."""
    raw.execute("UPDATE delivery SET searchable = 1 WHERE searchable = 0")
    raw.execute("UPDATE message SET searchable = 1 WHERE searchable = 0")
