"""What is encoded decodes to itself, the end of data is found at CRLF.CRLF alone, no bare CR or LF is written.

An input is how it is cut (one octet) and the octets.
"""

from __future__ import annotations

from postroom.protocol.smtp import LocalProtocolError
from postroom.protocol.smtp.content import ContentDecoder, ContentEncoder, encode, has_bare_line_end
from tests.fuzz.inputs import cut

TOKENS = (b"\r\n.\r\n", b"\r\n", b"\n.\n", b"\r", b"\n", b".", b"\r\n..", b"\r\n.\n", b"\r\n.\r", b"\x00")


def seeds() -> list[bytes]:
    """Ends of data, true and false."""
    return [
        b"\x01Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n",
        b"\x03.\r\n",
        b"\x02hello\n.\nMAIL FROM:<a@b.test>\r\n.\r\n",
        b"\x07a\r.\r\n..\r\n\r\n.\r\n.\r\n",
        b"\x05no end",
    ]


def one_input(data: bytes) -> None:
    """See the top."""
    if not data:
        return
    size, octets = data[0] % 32 + 1, data[1:]
    _decode(octets, size, normalise=False)
    _decode(octets, size, normalise=True)
    _encode(octets, size)


def _encode(content: bytes, size: int) -> None:
    is_bare = b"\r" in content.replace(b"\r\n", b"") or b"\n" in content.replace(b"\r\n", b"")
    assert has_bare_line_end(content) == is_bare
    try:
        wire = encode(content)
    except LocalProtocolError:
        assert is_bare
        wire = b""
    else:
        assert not is_bare
        whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
        assert ContentDecoder().feed(wire + b"RSET\r\n") == (whole, True, b"RSET\r\n")
        assert (b"\r\n" + wire).index(b"\r\n.\r\n") == len(wire) - 3
    encoder = ContentEncoder()
    try:
        pieces = [*map(encoder.feed, cut(content, size)), encoder.finish()]
    except LocalProtocolError:
        assert is_bare
    else:
        assert b"".join(pieces) == wire if content.endswith(b"\r\n") or not content else not is_bare


def _decode(octets: bytes, size: int, *, normalise: bool) -> None:
    decoder = ContentDecoder(normalise)
    content, rest, is_ended = b"", b"", False
    for piece in cut(octets, size):
        if is_ended:
            rest += piece
            continue
        decoded, is_ended, rest = decoder.feed(piece)
        content += decoded
    end = (b"\r\n" + octets).find(b"\r\n.\r\n")
    assert is_ended == (end >= 0)
    if not is_ended:
        return
    expected = read_slowly(octets[:end])
    assert rest == octets[end + 3 :]
    bare = expected.replace(b"\r\n", b"")
    assert (decoder.bare_cr, decoder.bare_lf) == (b"\r" in bare, b"\n" in bare)
    if normalise and not decoder.bare_cr:
        assert not has_bare_line_end(content)
        expected = expected.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if not (normalise and decoder.bare_cr):
        assert content == expected


def read_slowly(lines: bytes) -> bytes:
    """What the lines in front of an end of data stand for (RFC 5321 section 4.5.2): one dot less where there is one."""
    content = b""
    while lines:
        line, crlf, lines = lines.partition(b"\r\n")
        content += line.removeprefix(b".") + crlf
    return content
