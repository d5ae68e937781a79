"""The DKIM hash of a body while it streams by: relaxed canonicalisation and SHA-256 (RFC 6376 sections 3.4.4, 3.7)."""

from __future__ import annotations

import hashlib
import re

_RUN = re.compile(rb"  ++")
#: Empty lines that turn out not to be the last ones are hashed in blocks of so many.
_BLOCK = 32 * 1024
_EMPTY_LINES = b"\r\n" * _BLOCK


class BodyHash:
    """`feed` the pieces of a body, cut anywhere, then take `digest` once. Linear; holds two octets at most.

    Line ends are CRLF; a last line without one is hashed with it, as it goes over the wire (RFC 5321 section 4.1.1.4).
    """

    __slots__ = ("_digest", "_empty_lines", "_held", "_is_empty")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._held = b""  # a space, a CR, or both: whether they count depends on what follows
        self._empty_lines = 0  # line ends not yet hashed: they count once something follows
        self._is_empty = True

    def feed(self, piece: bytes) -> None:
        """The next octets of the body."""
        data = self._held + piece if self._held else piece
        if b"\t" in data:
            data = data.replace(b"\t", b" ")
        if b"  " in data:
            data = _RUN.sub(b" ", data)
        if b" \r\n" in data:
            data = data.replace(b" \r\n", b"\r\n")
        kept = len(data) - data.endswith(b"\r")
        kept -= data.endswith(b" ", 0, kept)
        self._held = data[kept:]
        if self._held:
            data = data[:kept]
        text = data.rstrip(b"\r\n")
        if text:
            self._add_empty_lines()
            self._digest.update(text)
            self._is_empty = False
        self._empty_lines += (len(data) - len(text)) // 2

    def digest(self) -> bytes:
        """The 32 octets; the hash of nothing for a body that is empty or has empty lines alone."""
        if not self._is_empty:
            self._digest.update(b"\r\n")
        return self._digest.digest()

    def _add_empty_lines(self) -> None:
        blocks, rest = divmod(self._empty_lines, _BLOCK)
        for _ in range(blocks):
            self._digest.update(_EMPTY_LINES)
        if rest:
            self._digest.update(_EMPTY_LINES[: 2 * rest])
        self._empty_lines = 0
