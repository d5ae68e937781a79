"""What people look at: lists by key, one message with all that is known of it, counts, events."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, text

from ..model.queue import DeliveryState, LaneId, MessageId, PriorityClass
from . import AttemptRow, DeliveryFilter, DeliveryRow, EventRow, MessageView
from .readers import Reader
from .schema import ASIDE_SQL, SENDING_SQL, WAITING_SQL, attempt, delivery, event, maybe_moment, message, moment, tally

_ROW: Select[Any] = select(
    delivery, message.c.reverse_path, message.c.subject, message.c.accepted, message.c.size_bytes
).join(message, message.c.id == delivery.c.message_id)

S = DeliveryState
#: Sets of states that a partial index covers, with the words that make SQLite use it.
_COVERED: tuple[tuple[frozenset[DeliveryState], str], ...] = (
    (frozenset({S.SENDING}), SENDING_SQL),
    (frozenset({S.DEFERRED, S.HELD, S.CAPTURED, S.BOUNCED, S.EXPIRED, S.CANCELLED}), ASIDE_SQL),
)
_WAITING = frozenset({S.QUEUED, S.DEFERRED})
#: So many waiting deliveries are sorted; with more, the newest are found by walking back from the newest message.
_SORTED = 20_000
del S


def read_deliveries(reader: Reader, wanted: DeliveryFilter) -> list[DeliveryRow]:
    """See `ViewStore.deliveries`. `recipient` and `sender` match from the beginning, without regard to case."""
    where: list[ColumnElement[bool]] = []
    if wanted.states:
        where.append(delivery.c.state.in_([state.value for state in wanted.states]))
        where.extend(_hint(reader, frozenset(wanted.states)))
    if wanted.lane is not None:
        where.append(delivery.c.lane == wanted.lane)
    if wanted.recipient:
        where.append(func.lower(delivery.c.recipient).startswith(wanted.recipient.lower(), autoescape=True))
    if wanted.sender:
        where.append(func.lower(message.c.reverse_path).startswith(wanted.sender.lower(), autoescape=True))
    if wanted.after is not None:
        message_id, n = wanted.after
        where.append(delivery.c.message_id <= message_id)
        where.append(or_(delivery.c.message_id < message_id, delivery.c.n > n))
    query = _ROW.where(and_(*where)) if where else _ROW
    query = query.order_by(delivery.c.message_id.desc(), delivery.c.n).limit(wanted.limit)
    return [_delivery(row) for row in reader.core.execute(query)]


def _hint(reader: Reader, states: frozenset[DeliveryState]) -> list[ColumnElement[bool]]:
    for covered, words in _COVERED:
        if states <= covered:
            return [_words(words)]
    if states <= _WAITING:
        waiting = reader.core.execute(
            select(func.sum(tally.c.count)).where(tally.c.state.in_([state.value for state in states]))
        ).scalar()
        if (waiting or 0) <= _SORTED:
            return [_words(WAITING_SQL)]
    return []


def _words(words: str) -> ColumnElement[bool]:
    return text(words.replace("state", "delivery.state"))  # type: ignore[return-value]


def read_message(reader: Reader, message_id: MessageId) -> MessageView | None:
    """See `ViewStore.message`."""
    core = reader.core
    row = core.execute(select(message).where(message.c.id == message_id)).first()
    if row is None:
        return None
    deliveries = core.execute(_ROW.where(delivery.c.message_id == message_id).order_by(delivery.c.n))
    attempts = core.execute(
        select(attempt).where(attempt.c.message_id == message_id).order_by(attempt.c.n, attempt.c.number)
    )
    events = core.execute(select(event).where(event.c.message_id == message_id).order_by(event.c.id))
    return MessageView(
        id=MessageId(row.id),
        door=row.door,
        application=row.application,
        reverse_path=row.reverse_path,
        eight_bit=bool(row.eight_bit),
        smtputf8=bool(row.smtputf8),
        accepted=moment(row.accepted),
        subject=row.subject,
        header_message_id=row.header_message_id,
        peer=row.peer,
        priority=PriorityClass(row.priority),
        size_bytes=row.size_bytes,
        resubmits=None if row.resubmits is None else MessageId(row.resubmits),
        deliveries=tuple(_delivery(found) for found in deliveries),
        attempts=tuple(_attempt(found) for found in attempts),
        events=tuple(_event(found) for found in events),
        ret=row.ret,
        envid=row.envid,
    )


def read_counts(reader: Reader) -> dict[tuple[LaneId, DeliveryState], int]:
    """See `ViewStore.counts`."""
    rows = reader.core.execute(select(tally.c.lane, tally.c.state, tally.c.count).where(tally.c.count != 0))
    return {(LaneId(lane), DeliveryState(state)): count for lane, state, count in rows}


def read_events(reader: Reader, after: int, limit: int) -> list[EventRow]:
    """See `ViewStore.events`."""
    rows = reader.core.execute(select(event).where(event.c.id > after).order_by(event.c.id).limit(limit))
    return [_event(row) for row in rows]


def _delivery(row: Row[Any]) -> DeliveryRow:
    return DeliveryRow(
        message_id=MessageId(row.message_id),
        n=row.n,
        recipient=row.recipient,
        state=DeliveryState(row.state),
        lane=LaneId(row.lane),
        priority=PriorityClass(row.priority),
        tries=row.tries,
        unknowns=row.unknowns,
        may_be_sent_twice=bool(row.twice),
        due=maybe_moment(row.due),
        window_from=moment(row.window_from),
        ended=maybe_moment(row.ended),
        status=row.status,
        reply=row.reply,
        reverse_path=row.reverse_path,
        subject=row.subject,
        accepted=moment(row.accepted),
        size_bytes=row.size_bytes,
        notify=row.notify,
        orcpt=row.orcpt,
    )


def _attempt(row: Row[Any]) -> AttemptRow:
    return AttemptRow(
        n=row.n,
        number=row.number,
        account=row.account,
        started=moment(row.started),
        ended=moment(row.ended),
        outcome=row.outcome,
        status=row.status,
        reply=row.reply,
        command=row.command,
        advice=row.advice,
        remote_host=row.remote_host,
        transcript=row.transcript,
    )


def _event(row: Row[Any]) -> EventRow:
    return EventRow(
        id=row.id,
        at=moment(row.at),
        kind=row.kind,
        message_id=None if row.message_id is None else MessageId(row.message_id),
        n=row.n,
        account=row.account,
        detail=row.detail,
    )
