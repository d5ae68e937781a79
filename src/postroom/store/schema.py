"""The tables, declared once for every dialect (DESIGN section 4); migrated by `store.migrations`.

Times are microseconds since 1970 UTC, ids the 16 octets of a UUIDv7. Every key is made by Postroom except `event.id`.
There are no foreign keys: rows of a message are written in one transaction and removed in one by `reap`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    literal_column,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

#: The newest revision in `migrations/versions`; a store at this revision starts without importing Alembic.
HEAD = "0014"

#: "Post" in ASCII: marks the SQLite file as ours.
APPLICATION_ID = 0x506F7374

# The partial indexes say these words; SQLite uses such an index only when a query repeats them to the letter.
WAITING_SQL = "state IN ('queued','deferred')"
SENDING_SQL = "state = 'sending'"
AWAY_SQL = f"home IS NOT NULL AND {WAITING_SQL}"
DEFERRED_SQL = "state = 'deferred'"
OWN_GIVE_UP_SQL = "own_give_up IS NOT NULL AND state IN ('queued','deferred','held')"
ASIDE_SQL = "state IN ('deferred','held','captured','bounced','expired','cancelled')"
SEARCHABLE_SQL = "searchable > 0"
UNSEARCHABLE_SQL = "searchable = 0"
APART_SQL = "message_id IS NULL"
TAGGED_SQL = "tag <> ''"

#: The condition of a partial index, in its `info`: what is said to a dialect loads it, so PostgreSQL's is told later.
WHERE = "where"

MICROSECOND = timedelta(microseconds=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """An aware time as it is stored."""
    return round(moment.timestamp() * 1_000_000)


def moment(stored: int) -> datetime:
    """A stored time, aware, UTC."""
    return _EPOCH + timedelta(microseconds=stored)


def maybe_duration(stored: int | None) -> timedelta | None:
    """A stored duration, in microseconds; None where there is none."""
    return None if stored is None else stored * MICROSECOND


def maybe_moment(stored: int | None) -> datetime | None:
    """As `moment`, for columns that may be empty."""
    return None if stored is None else moment(stored)


def first_id_at(when: datetime) -> bytes:
    """The smallest message id that could be made at `when`: ids are ordered by time (RFC 9562 section 5.7)."""
    return max(0, micros(when) // 1000).to_bytes(6, "big") + bytes(10)


#: Octets of a message id that make its stretch: 2^24 ms, some 4.7 hours. Keys of searches are kept by stretch, so that
#: new ones are written close together, old ones are removed close together, and a search goes from the newest back.
STRETCH_BYTES = 3


class folded(FunctionElement[str]):
    """A text with ASCII letters small, compared octet by octet."""

    inherit_cache = True
    type = Text()


class domain_of(FunctionElement[str]):
    """What stands behind the last @ of an address, folded."""

    inherit_cache = True
    type = Text()


@compiles(folded)
def _(element: folded, compiler: Any, **more: Any) -> str:
    return f"lower({compiler.process(element.clauses, **more)})"


@compiles(folded, "postgresql")
def _(element: folded, compiler: Any, **more: Any) -> str:
    return f'lower({compiler.process(element.clauses, **more)} COLLATE "C")'


@compiles(domain_of)
def _(element: domain_of, compiler: Any, **more: Any) -> str:
    return f"lower({_behind_at(compiler.process(element.clauses, **more))})"


@compiles(domain_of, "postgresql")
def _(element: domain_of, compiler: Any, **more: Any) -> str:
    return f'lower({_behind_at(compiler.process(element.clauses, **more))} COLLATE "C")'


def _behind_at(address: str) -> str:
    """SQL that both dialects have: what is left of the @ is as long as the address without its end that has none."""
    return f"substr({address}, length(rtrim({address}, replace({address}, '@', ''))) + 1)"


def stretch_of(column: Column[bytes]) -> ColumnElement[bytes]:
    """The stretch of a message id, in the words of the indexes."""
    return literal_column(f"substr({column.table.name}.{column.name}, 1, {STRETCH_BYTES})", LargeBinary)


metadata = MetaData()

message = Table(
    "message",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("door", Text, nullable=False),
    Column("application_id", Integer, nullable=False),
    Column("application", Text, nullable=False),
    Column("reverse_path", Text, nullable=False),
    Column("eight_bit", Integer, nullable=False),
    Column("smtputf8", Integer, nullable=False),
    Column("accepted", BigInteger, nullable=False),
    Column("subject", Text, nullable=False),
    Column("header_message_id", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("resubmits", LargeBinary(16)),
    Column("ret", Text, nullable=False, server_default=""),
    Column("envid", Text, nullable=False, server_default=""),
    Column("tag", Text, nullable=False, server_default=""),
    Column("searchable", Integer, nullable=False, server_default="0"),
    Column("named", Integer, nullable=False, server_default="0"),
    Column("retry_schedule", Text, nullable=False, server_default=""),
    Column("retry_window", BigInteger),
    sqlite_with_rowid=False,
)

# A body is inline, or in `chunk` under `content_id`. A rowid table: a large row in a WITHOUT ROWID tree spills early.
content = Table(
    "content",
    metadata,
    Column("message_id", LargeBinary(16), primary_key=True),
    Column("head", LargeBinary, nullable=False),
    Column("body", LargeBinary),
    Column("content_id", LargeBinary(16)),
    Column("chunks", Integer, nullable=False),
    Column("body_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32)),
    Column("body_hash", LargeBinary(32)),
)

chunk = Table(
    "chunk",
    metadata,
    Column("content_id", LargeBinary(16), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# Content that no message owns yet; the row goes in the transaction of the message that takes it.
staging = Table(
    "staging",
    metadata,
    Column("content_id", LargeBinary(16), primary_key=True),
    Column("staged", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# `searchable`, here and in `message`: 0 until its keys are in the indexes of searches, for which the intake does not
# wait (`store.search_index`); 2 in `message` when the words of the subject are too.
# `flow`: whose turn it is; `home`: the lane where it belongs while another one sends it (fallback, overflow).
# `attempts` numbers all attempts, `tries` counts those that use up the retry schedule; `twice`: may be sent twice.
delivery = Table(
    "delivery",
    metadata,
    Column("message_id", LargeBinary(16), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("lane", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("due", BigInteger),
    Column("window_from", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("unknowns", Integer, nullable=False),
    Column("twice", Integer, nullable=False),
    Column("token", BigInteger),
    Column("ended", BigInteger),
    Column("status", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("notify", Text, nullable=False, server_default=""),
    Column("orcpt", Text, nullable=False, server_default=""),
    Column("searchable", Integer, nullable=False, server_default="0"),
    Column("flow", Integer, nullable=False, server_default="0"),
    Column("home", Integer),
    Column("own_window", BigInteger),
    Column("own_give_up", BigInteger),
    sqlite_with_rowid=False,
)

attempt = Table(
    "attempt",
    metadata,
    Column("message_id", LargeBinary(16), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("account", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("advice", Text, nullable=False),
    Column("remote_host", Text, nullable=False),
    Column("transcript", Text, nullable=False),
    Column("sent_to", Text, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)

# Connections that messages bring (`store.own_connections`); `sealed` is empty from the end of the message on.
connection = Table(
    "connection",
    metadata,
    Column("message_id", LargeBinary(16), primary_key=True),
    Column("application_id", Integer, nullable=False),
    Column("target", Text, nullable=False),
    Column("shown", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# What a report shall tell of; written with the state that it is about, removed in the transaction of the report.
notice = Table(
    "notice",
    metadata,
    Column("message_id", LargeBinary(16), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

event = Table(
    "event",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("message_id", LargeBinary(16)),
    Column("n", Integer),
    Column("account", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

# How many deliveries are in each state on each lane, kept in the transactions that move them.
tally = Table(
    "tally",
    metadata,
    Column("lane", Integer, primary_key=True),
    Column("state", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What limits count (`model.usage`).
usage = Table(
    "usage",
    metadata,
    Column("meter", Text, primary_key=True),
    Column("span", Text, primary_key=True),
    Column("bucket", BigInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("ends", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# How often an application sent the same body to the same recipient, by a keyed hash (`store.repetitions`).
repetition = Table(
    "repetition",
    metadata,
    Column("application_id", Integer, primary_key=True),
    Column("digest", LargeBinary(16), primary_key=True),
    Column("bucket", BigInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("ends", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Recipients that mail is not sent to (`store.suppressions`); compared octet by octet.
suppression = Table(
    "suppression",
    metadata,
    Column("key", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("message_id", LargeBinary(16)),
    sqlite_with_rowid=False,
)

account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("enabled", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("definition", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

# How an account is that may not send, by its lane; void once the account's revision is another.
circuit = Table(
    "circuit",
    metadata,
    Column("lane", Integer, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("health", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("advice", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("transcript", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("by_hand", Integer, nullable=False),
    Column("failing_since", BigInteger),
    sqlite_with_rowid=False,
)

# When retry windows of a lane stood still: pauses as JSON, in microseconds, the last perhaps without an end.
standstill = Table(
    "standstill",
    metadata,
    Column("lane", Integer, primary_key=True),
    Column("pauses", Text, nullable=False),
    sqlite_with_rowid=False,
)

# What OAuth 2 gave to an account (`store.tokens`); `claimant` may refresh it until `claimed_until`.
token = Table(
    "token",
    metadata,
    Column("account_id", Integer, primary_key=True, autoincrement=False),
    Column("binding", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires", BigInteger),
    Column("refresh_expires", BigInteger),
    Column("granted", BigInteger),
    Column("refreshed", BigInteger),
    Column("refused", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("claimant", LargeBinary(16)),
    Column("claimed_until", BigInteger),
)

# Consents that are waited for, by a digest of their names.
consent = Table(
    "consent",
    metadata,
    Column("state", LargeBinary(16), primary_key=True),
    Column("account_id", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

application = Table(
    "application",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("definition", Text, nullable=False),
    Column("credential", LargeBinary, nullable=False),
)

setting = Table(
    "setting",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

# The last number given out under each name ("token", "account", "application"); a number is never given twice. On
# PostgreSQL also the mark of the last transaction ("commit").
sequence = Table(
    "sequence",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


def _partial(name: str, table: Table, columns: tuple[str | ColumnElement[Any], ...], where: str) -> Index:
    keys = [table.c[column] if isinstance(column, str) else column for column in columns]
    return Index(name, *keys, sqlite_where=text(where), info={WHERE: where})


def _searched(name: str, table: Table, key: ColumnElement[Any]) -> Index:
    """An index of searches: by stretch, then by key."""
    identity = table.c.id if table is message else table.c.message_id
    stretch: ColumnElement[bytes] = literal_column(f"substr({identity.name}, 1, {STRETCH_BYTES})")
    return _partial(name, table, (stretch, key), SEARCHABLE_SQL)


INDEXES = (
    _partial("delivery_due", delivery, ("lane", "priority", "flow", "due", "message_id", "n"), WAITING_SQL),
    _partial("delivery_away", delivery, ("home", "message_id", "n"), AWAY_SQL),
    _partial("delivery_sending", delivery, ("lane", "message_id", "n"), SENDING_SQL),
    _partial("delivery_window", delivery, ("lane", "own_window", "window_from"), DEFERRED_SQL),
    _partial("delivery_give_up", delivery, ("own_give_up",), OWN_GIVE_UP_SQL),
    _partial("delivery_aside", delivery, ("state", "message_id", "n"), ASIDE_SQL),
    _partial("event_message", event, ("message_id",), "message_id IS NOT NULL"),
    _partial("event_apart", event, ("id",), APART_SQL),
    _partial("message_unsearchable", message, ("id",), UNSEARCHABLE_SQL),
    _searched("message_sender", message, folded(message.c.reverse_path)),
    _searched("message_header_id", message, folded(message.c.header_message_id)),
    _partial("message_application", message, ("application", "id"), SEARCHABLE_SQL),
    _partial("message_tag", message, ("tag", "id"), TAGGED_SQL),
    _searched("delivery_recipient", delivery, folded(delivery.c.recipient)),
    _searched("delivery_domain", delivery, domain_of(delivery.c.recipient)),
    _partial("delivery_lane", delivery, ("lane", "message_id", "n"), SEARCHABLE_SQL),
    Index("staging_staged", staging.c.staged),
    Index("repetition_ends", repetition.c.ends),
    _partial("suppression_expires", suppression, ("expires",), "expires IS NOT NULL"),
    Index("account_name", account.c.name_key, unique=True),
    Index("application_name", application.c.name_key, unique=True),
)
