"""Messages, claims and outcomes as the queue would make them."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from postroom.model.content import Content, ContentId, StagedBody
from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.ids import new_message_id
from postroom.model.queue import (
    AttemptRecord,
    DeliveryResult,
    DeliveryState,
    DueMessage,
    FencingToken,
    LaneId,
    MessageId,
    NewDelivery,
    NewMessage,
    PriorityClass,
)
from postroom.store import Claim, DeliveryFilter
from postroom.store.database import Database

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
LANE = LaneId(7)
OTHER_LANE = LaneId(8)
HEAD = b"From: a@example.org\r\nSubject: \xc3\xa9t\xc3\xa9\r\n\r\n"
BODY = b"Hello,\r\n.\r\n\x00\xff\r\n"

_serial = itertools.count(1)


class Hour:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        """The time."""
        return self.at


class OpenKeyring:
    """Seals visibly: for a test that looks at what is stored."""

    def seal(self, secret: bytes) -> bytes:
        """`secret`, backwards."""
        return b"sealed:" + secret[::-1]

    def open(self, sealed: bytes) -> bytes:
        """What was sealed."""
        return sealed.removeprefix(b"sealed:")[::-1]


def make_message(
    *recipients: str,
    at: datetime = NOON,
    lane: LaneId = LANE,
    priority: PriorityClass = PriorityClass.NORMAL,
    body: bytes | StagedBody = BODY,
    sender: str = "a@example.org",
    resubmits: MessageId | None = None,
    dsn: DsnRequest | None = None,
    application_id: int = 3,
) -> NewMessage:
    """A message to `recipients` (or to one), accepted at `at`; ids grow in the order of the calls."""
    to = recipients or ("b@example.net",)
    serial = next(_serial)
    return NewMessage(
        id=new_message_id(int(at.timestamp() * 1000), serial.to_bytes(4, "big") + os.urandom(6)),
        door="smtp",
        application_id=application_id,
        application="shop",
        envelope=Envelope(sender, to, eight_bit=True, smtputf8=False, dsn=dsn),
        content=Content(HEAD, body),
        accepted=at,
        subject="été",
        header_message_id=f"<{serial}@example.org>",
        peer="192.0.2.7",
        priority=priority,
        deliveries=tuple(NewDelivery(n=n, recipient=address, lane=lane) for n, address in enumerate(to)),
        resubmits=resubmits,
    )


def claim_of(message: NewMessage, token: FencingToken, *numbers: int, lane: LaneId = LANE) -> Claim:
    """A claim of the numbers given, or of all."""
    wanted = numbers or tuple(delivery.n for delivery in message.deliveries)
    return Claim(message_id=message.id, recipients=wanted, lane=lane, token=token)


def result_of(n: int, state: DeliveryState, due: datetime | None = None, **more: object) -> DeliveryResult:
    """How delivery `n` leaves `sending`."""
    fields: dict[str, object] = {
        "outcome": state.value,
        "status": "2.0.0",
        "reply": "250 Ok",
        "command": "DATA",
        **more,
    }
    return DeliveryResult(n=n, state=state, due=due, **fields)  # type: ignore[arg-type]


def attempt_of(
    message: NewMessage, token: FencingToken, *results: DeliveryResult, at: datetime = NOON, lane: LaneId = LANE
) -> AttemptRecord:
    """The attempt with these results; without any, everything was delivered."""
    delivered = tuple(result_of(d.n, DeliveryState.DELIVERED) for d in message.deliveries)
    return AttemptRecord(
        message_id=message.id,
        lane=lane,
        token=token,
        account="relay",
        started=at - timedelta(seconds=1),
        ended=at,
        remote_host="relay.example [192.0.2.1]",
        results=results or delivered,
        transcript="C: DATA",
    )


async def begin(store: Database, at: datetime = NOON) -> FencingToken:
    """A fresh token."""
    token, _ = await store.recover(at)
    return token


async def sent(store: Database, token: FencingToken, message: NewMessage, *results: DeliveryResult) -> None:
    """Enqueue, claim and complete."""
    await store.enqueue(message)
    await claimed(store, token, message, *results)


async def claimed(store: Database, token: FencingToken, message: NewMessage, *results: DeliveryResult) -> None:
    """Claim everything of a stored message, and complete it."""
    lane = message.deliveries[0].lane
    assert await store.claim(claim_of(message, token, lane=lane)) == tuple(d.n for d in message.deliveries)
    await store.complete(attempt_of(message, token, *results, lane=lane))


async def states(store: Database, message: NewMessage) -> list[str]:
    """The states of a message's deliveries, by number."""
    view = await store.message(message.id)
    assert view is not None
    return [row.state.value for row in view.deliveries]


async def staged(store: Database, chunks: Sequence[bytes]) -> StagedBody:
    """Stage `chunks`; the body that names them."""
    content_id = ContentId(os.urandom(16))
    for n, data in enumerate(chunks):
        await store.stage(content_id, n, data)
    whole = b"".join(chunks)
    return StagedBody(content_id, len(chunks), len(whole), hashlib.sha256(whole).digest())


async def counted(store: Database) -> dict[tuple[int, str], int]:
    """The deliveries in each state of each lane, counted one by one."""
    found: dict[tuple[int, str], int] = {}
    for row in await store.deliveries(DeliveryFilter(limit=100_000)):
        key = (int(row.lane), row.state.value)
        found[key] = found.get(key, 0) + 1
    return found


async def told(store: Database) -> dict[tuple[int, str], int]:
    """The same as the store has kept count."""
    return {(int(lane), state.value): count for (lane, state), count in (await store.counts()).items()}


#: Work for `Store.write` that asks one number.
def ask(sql: str) -> Callable[[object], object]:
    """The first column of the first row."""

    def work(connection: object) -> object:
        return connection.exec_driver_sql(sql).scalar()  # type: ignore[attr-defined]

    return work


async def found_due(store: Database, lane: LaneId, now: datetime, limit: int) -> Sequence[DueMessage]:
    """What may be claimed."""
    return (await store.due(lane, now, limit)).messages
