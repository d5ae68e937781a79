"""Content by BDAT (RFC 3030): its octets are never commands, and what comes of them is what DATA would have brought."""

from __future__ import annotations

import itertools
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp.server import ServerLimits, State
from tests.submission_door import ACCEPTED, Dialogue, codes, ready

BEGIN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
EVIL = b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<victim@d.test>\r\n"


def chunk(octets: bytes, *, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


def taken(dialogue: Dialogue) -> list[bytes]:
    return [content for _, _, content in dialogue.messages]


def test_chunks_make_one_message() -> None:
    dialogue = ready()
    dialogue.send(BEGIN)
    assert dialogue.send(chunk(b"Subject: x\r\n\r\n")) == b"250 2.0.0 14 octets received\r\n"
    assert dialogue.send(chunk(b"body\r\n")) == b"250 2.0.0 6 octets received\r\n"
    assert dialogue.send(chunk(b"end\r\n", last=True)) == ACCEPTED
    assert dialogue.messages == [("a@b.test", ["c@d.test"], b"Subject: x\r\n\r\nbody\r\nend\r\n")]
    assert dialogue.machine.state is State.READY


@pytest.mark.parametrize(
    ("octets", "content"),
    [
        (b"", b""),
        (b"no line end", b"no line end\r\n"),
        (b".\r\n", b".\r\n"),
        (b"..\r\n.a\r\n", b"..\r\n.a\r\n"),
        (b"\r\n.\r\n" + EVIL, b"\r\n.\r\n" + EVIL),
        (b"QUIT\r\n", b"QUIT\r\n"),
        (b"\x00\x80\xff\r\n", b"\x00\x80\xff\r\n"),
    ],
)
def test_what_is_in_a_chunk_is_content_and_ends_a_line(octets: bytes, content: bytes) -> None:
    dialogue = ready()
    assert codes(dialogue.send(BEGIN + chunk(octets, last=True) + b"NOOP\r\n")) == [250, 250, 250, 250]
    assert taken(dialogue) == [content]


def test_an_empty_last_chunk_ends_the_message() -> None:
    dialogue = ready()
    said = dialogue.send(BEGIN + b"BDAT 0\r\n" + chunk(b"x: y\r\n\r\n") + b"bdat 0 last\r\n")
    assert said.endswith(b"250 2.0.0 0 octets received\r\n250 2.0.0 8 octets received\r\n" + ACCEPTED)
    assert taken(dialogue) == [b"x: y\r\n\r\n"]


@given(
    st.lists(st.sampled_from([b"\r\n", b"x", b".", b"\r\n.\r\n", b"QUIT\r\n"]), max_size=10),
    st.integers(1, 4),
    st.sets(st.integers(1, 120), max_size=10),
    st.booleans(),
)
def test_any_chunks_in_any_pieces_are_one_message(
    parts: list[bytes], chunks: int, cuts: set[int], commits: bool
) -> None:
    content = b"".join(parts)
    size = len(content) // chunks + 1
    pieces = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
    wire = BEGIN + b"".join(map(chunk, pieces[:-1])) + chunk(pieces[-1], last=True) + b"NOOP\r\n" + BEGIN
    dialogue = ready(commits=commits)
    marks = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    said = b"".join(dialogue.send(wire[start:end]) for start, end in pairwise(marks))
    if not commits:
        said += dialogue.commit()
    assert codes(said) == [250] * (2 + len(pieces) + 1 + 2)
    assert taken(dialogue) == [content + (b"" if not content or content.endswith(b"\r\n") else b"\r\n")]


def test_the_last_chunk_is_answered_by_the_commit() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    assert dialogue.send(chunk(b"one\r\n", last=True) + b"NOOP\r\n") == b""
    assert dialogue.commit() == ACCEPTED + b"250 2.0.0 Ok\r\n"


def test_messages_in_chunks_behind_each_other_wait_for_their_commits_in_turn() -> None:
    dialogue = ready(commits=False)
    wire = BEGIN + chunk(b"one ") + chunk(b"1\r\n", last=True) + BEGIN + chunk(b"two\r\n", last=True) + b"QUIT\r\n"
    assert codes(dialogue.send(wire)) == [250, 250, 250]
    assert len(dialogue.open) == 1
    assert codes(dialogue.commit()) == [250, 250, 250]
    assert len(dialogue.open) == 1
    assert codes(dialogue.commit()) == [250, 221]
    assert taken(dialogue) == [b"one 1\r\n", b"two\r\n"]


def test_rset_between_chunks_forgets_them() -> None:
    dialogue = ready()
    assert codes(dialogue.send(BEGIN + chunk(b"old\r\n") + b"RSET\r\n")) == [250, 250, 250, 250]
    assert dialogue.content_refusals == 1
    assert codes(dialogue.send(chunk(b"x\r\n", last=True))) == [503]
    dialogue.send(BEGIN + chunk(b"new\r\n", last=True))
    assert taken(dialogue) == [b"new\r\n"]


@pytest.mark.parametrize("verb", [b"EHLO c.test", b"HELO c.test"])
def test_a_new_greeting_between_chunks_forgets_them(verb: bytes) -> None:
    dialogue = ready()
    dialogue.send(BEGIN + chunk(b"old\r\n") + verb + b"\r\n" + BEGIN + chunk(b"new\r\n", last=True))
    assert taken(dialogue) == [b"new\r\n"]


@pytest.mark.parametrize("line", [b"DATA", b"MAIL FROM:<e@f.test>", b"RCPT TO:<e@f.test>", b"AUTH LOGIN", b"STARTTLS"])
def test_between_chunks_nothing_else_of_a_transaction_is_in_order(line: bytes) -> None:
    dialogue = ready(starttls=True, clear_login=True)
    assert codes(dialogue.send(BEGIN + chunk(b"one ") + line + b"\r\n" + chunk(b"two", last=True))) == [
        250,
        250,
        250,
        503,
        250,
    ]
    assert dialogue.messages == [("a@b.test", ["c@d.test"], b"one two\r\n")]


def test_small_talk_between_chunks_changes_nothing() -> None:
    dialogue = ready()
    dialogue.send(BEGIN + chunk(b"one ") + b"NOOP\r\nVRFY x\r\nHELP\r\nFOO\r\n" + chunk(b"two", last=True))
    assert taken(dialogue) == [b"one two\r\n"]


def test_a_connection_that_ends_between_or_within_chunks_leaves_nothing() -> None:
    for rest in (b"", b"BDAT 100 LAST\r\nhalf", b"QUIT\r\n", b"BDAT 5 LA"):
        dialogue = ready()
        dialogue.send(BEGIN + chunk(b"x\r\n") + rest)
        dialogue.machine.receive_eof()
        dialogue.turn()
        assert dialogue.machine.is_finished
        assert dialogue.messages == []


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        (b"", b"503 5.5.1 Send MAIL first\r\n"),
        (b"MAIL FROM:<a@b.test>\r\n", b"554 5.5.1 No valid recipients\r\n"),
        (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<no@d.test>\r\n", b"554 5.5.1 No valid recipients\r\n"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_octets_of_a_chunk_that_is_not_due_are_swallowed(before: bytes, refused: bytes, step: int) -> None:
    dialogue = ready()
    dialogue.refused_paths = {"no@d.test"}
    dialogue.send(before)
    state = dialogue.machine.state
    wire = chunk(EVIL) + chunk(EVIL, last=True) + b"NOOP\r\n"
    said = b"".join(dialogue.send(wire[at : at + step]) for at in range(0, len(wire), step))
    assert said == refused * 2 + b"250 2.0.0 Ok\r\n"
    assert dialogue.machine.state is state
    assert not dialogue.machine.is_in_content


def test_octets_of_a_chunk_before_ehlo_are_swallowed() -> None:
    dialogue = Dialogue()
    assert dialogue.send(chunk(b"EHLO evil\r\n", last=True)) == b"503 5.5.1 Send EHLO first\r\n"
    assert dialogue.machine.state is State.CONNECTED


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"LAST",
        b"x",
        b"-1",
        b"+1",
        b"1_0",
        b"0x10",
        b"1.0",
        b" 5",
        b"5 FIRST",
        b"5LAST",
        b"5 LAST x",
        b"5 LAST LAST",
        b"9" * 21,
        "\u0665 LAST".encode(),
        b"\t5",
        b"5\x00",
    ],
)
def test_after_a_malformed_announcement_nobody_knows_what_follows(argument: bytes) -> None:
    dialogue = ready()
    dialogue.send(BEGIN)
    said = dialogue.send(b"BDAT " + argument + b"\r\n" + EVIL)
    assert codes(said) in ([501], [500])
    assert dialogue.machine.is_finished
    assert dialogue.messages == []


@pytest.mark.parametrize(
    "line", [b"BDAT 5\n", b"BDAT\t5\r\n", b"BDATA 5\r\n", b"bdat5\r\n", b"BDAT " + b"5" * 5000 + b"\r\n"]
)
def test_what_is_not_quite_bdat_ends_the_connection_too(line: bytes) -> None:
    dialogue = ready()
    assert codes(dialogue.send(BEGIN + line + EVIL)) in ([250, 250, 501], [250, 250, 500])
    assert dialogue.machine.is_finished


@pytest.mark.parametrize("digits", [b"5", b"05", b"0" * 19 + b"5"])
def test_twenty_digits_are_read(digits: bytes) -> None:
    dialogue = ready()
    assert codes(dialogue.send(BEGIN + b"BDAT " + digits + b" LAST \r\nabc\r\n")) == [250, 250, 250]
    assert taken(dialogue) == [b"abc\r\n"]


def test_an_announcement_without_end_is_swallowed_without_end() -> None:
    dialogue = ready()
    dialogue.send(BEGIN + b"BDAT " + b"9" * 20 + b" LAST\r\n")
    for _ in range(50):
        assert dialogue.send(EVIL * 100) == b""
    assert dialogue.machine.is_in_content
    assert dialogue.messages == []


@pytest.mark.parametrize("sizes", [[1001], [1000, 1], [400, 400, 400], [1, 10**19]])
def test_the_size_of_all_chunks_counts(sizes: list[int]) -> None:
    dialogue = ready(limits=ServerLimits(max_size_bytes=1000))
    dialogue.send(BEGIN)
    said = b""
    for size in sizes[:-1]:
        said += dialogue.send(chunk(b"x" * size))
    said += dialogue.send(b"BDAT %d LAST\r\n" % sizes[-1])
    for _ in range(min(sizes[-1], 2000)):
        said += dialogue.send(b"x")
    if sizes[-1] > 2000:
        assert dialogue.machine.is_in_content
        assert dialogue.content_refusals > 0
    else:
        assert said.endswith(b"552 5.3.4 Message too large\r\n")
        dialogue.send(BEGIN)
        assert codes(dialogue.send(chunk(b"x" * 998 + b"\r\n", last=True))) == [250]
    assert all(content == b"x" * 998 + b"\r\n" for content in taken(dialogue))


def test_after_a_refused_chunk_the_others_are_swallowed_until_the_last_or_rset() -> None:
    dialogue = ready()
    dialogue.send(BEGIN)
    bad, good = chunk(b"bare\nlf\r\n"), chunk(EVIL)
    said = dialogue.send(chunk(b"fine\r\n") + bad + good + chunk(EVIL, last=True) + BEGIN)
    assert codes(said) == [250, 554, 554, 554, 250, 250]
    assert codes(dialogue.send(bad + b"RSET\r\n" + BEGIN + chunk(b"x", last=True))) == [554, 250, 250, 250, 250]
    assert taken(dialogue) == [b"x\r\n"]


def test_chunks_that_were_on_their_way_count_as_one_error() -> None:
    dialogue = ready()
    dialogue.refused_paths = {"c@d.test"}
    many = chunk(b"x" * 10) * 50 + chunk(b"x", last=True)
    assert codes(dialogue.send(BEGIN + many)) == [250, 550] + [554] * 51
    assert codes(dialogue.send(b"RSET\r\n")) == [250]
    dialogue.refused_paths = set()
    bare = BEGIN + chunk(b"\n") * 50 + chunk(b"x", last=True)
    assert codes(dialogue.send(bare)) == [250, 250] + [554] * 51
    for _ in range(20):
        said = dialogue.send(bare)
    assert said == b""  # twenty errors were enough
    assert dialogue.machine.is_finished


#: What a lax receiver of the relayed message could take for an end of data, cut in two in every way.
MIXES = sorted(
    {
        before + b"." + after
        for before, after in itertools.product(
            (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\n", b"\r\n\x00"), (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\x00\r\n")
        )
    }
)


@pytest.mark.parametrize("normalise", [False, True], ids=["refused", "normalised"])
@pytest.mark.parametrize("mix", MIXES)
def test_every_mix_of_cr_lf_and_dot_is_judged_alike_wherever_chunks_end(mix: bytes, normalise: bool) -> None:
    content = b"first" + mix + EVIL
    rest = content.replace(b"\r\n", b"")
    for cut in range(5, 5 + len(mix) + 1):
        dialogue = ready(normalise_bare_lf=normalise)
        said = dialogue.send(BEGIN + chunk(content[:cut]) + chunk(content[cut:], last=True))
        if b"\r" in rest or (b"\n" in rest and not normalise):
            assert codes(said)[-1] == 554
            assert dialogue.messages == []
        else:
            (message,) = taken(dialogue)
            assert b"\n" not in message.replace(b"\r\n", b"") and b"\r" not in message.replace(b"\r\n", b"")
            assert message.replace(b"\r\n", b"\n") == content.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    ("octets", "fault"), [(b"a\rb\r\n", b"Bare CR"), (b"a\nb\r\n", b"Bare LF"), (b"a\r", b"Bare CR")]
)
def test_the_refusal_names_the_fault(octets: bytes, fault: bytes) -> None:
    assert dialogue_says(octets).startswith(b"554 5.6.0 " + fault)


def dialogue_says(octets: bytes) -> bytes:
    dialogue = ready()
    dialogue.send(BEGIN)
    return dialogue.send(chunk(octets, last=True))


def test_draining_lets_chunks_end() -> None:
    dialogue = ready()
    dialogue.send(BEGIN + chunk(b"one "))
    dialogue.machine.drain()
    assert codes(dialogue.send(chunk(b"two", last=True))) == [250]
    dialogue.machine.drain()
    assert codes(dialogue.turn()) == [421]
    assert taken(dialogue) == [b"one two\r\n"]
