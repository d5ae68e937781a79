"""Receiving a whole message over HTTP: small ones in memory, large ones staged in the store while they arrive."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Protocol

from ..crashing import reach
from ..errors import Fault, InvalidInput, TooLarge
from ..mime.head import split
from ..mime.large_body import LargeBody
from ..model.content import CHUNK_BYTES, INLINE_BYTES, Content, ContentId


class ChunkStore(Protocol):
    """The part of the store that keeps chunks."""

    def stage(self, content_id: ContentId, index: int, chunk: bytes) -> asyncio.Future[None]:
        """Keep a chunk that no message owns yet."""


class LineEnds:
    """Line ends made CRLF over chunks cut anywhere; files on Unix have LF alone."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The chunk with CRLF line ends; a CR at its end waits for the next.

        Raises:
            InvalidInput: a CR without LF.
        """
        chunk = self._held + chunk
        self._held = b"\r" if chunk.endswith(b"\r") else b""
        if self._held:
            chunk = chunk[:-1]
        pairs = chunk.count(b"\r\n")
        if chunk.count(b"\r") != pairs:
            raise _bare_cr()
        if chunk.count(b"\n") != pairs:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return chunk

    def finish(self) -> None:
        """The end has come.

        Raises:
            InvalidInput: the last octet is a CR.
        """
        if self._held:
            raise _bare_cr()


def _bare_cr() -> InvalidInput:
    return InvalidInput(Fault("content", "has a CR without LF", "end lines with CRLF, or with LF alone"))


async def receive_content(
    store: ChunkStore,
    chunks: AsyncIterator[bytes],
    *,
    max_size_bytes: int,
    max_header_bytes: int,
    max_mime_depth: int = 100,
) -> tuple[Content, bool]:
    """The content that `chunks` make, and whether it has octets over 127.

    Raises:
        TooLarge: over one of the limits.
        InvalidInput: it is empty or has a CR without LF.
        Refused: it is large and its parts are nested deeper than `max_mime_depth`.
    """
    receiver = _Receiver(store, max_size_bytes, max_header_bytes, max_mime_depth)
    async for chunk in chunks:
        await receiver.feed(chunk)
    return await receiver.finish(), receiver.eight_bit


class _Receiver:
    def __init__(self, store: ChunkStore, max_size_bytes: int, max_header_bytes: int, max_mime_depth: int) -> None:
        self._store = store
        self._max_size = max_size_bytes
        self._max_header = max_header_bytes
        self._max_mime_depth = max_mime_depth
        self._lines = LineEnds()
        self._buffer = bytearray()
        self._head: bytes | None = None  # known once the content is found to be large
        self._size = 0
        self._body: LargeBody | None = None
        self._id = ContentId(os.urandom(16))
        self._writing: asyncio.Future[None] | None = None
        self.eight_bit = False

    async def feed(self, chunk: bytes) -> None:
        chunk = self._lines.feed(chunk)
        self._size += len(chunk)
        if self._size > self._max_size:
            raise TooLarge(f"the message is larger than {self._max_size} octets")
        self.eight_bit = self.eight_bit or not chunk.isascii()
        self._buffer += chunk
        if self._head is None and len(self._buffer) > INLINE_BYTES:
            self._find_head()
        while self._body is not None and len(self._buffer) >= CHUNK_BYTES:
            await self._stage(self._body, CHUNK_BYTES)

    def _find_head(self) -> None:
        content = bytes(self._buffer)
        ends = b"\r\n\r\n" in content or content.startswith(b"\r\n")
        if not ends and len(content) <= self._max_header:
            return
        self._head, body = split(content)
        self._refuse_long_head(self._head)
        self._buffer = bytearray(body)
        self._body = LargeBody(self._head, self._max_mime_depth)

    async def _stage(self, body: LargeBody, size_bytes: int) -> None:
        if self._writing is not None:
            await self._writing  # one chunk is written while the next arrives, no more
        with memoryview(self._buffer) as buffer:
            chunk = bytes(buffer[:size_bytes])
        del self._buffer[:size_bytes]
        n = body.chunks
        body.add(chunk)
        self._writing = self._store.stage(self._id, n, chunk)

    async def finish(self) -> Content:
        self._lines.finish()
        if not self._size:
            raise InvalidInput(Fault("content", "is empty", "send a whole message: header, empty line, text"))
        if self._head is None or self._body is None:
            head, body = split(bytes(self._buffer))
            self._refuse_long_head(head)
            return Content(head, body)
        if not self._body.chunks:
            return Content(self._head, bytes(self._buffer))
        if self._buffer:
            await self._stage(self._body, len(self._buffer))
        if self._writing is not None:
            await self._writing
        reach("A3")
        return Content(self._head, self._body.staged(self._id))

    def _refuse_long_head(self, head: bytes) -> None:
        if len(head) > self._max_header:
            raise TooLarge(f"the header section is larger than {self._max_header} octets")
