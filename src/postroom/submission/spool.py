"""Content of one message while it arrives: head and small bodies in memory, large bodies in the store as chunks."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable

from ..errors import GatewayError, StorageFailed, TooLarge
from ..mime.head import split
from ..model.content import CHUNK_BYTES, INLINE_BYTES, Content, ContentId, StagedBody
from . import Staging

#: Chunks on their way into the store beyond which no more content is read.
MAX_PENDING = 2


class ContentSpool:
    """`add` each piece, then `finish` once. `on_room` is called when reading may go on after `is_full`.

    An error is kept until `finish` and what comes after it is dropped. What is staged and never named by a message is
    collected by the store.
    """

    def __init__(self, store: Staging, max_header_bytes: int, on_room: Callable[[], None]) -> None:
        self._store = store
        self._max_header_bytes = max_header_bytes
        self._on_room = on_room
        self._held = bytearray()  # what is in memory: all of it until the head is known, then of the body
        self._head: bytes | None = None
        self._content_id = ContentId(b"")
        self._chunks = 0
        self._body_bytes = 0
        self._digest = hashlib.sha256()
        self._pending = 0
        self._error: GatewayError | None = None
        self.size_bytes = 0
        self.eight_bit = False

    @property
    def is_full(self) -> bool:
        """Whether too much is on its way into the store to read on."""
        return self._pending > MAX_PENDING

    def add(self, piece: bytes) -> None:
        """The next octets of the content."""
        self.size_bytes += len(piece)
        if self._error is not None:
            return
        self.eight_bit = self.eight_bit or not piece.isascii()
        self._held += piece
        if self._head is None and len(self._held) > INLINE_BYTES:
            self._find_head()
        if self._head is not None:
            while len(self._held) >= CHUNK_BYTES and self._error is None:
                self._stage(CHUNK_BYTES)

    def finish(self) -> Content:
        """The whole content.

        Raises:
            TooLarge: the header section is over its limit.
            GatewayError: a chunk could not be kept.
        """
        if self._head is None and self._error is None:
            self._head, body = split(bytes(self._held))
            self._held = bytearray(body)
            self._check_head(len(self._head))
        while (self._chunks or len(self._held) > INLINE_BYTES) and self._held and self._error is None:
            self._stage(min(CHUNK_BYTES, len(self._held)))
        if self._error is not None or self._head is None:
            raise self._error or StorageFailed("the content is not whole")
        if not self._chunks:
            return Content(self._head, bytes(self._held))
        return Content(self._head, StagedBody(self._content_id, self._chunks, self._body_bytes, self._digest.digest()))

    def _find_head(self) -> None:
        """Take the head off, if all of it has arrived."""
        held = bytes(self._held)
        head, body = split(held)
        # Where `split` had to add the empty line, it may still come, unless the content has no header section at all.
        if len(head) + len(body) == len(held) or len(body) == len(held):
            self._head = head
            self._held = bytearray(body)
            self._check_head(len(head))
        else:
            self._check_head(len(held))

    def _check_head(self, size_bytes: int) -> None:
        if size_bytes > self._max_header_bytes:
            self._fail(TooLarge("the header section is too large"))

    def _stage(self, size_bytes: int) -> None:
        chunk = bytes(self._held[:size_bytes])
        del self._held[:size_bytes]
        self._content_id = self._content_id or ContentId(os.urandom(16))
        try:
            future = self._store.stage(self._content_id, self._chunks, chunk)
        except GatewayError as error:
            self._fail(error)
            return
        self._chunks += 1
        self._body_bytes += len(chunk)
        self._digest.update(chunk)
        self._pending += 1
        future.add_done_callback(self._staged)

    def _staged(self, future: asyncio.Future[None]) -> None:
        was_full = self.is_full
        self._pending -= 1
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            self._fail(error if isinstance(error, GatewayError) else StorageFailed("a chunk could not be kept"))
        if was_full and not self.is_full:
            self._on_room()

    def _fail(self, error: GatewayError) -> None:
        self._error = self._error or error
        self._held.clear()
