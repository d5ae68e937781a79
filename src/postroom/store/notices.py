"""What reports shall tell of: noted with the state that it is about, gathered by message, removed with the report.

The report and the removal are one transaction: after a crash there are both or neither (RELIABILITY, crash point D7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ..model.content import Content
from ..model.notice import Notice, NoticedMessage, NoticeKind
from ..model.queue import MessageId, NewMessage
from . import hot
from .readers import Reader
from .schema import WAITING_SQL, first_id_at, maybe_moment, micros, moment
from .writer import Transaction

#: Messages gathered in one read, and deliveries warned of in one step.
GATHERED = 50
WARNED = 1000

#: Under this name among the stored settings: the newest message whose delay was looked at.
_WARNED_UP_TO = "delays_told_up_to"

_TOLD = "message.reverse_path <> '' AND (delivery.notify = '' OR delivery.notify LIKE '%{word}%')"
_NOTE_PICKED = (
    "INSERT INTO notice (message_id, n, kind, at) SELECT picked.message_id, picked.n, 'failed', ? FROM picked"
    " JOIN message ON message.id = picked.message_id"
    " JOIN delivery ON delivery.message_id = picked.message_id AND delivery.n = picked.n"
    f" WHERE {_TOLD.format(word='FAILURE')} ON CONFLICT DO NOTHING"
)
_READY = (
    "SELECT message_id FROM notice GROUP BY message_id HAVING min(at) <= ? OR NOT EXISTS"
    " (SELECT 1 FROM delivery WHERE delivery.message_id = notice.message_id AND delivery.ended IS NULL) LIMIT ?"
)
_NOTICES = (
    "SELECT notice.n, notice.kind, recipient, orcpt, status, reply FROM notice"
    " JOIN delivery ON delivery.message_id = notice.message_id AND delivery.n = notice.n"
    " WHERE notice.message_id = ? ORDER BY notice.n, notice.kind"
)
_LAST_ATTEMPT = (
    "SELECT ended, advice, remote_host FROM attempt WHERE message_id = ? AND n = ? ORDER BY number DESC LIMIT 1"
)
_MESSAGE = (
    "SELECT door, application, reverse_path, smtputf8, accepted, subject, header_message_id, ret, envid, head, body"
    " FROM message JOIN content ON content.message_id = message.id WHERE message.id = ?"
)


def note_picked(transaction: Transaction, now: datetime) -> None:
    """Note the failure of the deliveries in `picked`, where the sender wants to be told."""
    transaction.raw.execute(_NOTE_PICKED, (micros(now),))


def gathered(reader: Reader, noted_before: datetime) -> list[NoticedMessage]:
    """Messages of which a report is due: noted that long ago, or all of whose deliveries have ended."""
    ready = reader.raw.execute(_READY, (micros(noted_before), GATHERED)).fetchall()
    return [found for (message_id,) in ready if (found := _message(reader, MessageId(message_id))) is not None]


def _message(reader: Reader, message_id: MessageId) -> NoticedMessage | None:
    row = reader.raw.execute(_MESSAGE, (message_id,)).fetchone()
    if row is None:
        return None
    door, application, reverse_path, smtputf8, accepted, subject, header_message_id, ret, envid, head, body = row
    return NoticedMessage(
        id=message_id,
        door=door,
        application=application,
        reverse_path=reverse_path,
        smtputf8=bool(smtputf8),
        accepted=moment(accepted),
        subject=subject,
        header_message_id=header_message_id,
        ret=ret,
        envid=envid,
        content=Content(head, body or b""),
        notices=tuple(_notices(reader, message_id)),
    )


def _notices(reader: Reader, message_id: MessageId) -> list[Notice]:
    found = []
    for n, kind, recipient, orcpt, status, reply in reader.raw.execute(_NOTICES, (message_id,)).fetchall():
        attempt = reader.raw.execute(_LAST_ATTEMPT, (message_id, n)).fetchone()
        ended, advice, remote_host = attempt or (None, "", "")
        found.append(
            Notice(n, NoticeKind(kind), recipient, orcpt, status, reply, advice, remote_host, maybe_moment(ended))
        )
    return found


def report(
    noticed: NoticedMessage, message: NewMessage | None, kind: str, detail: str, now: datetime
) -> Callable[[Transaction], bool]:
    """Work for the writer: keep `message` (None: nobody is to be told) and forget the notices that it tells of, with an
    event on the message that they are about; False, and nothing is kept, if they were told already."""

    def work(transaction: Transaction) -> bool:
        raw = transaction.raw
        before = raw.total_changes
        raw.executemany(
            "DELETE FROM notice WHERE message_id = ? AND n = ? AND kind = ?",
            [(noticed.id, notice.n, notice.kind.value) for notice in noticed.notices],
        )
        if raw.total_changes == before:
            return False
        if message is not None:
            hot.enqueue(transaction, [message])
        if kind:
            hot.record(transaction, [(micros(now), kind, noticed.id, None, "", detail[: hot.DETAIL_CHARACTERS])])
        return True

    return work


def delayed(reader: Reader, accepted_before: datetime) -> tuple[Sequence[bytes], bytes]:
    """Messages that wait since before the time and were not looked at yet, in the order of their ids, some at a time;
    and up to which id this look went."""
    bound = first_id_at(accepted_before)
    row = reader.raw.execute("SELECT value FROM setting WHERE name = ?", (_WARNED_UP_TO,)).fetchone()
    after = bytes.fromhex(row[0]) if row else b""
    if after >= bound:
        return [], after
    found = reader.raw.execute(
        f"SELECT DISTINCT message_id FROM delivery WHERE {WAITING_SQL} AND message_id >= ? AND message_id < ?"
        " ORDER BY message_id LIMIT ?",
        (after, bound, WARNED),
    ).fetchall()
    messages = [message_id for (message_id,) in found]
    return messages, messages[-1] + b"\x00" if len(messages) == WARNED else bound


def warn(messages: Sequence[bytes], up_to: bytes, now: datetime) -> Callable[[Transaction], int]:
    """Work for the writer: note the delay of what still waits of `messages`, once; how many deliveries."""

    def work(transaction: Transaction) -> int:
        raw = transaction.raw
        before = raw.total_changes
        raw.executemany(
            "INSERT INTO notice (message_id, n, kind, at) SELECT delivery.message_id, delivery.n, 'delayed', ?"
            " FROM delivery JOIN message ON message.id = delivery.message_id"
            f" WHERE delivery.message_id = ? AND delivery.{WAITING_SQL} AND {_TOLD.format(word='DELAY')}"
            " ON CONFLICT DO NOTHING",
            [(micros(now), message_id) for message_id in messages],
        )
        noted = raw.total_changes - before
        raw.execute(
            "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (_WARNED_UP_TO, up_to.hex()),
        )
        return noted

    return work
