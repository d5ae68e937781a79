"""The blind copy of the archive: one more recipient of each message, that the sender never hears of."""

from __future__ import annotations

from collections.abc import Sequence

from postroom.model.application import Application, RepeatGuard
from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.outcome import Bounced, Outcome
from postroom.store import EventFilter
from postroom.transports import Transaction

from .conftest import OK, Room, relay

ARCHIVE = "archive@keep.example"


def recipients(room: Room, name: str = "relay1") -> list[tuple[str, ...]]:
    return [one.envelope.recipients for one in room.transports[name].sent]


async def test_each_message_goes_to_the_archive_too_and_no_header_says_so(room: Room) -> None:
    room.intake.archive_bcc = ARCHIVE
    message = await room.submit("b@y.test", "c@z.test")
    await room.until(message, "delivered", "delivered", "delivered")
    (sent,) = room.transports["relay1"].sent
    assert sent.envelope.recipients == ("b@y.test", "c@z.test", ARCHIVE)
    assert sent.envelope.dsn == DsnRequest("", "", ("", "", "NEVER"), ("", "", ""))
    assert ARCHIVE.encode() not in await room.store.content(message)
    one = await room.submit("b@y.test")
    await room.until(one, "delivered", "delivered")
    assert b"for <b@y.test>" in await room.store.content(one)


async def test_what_the_sender_asked_for_its_recipients_stays(room: Room) -> None:
    room.intake.archive_bcc = ARCHIVE
    asked = DsnRequest("HDRS", "id", ("SUCCESS",), ("rfc822;b@y.test",))
    message = await room.submit(envelope=Envelope("a@x.test", ("b@y.test",), dsn=asked))
    await room.until(message, "delivered", "delivered")
    dsn = room.transports["relay1"].sent[0].envelope.dsn
    assert dsn == DsnRequest("HDRS", "id", ("SUCCESS", "NEVER"), ("rfc822;b@y.test", ""))


async def test_mail_to_the_archive_itself_is_not_doubled(room: Room) -> None:
    room.intake.archive_bcc = ARCHIVE
    message = await room.submit("Archive@Keep.example")
    await room.until(message, "delivered")
    assert recipients(room) == [("Archive@Keep.example",)]


async def test_its_failure_is_nobodys_news(room: Room) -> None:
    room.intake.archive_bcc = ARCHIVE

    async def refuse(transaction: Transaction) -> Sequence[Outcome]:
        return [OK, Bounced(status="5.1.1", reason="no such user")]

    room.transports["relay1"].answers.append(refuse)
    message = await room.submit("b@y.test")
    await room.until(message, "delivered", "bounced")
    room.clock.time = room.clock.time.replace(year=2027)
    assert await room.store.noticed(room.clock.now()) == []


async def test_it_does_not_count_for_the_sender(room: Room) -> None:
    room.intake.archive_bcc = ARCHIVE
    room.application = Application(
        id=1, name="erp", senders=("*",), repeat_guard=RepeatGuard(count=3), apply_suppressions=True
    )
    for n in range(6):
        message = await room.submit(f"b{n}@y.test")  # always the same body
        await room.until(message, "delivered", "delivered")


async def test_where_no_account_takes_it_it_goes_with_the_first_recipient(room: Room) -> None:
    room.intake.archive_bcc = ARCHIVE
    room.accounts[:] = [relay(recipient_patterns=("*@y.test",), revision=2)]
    room.scheduler.follow(room.accounts)
    message = await room.submit("b@y.test")
    await room.until(message, "delivered", "delivered")
    assert recipients(room) == [("b@y.test", ARCHIVE)]
    assert [event.kind for event in (await room.store.events(EventFilter(message_id=message))).events].count(
        "accepted"
    ) == 1
