"""How deep parts lie: as the standard library's parser finds it, however the body is cut."""

from __future__ import annotations

import email
import email.message
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import Refused
from postroom.mime.head import split
from postroom.mime.structure import MimeDepth, refuse_deep_parts

# What a message is made of, and what only looks so. `message/delivery-status` is left out: the standard library makes
# a message of each of its blocks.
LINES = st.sampled_from(
    [
        b"",
        b"",
        b"--a",
        b"--a",
        b"--a--",
        b"--b",
        b"--b",
        b"--b--",
        b"--b \t",
        b"--ab",
        b"--b--x",
        b"-- ",
        b"--",
        b"--a:",
        b"--x: field",
        b"text",
        b" ; boundary=b",
        b"\t",
        b"X-Field: value",
        b"Content-Type: multipart/mixed; boundary=a",
        b"Content-Type: multipart/mixed; boundary=b",
        b'content-TYPE:MULTIPART/mixed;x="; boundary=a";\r\n\tBOUNDARY = "b "',
        b"Content-Type: multipart/digest; boundary=b",
        b"Content-Type: multipart/mixed; charset=x",
        b"Content-Type: multipart/mixed; boundary*0=a; boundary*1*=%62",
        b"Content-Type: multipart/mixed; boundary*=us-ascii''%62",
        b"Content-Type: multipart/mixed;",
        b"Content-Type: message/rfc822",
        b"Content-Type: text/plain; boundary=a",
        b"From nobody",
    ]
)
MESSAGES = st.lists(LINES, max_size=30).map(lambda lines: b"\r\n".join([*lines, b"", b"end", b""]))


def depth_by_the_standard_library(message: email.message.Message) -> int:
    payload = message.get_payload()
    return 1 + max(map(depth_by_the_standard_library, payload)) if isinstance(payload, list) else 0


def is_exceeded(head: bytes, pieces: list[bytes], limit: int) -> bool:
    depth = MimeDepth(head, limit)
    for piece in pieces:
        depth.feed(piece)
    return depth.is_exceeded


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def nested(levels: int, line: bytes = b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n") -> bytes:
    return b"".join(line.replace(b"%d", b"%d" % level) for level in range(levels)) + b"\r\ntext\r\n"


@given(MESSAGES, st.integers(1, 40))
def test_the_standard_library_finds_the_same_depth(rest: bytes, size: int) -> None:
    message = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n" + rest
    head, body = split(message)
    depth = depth_by_the_standard_library(email.message_from_bytes(message, policy=email.policy.compat32))
    for limit in range(depth + 2):
        assert is_exceeded(head, cut(body, size), limit) == (depth > limit)


@given(MESSAGES)
def test_the_quick_look_refuses_the_same_messages(rest: bytes) -> None:
    head, body = split(b"Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n" + rest)
    for limit in range(8):
        try:
            refuse_deep_parts(head, body, limit)
        except Refused:
            assert is_exceeded(head, [body], limit)
        else:
            assert not is_exceeded(head, [body], limit)


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"Content-Type: multipart/digest; boundary=%d\r\n\r\n--%d\r\n\r\n",
        b"Content-Type: multipart/x; boundary=%d" + b"x" * 900 + b"\r\n\r\n--%d" + b"x" * 900 + b"\r\n",
        b"X: " + b"y" * 20_000 + b"\r\nContent-Type: multipart/x;\r\n\tboundary=%d\r\n--%d  \r\n",
    ],
)
def test_a_hundred_levels_are_taken_and_one_more_is_refused(line: bytes) -> None:
    per_line = 2 if b"digest" in line else 1
    head, outermost = b"Content-Type: multipart/x; boundary=outermost\r\n\r\n", b"--outermost\r\n"
    refuse_deep_parts(head, outermost + nested(99 // per_line, line), 100)
    body = outermost + nested(101 // per_line, line)
    with pytest.raises(Refused, match=r"100 deep \(setting smtp.max_mime_depth\)") as refused:
        refuse_deep_parts(head, body, 100)
    assert (refused.value.reply_code, refused.value.status) == (554, "5.6.0")


@pytest.mark.parametrize(
    "head", [b"\r\n", b"Subject: x\r\n\r\n", b"Content-Type: text/plain\r\n\r\n", b"Content-Type: multipart/x\r\n\r\n"]
)
def test_a_body_without_parts_is_not_looked_at(head: bytes) -> None:
    assert MimeDepth(head, 1).is_flat


def test_nothing_is_looked_at_behind_the_last_delimiter() -> None:
    depth = MimeDepth(b"Content-Type: multipart/x; boundary=a\r\n\r\n", 1)
    depth.feed(b"--a\r\n\r\n--a-")
    assert not depth.is_flat
    depth.feed(b"-\r\nepilogue")
    assert depth.is_flat


@pytest.mark.parametrize(
    "unit",
    [
        b"--a\r\n",
        b"--a--\r\n",
        b"--b\r\n\r\n\r\n",
        b"--b\r\nContent-Type: multipart/x; boundary=c\r\n\r\n--c\r\n",
        b'--b\r\nContent-Type: multipart/x; x="\\',
        b"--b\r\nContent-Type: multipart/x;" + b'a="' * 5000 + b"\r\n\r\n",
        b"\r\n",
        b"-",
        b"\r\n-",
        b"--b",
        b" ",
        b"X:\r\n",
        b"X: y\r\n z\r\n",
        b"Content-Type: text/plain\r\n\tx\r\n",
        b"--b" + b" " * 10_000,
        b"--b\r\nX: " + b" " * 300_000,
    ],
)
def test_megabytes_of_one_thing_are_read_in_one_pass(unit: bytes) -> None:
    # A reader that looks back at each part would not come to the end of this.
    depth = MimeDepth(b"Content-Type: multipart/x; boundary=b\r\n\r\n", 3)
    for piece in cut(b"--b\r\n" + unit * (4_000_000 // len(unit)), 256 * 1024):
        depth.feed(piece)
        assert len(depth._held) <= 8192
    assert not depth.is_exceeded
    depth.feed(b"\r\n\r\n--b\r\n" + nested(5))
    assert depth.is_exceeded
