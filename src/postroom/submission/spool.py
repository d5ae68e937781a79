"""Content of one message while it arrives: head and small bodies in memory, large bodies in the store as chunks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ..crashing import reach
from ..errors import GatewayError, StorageFailed, TooLarge
from ..mime.head import split
from ..mime.large_body import LargeBody
from ..model.content import CHUNK_BYTES, INLINE_BYTES, Content, ContentId
from . import Staging

#: Chunks on their way into the store beyond which no more content is read.
MAX_PENDING = 2


class ContentSpool:
    """`add` each piece, then `finish` once. `on_room` is called when reading may go on after `is_full`.

    An error is kept until `finish` and what comes after it is dropped. What is staged and never named by a message is
    collected by the store.
    """

    def __init__(
        self, store: Staging, max_header_bytes: int, on_room: Callable[[], None], max_mime_depth: int = 100
    ) -> None:
        self._store = store
        self._max_header_bytes = max_header_bytes
        self._max_mime_depth = max_mime_depth
        self._on_room = on_room
        self._held = bytearray()  # what is in memory: all of it until the head is known, then of the body
        self._head: bytes | None = None
        self._content_id = ContentId(b"")
        self._body: LargeBody | None = None  # once a chunk of it was staged
        self._pending = 0
        self._is_whole = False
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
            Refused: its parts are nested too deeply.
            GatewayError: a chunk could not be kept.
        """
        self._is_whole = True
        if self._head is None and self._error is None:
            self._head, body = split(bytes(self._held))
            self._held = bytearray(body)
            self._check_head(len(self._head))
        while (self._body or len(self._held) > INLINE_BYTES) and self._held and self._error is None:
            self._stage(min(CHUNK_BYTES, len(self._held)))
        if self._error is not None or self._head is None:
            raise self._error or StorageFailed("the content is not whole")
        if self._body is None:
            return Content(self._head, bytes(self._held))
        return Content(self._head, self._body.staged(self._content_id))

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
        with memoryview(self._held) as held:
            chunk = bytes(held[:size_bytes])
        del self._held[:size_bytes]
        if self._body is None:
            assert self._head is not None
            self._body = LargeBody(self._head, self._max_mime_depth)
            self._content_id = ContentId(os.urandom(16))
        n = self._body.chunks
        try:
            self._body.add(chunk)
            future = self._store.stage(self._content_id, n, chunk)
        except GatewayError as error:
            self._fail(error)
            return
        self._pending += 1
        future.add_done_callback(self._staged)

    def _staged(self, future: asyncio.Future[None]) -> None:
        was_full = self.is_full
        self._pending -= 1
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            self._fail(error if isinstance(error, GatewayError) else StorageFailed("a chunk could not be kept"))
        elif not self._is_whole:  # else its message may be committed with it
            reach("A3")
        if was_full and not self.is_full:
            self._on_room()

    def _fail(self, error: GatewayError) -> None:
        self._error = self._error or error
        self._held.clear()
