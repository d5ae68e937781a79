"""Only CRLF.CRLF ends a message, whatever mix of CR, LF and dot a client sends, and in whatever pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.submission_door import Dialogue, codes, ready

BEGIN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
INJECTED = b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<victim@d.test>\r\nDATA\r\nevil\r\n.\r\n"

#: Ends of data that a lax server might know, without the true one.
FALSE_ENDS = sorted(
    end
    for before, after in itertools.product(
        (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\n", b"\r\n\x00", b"\r\n ", b"\n\r"),
        (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\x00\r\n", b" \r\n", b".\r\n", b"\n\r\n", b"\n\r"),
    )
    if b"\r\n.\r\n" not in (end := before + b"." + after)
)


def data(dialogue: Dialogue, content: bytes) -> bytes:
    assert codes(dialogue.send(BEGIN))[-1] == 354
    return dialogue.send(content)


def is_bare(content: bytes) -> bool:
    rest = content.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


@pytest.mark.parametrize("false_end", FALSE_ENDS)
def test_a_false_end_of_data_ends_nothing(false_end: bytes) -> None:
    dialogue = ready()
    content = b"Subject: x\r\n\r\nfirst" + false_end + INJECTED
    replies = codes(data(dialogue, content))
    assert len(replies) == 1
    if is_bare(content):
        assert replies == [554]
        assert dialogue.messages == []
    else:
        assert replies == [250]
        (message,) = dialogue.messages
        assert message[0] == "a@b.test"
        assert message[2].endswith(b"evil\r\n")


@pytest.mark.parametrize("false_end", FALSE_ENDS)
def test_where_bare_lf_is_normalised_none_is_left_and_a_bare_cr_is_refused(false_end: bytes) -> None:
    dialogue = ready(normalise_bare_lf=True)
    content = b"Subject: x\r\n\r\nfirst" + false_end + INJECTED
    replies = codes(data(dialogue, content))
    if b"\r" in content.replace(b"\r\n", b""):
        assert (replies, dialogue.messages) == ([554], [])
    else:
        assert replies == [250]
        assert not is_bare(dialogue.messages[0][2])


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"a\nb\r\n.\r\n", b"5.6.0 Bare LF"), (b"a\rb\r\n.\r\n", b"5.6.0 Bare CR"), (b"\n\r\n.\r\n", b"5.6.0 Bare LF")],
)
def test_the_refusal_names_the_fault(content: bytes, status: bytes) -> None:
    dialogue = ready()
    assert data(dialogue, content).startswith(b"554 " + status)
    assert codes(dialogue.send(b"NOOP\r\n")) == [250]


def test_a_refused_message_leaves_nothing_to_the_next_one() -> None:
    dialogue = ready()
    data(dialogue, b"bad\nline\r\n.\r\n")
    data(dialogue, b"good\r\n.\r\n")
    assert [content for _, _, content in dialogue.messages] == [b"good\r\n"]


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n", b"\r\n."]), max_size=12), st.data())
def test_any_mix_in_any_pieces_is_read_alike(parts: list[bytes], draw: st.DataObject) -> None:
    wire = BEGIN + b"".join(parts) + b"\r\n.\r\nNOOP\r\n"
    whole = ready()
    expected = whole.send(wire)
    cuts = sorted(draw.draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    pieces = ready()
    said = b"".join(pieces.send(wire[a:b]) for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True))
    assert (said, pieces.messages) == (expected, whole.messages)
    content = b"\r\n" + b"".join(parts) + b"\r\n.\r\n"
    inner = content[2 : content.index(b"\r\n.\r\n") + 2]
    if is_bare(inner):
        assert whole.messages == []
    else:
        assert whole.messages[0][2] == (b"\r\n" + inner).replace(b"\r\n.", b"\r\n")[2:]


@pytest.mark.parametrize("content", [b".\r\n", b"..\r\n.\r\n", b"\r\n.\r\n"])
def test_content_may_be_empty_or_begin_with_a_dot(content: bytes) -> None:
    dialogue = ready()
    assert codes(data(dialogue, content)) == [250]
    assert dialogue.messages[0][2] == {b".\r\n": b"", b"..\r\n.\r\n": b".\r\n", b"\r\n.\r\n": b"\r\n"}[content]


@pytest.mark.parametrize(
    "line",
    [b"NOOP\n", b"NOOP\r\r\n", b"NO\rOP\r\n", b"\rNOOP\r\n", b"NOOP\r \n", b"MAIL FROM:<a@b.test>\n", b"\n", b"\r\r\n"],
)
def test_bare_cr_and_lf_in_commands_are_refused(line: bytes) -> None:
    dialogue = ready()
    assert codes(dialogue.send(line + b"NOOP\r\n")) == [500, 250]


@pytest.mark.parametrize("octet", [b"\x00", b"\x01", b"\x08", b"\x1b", b"\x7f", b"\x80", b"\xff", b"\xed\xa0\x80"])
def test_controls_and_octets_that_are_not_utf8_in_addresses_are_refused(octet: bytes) -> None:
    dialogue = ready()
    line = b"FROM:<a" + octet + b"@b.test> SMTPUTF8\r\n"
    assert codes(dialogue.send(b"MAIL " + line + b"VRFY " + octet + b"\r\nNOOP\r\n")) == [500, 500, 250]


@pytest.mark.parametrize("octets", [b"\x00", b"\x7f", b"\xff", "é".encode()])
@pytest.mark.parametrize("verb", [b"NOOP ", b"EHLO ", b"HELO ", b"AUTH ", b"RSET ", b"MAIL", b"", b"HELP "])
def test_controls_and_eight_bit_octets_in_other_commands_are_refused(verb: bytes, octets: bytes) -> None:
    dialogue = ready(clear_login=True)
    assert codes(dialogue.send(verb + octets + b"\r\nNOOP\r\n")) == [500, 250]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_octets_end_in_replies_and_nothing_else(octets: bytes, step: int) -> None:
    dialogue = ready(starttls=True, clear_login=True)
    for start in range(0, len(octets), step):
        said = dialogue.send(octets[start : start + step])
        assert all(200 <= code < 600 for code in codes(said))
