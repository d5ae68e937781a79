"""Two messages with the same body have the same digest, also when each was composed by itself."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.address import Mailbox
from postroom.mime.body_digest import body_digest
from postroom.mime.compose import Attachment, ComposedMessage, compose
from postroom.mime.head import split
from postroom.model.content import Content, ContentId, StagedBody


def _digest(raw: bytes) -> bytes:
    return body_digest(Content(*split(raw)))


def _composed(text: str, seed: bytes) -> bytes:
    message = ComposedMessage(
        sender=Mailbox("a@x.test"), to=(Mailbox("b@y.test"),), text=text, html=f"<p>{text}</p>",
        attachments=(Attachment(file_name="a.txt", content=b"abc", media_type="text/plain"),),
    )  # fmt: skip
    return compose(message, date=datetime(2026, 1, 1, tzinfo=UTC), message_id="<1@x.test>", boundary_seed=seed)


def test_other_boundaries_make_no_other_body() -> None:
    first, second = (_composed("hello", bytes([n]) * 16) for n in (1, 2))
    assert split(first)[1] != split(second)[1]
    assert _digest(first) == _digest(second)
    assert _digest(first) != _digest(_composed("hallo", bytes([1]) * 16))


def test_lines_that_only_look_like_delimiters_count() -> None:
    head = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    assert _digest(head + b"--b\r\n\r\n--x\r\n--b--\r\n") != _digest(head + b"--b\r\n\r\n--y\r\n--b--\r\n")
    assert _digest(b"X: y\r\n\r\n--b\r\n") != _digest(b"X: y\r\n\r\n--c\r\n")


@given(st.binary(), st.binary())
def test_bodies_without_parts_are_the_same_only_when_they_are(one: bytes, two: bytes) -> None:
    head = b"Content-Type: text/plain\r\n\r\n"
    assert (body_digest(Content(head, one)) == body_digest(Content(head, two))) is (one == two)


def test_a_staged_body_is_known_by_its_hash() -> None:
    digest = hashlib.sha256(b"much").digest()
    assert body_digest(Content(b"\r\n", StagedBody(ContentId(bytes(16)), 1, 4, digest))) == digest
