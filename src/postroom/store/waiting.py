"""What waits to be sent: read in the order of the index `delivery_due`, with the content that sending needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from ..errors import StorageFailed
from ..model.content import Content, ContentId, StagedBody
from ..model.queue import DueDelivery, DueMessage, LaneId, MessageId, PriorityClass
from .readers import Reader, Readers
from .schema import WAITING_SQL, maybe_moment, micros, moment

#: Bodies that one read brings along; those of the messages after are read when they are sent.
BODY_BYTES = 8 * 1024 * 1024

_DUE = (
    "SELECT message_id, window_from, n, recipient, tries, unknowns, notify, orcpt FROM delivery"
    f" WHERE {WAITING_SQL} AND lane = ? AND priority = ? AND due <= ? ORDER BY due, message_id, n LIMIT ?"
)
_NEXT_DUE = f"SELECT min(due) FROM delivery WHERE {WAITING_SQL} AND lane = ? AND priority = ? AND due > ?"
_MESSAGE = (
    "SELECT reverse_path, eight_bit, smtputf8, accepted, ret, envid, head, content_id, chunks, body_bytes, sha256,"
    " body_hash"
    " FROM message JOIN content ON content.message_id = message.id WHERE message.id = ?"
)
_BODY = "SELECT body FROM content WHERE message_id = ?"
_CHUNK = "SELECT data FROM chunk WHERE content_id = ? AND n = ?"


def due(reader: Reader, lane: LaneId, now: datetime, limit: int) -> list[DueMessage]:
    """See `QueueStore.due`. Deliveries of one message whose retry windows differ are apart."""
    raw = reader.raw
    together: dict[tuple[bytes, int, int], list[DueDelivery]] = {}
    left = limit
    for priority in PriorityClass:
        if left <= 0:
            break
        rows = raw.execute(_DUE, (lane, int(priority), micros(now), left)).fetchall()
        left -= len(rows)
        for message_id, window_from, n, recipient, tries, unknowns, notify, orcpt in rows:
            delivery = DueDelivery(n, recipient, tries, unknowns, notify, orcpt)
            together.setdefault((message_id, window_from, priority), []).append(delivery)
    budget = BODY_BYTES
    messages = []
    for (message_id, window_from, priority_number), deliveries in together.items():
        row = raw.execute(_MESSAGE, (message_id,)).fetchone()
        reverse_path, eight_bit, smtputf8, accepted, ret, envid, head, *stored = row
        content_id, chunks, body_bytes, sha256, body_hash = stored
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
                priority=PriorityClass(priority_number),
                reverse_path=reverse_path,
                eight_bit=bool(eight_bit),
                smtputf8=bool(smtputf8),
                window_from=moment(window_from),
                accepted=moment(accepted),
                deliveries=tuple(deliveries),
                content=Content(head, body),
                ret=ret,
                envid=envid,
            )
        )
    return messages


def next_due(reader: Reader, lane: LaneId, classes: Sequence[PriorityClass], after: datetime) -> datetime | None:
    """See `QueueStore.next_due`."""
    later = [reader.raw.execute(_NEXT_DUE, (lane, int(priority), micros(after))).fetchone()[0] for priority in classes]
    return maybe_moment(min((due for due in later if due is not None), default=None))


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
