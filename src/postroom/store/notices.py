"""What reports shall tell of: noted with the state that it is about, gathered by message, removed with the report.

The report and the removal are one transaction: after a crash there are both or neither (RELIABILITY, crash point D7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..crashing import reach
from ..model.content import Content, ContentId, StagedBody
from ..model.notice import Notice, NoticedMessage, NoticeKind
from ..model.queue import DeliveryState, LaneId, MessageId, NewMessage
from . import hot
from .readers import Reader
from .schema import first_id_at, maybe_duration, maybe_moment, micros, moment
from .writer import Transaction

#: What was noted so much later than now was noted under a clock that was ahead: it waits no longer.
TOO_FAR = timedelta(days=1)

#: Messages gathered in one read; messages looked at, and deliveries that wait found among them, in one step of `warn`.
GATHERED = 50
WARN_LOOK = 20_000
WARNED = 1000

#: Among the stored settings: up to which id of a message delays were looked for, and when the data was restored.
_WARNED_UP_TO = "delays_told_up_to"
RESTORED = "restored_at"

#: What has not ended and is not held: who waits for a person is not on its way.
_UNDER_WAY = "state IN ('queued','deferred','sending')"

_TOLD = "message.reverse_path <> '' AND (delivery.notify = '' OR delivery.notify LIKE '%{word}%')"
_NOTE_PICKED = (
    "INSERT INTO notice (message_id, n, kind, at) SELECT picked.message_id, picked.n, 'failed', ? FROM picked"
    " JOIN message ON message.id = picked.message_id"
    " JOIN delivery ON delivery.message_id = picked.message_id AND delivery.n = picked.n"
    f" WHERE {_TOLD.format(word='FAILURE')} ON CONFLICT DO NOTHING"
)
_READY = (
    "SELECT message_id FROM notice GROUP BY message_id HAVING min(at) NOT BETWEEN ? AND ? OR NOT EXISTS"
    " (SELECT 1 FROM delivery WHERE delivery.message_id = notice.message_id AND delivery.ended IS NULL) LIMIT ?"
)
_NOTICES = (
    "SELECT notice.n, notice.kind, recipient, orcpt, state, window_from, status, reply, lane, own_window FROM notice"
    " JOIN delivery ON delivery.message_id = notice.message_id AND delivery.n = notice.n"
    " WHERE notice.message_id = ? ORDER BY notice.n, notice.kind"
)
_LAST_ATTEMPT = (
    "SELECT ended, reply, command, advice, remote_host FROM attempt WHERE message_id = ? AND n = ?"
    " ORDER BY number DESC LIMIT 1"
)
_MESSAGE = (
    "SELECT door, application, reverse_path, eight_bit, accepted, subject, header_message_id, ret, envid,"
    " head, CASE WHEN ret = 'FULL' THEN body END, content_id, chunks, body_bytes, sha256"
    " FROM message JOIN content ON content.message_id = message.id WHERE message.id = ?"
)


def note_picked(transaction: Transaction, now: datetime) -> None:
    """Note the failure of the deliveries in `picked`, where the sender wants to be told."""
    transaction.raw.execute(_NOTE_PICKED, (micros(now),))


def gathered(reader: Reader, noted_before: datetime) -> list[NoticedMessage]:
    """Messages of which a report is due: noted that long ago, or all of whose deliveries have ended."""
    waiting = (micros(noted_before) + 1, micros(noted_before + TOO_FAR))
    ready = reader.raw.execute(_READY, (*waiting, GATHERED)).fetchall()
    return [found for (message_id,) in ready if (found := _message(reader, MessageId(message_id))) is not None]


def _message(reader: Reader, message_id: MessageId) -> NoticedMessage | None:
    row = reader.raw.execute(_MESSAGE, (message_id,)).fetchone()
    if row is None:
        return None
    door, application, reverse_path, eight_bit, accepted, subject, header_message_id, ret, envid, *content = row
    return NoticedMessage(
        id=message_id,
        door=door,
        application=application,
        reverse_path=reverse_path,
        eight_bit=bool(eight_bit),
        accepted=moment(accepted),
        subject=subject,
        header_message_id=header_message_id,
        ret=ret,
        envid=envid,
        content=_content(ret, *content),
        notices=tuple(_notices(reader, message_id)),
    )


def _content(
    ret: str, head: bytes, body: bytes | None, content_id: bytes | None, chunks: int, size_bytes: int, sha256: bytes
) -> Content:
    if content_id is not None and ret == "FULL":
        return Content(head, StagedBody(ContentId(content_id), chunks, size_bytes, sha256))
    return Content(head, body or b"")


def _notices(reader: Reader, message_id: MessageId) -> list[Notice]:
    found = []
    for row in reader.raw.execute(_NOTICES, (message_id,)):
        n, kind, recipient, orcpt, state, window_from, status, reply, lane, own_window = row
        attempt = reader.raw.execute(_LAST_ATTEMPT, (message_id, n)).fetchone()
        ended, said, command, advice, remote_host = attempt or (None, "", "", "", "")
        found.append(
            Notice(
                n=n,
                kind=NoticeKind(kind),
                recipient=recipient,
                orcpt=orcpt,
                state=DeliveryState(state),
                window_from=moment(window_from),
                status=status,
                reply=reply,
                command=command if said == reply else "",
                advice=advice if said == reply else "",
                remote_host=remote_host,
                last_attempt=maybe_moment(ended),
                lane=LaneId(lane),
                own_window=maybe_duration(own_window),
            )
        )
    return found


def report(
    noticed: NoticedMessage, message: NewMessage | None, kind: str, detail: str, now: datetime
) -> Callable[[Transaction], bool]:
    """Work for the writer: keep `message` (None: nobody is to be told) and forget the notices that it tells of, with an
    event on the message that they are about; False, and nothing is kept, if they were told already."""

    def work(transaction: Transaction) -> bool:
        raw = transaction.raw
        (noted,) = raw.execute("SELECT max(at) FROM notice WHERE message_id = ?", (noticed.id,)).fetchone()
        removed = raw.change_each(
            "DELETE FROM notice WHERE message_id = ? AND n = ? AND kind = ?",
            [(noticed.id, notice.n, notice.kind.value) for notice in noticed.notices],
        )
        if not removed:
            return False
        if message is not None:
            reach("D7-report")
            hot.enqueue(transaction, [message])
            _hold_after_restore(transaction, message, noted, now)
        if kind:
            hot.record(transaction, [(micros(now), kind, noticed.id, None, "", detail[: hot.DETAIL_CHARACTERS])])
        return True

    return work


def _hold_after_restore(transaction: Transaction, message: NewMessage, noted: int, now: datetime) -> None:
    """What was noted before a restore may have been told since the backup: the report waits for a person too."""
    raw = transaction.raw
    row = raw.execute("SELECT value FROM setting WHERE name = ?", (RESTORED,)).fetchone()
    if row is None or noted > int(row[0]):
        return
    raw.execute("UPDATE delivery SET state = 'held', due = NULL WHERE message_id = ?", (message.id,))
    for delivery in message.deliveries:
        transaction.move(delivery.lane, "queued", "held", 1)
    why = "it tells of what was noted before the backup was restored"
    hot.record(transaction, [(micros(now), "held", message.id, each.n, "", why) for each in message.deliveries])


@dataclass(frozen=True, slots=True)
class Delays:
    """Messages that wait since before a time and were not looked at yet, and up to which id that look went."""

    messages: Sequence[bytes]
    up_to: bytes


def delayed(reader: Reader, accepted_before: datetime, now: datetime) -> Delays | None:
    """The next of them in the order of their ids; None when all were looked at."""
    bound = first_id_at(accepted_before)
    row = reader.raw.execute("SELECT value FROM setting WHERE name = ?", (_WARNED_UP_TO,)).fetchone()
    after = bytes.fromhex(row[0]) if row else b""
    if after > first_id_at(now):
        return Delays([], bound)  # it was written under a clock that was ahead
    if after >= bound:
        return None
    ids = "SELECT id FROM message WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?"
    if reader.raw.execute(ids, (after, bound, 0)).fetchone() is None:
        return None
    last = reader.raw.execute(ids, (after, bound, WARN_LOOK - 1)).fetchone()
    up_to = last[0] + b"\x00" if last is not None else bound
    found = reader.raw.execute(
        f"SELECT DISTINCT message_id FROM delivery WHERE {_UNDER_WAY} AND message_id >= ? AND message_id < ?"
        " ORDER BY message_id LIMIT ?",
        (after, up_to, WARNED),
    ).fetchall()
    messages = [message_id for (message_id,) in found]
    return Delays(messages, messages[-1] + b"\x00" if len(messages) == WARNED else up_to)


def warn(delays: Delays, now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: note the delay of what is still under way of the messages, once; how many deliveries."""

    def work(transaction: Transaction) -> int:
        raw = transaction.raw
        noted = raw.change_each(
            "INSERT INTO notice (message_id, n, kind, at) SELECT delivery.message_id, delivery.n, 'delayed', ?"
            " FROM delivery JOIN message ON message.id = delivery.message_id"
            f" WHERE delivery.message_id = ? AND delivery.{_UNDER_WAY} AND {_TOLD.format(word='DELAY')}"
            " ON CONFLICT DO NOTHING",
            [(micros(now), message_id) for message_id in delays.messages],
        )
        raw.execute(
            "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (_WARNED_UP_TO, delays.up_to.hex()),
        )
        return noted

    return work
