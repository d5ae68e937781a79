"""The leaves of a message, read piece by piece; judged by the parser of the standard library."""

from __future__ import annotations

import email
import email.message
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.head import split
from postroom.mime.parts import Part, PartReader, decoder


def read(content: bytes, size: int = 1 << 30) -> list[tuple[Part, bytes]]:
    """The leaves with their decoded content, the body fed in pieces of `size`."""
    head, body = split(content)
    reader = PartReader(head)
    found: list[tuple[Part, bytes]] = []
    pieces = [piece for at in range(0, len(body), size) for piece in reader.feed(body[at : at + size])]
    pieces += reader.end()
    part, octets, coding = None, b"", decoder("7bit")
    for piece in pieces:
        if isinstance(piece, Part):
            assert part is None
            part, octets, coding = piece, b"", decoder(piece.encoding)
        elif piece is None:
            assert part is not None
            found.append((part, octets + coding.end()))
            part = None
        else:
            octets += coding.feed(piece)
    assert part is None
    return found


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    """What the standard library finds; messages within are leaves."""

    def walk(part: email.message.Message) -> list[tuple[str, bytes]]:
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            return [leaf for inner in part.get_payload() for leaf in walk(inner)]  # type: ignore[arg-type]
        if part.get_content_maintype() == "message":
            return [(part.get_content_type(), b"")]
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        return [(part.get_content_type(), payload)]

    return walk(email.message_from_bytes(content, policy=email.policy.compat32))


def whole() -> bytes:
    """A message as programs make it: text, HTML with a picture, files."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["To"], message["Subject"] = "a@x.test", "b@y.test", "hi"
    message.set_content("Grüße\nplain --\n-- \nAnn\n")
    message.add_alternative("<p>Grüße <img src='cid:logo@x'></p>\n", subtype="html")
    html: Any = message.get_payload()[1]  # type: ignore[index]
    html.add_related(bytes(range(256)) * 40, "image", "png", cid="<logo@x>", filename="logo.png")
    message.add_attachment(b"\x00\x01" * 5000, "application", "pdf", filename="Rechnung Nº 5.pdf")
    message.add_attachment("a,b\r\n1,2\r\n", subtype="csv", filename="list.csv")
    return message.as_bytes()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 1 << 30])
def test_the_leaves_are_those_of_another_reader_however_the_body_is_cut(size: int) -> None:
    content = whole()
    found = read(content, size)
    assert [(part.content_type, octets) for part, octets in found] == leaves(content)
    containers = [[container.subtype for container in part.containers] for part, _ in found]
    assert containers == [
        ["mixed", "alternative"],
        ["mixed", "alternative", "related"],
        ["mixed", "alternative", "related"],
        ["mixed"],
        ["mixed"],
    ]
    assert [part.filename for part, _ in found] == ["", "", "logo.png", "Rechnung Nº 5.pdf", "list.csv"]
    assert [part.content_id for part, _ in found] == ["", "", "logo@x", "", ""]


@pytest.mark.parametrize("size", [1, 5, 1 << 30])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Subject: hi\r\n\r\nhello\r\n--\r\n", [("text/plain", b"hello\r\n--\r\n")]),
        (b"Subject: hi\r\n\r\n", [("text/plain", b"")]),
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\none\r\n--bb\r\n--b \r\n"
            b"Content-Type: text/x\r\n\r\n--b--\r\nepilogue\r\n",
            [("text/plain", b"one\r\n--bb"), ("text/x", b"")],
        ),
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/x\r\n--b\r\n\r\ncut off",
            [("text/x", b""), ("text/plain", b"cut off")],
        ),
        (
            b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n"
            b"--i\r\n\r\nin\r\n--o\r\n\r\nout\r\n--o--\r\n",
            [("text/plain", b"in"), ("text/plain", b"out")],
        ),
    ],
    ids=["one leaf", "nothing", "look-alikes", "cut short", "an outer delimiter ends all within"],
)
def test_odd_bodies(content: bytes, expected: list[tuple[str, bytes]], size: int) -> None:
    assert [(part.content_type, octets) for part, octets in read(content, size)] == expected


def test_a_message_within_is_a_leaf_as_it_stands() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b--\r\n"
    content = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n"
    found = read(content + inner + b"\r\n--o--\r\n", 3)
    assert [(part.content_type, octets) for part, octets in found] == [("message/rfc822", inner)]


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match="no boundary"):
        read(b"Content-Type: multipart/mixed\r\n\r\nx")
    with pytest.raises(ValueError, match="too long"):
        read(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + b"X: y\r\n" * 60_000, 1000)
    with pytest.raises(ValueError, match="transfer encoding x-uuencode"):
        decoder("x-uuencode")
    with pytest.raises(ValueError, match="not the base64"):
        decoder("base64").feed(b"A===")
    assert decoder("base64").feed(b"YQ==\r\nYg==") == b"ab", "two texts in one part"


@given(
    octets=st.binary(max_size=3000), cuts=st.integers(1, 90), encoding=st.sampled_from(["base64", "quoted-printable"])
)
def test_transfer_encodings_are_undone_however_they_are_cut(octets: bytes, cuts: int, encoding: str) -> None:
    message = EmailMessage(policy=email.policy.SMTP)
    message.set_content(octets, "application", "octet-stream", cte=encoding)
    content = message.as_bytes()
    _, body = split(content)
    coding = decoder(encoding)
    found = b"".join(coding.feed(body[at : at + cuts]) for at in range(0, len(body), cuts)) + coding.end()
    assert found == leaves(content)[0][1]
