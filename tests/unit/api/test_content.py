"""Messages that come over HTTP: line ends, limits, and staging of large ones, however the chunks are cut."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.api.content import LineEnds, receive_content
from postroom.errors import InvalidInput, TooLarge
from postroom.model.content import CHUNK_BYTES, INLINE_BYTES, Content, ContentId, StagedBody

MIB = 1024**2


class Chunks:
    """Keeps what is staged."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}

    def stage(self, content_id: ContentId, index: int, chunk: bytes) -> asyncio.Future[None]:
        """Keep it."""
        assert len(content_id) == 16
        self.kept[index] = chunk
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


async def _each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _receive(raw: bytes, cut: int, chunks: Chunks, size: int = 40 * MIB) -> tuple[Content, bool]:
    parts = [raw[at : at + cut] for at in range(0, len(raw), cut)]
    return await receive_content(chunks, _each(parts), max_size_bytes=size, max_header_bytes=MIB)


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"", b"\x00"])), st.integers(min_value=1, max_value=9))
def test_line_ends_do_not_depend_on_the_cuts(parts: list[bytes], cut: int) -> None:
    raw = b"".join(parts)
    lines = LineEnds()
    got = b"".join(lines.feed(raw[at : at + cut]) for at in range(0, len(raw), cut))
    lines.finish()
    assert got == raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("cut", [1, 2, 3, 100])
@pytest.mark.parametrize("raw", [b"Subject: x\r\n\r\na\rb", b"Subject: x\n\na\r", b"\r\r\n"])
async def test_a_bare_cr_is_refused(raw: bytes, cut: int) -> None:
    with pytest.raises(InvalidInput, match="CR without LF"):
        await _receive(raw, cut, Chunks())


async def test_a_small_message_stays_in_memory() -> None:
    chunks = Chunks()
    content, eight_bit = await _receive("Subject: x\n\nh\u00e9\n".encode(), 3, chunks)
    assert (content.head, content.body) == (b"Subject: x\r\n\r\n", "h\u00e9\r\n".encode())
    assert eight_bit
    assert chunks.kept == {}


@pytest.mark.parametrize("cut", [1000, 65536, 3 * MIB])
async def test_a_large_body_is_staged(cut: int) -> None:
    body = b"0123456789abcdef\r\n" * (3 * INLINE_BYTES // 18)
    chunks = Chunks()
    content, eight_bit = await _receive(b"Subject: x\r\n\r\n" + body, cut, chunks)
    assert isinstance(content.body, StagedBody)
    assert content.head == b"Subject: x\r\n\r\n"
    assert b"".join(chunks.kept[index] for index in range(content.body.chunks)) == body
    assert content.body.chunks == len(chunks.kept)
    assert content.body.size_bytes == len(body)
    assert content.body.sha256 == hashlib.sha256(body).digest()
    assert max(map(len, chunks.kept.values())) == CHUNK_BYTES
    assert not eight_bit


async def test_limits() -> None:
    with pytest.raises(TooLarge, match="larger than 1048576"):
        await _receive(b"Subject: x\r\n\r\n" + b"a\r\n" * MIB, 65536, Chunks(), size=MIB)
    with pytest.raises(TooLarge, match="header"):
        await _receive(b"X: " + b"a" * (2 * MIB), 65536, Chunks())
    with pytest.raises(InvalidInput, match="empty"):
        await _receive(b"", 1, Chunks())
