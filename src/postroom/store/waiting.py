"""What waits to be sent: read in the order of the index `delivery_due`, with the content that sending needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from ..errors import StorageFailed
from ..model.account import Retry
from ..model.content import Content, ContentId, StagedBody
from ..model.queue import DueDelivery, DueMessage, FlowId, LaneId, MessageId, PriorityClass
from . import Due, InHand, own_connections
from .readers import Reader, Readers
from .schema import WAITING_SQL, maybe_duration, maybe_moment, micros, moment

#: Bodies that one read brings along; those of the messages after are read when they are sent.
BODY_BYTES = 8 * 1024 * 1024

_DUE = (
    "SELECT message_id, window_from, n, recipient, tries, unknowns, notify, orcpt, twice FROM delivery"
    f" WHERE {WAITING_SQL} AND lane = ? AND priority = ? AND flow = ? AND due <= ? ORDER BY due, message_id, n LIMIT ?"
)
# What is left of a message, from one delivery of it on.
_REST = (
    "SELECT message_id, window_from, n, recipient, tries, unknowns, notify, orcpt, twice FROM delivery"
    f" WHERE {WAITING_SQL} AND lane = ? AND priority = ? AND flow = ?"
    " AND due = (SELECT due FROM delivery WHERE message_id = ? AND n = ?) AND message_id = ? AND n > ? ORDER BY n"
)
# One step in the index for each flow.
_FLOWS = (
    f"WITH RECURSIVE f(flow) AS (SELECT min(flow) FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ?"
    f" UNION ALL SELECT (SELECT min(flow) FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ?"
    " AND flow > f.flow) FROM f WHERE f.flow IS NOT NULL)"
)
_ALL_FLOWS = f"{_FLOWS} SELECT flow FROM f WHERE flow IS NOT NULL"
_FLOWS_DUE = (
    f"{_ALL_FLOWS} AND EXISTS (SELECT 1 FROM delivery WHERE {WAITING_SQL}"
    " AND lane = ? AND priority = ? AND delivery.flow = f.flow AND due <= ?)"
)
_NEXT_DUE = (
    f"{_FLOWS} SELECT min((SELECT min(due) FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ?"
    " AND delivery.flow = f.flow AND due > ?)) FROM f WHERE flow IS NOT NULL"
)
_WAITING_SINCE = (
    f"{_FLOWS} SELECT min((SELECT min(due) FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ?"
    " AND delivery.flow = f.flow)) FROM f WHERE flow > 0"
)
_MESSAGE = (
    "SELECT reverse_path, eight_bit, smtputf8, accepted, ret, envid, named, head, retry_schedule, retry_window,"
    f" content_id, chunks, body_bytes, sha256, body_hash, {own_connections.COLUMNS}"
    f" FROM message JOIN content ON content.message_id = message.id{own_connections.JOIN} WHERE message.id = ?"
)
_BODY = "SELECT body FROM content WHERE message_id = ?"
_CHUNK = "SELECT data FROM chunk WHERE content_id = ? AND n = ?"


#: Deliveries of one message in one class and flow whose retry windows began at the same time.
Together = dict[tuple[bytes, int, PriorityClass, FlowId], list[DueDelivery]]


def flows(reader: Reader, lane: int, priority: int) -> list[FlowId]:
    """The flows of which anything waits."""
    return [FlowId(flow) for (flow,) in reader.raw.execute(_ALL_FLOWS, (lane, priority) * 2)]


def _flows_due(reader: Reader, lane: int, priority: int, now: datetime) -> list[FlowId]:
    return [FlowId(flow) for (flow,) in reader.raw.execute(_FLOWS_DUE, (*(lane, priority) * 3, micros(now)))]


def due(reader: Reader, lane: LaneId, now: datetime, limit: int, in_hand: InHand) -> Due:
    """See `QueueStore.due`. Deliveries of one message whose retry windows differ are apart."""
    together: Together = {}
    more: set[tuple[PriorityClass, FlowId]] = set()
    unseen: set[PriorityClass] = set()
    left = limit
    found = {priority: _flows_due(reader, lane, priority, now) for priority in PriorityClass}
    for priority, flow in in_hand.shut:
        if flow in found[priority]:
            found[priority].remove(flow)
            more.add((priority, flow))
    for priority, waiting in found.items():
        most = left
        if priority is PriorityClass.NORMAL and found[PriorityClass.BULK]:
            most -= left // 5  # for the bulk ones that go beside them
        if waiting and most <= 0:
            unseen.add(priority)
            continue
        where = (lane, int(priority))
        share = max(1, most // max(1, len(waiting)))
        for flow in waiting:
            strand = (priority, flow)
            asked = share + in_hand.counts.get(strand, 0)
            rows = reader.raw.execute(_DUE, (*where, flow, micros(now), asked)).fetchall()
            if len(rows) == asked:
                more.add(strand)
                if in_hand.whole:
                    message_id, n = rows[-1][0], rows[-1][2]
                    rows += reader.raw.execute(_REST, (*where, flow, message_id, n, message_id, n)).fetchall()
            left -= _gather(together, strand, rows, in_hand)
    return Due(_messages(reader, lane, together), frozenset(more), frozenset(unseen))


def _gather(together: Together, strand: tuple[PriorityClass, FlowId], rows: list[Any], in_hand: InHand) -> int:
    """Add the deliveries that are not in hand; how many."""
    fresh = 0
    for message_id, window_from, n, recipient, tries, unknowns, notify, orcpt, twice in rows:
        if (message_id, n) not in in_hand.deliveries:
            delivery = DueDelivery(n, recipient, tries, unknowns, notify, orcpt, bool(twice))
            together.setdefault((message_id, window_from, *strand), []).append(delivery)
            fresh += 1
    return fresh


def _messages(reader: Reader, lane: LaneId, together: Together) -> list[DueMessage]:
    raw = reader.raw
    budget = BODY_BYTES
    messages = []
    for (message_id, window_from, priority, flow), deliveries in together.items():
        row = raw.execute(_MESSAGE, (message_id,)).fetchone()
        reverse_path, eight_bit, smtputf8, accepted, ret, envid, named, head, schedule, window, *stored = row
        content_id, chunks, body_bytes, sha256, body_hash, *connection = stored
        body: bytes | StagedBody
        if content_id is not None:
            body = StagedBody(ContentId(content_id), chunks, body_bytes, sha256, body_hash or b"")
        elif body_bytes <= budget:
            budget -= body_bytes
            body = raw.execute(_BODY, (message_id,)).fetchone()[0]
        else:
            body = StagedBody(ContentId(message_id), 1, body_bytes, b"")
        messages.append(
            DueMessage(
                id=MessageId(message_id),
                lane=lane,
                priority=priority,
                reverse_path=reverse_path,
                eight_bit=bool(eight_bit),
                smtputf8=bool(smtputf8),
                window_from=moment(window_from),
                accepted=moment(accepted),
                deliveries=tuple(deliveries),
                content=Content(head, body),
                ret=ret,
                envid=envid,
                flow=flow,
                retry=Retry(schedule=schedule, window=maybe_duration(window)) if schedule or window else None,
                named=bool(named),
                connection=own_connections.sealed_connection(message_id, connection),
            )
        )
    return messages


def next_due(reader: Reader, lane: LaneId, classes: Sequence[PriorityClass], after: datetime) -> datetime | None:
    """See `QueueStore.next_due`."""
    later = []
    for priority in classes:
        where = (lane, int(priority))
        later.append(reader.raw.execute(_NEXT_DUE, (*where, *where, *where, micros(after))).fetchone()[0])
    return maybe_moment(min((due for due in later if due is not None), default=None))


def waiting_since(reader: Reader, lane: LaneId) -> datetime | None:
    """See `QueueStore.waiting_since`."""
    found = []
    for priority in PriorityClass:
        where = (lane, int(priority))
        found.append(reader.raw.execute(_WAITING_SINCE, (*where, *where, *where)).fetchone()[0])
    return maybe_moment(min((due for due in found if due is not None), default=None))


async def chunks(readers: Readers, body: StagedBody) -> AsyncIterator[bytes]:
    """See `QueueStore.chunks`.

    Raises:
        StorageFailed: a chunk is missing.
    """
    for n in range(body.chunks):
        yield await readers.read(lambda reader, n=n: _chunk(reader, body.content_id, n))  # type: ignore[misc]


def _chunk(reader: Reader, content_id: ContentId, n: int) -> bytes:
    row: Any = reader.raw.execute(_CHUNK, (content_id, n)).fetchone()
    if row is None and n == 0:
        # A body kept with its message that `due` did not bring along is named by the message's id.
        row = reader.raw.execute(_BODY, (content_id,)).fetchone()
    if row is None or row[0] is None:
        raise StorageFailed(f"chunk {n} of a stored body is missing")
    reader.raw.forget_pages()
    data: bytes = row[0]
    return data


def whole_content(reader: Reader, message_id: MessageId) -> bytes | None:
    """See `ViewStore.content`."""
    row = reader.raw.execute(
        "SELECT head, body, content_id FROM content WHERE message_id = ?", (message_id,)
    ).fetchone()
    if row is None:
        return None
    head, body, content_id = row
    if content_id is None:
        return bytes(head + body)
    parts = reader.raw.execute("SELECT data FROM chunk WHERE content_id = ? ORDER BY n", (content_id,))
    return b"".join([head, *(data for (data,) in parts)])
