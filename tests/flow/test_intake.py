"""What intake adds, takes out and refuses (SPEC section 4)."""

from __future__ import annotations

import dataclasses
import email
import email.policy

import pytest

from postroom.errors import InvalidInput, Refused

from .conftest import Room


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


async def test_subjects_are_kept_readable(room: Room) -> None:
    message = await room.submit(head=b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?b?IOKCrA==?=\r\n\r\n")
    assert (await room.store.message(message)).subject == "Grüße €"
