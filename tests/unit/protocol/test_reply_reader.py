"""Replies out of bytes: any cutting, any code, within limits, one at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.model.reply import Reply
from postroom.protocol.smtp import RemoteProtocolError
from postroom.protocol.smtp.reply_reader import DEFAULT_LIMITS, KEPT_BYTES, ReplyLimits, ReplyReader

MAX_LINE_BYTES, MAX_REPLY_BYTES = DEFAULT_LIMITS.line_bytes, DEFAULT_LIMITS.reply_bytes


def read(data: bytes, command: str = "MAIL") -> list[Reply]:
    """All replies in `data`."""
    reader = ReplyReader()
    reader.receive(data)
    replies = []
    while (reply := reader.next_reply(command)) is not None:
        replies.append(reply)
    return replies


REPLIES = st.lists(
    st.sampled_from(
        [
            b"250 ok\r\n",
            b"250 ok\r\n",
            b"250\r\n",
            b"299 2.9.9 odd\r\n",
            b"554-5.7.1 no\r\n554-5.7.1 really\r\n554 5.7.1 not\r\n",
            b"354 go on\n",
            b"250-a\r\n250\r\n",
            b"450 4.2.0\r\n",
        ]
    ),
    max_size=8,
)


@given(REPLIES, st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_replies_are_the_same_however_they_are_cut(replies: list[bytes], sizes: list[int]) -> None:
    data = b"".join(replies)
    reader, found = ReplyReader(), []
    while data:
        size = sizes[len(data) % len(sizes)]
        reader.receive(data[:size])
        data = data[size:]
        while (reply := reader.next_reply("MAIL")) is not None:
            found.append(reply)
    assert found == [read(reply)[0] for reply in replies]
    assert not reader.has_unread


def test_the_enhanced_status_is_taken_out_of_every_line() -> None:
    assert read(b"554-5.7.1 no\r\n554 5.7.1 really\r\n", "RCPT") == [
        Reply(554, ("no", "really"), "5.7.1", "RCPT"),
    ]


@pytest.mark.parametrize(
    "line", [b"250 4.0.0 other class", b"250 2.0.0x", b"250 2.0", b"250 x 2.0.0", b"354 3.0.0 no such class"]
)
def test_what_is_no_enhanced_status_stays_text(line: bytes) -> None:
    (reply,) = read(line + b"\r\n")
    assert (reply.enhanced, reply.lines) == ("", (line[4:].decode(),))


def test_ehlo_and_greeting_have_no_enhanced_status() -> None:
    assert read(b"250 2.0.0 relay\r\n", "EHLO")[0].lines == ("2.0.0 relay",)
    assert read(b"220 2.0.0 relay\r\n", "")[0].enhanced == ""


@pytest.mark.parametrize(
    "rubbish",
    [
        b"hello\r\n",
        b"\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"150 early\r\n",
        b"650 late\r\n",
        b"250_ok\r\n",
        b" 250 ok\r\n",
        "٢٥٠ ok\r\n".encode(),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28\n",
        b"250-one\r\n251 two\r\n",
        b"x" * (MAX_LINE_BYTES + 1),
        b"250 " + b"x" * MAX_LINE_BYTES + b"\r\n",
        b"250-" + b"x" * 96 + b"\r\n" + (b"250-" + b"x" * 96 + b"\r\n") * (MAX_REPLY_BYTES // 100),
    ],
)
def test_rubbish_behind_a_good_reply_leaves_the_reply(rubbish: bytes) -> None:
    reader = ReplyReader()
    reader.receive(b"250 2.0.0 taken\r\n" + rubbish)
    assert reader.next_reply(".") == Reply(250, ("taken",), "2.0.0", ".")
    for _ in range(2):  # it stays dead
        with pytest.raises(RemoteProtocolError):
            reader.next_reply("MAIL")
        reader.receive(b"250 ok\r\n")


def test_text_that_no_terminal_should_see_is_replaced() -> None:
    (reply,) = read(b"550 \x1b[2Jgone\x00 \xff\xe2\x80\xae\r\n")
    assert reply.lines == ("\ufffd[2Jgone\ufffd \ufffd\ufffd",)


def test_a_long_reply_within_the_limits_is_read() -> None:
    data = b"".join(b"250-%04d %s\r\n" % (n, b"x" * 90) for n in range(2400)) + b"250 end\r\n"
    assert len(data) < MAX_REPLY_BYTES
    (reply,) = read(data, "EHLO")
    assert (len(reply.lines), reply.lines[-1]) == (2401, "end")


def test_the_same_reply_to_another_command_names_that_command() -> None:
    reader = ReplyReader()
    reader.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n")
    first, second, third = (reader.next_reply(command) for command in ("MAIL", "RCPT", "MAIL"))
    assert (first, second) == (Reply(250, ("ok",), "", "MAIL"), Reply(250, ("ok",), "", "RCPT"))
    assert third is first


def test_replies_that_all_differ_do_not_pile_up() -> None:
    reader = ReplyReader()
    for n in range(1000):
        reader.receive(b"250 2.0.0 queued as %d\r\n" % n)
        reply = reader.next_reply(".")
        assert reply is not None and reply.lines == (f"queued as {n}",)
    assert len(reader._cache) <= 256


def test_the_limits_are_what_the_settings_say() -> None:
    limits = ReplyLimits(line_bytes=100, reply_bytes=250)
    longest = b"250 " + b"x" * 94 + b"\r\n"
    reader = ReplyReader(limits)
    reader.receive(longest)
    reply = reader.next_reply("MAIL")
    assert reply is not None and len(reply.lines[0]) == 94
    for too_much, what in ((b"250 x" + longest[4:], "line of more than 100"), (b"250-" + longest[4:], "than 250")):
        reader = ReplyReader(limits)
        reader.receive(too_much * 3)
        with pytest.raises(RemoteProtocolError, match=what):
            reader.next_reply("MAIL")


def test_of_a_long_reply_only_the_beginning_is_kept_unless_all_of_it_is_needed() -> None:
    data = b"".join(b"550-%04d %s\r\n" % (n, b"x" * 90) for n in range(2400)) + b"550 end\r\n"
    (reply,) = read(data, "RCPT")
    assert reply.code == 550 and reply.lines[0].startswith("0000 ")
    assert KEPT_BYTES // 2 < sum(map(len, reply.lines)) < KEPT_BYTES
    (whole,) = read(data.replace(b"550", b"250"), "EHLO")
    assert len(whole.lines) == 2401


def test_a_line_that_drips_is_looked_at_seldom_and_read_when_it_is_whole() -> None:
    reader = ReplyReader()
    line = b"250 " + b"x" * 4000 + b"\r\n"
    looked = [reader.receive(bytes([octet])) for octet in line]
    assert all(looked[:32]), "a short one is looked at as it comes"
    assert sum(looked) < 200
    assert looked[-1]
    reply = reader.next_reply("EHLO")
    assert reply is not None and reply.code == 250
    assert reader.receive(b"2"), "the next one is another"


def test_a_line_that_drips_passes_no_limit() -> None:
    reader = ReplyReader(ReplyLimits(line_bytes=512))
    reader.receive(b"250-")
    with pytest.raises(RemoteProtocolError):
        for _ in range(512 + 32):
            if reader.receive(b"x"):
                reader.next_reply("EHLO")
