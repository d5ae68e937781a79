"""Messages put together: the standard parser takes them apart into the same parts."""

from __future__ import annotations

import email
import email.message
import email.policy
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.address import Mailbox
from postroom.mime.compose import Attachment, ComposedMessage, InlineImage, compose

SENDER = Mailbox("sender@a.test", "The Sender")
RECIPIENT = Mailbox("recipient@b.test")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PICTURE = InlineImage(content_id="logo@a.test", media_type="image/png", content=PNG, file_name="logo.png")
FILE = Attachment(file_name="Rechnung März.pdf", media_type="application/pdf", content=b"%PDF-1.4\n" + bytes(300))

bodies = st.text(st.characters(exclude_categories=["Cs"]), max_size=400) | st.text("ab .=\r\n\té", max_size=200)


def built(message: ComposedMessage) -> bytes:
    return compose(
        message,
        date=datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC),
        message_id="<1@a.test>",
        boundary_seed=b"seed",
    )


def parsed(message: ComposedMessage) -> email.message.EmailMessage:
    content = built(message)
    assert content.isascii()
    assert content.replace(b"\r\n", b"").find(b"\n") == -1
    assert content.replace(b"\r\n", b"").find(b"\r") == -1
    assert max(map(len, content.split(b"\r\n"))) <= 998
    found = email.message_from_bytes(content, policy=email.policy.SMTP)
    assert isinstance(found, email.message.EmailMessage)
    assert [defect for part in found.walk() for defect in part.defects] == []
    return found


def shape(message: email.message.Message) -> object:
    payload = message.get_payload()
    if isinstance(payload, list):
        return (message.get_content_type(), *map(shape, payload))
    return message.get_content_type()


def lines(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text)


def test_the_header() -> None:
    message = ComposedMessage(
        sender=SENDER,
        to=(RECIPIENT, Mailbox("second@b.test", "Zwei, Ö")),
        cc=(Mailbox("third@b.test"),),
        reply_to=(Mailbox("answer@a.test"),),
        subject="Grüße 🙂",
        text="x",
        headers=(("List-Unsubscribe", "<https://a.test/u>"), ("X-Note", "für dich")),
    )
    found = parsed(message)
    assert str(found["from"]) == "The Sender <sender@a.test>"
    assert [address.display_name for address in found["to"].addresses] == ["", "Zwei, Ö"]
    assert str(found["cc"]) == "third@b.test"
    assert str(found["reply-to"]) == "answer@a.test"
    assert str(found["subject"]) == "Grüße 🙂"
    assert found["date"].datetime == datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC)
    assert found["message-id"] == "<1@a.test>"
    assert found["list-unsubscribe"] == "<https://a.test/u>"
    assert str(found["x-note"]) == "für dich"
    assert found["mime-version"] == "1.0"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ComposedMessage(sender=SENDER), "text/plain"),
        (ComposedMessage(sender=SENDER, html="<p>x"), "text/html"),
        (ComposedMessage(sender=SENDER, text="x", html="<p>x"), ("multipart/alternative", "text/plain", "text/html")),
        (
            ComposedMessage(sender=SENDER, html="<p>x", images=(PICTURE,)),
            ("multipart/related", "text/html", "image/png"),
        ),
        (
            ComposedMessage(sender=SENDER, text="x", attachments=(FILE,)),
            ("multipart/mixed", "text/plain", "application/pdf"),
        ),
        (
            ComposedMessage(sender=SENDER, text="x", html="<p>x", images=(PICTURE,), attachments=(FILE, FILE)),
            (
                "multipart/mixed",
                ("multipart/related", ("multipart/alternative", "text/plain", "text/html"), "image/png"),
                "application/pdf",
                "application/pdf",
            ),
        ),
    ],
)
def test_the_nesting(message: ComposedMessage, expected: object) -> None:
    assert shape(parsed(message)) == expected


def test_images_and_attachments_come_out_as_they_went_in() -> None:
    found = parsed(
        ComposedMessage(sender=SENDER, html="<img src=cid:logo@a.test>", images=(PICTURE,), attachments=(FILE,))
    )
    related, attachment = found.iter_parts()
    assert related.get_param("type") == "text/html"
    _, image = related.iter_parts()
    assert image["content-id"] == "<logo@a.test>"
    assert (image.get_content_disposition(), image.get_filename()) == ("inline", "logo.png")
    assert image.get_payload(decode=True) == PNG
    assert (attachment.get_content_disposition(), attachment.get_filename()) == ("attachment", "Rechnung März.pdf")
    assert attachment.get_payload(decode=True) == FILE.content


@given(bodies, bodies)
def test_texts_come_out_as_they_went_in(text: str, html: str) -> None:
    found = parsed(ComposedMessage(sender=SENDER, text=text, html=html, attachments=(FILE,)))
    alternative, _ = found.iter_parts()
    for part, written in zip(alternative.iter_parts(), (text, html), strict=True):
        octets = part.get_payload(decode=True)
        assert isinstance(octets, bytes)
        read = octets.decode(part.get_content_charset("?"))
        assert lines(read) == lines(written) or lines(read) == [*lines(written), ""]


@given(st.binary(max_size=400))
def test_any_file_comes_out_as_it_went_in(content: bytes) -> None:
    found = parsed(ComposedMessage(sender=SENDER, attachments=(Attachment(file_name="x", content=content),)))
    _, attachment = found.iter_parts()
    assert attachment.get_payload(decode=True) == content


@pytest.mark.parametrize(
    ("text", "coding"),
    [
        ("plain\n", "7bit"),
        ("Die Ware ist unterwegs. Grüße aus Köln!\n", "quoted-printable"),
        ("漢字かな交じり文" * 20, "base64"),
        ("a" * 2000, "quoted-printable"),
        ("trailing \n", "quoted-printable"),
        ("bell\x07", "quoted-printable"),
    ],
)
def test_the_coding_fits_the_text(text: str, coding: str) -> None:
    assert parsed(ComposedMessage(sender=SENDER, text=text))["content-transfer-encoding"] == coding


def test_a_boundary_is_not_a_line_of_a_part() -> None:
    first = parsed(ComposedMessage(sender=SENDER, text="x", html="y")).get_boundary()
    message = ComposedMessage(sender=SENDER, text=f"--{first}", html="y")
    assert shape(parsed(message)) == ("multipart/alternative", "text/plain", "text/html")
    assert parsed(message).get_boundary() != first


def test_the_same_arguments_give_the_same_octets() -> None:
    message = ComposedMessage(sender=SENDER, text="x", html="y", attachments=(FILE,))
    assert built(message) == built(message)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"subject": "a\r\nBcc: evil@c.test"}, "Subject"),
        ({"sender": Mailbox("a@b.test", "x\ny")}, "From"),
        ({"sender": Mailbox("a@b.test>\r\nBcc: c@d.test")}, "not an address"),
        ({"headers": (("X-A", "a\r\nb"),)}, "X-A"),
        ({"headers": (("X-A\r\nBcc", "a"),)}, "not the name"),
        ({"headers": (("Content-Type", "text/html"),)}, "own values"),
        ({"headers": (("BCC", "a@b.test"),)}, "envelope"),
        ({"images": (PICTURE,)}, "no HTML"),
        (
            {"html": "x", "images": (InlineImage(content_id="a>\r\n", media_type="image/png", content=b""),)},
            "content id",
        ),
        ({"attachments": (Attachment(file_name="a\r\nb", content=b""),)}, "filename"),
        ({"attachments": (Attachment(file_name="a", content=b"", media_type="text"),)}, "media type"),
        ({"attachments": (Attachment(file_name="a", content=b"", media_type="text/x\r\ny"),)}, "media type"),
        ({"attachments": (Attachment(file_name="a", content=b"", media_type="message/rfc822"),)}, "octet-stream"),
        ({"text": "\ud800"}, "surrogate"),
    ],
)
def test_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        built(ComposedMessage(**({"sender": SENDER} | fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize("message_id", ["", "1@a.test", "<1>", "<1@a.test>\r\nBcc: x", "<1@a test>"])
def test_a_message_id_has_its_form(message_id: str) -> None:
    with pytest.raises(ValueError, match="Message-ID"):
        compose(ComposedMessage(sender=SENDER), date=datetime.now(UTC), message_id=message_id, boundary_seed=b"")


def test_an_address_in_utf8_stands_in_the_header_alone() -> None:
    message = ComposedMessage(
        sender=Mailbox("jörg@a.test", "Jörg"),
        to=(Mailbox("päivi@b.test", 'Päivi, "P"'), RECIPIENT),
        subject="Grüße",
        text="Die Ware ist unterwegs. Grüße aus Köln!\n",
        html="<p>Grüße",
        images=(InlineImage(content_id="logo@a.test", media_type="image/png", content=PNG, file_name="Bär.png"),),
        attachments=(FILE, Attachment(file_name="Anhang.eml", content="Subject: Bär\r\n\r\nBär".encode())),
        headers=(("X-Note", "für dich"),),
    )
    head, _, body = built(message).partition(b"\r\n\r\n")
    assert body.isascii()
    beyond = [line for line in head.decode().split("\r\n") if not line.isascii()]
    assert beyond == [
        "From: =?utf-8?b?SsO2cmc=?= <jörg@a.test>",
        "To: =?utf-8?b?UMOkaXZpLCAiUCI=?= <päivi@b.test>, recipient@b.test",
    ]
    found = email.message_from_string(built(message).decode(), policy=email.policy.SMTPUTF8)
    assert {part["content-transfer-encoding"] for part in found.walk() if not part.is_multipart()} == {
        "quoted-printable",
        "base64",
    }
    assert [address.addr_spec for address in found["to"].addresses] == ["päivi@b.test", "recipient@b.test"]
