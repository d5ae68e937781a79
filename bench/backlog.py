"""Messages that wait: put into a gateway's database through the store, while the gateway is down."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.ids import new_message_id
from postroom.model.queue import LaneId, NewDelivery, NewMessage, PriorityClass
from postroom.store.database import Database, open_store

from .traffic import RECIPIENT, SENDER

LOCAL = (1, "local")

_AT_ONCE = 500
_HEAD = b"From: <sender@source.example>\r\nTo: <recipient@sink.example>\r\nSubject: a backlog\r\n\r\n"
_BODY = (b"x" * 70 + b"\r\n") * 56


def _message(lane: LaneId, priority: PriorityClass, application: tuple[int, str], recipient: str) -> NewMessage:
    now = datetime.now(UTC)
    return NewMessage(
        id=new_message_id(int(now.timestamp() * 1000), os.urandom(10)),
        door="smtp",
        application_id=application[0],
        application=application[1],
        envelope=Envelope(SENDER, (recipient,)),
        content=Content(_HEAD, _BODY),
        accepted=now,
        subject="a backlog",
        header_message_id="<backlog@source.example>",
        peer="127.0.0.1",
        priority=priority,
        deliveries=(NewDelivery(n=0, recipient=recipient, lane=lane),),
    )


async def _lane(store: Database) -> LaneId:
    found = await store.write(
        lambda core: core.exec_driver_sql("SELECT id FROM account WHERE name = 'relay'").scalar_one()
    )
    return LaneId(int(found))


async def fill(
    database: Path,
    messages: int,
    *,
    priority: PriorityClass = PriorityClass.NORMAL,
    application: tuple[int, str] = LOCAL,
    recipient: str = RECIPIENT,
) -> int:
    """Put messages of 4 KiB on the account `relay` until so many wait there in all; how many it were."""
    store = await open_store(database, None, lambda: datetime.now(UTC))
    try:
        lane = await _lane(store)
        counts = await store.counts()
        missing = messages - sum(number for (_, state), number in counts.items() if not state.is_final)
        for start in range(0, missing, _AT_ONCE):
            many = range(min(_AT_ONCE, missing - start))
            for pending in [store.enqueue(_message(lane, priority, application, recipient)) for _ in many]:
                await pending
        return missing
    finally:
        await store.close()
