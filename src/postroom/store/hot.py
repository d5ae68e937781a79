"""The verbs written many at a time; every message passes enqueue, claim and complete.

The conditions on the state before are in the UPDATEs, so that cancel, hold and an older fencing token always win. A
group first assumes that nobody came between; if fewer rows moved than asked (`Uneven`), the batch is written again one
by one, where RETURNING tells which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..crashing import fails, reach
from ..errors import StorageFailed
from ..model.account import Retry
from ..model.content import ContentId, StagedBody
from ..model.envelope import DsnRequest
from ..model.queue import NOTHING_ASIDE, Aside, AttemptRecord, DeliveryResult, NewMessage, flow_of
from ..model.suppression import Suppression
from . import Claim, own_connections, suppressions, usage
from .repetitions import hold_repeated
from .rows import Rows
from .schema import MICROSECOND, micros
from .writer import Transaction, Uneven

_INSERT_MESSAGE = Rows(
    "INSERT INTO message (id, door, application_id, application, reverse_path, eight_bit, smtputf8, accepted, subject,"
    " header_message_id, peer, priority, size_bytes, resubmits, named) ",
    "btittiiitttiibi",
)
_INSERT_CONTENT = Rows(
    "INSERT INTO content (message_id, head, body, content_id, chunks, body_bytes, sha256, body_hash) ", "bbbbiibb"
)
_INSERT_DELIVERY = Rows(
    "WITH v(message_id, n, lane, priority, flow, recipient, at) AS (",
    "biiiiti",
    ") INSERT INTO delivery (message_id, n, lane, priority, flow, state, recipient, due, window_from, attempts, tries,"
    " unknowns, twice, status, reply) SELECT v.message_id, v.n, v.lane, v.priority, v.flow, 'queued', v.recipient,"
    " v.at, v.at, 0, 0, 0, 0, '', '' FROM v",
)
INSERT_EVENT = Rows("INSERT INTO event (at, kind, message_id, n, account, detail) ", "itbitt")
_INSERT_CHUNK = Rows("INSERT INTO chunk (content_id, n, data) ", "bib")
_INSERT_STAGING = Rows("INSERT INTO staging (content_id, staged) ", "bi", " ON CONFLICT (content_id) DO NOTHING")

# `FROM v` with the key compared column by column uses the primary key; `(a, b) IN (VALUES ...)` scans the table.
_THIS = " FROM v WHERE delivery.message_id = v.m AND delivery.n = v.n"
# `+` and `|| ''` keep planners from the partial indexes of what waits, which have far more rows than one key.
_ON_LANE = " AND +delivery.lane = v.lane"
_WAS = " AND delivery.state || '' ="
_CLAIM_HEAD = "WITH v(m, n, lane, token) AS ("
_CLAIM_TAIL = f") UPDATE delivery SET state = 'sending', token = v.token{_THIS}{_ON_LANE}"
_CLAIM_QUEUED = Rows(_CLAIM_HEAD, "biii", f"{_CLAIM_TAIL}{_WAS} 'queued'")
_RETURNING = " RETURNING delivery.message_id, delivery.n"
_CLAIM_QUEUED_TOLD = Rows(_CLAIM_HEAD, "biii", f"{_CLAIM_TAIL}{_WAS} 'queued'{_RETURNING}")
_CLAIM_DEFERRED_TOLD = Rows(_CLAIM_HEAD, "biii", f"{_CLAIM_TAIL}{_WAS} 'deferred'{_RETURNING}")

_UNCLAIM = Rows(
    _CLAIM_HEAD,
    "biii",
    f") UPDATE delivery SET state = 'queued', token = NULL{_THIS}{_ON_LANE}"
    f"{_WAS} 'sending' AND delivery.token = v.token",
)

_COMPLETE_HEAD = "WITH v(m, n, token, state, due, counts, unknown, ended, status, reply) AS ("
_COMPLETE_TAIL = (
    ") UPDATE delivery SET state = v.state, token = NULL, due = v.due, attempts = delivery.attempts + 1,"
    " tries = delivery.tries + v.counts, unknowns = delivery.unknowns + v.unknown, ended = v.ended,"
    f" status = v.status, reply = v.reply{_THIS}{_WAS} 'sending' AND delivery.token = v.token"
)
_COMPLETE = Rows(_COMPLETE_HEAD, "biitiiiitt", _COMPLETE_TAIL)
_COMPLETE_TOLD = Rows(_COMPLETE_HEAD, "biitiiiitt", f"{_COMPLETE_TAIL}{_RETURNING}")

_INSERT_ATTEMPT = Rows(
    "WITH v(m, n, account, started, ended, outcome, status, reply, command, advice, remote_host, transcript, sent_to)"
    " AS (",
    "bitiitttttttt",
    ") INSERT INTO attempt (message_id, n, number, account, started, ended, outcome, status, reply, command, advice,"
    " remote_host, transcript, sent_to) SELECT v.m, v.n, delivery.attempts, v.account, v.started, v.ended, v.outcome,"
    " v.status, v.reply, v.command, v.advice, v.remote_host, v.transcript, v.sent_to FROM v CROSS JOIN delivery"
    " WHERE delivery.message_id = v.m AND delivery.n = v.n",
)

DETAIL_CHARACTERS = 200

NOTE = "INSERT INTO notice (message_id, n, kind, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


class StagedChunk(NamedTuple):
    """One chunk on its way into the store, and when it came."""

    content_id: ContentId
    n: int
    data: bytes
    staged: int


def stage(transaction: Transaction, chunks: Sequence[StagedChunk]) -> Sequence[None]:
    """Keep chunks of content that no message owns yet."""
    raw = transaction.raw
    first = [value for c in chunks if not c.n for value in (c.content_id, c.staged)]
    if first:
        raw.run(_INSERT_STAGING, first)
    if fails("O1-body"):
        raise raw.no_room()
    raw.run(_INSERT_CHUNK, [value for c in chunks for value in (c.content_id, c.n, c.data)])
    return [None] * len(chunks)


def enqueue(transaction: Transaction, messages: Sequence[NewMessage]) -> Sequence[Aside]:
    """Insert messages with content, deliveries and events; which deliveries of each do not go on.

    Raises:
        StorageFailed: a staged body is not what the message says.
    """
    message_rows: list[Any] = []
    content_rows: list[Any] = []
    delivery_rows: list[Any] = []
    event_rows: list[Any] = []
    for message in messages:
        identity = message.id
        accepted = micros(message.accepted)
        priority = int(message.priority)
        flow = flow_of(message.application_id, own=message.connection is not None)
        envelope = message.envelope
        content = message.content
        body = content.body
        message_rows += (
            identity,
            message.door,
            message.application_id,
            message.application,
            envelope.reverse_path,
            envelope.eight_bit,
            envelope.smtputf8,
            accepted,
            message.subject,
            message.header_message_id,
            message.peer,
            priority,
            content.size_bytes,
            message.resubmits,
            message.named,
        )
        if isinstance(body, StagedBody):
            _own(transaction, body)
            content_rows += (identity, content.head, None, body.content_id, body.chunks, body.size_bytes, body.sha256)
            content_rows.append(body.body_hash or None)
        else:
            content_rows += (identity, content.head, body, None, 0, len(body), None, None)
        for delivery in message.deliveries:
            delivery_rows += (identity, delivery.n, delivery.lane, priority, flow, delivery.recipient, accepted)
            transaction.move(delivery.lane, "", "queued", 1)
        event_rows += (accepted, "accepted", identity, None, "", "")
    raw = transaction.raw
    raw.run(_INSERT_MESSAGE, message_rows)
    raw.run(_INSERT_CONTENT, content_rows)
    raw.run(_INSERT_DELIVERY, delivery_rows)
    raw.run(INSERT_EVENT, event_rows)
    usage.keep(transaction, [row for message in messages for row in message.usage])
    for message in messages:
        if message.envelope.dsn is not None:
            _keep_request(transaction, message, message.envelope.dsn)
        if message.tag:
            raw.execute("UPDATE message SET tag = ? WHERE id = ?", (message.tag, message.id))
        if message.retry is not None:
            _keep_retry(transaction, message, message.retry)
        if message.connection is not None:
            own_connections.keep(transaction, message, message.connection)
    checked = [message for message in messages if message.suppressible]
    ended = suppressions.bounce_suppressed(transaction, checked) if checked else {}
    if ended:
        own_connections.end(transaction, [message.id for message in checked if message.connection is not None])
    aside = [_aside(transaction, message, ended.get(message.id, ())) for message in messages]
    reach("A2")
    return aside


def _aside(transaction: Transaction, message: NewMessage, ended: tuple[int, ...]) -> Aside:
    if message.repeats is None:
        return Aside(ended=ended) if ended else NOTHING_ASIDE
    return Aside(held=hold_repeated(transaction, message, message.repeats, ended), ended=ended)


def _keep_request(transaction: Transaction, message: NewMessage, dsn: DsnRequest) -> None:
    """What few senders ask for stays out of the statements that every message passes."""
    raw = transaction.raw
    raw.execute("UPDATE message SET ret = ?, envid = ? WHERE id = ?", (dsn.ret, dsn.envid, message.id))
    raw.change_each(
        "UPDATE delivery SET notify = ?, orcpt = ? WHERE message_id = ? AND n = ?",
        [
            (notify, orcpt, message.id, delivery.n)
            for delivery, notify, orcpt in zip(message.deliveries, dsn.notify, dsn.orcpt, strict=True)
            if notify or orcpt
        ],
    )


def _keep_retry(transaction: Transaction, message: NewMessage, retry: Retry) -> None:
    """As few bring rules of retrying of their own."""
    raw = transaction.raw
    window = None if retry.window is None else retry.window // MICROSECOND
    give_up = None if retry.give_up is None else micros(message.accepted + retry.give_up)
    raw.execute(
        "UPDATE message SET retry_schedule = ?, retry_window = ? WHERE id = ?", (retry.schedule, window, message.id)
    )
    if window is not None or give_up is not None:
        raw.execute(
            "UPDATE delivery SET own_window = ?, own_give_up = ? WHERE message_id = ?", (window, give_up, message.id)
        )


def _own(transaction: Transaction, body: StagedBody) -> None:
    """Check that what lies in the store is the body, and take it for the message."""
    raw = transaction.raw
    identity = body.content_id
    digest = hashlib.sha256()
    size = 0
    count = 0
    # One by one: a driver may bring all rows of a statement into memory.
    while chunk := raw.execute("SELECT data FROM chunk WHERE content_id = ? AND n = ?", (identity, count)).fetchone():
        digest.update(chunk[0])
        size += len(chunk[0])
        count += 1
    if (count, size, digest.digest()) != (body.chunks, body.size_bytes, body.sha256):
        raise StorageFailed("the staged content is not what was received")
    if not raw.change("DELETE FROM staging WHERE content_id = ?", (identity,)):
        raise StorageFailed("the staged content belongs to another message")


def claim(transaction: Transaction, claims: Sequence[Claim]) -> Sequence[tuple[int, ...]]:
    """Move what still waits to `sending`; the numbers moved of each claim. A claim under an old token moves nothing."""
    token = transaction.token
    rows: list[Any] = []
    for wanted in claims:
        if wanted.token == token:
            for n in wanted.recipients:
                rows += (wanted.message_id, n, wanted.lane, token)
    if not rows:
        return [()] * len(claims)
    if transaction.alone:
        return [_claim_one(transaction, claims[0], rows)]
    asked = len(rows) // 4
    moved = transaction.raw.run(_CLAIM_QUEUED, rows)
    deferred: set[tuple[bytes, int]] = set()
    if moved < asked:
        deferred.update(transaction.raw.returned(_CLAIM_DEFERRED_TOLD, rows))
        if moved + len(deferred) < asked:
            raise Uneven
    for wanted in claims:
        if wanted.token == token:
            before = sum((wanted.message_id, n) in deferred for n in wanted.recipients) if deferred else 0
            transaction.move(wanted.lane, "deferred", "sending", before)
            transaction.move(wanted.lane, "queued", "sending", len(wanted.recipients) - before)
    return [wanted.recipients if wanted.token == token else () for wanted in claims]


def _claim_one(transaction: Transaction, wanted: Claim, rows: list[Any]) -> tuple[int, ...]:
    moved: set[int] = set()
    for before, statement in (("queued", _CLAIM_QUEUED_TOLD), ("deferred", _CLAIM_DEFERRED_TOLD)):
        numbers = {n for _, n in transaction.raw.returned(statement, rows)}
        transaction.move(wanted.lane, before, "sending", len(numbers))
        moved |= numbers
        if len(moved) == len(wanted.recipients):
            break
    return tuple(n for n in wanted.recipients if n in moved)


def unclaim(transaction: Transaction, claims: Sequence[Claim]) -> Sequence[None]:
    """Give claims back, as far as they are still held under their token."""
    rows: list[Any] = []
    for given in claims:
        for n in given.recipients:
            rows += (given.message_id, n, given.lane, given.token)
    usage.keep(transaction, [row for given in claims for row in given.usage])
    moved = transaction.raw.run(_UNCLAIM, rows)
    if transaction.alone:
        transaction.move(claims[0].lane, "sending", "queued", moved)
    elif moved * 4 < len(rows):
        raise Uneven
    else:
        for given in claims:
            transaction.move(given.lane, "sending", "queued", len(given.recipients))
    return [None] * len(claims)


def complete(transaction: Transaction, attempts: Sequence[AttemptRecord]) -> Sequence[None]:
    """Move deliveries out of `sending`, with an attempt and an event each, as far as they are still there."""
    raw = transaction.raw
    updates: list[Any] = []
    for record in attempts:
        ended = micros(record.ended)
        for result in record.results:
            state = result.state
            updates += (
                record.message_id,
                result.n,
                record.token,
                state.value,
                None if result.due is None else micros(result.due),
                result.counts,
                result.unknown,
                ended if state.is_final else None,
                result.status,
                result.reply,
            )
    usage.keep(transaction, [row for record in attempts for row in record.usage])
    if transaction.alone:
        changed = {n for _, n in raw.returned(_COMPLETE_TOLD, updates)}
        record = attempts[0]
        _note(transaction, [(record, [result for result in record.results if result.n in changed])])
    elif raw.run(_COMPLETE, updates) * 10 < len(updates):
        raise Uneven
    else:
        _note(transaction, [(record, record.results) for record in attempts])
    if own := [record.message_id for record in attempts if record.own_connection]:
        own_connections.end(transaction, own)
    return [None] * len(attempts)


def _note(transaction: Transaction, changed: Sequence[tuple[AttemptRecord, Sequence[DeliveryResult]]]) -> None:
    attempt_rows: list[Any] = []
    event_rows: list[Any] = []
    notice_rows: list[tuple[bytes, int, str, int]] = []
    bounced: list[tuple[str, Suppression]] = []
    for record, results in changed:
        identity = record.message_id
        account = record.account
        started = micros(record.started)
        ended = micros(record.ended)
        transcript = record.transcript
        redirected = f"redirected to {record.sent_to}: " if record.sent_to else ""
        for result in results:
            state = result.state.value
            transaction.move(record.lane, "sending", state, 1)
            attempt_rows += (
                identity,
                result.n,
                account,
                started,
                ended,
                result.outcome,
                result.status,
                result.reply,
                result.command,
                result.advice,
                record.remote_host,
                transcript,
                record.sent_to,
            )
            transcript = ""  # it is the whole transaction's: once is enough
            detail = f"{redirected}{result.status} {result.reply}".strip()[:DETAIL_CHARACTERS]
            event_rows += (ended, state, identity, result.n, account, detail)
            if result.notice:
                notice_rows.append((identity, result.n, result.notice, ended))
            if result.suppression is not None:
                bounced.append((account, result.suppression))
    if notice_rows:
        reach("D7-notice")
        transaction.raw.change_each(NOTE, notice_rows)
    for account, entry in bounced:
        suppressions.add_bounced(transaction, account, entry)
    if attempt_rows:
        transaction.raw.run(_INSERT_ATTEMPT, attempt_rows)
        transaction.raw.run(INSERT_EVENT, event_rows)


def record(transaction: Transaction, events: Sequence[tuple[Any, ...]]) -> Sequence[None]:
    """Keep events that are not about one message: rows of `event` without the id."""
    transaction.raw.run(INSERT_EVENT, [value for row in events for value in row])
    return [None] * len(events)
