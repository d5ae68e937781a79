"""The content of a message, head and body apart (DESIGN section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from .record import record

#: Names chunks staged in the store before the message that will own them (16 octets).
ContentId = NewType("ContentId", bytes)

#: Content up to this size goes with its message; more is staged as chunks while it arrives.
INLINE_BYTES = 256 * 1024

#: The size of one staged chunk; the last may be shorter.
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class StagedBody:
    """A body that lies in the store as chunk rows 0 .. `chunks`-1; the message's transaction checks it.

    `body_hash` is what a DKIM signature says of it: SHA-256 of its relaxed form (RFC 6376 section 3.4.4); empty where
    the body lies in one piece and can be hashed when it is needed.
    """

    content_id: ContentId
    chunks: int
    size_bytes: int
    sha256: bytes
    body_hash: bytes = b""


@record
class Content:
    """`head` is the header section with the empty line that ends it; line ends are CRLF throughout.

    `body` is everything after it, in memory or staged.
    """

    head: bytes
    body: bytes | StagedBody

    @property
    def size_bytes(self) -> int:
        """Octets of head and body together."""
        return len(self.head) + (len(self.body) if isinstance(self.body, bytes) else self.body.size_bytes)
