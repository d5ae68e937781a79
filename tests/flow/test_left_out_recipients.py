"""Recipients that a transaction leaves out: bounced where the relay cannot take them, else sent by the next one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.application import Application
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.outcome import Bounced, NotSent, Outcome
from postroom.model.submission import Door, Submission
from postroom.transports import Transaction
from tests.smarthost import Behaviour, Smarthost

from .conftest import OK, Room

LIMIT = NotSent(reason="no more in one transaction", remote_host="relay.test")
NO = Bounced(status="5.6.7", reason="not ASCII", remote_host="relay.test")


async def test_those_left_out_go_at_once_with_the_next_transaction_and_have_no_attempt_for_the_first(
    room: Room,
) -> None:
    async def two_at_a_time(transaction: Transaction) -> Sequence[Outcome]:
        return [OK if n < 2 else LIMIT for n in range(len(transaction.envelope.recipients))]

    relay = room.transports["relay1"]
    relay.answers.extend([two_at_a_time] * 3)
    to = [f"{n}@y.test" for n in range(5)]
    message = await room.submit(*to)
    rows = await room.until(message, *["delivered"] * 5)
    sent = [transaction.envelope.recipients for transaction in relay.sent]
    assert sent == [tuple(to), tuple(to[2:]), tuple(to[4:])]
    assert [row.tries for row in rows] == [1] * 5
    assert not any(row.may_be_sent_twice for row in rows)
    view = await room.store.message(message)
    assert [(attempt.n, attempt.outcome) for attempt in view.attempts] == [(n, "delivered") for n in range(5)]
    assert relay.in_use == 0


async def test_a_bounce_a_success_and_one_left_out_in_one_transaction_each_have_their_own_end(room: Room) -> None:
    async def each(_: Transaction) -> Sequence[Outcome]:
        return [NO, LIMIT, OK]

    room.transports["relay1"].answers.append(each)
    message = await room.submit("a@y.test", "b@y.test", "c@y.test")
    rows = await room.until(message, "bounced", "delivered", "delivered")
    assert [row.status for row in rows] == ["5.6.7", "2.0.0", "2.0.0"]
    assert [len(transaction.envelope.recipients) for transaction in room.transports["relay1"].sent] == [3, 1]


async def test_a_relay_with_limits_gets_every_recipient_once_within_them(tmp_path: Path) -> None:
    smarthost = Smarthost(Behaviour(offers=("LIMITS RCPTMAX=3 RCPTDOMAINMAX=2 MAILMAX=2", "8BITMIME")))
    await smarthost.start()
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test"))
    try:
        fields = {"name": "relay", "host": "127.0.0.1", "port": smarthost.port, "security": "none"}
        await gateway.accounts.add({**fields, "max_connections": 1, "reconnect_interval": "1s"})
        await gateway.start()
        to = [f"{n}@{domain}.test" for n in range(4) for domain in ("one", "two", "three")]
        await gateway.submit(
            Submission(
                door=Door.SMTP,
                application=Application(id=1, name="erp", senders=("*",)),
                envelope=Envelope("a@x.test", (*to, "ä@one.test")),
                content=Content(b"From: a@x.test\r\nSubject: hi\r\n\r\n", b"hello\r\n"),
                received=datetime.now(UTC),
                peer="127.0.0.1",
            )
        )
        assert await gateway.wait_drained()
        counts = await gateway.store.counts()
    finally:
        await gateway.stop()
        await smarthost.stop()
    assert sorted(recipient for taken in smarthost.taken for recipient in taken.recipients) == sorted(to)
    assert all(len(taken.recipients) <= 3 for taken in smarthost.taken)
    assert all(len({r.partition("@")[2] for r in taken.recipients}) <= 2 for taken in smarthost.taken)
    mails = [sum(taken.connection == n for taken in smarthost.taken) for n in range(1, smarthost.connections + 1)]
    assert max(mails) == 2
    assert {state.value: count for (_, state), count in counts.items()} == {"delivered": 12, "bounced": 1}
