"""What a mailbox's draft keeps of a message, and what is refused for it."""

from __future__ import annotations

import email.policy
import json
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from postroom.mime.draft import LONGEST_DRAFT_BYTES, Draft, DraftReader, Leaves, NotKept, fields_of
from postroom.mime.head import split

HEAD = b"From: a@x.test\r\nTo: b@y.test\r\nSubject: hi\r\n"


def draft(content: bytes, size: int = 1000) -> Draft:
    """The draft of `content`, whose body comes in pieces."""
    head, body = split(content)
    reader = DraftReader(head)
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    return reader.end()


def files(content: bytes, size: int = 1000) -> Iterator[bytes]:
    """The content of each leaf."""
    head, body = split(content)
    leaves = Leaves(head)
    pieces = [one for at in range(0, len(body), size) for one in leaves.feed(body[at : at + size])] + list(leaves.end())
    for number in range(leaves.number + 1):
        yield b"".join(piece for of, piece in pieces if of == number and isinstance(piece, bytes))


def made() -> EmailMessage:
    """A message as programs make it."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = "Änne Q <a@x.test>"
    message["To"] = '"B; b" <b@y.test>, c@y.test'
    message["Cc"] = "d@y.test"
    message["Bcc"] = "e@y.test"
    message["Reply-To"] = "r@x.test"
    message["Subject"] = "Grüße an alle"
    message["Message-ID"] = "<1@x.test>"
    message["Date"] = "Thu, 01 Jan 2026 00:00:00 +0000"
    message["In-Reply-To"] = "<0@x.test>"
    message["References"] = "<00@x.test> <0@x.test>"
    message["Importance"] = "High"
    message["Sensitivity"] = "Private"
    message["Disposition-Notification-To"] = "a@x.test"
    message["X-Invoice"] = "Nº 5"
    message["User-Agent"] = "Test"
    message["Received"] = "from a by b; Thu, 01 Jan 2026 00:00:00 +0000"
    message.set_content("Grüße\n")
    message.add_alternative("<p>Grüße <img src='cid:logo@x'></p>\n", subtype="html", charset="iso-8859-1")
    html = message.get_payload()[1]  # type: ignore[index]
    html.add_related(b"PNG" * 999, "image", "png", cid="<logo@x>", filename="logo.png")  # type: ignore[union-attr]
    message.add_attachment(b"\x00\x01" * 5000, "application", "pdf", filename="Rechnung Nº 5.pdf")
    message.add_attachment("a,b\n", subtype="csv")
    return message


def mailbox(address: str, name: str = "") -> dict[str, Any]:
    """As Graph writes one."""
    return {"emailAddress": {"address": address} | ({"name": name} if name else {})}


@pytest.mark.parametrize("size", [7, 1000])
def test_text_files_and_fields_are_kept(size: int) -> None:
    content = made().as_bytes()
    found = draft(content, size)
    assert json.loads(found.message) == {
        "from": mailbox("a@x.test", "Änne Q"),
        "toRecipients": [mailbox("b@y.test", "B; b"), mailbox("c@y.test")],
        "ccRecipients": [mailbox("d@y.test")],
        "bccRecipients": [mailbox("e@y.test")],
        "replyTo": [mailbox("r@x.test")],
        "subject": "Grüße an alle",
        "internetMessageId": "<1@x.test>",
        "importance": "high",
        "isReadReceiptRequested": True,
        "internetMessageHeaders": [{"name": "X-Invoice", "value": "Nº 5"}],
        "singleValueExtendedProperties": [
            {"id": "String 0x1042", "value": "<0@x.test>"},
            {"id": "String 0x1039", "value": "<00@x.test> <0@x.test>"},
            {"id": "Integer 0x36", "value": "2"},
        ],
        "body": {"contentType": "html", "content": "<p>Grüße <img src='cid:logo@x'></p>\r\n"},
    }
    assert [(one.name, one.content_type, one.size_bytes, one.content_id, one.is_inline) for one in found.files] == [
        ("logo.png", "image/png", 2997, "logo@x", True),
        ("Rechnung Nº 5.pdf", "application/pdf", 10_000, "", False),
        ("part-5.csv", "text/csv", 5, "", False),
    ]
    contents = list(files(content, size))
    assert [contents[one.leaf] for one in found.files] == [b"PNG" * 999, b"\x00\x01" * 5000, b"a,b\r\n"]


def test_a_message_without_parts_is_its_text_and_a_second_text_is_a_file() -> None:
    assert json.loads(draft(HEAD + b"\r\nhello\r\n").message)["body"] == {"contentType": "text", "content": "hello\r\n"}
    two = draft(
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n"
        b"\r\n<p>two\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nin\r\n--b--\r\n"
    )
    assert json.loads(two.message)["body"] == {"contentType": "text", "content": "one"}
    assert [(one.name, one.size_bytes) for one in two.files] == [("part-2.html", 6), ("message.eml", 17)]


def test_several_fields_of_one_name_are_one_list() -> None:
    found = fields_of(HEAD + b"To: c@y.test\r\n\r\n")
    assert found["toRecipients"] == [mailbox("b@y.test"), mailbox("c@y.test")]


PARTS = b"Content-Type: multipart/%b; boundary=b\r\n\r\n--b\r\n%b\r\n\r\nx\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (PARTS % (b"signed", b"Content-Type: text/plain"), "signed or encrypted"),
        (PARTS % (b"encrypted", b"Content-Type: application/pgp-encrypted"), "signed or encrypted"),
        (b"Content-Type: application/pkcs7-mime; name=smime.p7m\r\n\r\nAA==", "signed or encrypted"),
        (PARTS % (b"mixed", b"Content-Type: application/x-pkcs7-mime"), "signed or encrypted"),
        (b"\r\n-----BEGIN PGP MESSAGE-----\r\n", "signed or encrypted"),
        (PARTS % (b"mixed", b"Content-Type: text/calendar; method=REQUEST"), "invitation"),
        (PARTS % (b"alternative", b"Content-Type: text/calendar"), "invitation"),
        (PARTS % (b"alternative", b"Content-Type: text/x-amp-html"), "a form of its text that is text/x-amp-html"),
        (PARTS % (b"report", b"Content-Type: text/plain"), "a report"),
        (PARTS % (b"mixed", b"Content-Type: message/delivery-status"), "message/delivery-status"),
        (PARTS % (b"mixed", b"Content-Transfer-Encoding: x-uue"), "x-uue, which is none"),
        (b"Content-Type: text/plain; charset=x-martian\r\n\r\nx", "x-martian, which is not known"),
        (b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff", "not in the charset"),
        (b"List-Id: <l.x.test>\r\nResent-From: c@x.test\r\n\r\nx", "no place for: List-Id, Resent-From"),
        (b"Disposition-Notification-To: other@x.test\r\n\r\nx", "no place for: Disposition-Notification-To"),
        (b"X-A: 1\r\nX-B: 1\r\nX-C: 1\r\nX-D: 1\r\nX-E: 1\r\nX-F: 1\r\n\r\nx", "more than 5 fields of its own"),
        (b"Reply-To: a@x.test <b@x.test>\r\n\r\nx", "Reply-To can't be read"),
        (b"\r\n" + b"x" * LONGEST_DRAFT_BYTES, "its text has more than"),
        (b"Content-Type: multipart/mixed\r\n\r\nx", "no boundary"),
    ],
)
def test_what_a_draft_cannot_keep_is_refused_not_altered(rest: bytes, why: str) -> None:
    with pytest.raises(NotKept, match=why):
        draft(HEAD + rest, 100_000)


def test_what_is_no_part_of_the_content_may_go() -> None:
    head = b"DKIM-Signature: v=1\r\nARC-Seal: i=1\r\nX-Mailer: M\r\nContent-Language: de\r\nAuto-Submitted: no\r\n"
    assert set(fields_of(HEAD + head + b"\r\n")) == {"from", "toRecipients", "subject"}
