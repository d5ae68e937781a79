"""An account that delivers directly: transactions with recipients of one domain, and failures that stay with theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from postroom.model.account import Account, AccountKind
from postroom.model.outcome import Deferred, Outcome
from postroom.model.queue import LaneId
from postroom.queue.loader import LOAD_LIMIT
from postroom.transports import Transaction
from tests.flow.conftest import OK, Room


def direct(room: Room, max_connections: int = 4) -> None:
    """The room's only account delivers directly."""
    room.accounts[:] = [Account(id=7, name="mx", kind=AccountKind.DIRECT, max_connections=max_connections)]
    room.scheduler.follow(room.accounts)
    room.transports["mx"].capacity = max_connections


async def test_a_message_goes_to_each_domain_in_a_transaction_of_its_own(room: Room) -> None:
    direct(room)
    message = await room.submit("b@y.test", "c@z.test", "d@Y.test")
    await room.until(message, "delivered", "delivered", "delivered")
    sent = [transaction.envelope.recipients for transaction in room.transports["mx"].sent]
    assert sorted(sent) == [("b@y.test", "d@Y.test"), ("c@z.test",)]


async def test_a_relay_still_gets_them_in_one(room: Room) -> None:
    message = await room.submit("b@y.test", "c@z.test")
    await room.until(message, "delivered", "delivered")
    assert [one.envelope.recipients for one in room.transports["relay1"].sent] == [("b@y.test", "c@z.test")]


class SlowDomain:
    """Answers for slow.test wait until `over`."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def __call__(self, transaction: Transaction) -> Sequence[Outcome]:
        """An answer of a scripted transport."""
        recipients = transaction.envelope.recipients
        if recipients[0].endswith("@slow.test"):
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await self.over.wait()
            self.under_way -= 1
        return [OK] * len(recipients)


async def test_a_slow_domain_holds_up_nobody_whatever_its_backlog(room: Room) -> None:
    direct(room)
    slow = SlowDomain()
    room.transports["mx"].answers.extend([slow] * 3000)
    waiting = [await room.submit(f"{n}@slow.test") for n in range(LOAD_LIMIT + 60)]
    for n in range(20):
        await room.until(await room.submit(f"{n}@quick.test"), "delivered")
    assert slow.most == 2, "half of the connections"
    slow.over.set()
    for message in waiting:
        await room.until(message, "delivered")


async def test_a_backlog_in_the_store_does_not_hide_what_may_go(room: Room) -> None:
    """All that was loaded waits for a domain that has its share: more is loaded."""
    slow = SlowDomain()
    room.scheduler.pause(True)
    direct(room, max_connections=2)
    room.transports["mx"].answers.extend([slow] * 3000)
    waiting = [await room.submit(f"{n}@slow.test") for n in range(LOAD_LIMIT + 60)]
    quick = await room.submit("a@quick.test")
    room.scheduler.pause(False)
    await room.until(quick, "delivered")
    slow.over.set()
    for message in waiting:
        await room.until(message, "delivered")


async def test_a_failing_destination_is_tried_by_the_retry_schedule_and_the_account_stays_well(room: Room) -> None:
    direct(room)
    failure = Deferred(status="4.4.1", reason="mx.y.test: connect: refused")

    async def answer(transaction: Transaction) -> Sequence[Outcome]:
        recipients = transaction.envelope.recipients
        return [failure if recipient.endswith("@y.test") else OK for recipient in recipients]

    room.transports["mx"].answers.extend([answer] * 10)
    message = await room.submit("b@y.test", "c@z.test")
    rows = await room.until(message, "deferred", "delivered")
    assert rows[0].due == room.clock.now() + timedelta(minutes=1)
    assert (rows[0].tries, rows[0].status) == (1, "4.4.1")
    lane = room.scheduler.lane(LaneId(7))
    assert lane is not None
    assert lane.may_send
    assert lane.circuit.health.value == "healthy"
