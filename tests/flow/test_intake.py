"""What intake adds, takes out and refuses (SPEC section 4)."""

from __future__ import annotations

import dataclasses
import email
import email.policy
from datetime import timedelta

import pytest

from postroom.errors import InvalidInput, Refused
from postroom.mime.head import split
from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.outcome import Deferred
from tests.unit.mime.odd_messages import ODD_MESSAGES, edited, read, without

from .conftest import OK, Room

TAKEN_OUT = frozenset({b"bcc", b"resent-bcc", b"return-path", b"x-postroom-*"})


async def head_of(room: Room, head: bytes, *recipients: str) -> email.message.EmailMessage:
    """The stored original of a message submitted with `head`."""
    message = await room.submit(*(recipients or ("b@y.test",)), head=head)
    raw = await room.store.content(message)
    assert raw.endswith(b"\r\n\r\nhello\r\n")
    return email.message_from_bytes(raw, policy=email.policy.default)


async def test_trace_date_and_message_id_are_added_where_missing(room: Room) -> None:
    stored = await head_of(room, b"From: a@x.test\r\nSubject: hi\r\n\r\n")
    assert stored.keys()[0] == "Received"
    assert "by mx.test (Postroom) with ESMTP" in stored["Received"]
    assert "for <b@y.test>" in stored["Received"]
    assert stored["Date"].datetime == room.clock.time
    assert stored["Message-ID"].endswith("@mx.test>")


async def test_what_the_sender_wrote_stays(room: Room) -> None:
    own = b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <own@x.test>\r\n"
    stored = await head_of(room, own + b"From:   a@x.test\r\n\r\n")
    assert stored.get_all("Message-ID") == ["<own@x.test>"]
    assert len(stored.get_all("Date", [])) == 1
    assert b"From:   a@x.test\r\n" in await room.store.content((await room.store.deliveries(_page()))[0].message_id)


def _page() -> object:
    from postroom.store import DeliveryFilter

    return DeliveryFilter(limit=1)


async def test_blind_copies_and_our_own_fields_do_not_travel(room: Room) -> None:
    stored = await head_of(
        room,
        b"From: a@x.test\r\nBcc: secret@y.test,\r\n more@y.test\r\nResent-Bcc: s@y.test\r\nReturn-Path: <z@y.test>\r\n"
        b"X-Postroom-Account: relay1\r\nX-Postroom-Anything: 1\r\nX-Other: stays\r\n\r\n",
        "b@y.test",
        "secret@y.test",
    )
    assert [name for name in stored if name.lower() in {"bcc", "resent-bcc", "return-path"}] == []
    assert [name for name in stored if name.lower().startswith("x-")] == ["X-Other"]
    assert "secret" not in stored["Received"]


async def test_a_message_in_a_loop_is_refused_with_5_4_6(room: Room) -> None:
    ours = b"Received: from h ([::1])\r\n\tby mx.test (Postroom) with ESMTP id 1; Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    await room.submit(head=ours + b"From: a@x.test\r\n\r\n")
    for head in (ours * 2, b"Received: by somewhere\r\n" * 50):
        with pytest.raises(Refused) as refused:
            room.intake.submit(room.submission(head=head + b"\r\n"))
        assert (refused.value.reply_code, refused.value.status) == (554, "5.4.6")


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"From: a@x.test\r\nSender: boss@y.test\r\n\r\n", "boss@y.test"),
        (b"From: a@x.test, Boss <boss@y.test>\r\n\r\n", "boss@y.test"),
        (b"From: a@x.test\r\nFrom: boss@y.test\r\n\r\n", "boss@y.test"),
        (b"From: boss@y.test (a@x.test)\r\n\r\n", "boss@y.test"),
        (b'From: "a@x.test" <boss@y.test>\r\n\r\n', "boss@y.test"),
    ],
)
async def test_from_and_sender_must_be_allowed_senders(room: Room, head: bytes, named: str) -> None:
    bound = dataclasses.replace(room.application, senders=("*@x.test",))
    await room.submit(application=bound)
    with pytest.raises(Refused, match=named):
        room.intake.submit(room.submission(application=bound, head=head))


async def test_a_repeated_recipient_gets_one_copy(room: Room) -> None:
    message = await room.submit("b@y.test", "c@y.test", "b@y.test")
    assert [row.recipient for row in await room.rows(message)] == ["b@y.test", "c@y.test"]


async def test_an_application_that_is_off_and_a_message_for_nobody_are_refused(room: Room) -> None:
    off = dataclasses.replace(room.application, enabled=False)
    with pytest.raises(Refused, match="switched off"):
        room.intake.submit(room.submission(application=off))
    nobody = dataclasses.replace(
        room.submission(), envelope=dataclasses.replace(room.submission().envelope, recipients=())
    )
    with pytest.raises(InvalidInput, match="recipients"):
        room.intake.submit(nobody)


async def test_what_came_from_no_host_says_none(room: Room) -> None:
    submission = dataclasses.replace(room.submission(), peer="", with_protocol="HTTP")
    accepted = await room.intake.submit(submission)
    content = await room.store.content(accepted.id)
    assert content is not None
    assert content.startswith(b"Received: by mx.test (Postroom) with HTTP id ")


async def test_subjects_are_kept_readable(room: Room) -> None:
    message = await room.submit(head=b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?b?IOKCrA==?=\r\n\r\n")
    assert (await room.store.message(message)).subject == "Grüße €"


@pytest.mark.parametrize("content", ODD_MESSAGES.values(), ids=ODD_MESSAGES.keys())
async def test_of_an_odd_message_every_other_octet_stays(room: Room, content: bytes) -> None:
    head, body = split(content)
    raw = await room.store.content(await room.submit(head=head, body=body))
    units = read(raw)
    (received,) = [unit.octets for unit in units if unit.octets.startswith(b"Received: from localhost ([127.0.0.1])")]
    own = [unit.octets for unit in units if unit.name in (b"date", b"message-id") and unit.octets not in content]
    given = without(read(head), TAKEN_OUT)
    empty = frozenset(unit.name for unit in given if unit.octets.partition(b":")[2].strip() == b"")
    left = without(given, empty & {b"date", b"message-id"})
    assert raw == edited(left, received, b"".join(own)) + b"\r\n" + body
    assert len(own) == len({b"date", b"message-id"} - {unit.name for unit in left})


@pytest.mark.parametrize("head", [b"From: a@x.test\r\n\r\n", b"Date:\r\nMessage-ID: \r\nFrom: a@x.test\r\n\r\n"])
async def test_each_attempt_has_the_same_trace_date_and_message_id(room: Room, head: bytes) -> None:
    relay = room.transports["relay1"]
    relay.answers.extend([Deferred(status="4.3.0", reason="later"), OK])
    message = await room.submit(head=head)
    await room.until(message, "deferred")
    room.clock.advance(timedelta(hours=1))
    await room.until(message, "delivered")
    first, second = (transaction.head for transaction in relay.sent)
    assert first == second
    parsed = email.message_from_bytes(first, policy=email.policy.default)
    assert [len(parsed.get_all(name, [])) for name in ("Received", "Date", "Message-ID")] == [1, 1, 1]
    assert parsed["Message-ID"].endswith("@mx.test>")


async def test_of_two_message_ids_the_one_that_is_not_empty_counts(room: Room) -> None:
    message = await room.submit(head=b"Message-ID:\r\nMessage-ID: <own@x.test>\r\n\r\n")
    assert (await room.store.message(message)).header_message_id == "<own@x.test>"
    assert (await room.store.content(message)).count(b"Message-ID:") == 2


@pytest.mark.parametrize(
    ("head", "declared", "needed"),
    [
        (b"Subject: s\r\n\r\n", True, False),
        ("Subject: ü\r\n\r\n".encode(), True, True),
        ("Subject: ü\r\n\r\n".encode(), False, False),
    ],
)
async def test_smtputf8_is_kept_where_the_header_needs_it(
    room: Room, head: bytes, declared: bool, needed: bool
) -> None:
    submission = dataclasses.replace(
        room.submission(head=head, body="ü\r\n".encode()), envelope=Envelope("a@x.test", ("b@y.test",), True, declared)
    )
    accepted = await room.intake.submit(submission)
    assert (await room.store.message(accepted.id)).smtputf8 is needed


async def test_what_is_asked_of_notifications_stays_with_its_recipient(room: Room) -> None:
    asked = DsnRequest("HDRS", "id", ("NEVER", "", "FAILURE", "SUCCESS"), ("rfc822;1", "rfc822;2", "", "rfc822;4"))
    recipients = ("b@y.test", "c@y.test", "b@y.test", "postmaster")
    room.transports["relay1"].answers.append(OK)
    submission = dataclasses.replace(room.submission(), envelope=Envelope("a@x.test", recipients, dsn=asked))
    accepted = await room.intake.submit(submission)
    rows = await room.until(accepted.id, "delivered", "delivered", "delivered")
    assert [(row.recipient, row.notify, row.orcpt) for row in rows] == [
        ("b@y.test", "NEVER", "rfc822;1"),
        ("c@y.test", "", "rfc822;2"),
        ("postmaster@mx.test", "SUCCESS", "rfc822;4"),
    ]
    (sent,) = room.transports["relay1"].sent
    assert sent.envelope.dsn == DsnRequest("HDRS", "id", ("NEVER", "", "SUCCESS"), ("rfc822;1", "rfc822;2", "rfc822;4"))


async def test_parts_nested_too_deeply_are_refused(room: Room) -> None:
    levels = b"".join(b"Content-Type: multipart/x; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(101))
    head, body = split(levels + b"\r\nx\r\n")
    with pytest.raises(Refused, match="smtp.max_mime_depth") as refused:
        room.intake.submit(room.submission(head=head, body=body))
    assert (refused.value.reply_code, refused.value.status) == (554, "5.6.0")
