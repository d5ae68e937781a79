"""Receiving a whole message over HTTP: small ones in memory, large ones staged in the store while they arrive."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Protocol

from ..errors import Fault, InvalidInput, TooLarge
from ..mime.head import split
from ..model.content import CHUNK_BYTES, INLINE_BYTES, Content, ContentId, StagedBody


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
    store: ChunkStore, chunks: AsyncIterator[bytes], *, max_size_bytes: int, max_header_bytes: int
) -> tuple[Content, bool]:
    """The content that `chunks` make, and whether it has octets over 127.

    Raises:
        TooLarge: over one of the limits.
        InvalidInput: it is empty or has a CR without LF.
    """
    receiver = _Receiver(store, max_size_bytes, max_header_bytes)
    async for chunk in chunks:
        await receiver.feed(chunk)
    return await receiver.finish(), receiver.eight_bit


class _Receiver:
    def __init__(self, store: ChunkStore, max_size_bytes: int, max_header_bytes: int) -> None:
        self._store = store
        self._max_size = max_size_bytes
        self._max_header = max_header_bytes
        self._lines = LineEnds()
        self._buffer = bytearray()
        self._head: bytes | None = None  # known once the content is found to be large
        self._size = 0
        self._staged = 0
        self._body_size = 0
        self._id = ContentId(os.urandom(16))
        self._sha256 = hashlib.sha256()
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
        while self._head is not None and len(self._buffer) >= CHUNK_BYTES:
            await self._stage(bytes(self._buffer[:CHUNK_BYTES]))
            del self._buffer[:CHUNK_BYTES]

    def _find_head(self) -> None:
        content = bytes(self._buffer)
        ends = b"\r\n\r\n" in content or content.startswith(b"\r\n")
        if not ends and len(content) <= self._max_header:
            return
        self._head, body = split(content)
        self._refuse_long_head(self._head)
        self._buffer = bytearray(body)

    async def _stage(self, chunk: bytes) -> None:
        if self._writing is not None:
            await self._writing  # one chunk is written while the next arrives, no more
        self._sha256.update(chunk)
        self._writing = self._store.stage(self._id, self._staged, chunk)
        self._staged += 1
        self._body_size += len(chunk)

    async def finish(self) -> Content:
        self._lines.finish()
        if not self._size:
            raise InvalidInput(Fault("content", "is empty", "send a whole message: header, empty line, text"))
        if self._head is None:
            head, body = split(bytes(self._buffer))
            self._refuse_long_head(head)
            return Content(head, body)
        if self._buffer:
            await self._stage(bytes(self._buffer))
        if self._writing is not None:
            await self._writing
        return Content(self._head, StagedBody(self._id, self._staged, self._body_size, self._sha256.digest()))

    def _refuse_long_head(self, head: bytes) -> None:
        if len(head) > self._max_header:
            raise TooLarge(f"the header section is larger than {self._max_header} octets")
