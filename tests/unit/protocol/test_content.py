"""The transfer coder: nothing but CRLF.CRLF ends the data, and what goes in comes out, however it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp import LocalProtocolError
from postroom.protocol.smtp.content import ChunkDecoder, ContentDecoder, ContentEncoder, encode, has_bare_line_end

#: Every mix of what matters around an end of data.
WIRE = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\n.\n"]), max_size=30
).map(b"".join)
LINES = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a.", b"hello", b"\x00\xff"]), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def read_slowly(wire: bytes) -> tuple[bytes, bool, bytes]:
    """What RFC 5321 says about `wire`, line by line: content, whether it ended, what is behind it."""
    content, n = b"", 0
    while n < len(wire):
        if wire[n : n + 3] == b".\r\n":
            return content, True, wire[n + 3 :]
        if wire[n : n + 1] == b".":
            n += 1
        end = wire.find(b"\r\n", n)
        if end < 0:
            return content + wire[n:], False, b""
        content += wire[n : end + 2]
        n = end + 2
    return content, False, b""


@given(WIRE, st.lists(st.integers(0, 200), max_size=6))
def test_decoding_is_the_same_however_it_is_cut(wire: bytes, places: list[int]) -> None:
    decoder = ContentDecoder()
    content, finished, rest = b"", False, b""
    for piece in cut(wire, places):
        if finished:
            rest += piece
        else:
            decoded, finished, rest = decoder.feed(piece)
            content += decoded
    expected, ended, behind = read_slowly(wire)
    assert finished == ended
    if ended:
        assert (content, rest) == (expected, behind)
        assert decoder.bare_cr == (b"\r" in content.replace(b"\r\n", b""))
        assert decoder.bare_lf == (b"\n" in content.replace(b"\r\n", b""))
    else:
        assert expected.startswith(content)
        assert len(expected) - len(content) <= 4


@given(WIRE, st.lists(st.integers(0, 200), max_size=6))
def test_normalised_content_has_no_bare_lf_and_no_other_change(wire: bytes, places: list[int]) -> None:
    wire += b"\r\n.\r\n"
    plain, plain_end, _ = ContentDecoder().feed(wire)
    decoder = ContentDecoder(normalise_bare_lf=True)
    content = b""
    for piece in cut(wire, places):
        decoded, finished, _ = decoder.feed(piece)
        content += decoded
        if finished:
            break
    assert plain_end
    assert content.replace(b"\r\n", b"\n") == plain.replace(b"\r\n", b"\n")
    assert content.count(b"\n") == content.count(b"\r\n")


@given(LINES, st.lists(st.integers(0, 200), max_size=6))
def test_what_is_encoded_comes_back(lines: list[bytes], places: list[int]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    wire = encode(content)
    encoder = ContentEncoder()
    assert b"".join([*map(encoder.feed, cut(content, places)), encoder.finish()]) == wire
    assert ContentDecoder().feed(wire + b"QUIT\r\n") == (content, True, b"QUIT\r\n")


@pytest.mark.parametrize("content", [b"", b"a", b".", b"a\r\n", b"\r\n", b"a\r\n.", b"..\r\n.\r\nb"])
def test_the_end_of_data_stands_on_a_line_of_its_own(content: bytes) -> None:
    wire = encode(content)
    assert (b"\r\n" + wire).endswith(b"\r\n.\r\n")
    assert (b"\r\n" + wire).count(b"\r\n.\r\n") == 1
    decoded, finished, rest = ContentDecoder().feed(wire)
    assert (finished, rest) == (True, b"")
    assert decoded == (content if content.endswith(b"\r\n") or not content else content + b"\r\n")


@pytest.mark.parametrize(
    "content", [b"a\rb", b"a\nb", b"\n.\r\n", b"\r.\r\n", b"a\r", b"a\n", b"a\r\r\n", b"\r\n\n", b"\n\r"]
)
def test_a_bare_cr_or_lf_is_never_sent(content: bytes) -> None:
    assert has_bare_line_end(content)
    with pytest.raises(LocalProtocolError):
        encode(content)
    for places in range(len(content)):
        encoder = ContentEncoder()
        with pytest.raises(LocalProtocolError):
            for piece in cut(content, [places]):
                encoder.feed(piece)
            encoder.finish()


@pytest.mark.parametrize(
    "smuggled", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r.\r", b"\n.\r", b"\r\n\x00.\r\n"]
)
def test_what_only_looks_like_the_end_of_data_is_content(smuggled: bytes) -> None:
    wire = b"a" + smuggled + b"MAIL FROM:<x@x.test>\r\nb"
    content, finished, rest = ContentDecoder().feed(wire + b"\r\n.\r\n")
    assert (finished, rest) == (True, b"")
    assert b"MAIL FROM" in content


def test_content_after_its_end_is_our_error() -> None:
    decoder = ContentDecoder()
    decoder.feed(b".\r\n")
    with pytest.raises(LocalProtocolError):
        decoder.feed(b"more")


def test_a_memoryview_serves_as_well() -> None:
    assert ContentDecoder().feed(memoryview(b"..a\r\n.\r\n")) == (b".a\r\n", True, b"")


@pytest.mark.parametrize(
    "pieces", [[b".", b"\r\nRSET\r\n.\r\n"], [b".\r", b"\nRSET\r\n.\r\n"], [b"", b".\r\n", b"RSET"]]
)
def test_the_first_line_may_end_the_data_even_in_pieces(pieces: list[bytes]) -> None:
    decoder = ContentDecoder()
    for piece in pieces:
        content, finished, rest = decoder.feed(piece)
        assert content == b""
        if finished:
            break
    assert finished
    assert rest in (b"", b"RSET\r\n.\r\n")


def unchunk(pieces: list[bytes], *, normalise: bool = False) -> tuple[bytes, bool, bool]:
    decoder = ChunkDecoder(normalise)
    content = b"".join(map(decoder.feed, pieces)) + decoder.finish()
    return content, decoder.bare_cr, decoder.bare_lf


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        ([], b""),
        ([b"", b""], b""),
        ([b"a\r\n"], b"a\r\n"),
        ([b"a\r", b"\n"], b"a\r\n"),
        ([b"a"], b"a\r\n"),
        ([b"a\r\n", b"b"], b"a\r\nb\r\n"),
        ([b".\r\n", b"..\r\n.\r\n"], b".\r\n..\r\n.\r\n"),
        ([b"a\r", b"\n", b""], b"a\r\n"),
        ([b"\r", b"", b"\n"], b"\r\n"),
    ],
)
def test_chunks_are_content_as_they_stand_and_end_a_line(pieces: list[bytes], content: bytes) -> None:
    assert unchunk(pieces) == (content, False, False)


@pytest.mark.parametrize("pieces", [[b"a\r"], [b"a\r", b"b"], [b"\r", b"\r\n"], [b"a\r\n\r"], [b"a\rb\r\n"]])
def test_a_bare_cr_is_seen_over_the_borders_of_chunks(pieces: list[bytes]) -> None:
    assert unchunk(pieces)[1]


@pytest.mark.parametrize("pieces", [[b"\n"], [b"a", b"\n"], [b"a\r\n", b"\n"], [b"a\nb\r\n"]])
def test_a_bare_lf_is_seen_over_the_borders_of_chunks_and_normalised_where_asked(pieces: list[bytes]) -> None:
    assert unchunk(pieces)[1:] == (False, True)
    content = unchunk(pieces, normalise=True)[0]
    assert not has_bare_line_end(content)
    assert content.replace(b"\r\n", b"\n") == b"".join(pieces).replace(b"\r\n", b"\n")


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n"]), max_size=12), st.booleans(), st.data())
def test_any_chunks_of_one_content_are_read_alike(parts: list[bytes], normalise: bool, draw: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert unchunk(pieces, normalise=normalise) == unchunk([whole], normalise=normalise)
    content, bare_cr, bare_lf = unchunk(pieces)
    assert (bare_cr or bare_lf) is has_bare_line_end(whole)
    if not bare_cr:
        assert content == whole + (b"" if not whole or whole.endswith(b"\r\n") else b"\r\n")
