"""The secrets of a message's own connection are in the database until the message has ended, however it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postroom.model.connection import SealedConnection
from postroom.model.queue import DeliveryState as S
from postroom.model.queue import NewMessage
from postroom.model.suppression import Suppression, SuppressionSource
from postroom.policy.suppressions import keys_of
from postroom.store import LaneEnds, Selection
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import (
    LANE,
    NOON,
    OpenKeyring,
    attempt_of,
    begin,
    claim_of,
    found_due,
    make_message,
    result_of,
)

DAY = timedelta(days=1)

#: One way for a message to end.
End = Callable[[Database, NewMessage], Awaitable[None]]

SECRET = b"marked-secret"
SHOWN = '{"port": 2525, "secrets": ["password"]}'


def bringing(*recipients: str) -> NewMessage:
    """A message with a connection of its own."""
    message = make_message(*(recipients or ("b@example.net", "c@example.net")))
    connection = SealedConnection(message.id, 3, "mail.example.org:2525", SHOWN, OpenKeyring().seal(SECRET))
    return replace(message, connection=connection, named=True)


async def sealed(store: Database) -> list[bytes]:
    """What the rows of the database hold sealed."""

    def read(core: Any) -> list[bytes]:
        return [bytes(row[0]) for row in core.exec_driver_sql("SELECT sealed FROM connection ORDER BY message_id")]

    return await store.write(read)


WAITS = OpenKeyring().seal(SECRET)


async def completed(store: Database, message: NewMessage, *states: S) -> None:
    """Both recipients, each in a transaction of its own; the connection is there until the second."""
    for n, state in enumerate(states):
        token = await begin(store)
        await store.claim(claim_of(message, token, n))
        await store.complete(replace(attempt_of(message, token, result_of(n, state)), own_connection=True))
        assert await sealed(store) == [WAITS if n + 1 < len(states) else b""]


async def delivered(store: Database, message: NewMessage) -> None:
    """The relay took it."""
    await completed(store, message, S.DELIVERED, S.DELIVERED)


async def bounced(store: Database, message: NewMessage) -> None:
    """It was refused for good."""
    await completed(store, message, S.DELIVERED, S.BOUNCED)


async def expired_at_a_try(store: Database, message: NewMessage) -> None:
    """Its window was over."""
    await completed(store, message, S.EXPIRED, S.EXPIRED)


async def cancelled(store: Database, message: NewMessage) -> None:
    """By a person, one recipient after the other."""
    await store.hold(Selection(message_id=message.id, n=1), NOON)
    await store.cancel(Selection(message_id=message.id, n=0), NOON)
    assert await sealed(store) == [WAITS]
    await store.cancel(Selection(message_id=message.id), NOON)


async def cancelled_with_all(store: Database, message: NewMessage) -> None:
    """By a person, with everything that waits."""
    await store.cancel(Selection(lane=LANE), NOON)


async def given_up(store: Database, message: NewMessage) -> None:
    """By maintenance, for its age."""
    later = NOON + timedelta(days=20)
    ends = LaneEnds(lane=LANE, window=DAY, began=lambda window: later - window, accepted_before=later - DAY)
    assert await store.expire([ends], later) == 2


@pytest.mark.parametrize("end", [delivered, bounced, expired_at_a_try, cancelled, cancelled_with_all, given_up])
async def test_nothing_of_it_is_left_when_the_message_has_ended(store: Database, end: End) -> None:
    message = bringing()
    await store.enqueue(message)
    assert await sealed(store) == [WAITS]
    await end(store, message)
    assert await sealed(store) == [b""]
    view = await store.message(message.id)
    assert view is not None
    assert view.connection == {"target": "mail.example.org:2525", "port": 2525, "secrets": ["password"]}
    assert [(one.kind, one.detail) for one in view.events if one.kind == "own_connection"] == [
        ("own_connection", "mail.example.org:2525")
    ]


async def test_it_ends_at_once_where_every_recipient_is_suppressed(store: Database) -> None:
    entry = Suppression(
        key="b@example.net", reason="left", source=SuppressionSource.BY_HAND, created=NOON, expires=None
    )
    await store.suppressions.save([entry], "1 entry")
    one, two = bringing("b@example.net"), bringing("b@example.net", "c@example.net")
    for message in (one, two):
        keys = tuple(keys_of(delivery.recipient) for delivery in message.deliveries)
        await store.enqueue(replace(message, suppressible=keys))
    assert await sealed(store) == [b"", WAITS]


async def test_it_is_removed_with_its_message(store: Database) -> None:
    message, stays = bringing(), bringing()
    await store.enqueue(message)
    await delivered(store, message)
    await store.enqueue(stays)
    while await store.reap(NOON + DAY, NOON):
        pass
    assert await store.message(message.id) is None
    assert await sealed(store) == [WAITS]


async def test_it_waits_with_its_message_through_a_crash_and_is_read_with_it(open_again: Opener) -> None:
    store = await open_again()
    message, plain = bringing(), make_message()
    for one in (message, plain):
        await store.enqueue(one)
        await store.claim(claim_of(one, await begin(store)))
    await store.close()
    store = await open_again()
    await begin(store)
    found = {one.id: one.connection for one in await found_due(store, LANE, NOON, 10)}
    assert found == {message.id: message.connection, plain.id: None}
    assert {one.message_id: one.own_connection for one in (await store.selected(Selection(lane=LANE), None, 9))[0]} == {
        message.id: True, plain.id: False,
    }  # fmt: skip


async def test_keys_are_changed_under_it(store: Database) -> None:
    ended, waits = bringing(), bringing()
    await store.enqueue(ended)
    await store.cancel(Selection(message_id=ended.id), NOON)
    await store.enqueue(waits)
    await store.reseal()
    (found,) = [one for one in await found_due(store, LANE, NOON, 10) if one.id == waits.id]
    assert found.connection is not None
    assert OpenKeyring().open(found.connection.sealed) == SECRET
    assert await sealed(store) == [b"", WAITS]
