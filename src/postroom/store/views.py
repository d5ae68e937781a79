"""What people look at: one message with all that is known of it, counts; lists are in `lists` and `event_list`."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, Select, select

from ..model.queue import DeliveryState, LaneId, MessageId, PriorityClass
from . import AttemptRow, DeliveryRow, MessageView
from .event_list import event_row
from .readers import Reader
from .schema import attempt, connection, delivery, event, maybe_duration, maybe_moment, message, moment, tally

#: A delivery with what lists show of its message.
ROW: Select[Any] = select(
    delivery,
    message.c.reverse_path,
    message.c.subject,
    message.c.accepted,
    message.c.size_bytes,
    message.c.application,
    message.c.tag,
).join(message, message.c.id == delivery.c.message_id)


def read_message(reader: Reader, message_id: MessageId) -> MessageView | None:
    """See `ViewStore.message`."""
    core = reader.core
    row = core.execute(select(message).where(message.c.id == message_id)).first()
    if row is None:
        return None
    deliveries = core.execute(ROW.where(delivery.c.message_id == message_id).order_by(delivery.c.n))
    attempts = core.execute(
        select(attempt).where(attempt.c.message_id == message_id).order_by(attempt.c.n, attempt.c.number)
    )
    events = core.execute(select(event).where(event.c.message_id == message_id).order_by(event.c.id))
    own = core.execute(select(connection).where(connection.c.message_id == message_id)).first()
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
        deliveries=tuple(delivery_row(found) for found in deliveries),
        attempts=tuple(_attempt(found) for found in attempts),
        events=tuple(event_row(found) for found in events),
        ret=row.ret,
        envid=row.envid,
        tag=row.tag,
        connection=None if own is None else {"target": own.target, **json.loads(own.shown)},
    )


def read_counts(reader: Reader) -> dict[tuple[LaneId, DeliveryState], int]:
    """See `ViewStore.counts`."""
    rows = reader.core.execute(select(tally.c.lane, tally.c.state, tally.c.count).where(tally.c.count != 0))
    return {(LaneId(lane), DeliveryState(state)): count for lane, state, count in rows}


def delivery_row(row: Row[Any]) -> DeliveryRow:
    """A row of `ROW`."""
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
        own_window=maybe_duration(row.own_window),
        own_give_up=maybe_moment(row.own_give_up),
        application=row.application,
        tag=row.tag,
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
        sent_to=row.sent_to,
        transcript=row.transcript,
    )
