"""What is learnt of a large body while its chunks go into the store one after the other."""

from __future__ import annotations

import hashlib

from ..model.content import ContentId, StagedBody
from .body_hash import BodyHash
from .structure import MimeDepth, too_deep


class LargeBody:
    """`add` each chunk of a body, then `staged` once; holds none of them.

    `head` is the message's header section; parts nested deeper than `max_mime_depth` are refused, 0 lets all pass.
    """

    __slots__ = ("_body_hash", "_depth", "_max_mime_depth", "_sha256", "chunks", "size_bytes")

    def __init__(self, head: bytes, max_mime_depth: int = 0) -> None:
        self._max_mime_depth = max_mime_depth
        self._depth = MimeDepth(head, max_mime_depth) if max_mime_depth else None
        self._body_hash = BodyHash()
        self._sha256 = hashlib.sha256()
        self.chunks = 0
        self.size_bytes = 0

    def add(self, chunk: bytes) -> None:
        """The next chunk.

        Raises:
            Refused: a part in it is nested too deeply.
        """
        depth = self._depth
        if depth is not None:
            depth.feed(chunk)
            if depth.is_exceeded:
                raise too_deep(self._max_mime_depth)
            if depth.is_flat:
                self._depth = None
        self.chunks += 1
        self.size_bytes += len(chunk)
        self._sha256.update(chunk)
        self._body_hash.feed(chunk)

    def staged(self, content_id: ContentId) -> StagedBody:
        """The body as it lies in the store under `content_id`."""
        return StagedBody(content_id, self.chunks, self.size_bytes, self._sha256.digest(), self._body_hash.digest())
