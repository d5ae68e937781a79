"""What a report quotes and returns, whatever stood in the message and in the relay's reply."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest

from postroom.model.content import CHUNK_BYTES, INLINE_BYTES, ContentId, StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Bounced, Outcome
from postroom.model.reply import Reply
from postroom.transports import Transaction
from tests.flow.conftest import Room
from tests.flow.reporting import NO_SUCH, asking, reporting_in

FULL = asking(ret="FULL")
LINE = b"caf\xc3\xa9 and more of it, to fill a line of some sixty octets\r\n"


async def staged(room: Room, body: bytes) -> StagedBody:
    """The body in the store, as a door keeps a large one."""
    chunks = [body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES)]
    content_id = ContentId(hashlib.sha256(body).digest()[:16])
    for n, chunk in enumerate(chunks):
        await room.store.stage(content_id, n, chunk)
    return StagedBody(content_id, len(chunks), len(body), hashlib.sha256(body).digest())


async def report_of(
    room: Room,
    envelope: Envelope,
    body: bytes | StagedBody = b"hello\r\n",
    head: bytes = b"",
    refusal: Bounced = NO_SUCH,
) -> bytes:
    """The report of a message that is refused, as it left."""
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(refusal)
        submission = room.submission(head=head or b"From: a@x.test\r\nSubject: hi\r\n\r\n")
        submission = replace(submission, envelope=envelope, content=replace(submission.content, body=body))
        await reports.report_on((await room.intake.submit(submission)).id)
        assert reports.reports[0].envelope.reverse_path == ""
        return await reports.raw()


@pytest.mark.parametrize(("ret", "kind"), [("FULL", "message/rfc822"), ("HDRS", "text/rfc822-headers"), ("", "")])
async def test_the_sender_says_how_much_comes_back(room: Room, ret: str, kind: str) -> None:
    raw = await report_of(room, asking(ret=ret, orcpt=("rfc822;b@y.test",)), LINE)
    (sent,) = [one for one in room.transports["relay1"].sent if not one.envelope.reverse_path]
    assert (f"Content-Type: {kind or 'text/rfc822-headers'}\r\n".encode() in raw) is True
    assert (LINE in raw) == (ret == "FULL") == sent.envelope.eight_bit
    assert raw.count(b"Content-Transfer-Encoding: 8bit\r\n") == (2 if ret == "FULL" else 0)


@pytest.mark.parametrize("size", [INLINE_BYTES - 200, INLINE_BYTES + 1, 3 * CHUNK_BYTES + 17])
async def test_a_large_message_comes_back_as_it_was(room: Room, size: int) -> None:
    body = (LINE * (size // len(LINE) + 1))[: size - 2] + b"\r\n"
    kept = await staged(room, body) if size > INLINE_BYTES else body
    raw = await report_of(room, replace(FULL, eight_bit=True), kept)
    _, _, after = raw.partition(b"Subject: hi\r\n")
    assert body in after
    (report,) = [one for one in room.transports["relay1"].sent if not one.envelope.reverse_path]
    assert isinstance(report.body, StagedBody)  # what is large is never kept in one piece
    assert max([len(chunk) async for chunk in room.store.chunks(report.body)]) <= CHUNK_BYTES


async def test_a_message_that_is_too_large_comes_back_as_its_header(room: Room) -> None:
    raw = await report_of(room, FULL, await staged(room, LINE * 20_000))
    assert b"Content-Type: text/rfc822-headers\r\n" in raw
    assert LINE not in raw


async def test_a_message_nested_as_deep_as_may_be_comes_back(room: Room) -> None:
    head = b'Content-Type: multipart/mixed; boundary="0"\r\n\r\n'
    body = b"".join(
        b'--%d\r\nContent-Type: multipart/mixed; boundary="%d"\r\n\r\n' % (depth, depth + 1) for depth in range(98)
    )
    assert body in await report_of(room, FULL, body, head)


@pytest.mark.parametrize(
    ("head", "kind", "coding"),
    [
        (b"Subject: plain\r\n\r\n", "text/rfc822-headers", None),
        (b"Subject: caf\xc3\xa9\r\n\r\n", "text/rfc822-headers", "quoted-printable"),
        (b"Subject: caf\xe9\r\n\r\n", "text/rfc822-headers", "quoted-printable"),
        (b"Subject: \x00\x07\r\n\r\n", "text/rfc822-headers", "quoted-printable"),
        (b"X-Long: " + b"x" * 2000 + b"\r\n\r\n", "text/rfc822-headers", "quoted-printable"),
        (b"Subject: plain\r\nno field at all\r\n\r\n", "text/rfc822-headers", None),
    ],
)
async def test_a_header_comes_back_in_seven_bits(room: Room, head: bytes, kind: str, coding: str | None) -> None:
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(NO_SUCH)
        report = await reports.report_on(await room.submit(head=head))
    assert (await reports.raw()).isascii()
    assert report.returned.get_content_type() == kind
    assert report.returned["Content-Transfer-Encoding"] == coding
    text = report.returned.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert set(head.split()) <= set(text.split())


async def test_a_header_in_utf8_comes_back_whole_as_the_global_type(room: Room) -> None:
    head = "From: a@x.test\r\nTo: jürgen@y.test\r\nSubject: Grüße\r\n\r\n".encode()
    raw = await report_of(room, replace(FULL, smtputf8=True), head=head)
    assert b"Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n" in raw
    (sent,) = [one for one in room.transports["relay1"].sent if not one.envelope.reverse_path]
    assert (sent.envelope.eight_bit, sent.envelope.smtputf8) == (True, False)


async def test_international_addresses(room: Room) -> None:
    refused = replace(NO_SUCH, remote_host="")
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(refused)
        wanted = asking(("jürgen@y.test",), orcpt=("utf-8;j\\x{FC}rgen@y.test",))
        submission = replace(room.submission(), envelope=replace(wanted, reverse_path="ann+é@x.test", smtputf8=True))
        report = await reports.report_on((await room.intake.submit(submission)).id)
    (sent,) = reports.reports
    assert (sent.envelope.recipients, sent.envelope.smtputf8) == (("ann+é@x.test",), True)
    (recipient,) = report.recipients
    assert recipient["Final-Recipient"] == recipient["Original-Recipient"] == "utf-8; j\\x{FC}rgen@y.test"
    assert "<jürgen@y.test>" in report.words
    assert "\r\nTo: ann+é@x.test\r\n".encode() in sent.head


@pytest.mark.parametrize("sender", ['"a b"@x.test', "a@[192.0.2.9]", '"a\\"b>"@x.test', "a@[IPv6:2001:db8::1]"])
async def test_every_sender_that_the_door_takes_can_be_told(room: Room, sender: str) -> None:
    raw = await report_of(room, Envelope(sender, ("b@y.test",)))
    assert raw.count(b"\r\nTo: ") == 1
    (sent,) = [one for one in room.transports["relay1"].sent if not one.envelope.reverse_path]
    assert sent.envelope.recipients == (sender,)


HOSTILE = "no\r\n\r\n--boundary\r\nBcc: evil@z.test\x00\u2028\x85 \x1b[31m"


@pytest.mark.parametrize(
    "subject",
    [
        b"x\r\n\tBcc: evil@z.test",
        b"=?utf-8?q?x=0D=0ABcc=3A_evil=40z.test=0D=0A=0D=0A--b?=",
        b"=?utf-8?b?4oCoDQpCY2M6IGV2aWxAei50ZXN0AA==?=",
        b"caf\xe9 \x1b[31m",
        b"s" * 5000,
        b"",
        "Gr\u00fc\u00dfe \U0001f4e8".encode() * 100,
    ],
)
async def test_no_subject_or_reply_can_break_a_report(room: Room, subject: bytes) -> None:
    said = Bounced(
        status="5.1.1",
        reason=HOSTILE,
        advice=HOSTILE,
        reply=Reply(550, (HOSTILE, "x" * 3000, "né " * 500), "5.1.1", "RCPT"),
        remote_host=f"relay.test{HOSTILE}",
    )
    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.append(said)
        head = b"Subject: " + subject + b"\r\nMessage-ID: <a@b>\r\n\tBcc: evil@z.test\r\n\r\n"
        report = await reports.report_on(await room.submit(head=head))
    assert report.message.keys() == [
        "Received", "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
    ]  # fmt: skip
    assert len(report.recipients) == 1
    assert report.recipients[0].keys() == [
        "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date",
    ]  # fmt: skip
    assert [line for line in report.words.splitlines() if line.startswith(("Bcc", "--"))] == []
    assert "\x1b" not in report.words


async def test_a_report_of_many_recipients_is_staged(room: Room) -> None:
    async def none(transaction: Transaction) -> Sequence[Outcome]:
        wordy = replace(NO_SUCH, reply=Reply(550, ("no such user " + "x" * 400,), "5.1.1", "RCPT"))
        return [wordy] * len(transaction.envelope.recipients)

    async with reporting_in(room) as reports:
        room.transports["relay1"].answers.extend([none] * 4)
        report = await reports.report_on(await room.submit(*(f"r{n}@y.test" for n in range(400))))
    assert len(report.recipients) == 400
    assert isinstance(reports.reports[0].body, StagedBody)


async def test_what_was_answered_over_http_is_quoted_as_no_reply_of_smtp(room: Room) -> None:
    reply = Reply(400, ("ErrorInvalidRecipients: one isn't valid",), "", "POST sendMail")
    refusal = Bounced(status="5.0.0", reason=reply.text, reply=reply, remote_host="graph.microsoft.com")
    raw = await report_of(room, asking(), refusal=refusal)
    assert b"Diagnostic-Code: x-postroom; 400 ErrorInvalidRecipients: one isn't valid\r\n" in raw
