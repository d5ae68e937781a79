"""Content of one message as a server takes it: by DATA (RFC 5321 section 4.1.1.4), or by BDAT (RFC 3030 section 2).

Both read what has arrived, know when they are whole, and keep the reply that refuses them, once there is one.
"""

from __future__ import annotations

import re

from . import server_replies as replies
from .content import ChunkDecoder, ContentDecoder
from .server_lines import CommandLines
from .server_states import State, Verb

#: Digits are ASCII, and so few that no number of octets is over 64 bits by much.
_ARGUMENT = re.compile(rb"([0-9]{1,20})(?: +([Ll][Aa][Ss][Tt]))? *")


class DataContent(ContentDecoder):
    """Content up to the end of data."""

    __slots__ = ("_max_size_bytes", "fault", "is_whole", "size_bytes")

    ending = Verb.END_OF_DATA
    back: State | None = None
    reply = b""

    def __init__(self, max_size_bytes: int, normalise_bare_lf: bool) -> None:
        super().__init__(normalise_bare_lf)
        self._max_size_bytes = max_size_bytes
        self.size_bytes = 0
        self.fault = b""
        self.is_whole = False

    def read(self, lines: CommandLines) -> bytes | None:
        """The content that has become certain, or None where nothing came."""
        data = lines.take_all()
        if not data:
            return None
        decoded, self.is_whole, rest = self.feed(data)
        if rest:
            lines.add(rest)
        self.size_bytes += len(decoded)
        if self.bare_lf or self.bare_cr:
            self.fault = _bare_fault(self)
        if self.size_bytes > self._max_size_bytes:
            self.fault = self.fault or replies.TOO_LARGE
        return decoded

    def is_error(self) -> bool:
        """Whether the refusal at its end counts as an error of the client."""
        return True


class ChunkContent:
    """The chunks of one message; or a chunk out of order, whose octets go nowhere: `back` is the state to return to."""

    def __init__(
        self, max_size_bytes: int, normalise_bare_lf: bool, fault: bytes = b"", back: State | None = None
    ) -> None:
        self._decoder = ChunkDecoder(normalise_bare_lf)
        self._max_size_bytes = max_size_bytes
        self._left = 0
        self._is_told = False
        self.back = back
        self.fault = fault
        self.size_bytes = 0
        self.reply = b""
        self.ending = Verb.END_OF_CHUNK
        self.is_whole = False

    def announce(self, argument: bytes) -> bool:
        """A chunk by the argument of BDAT; False where it is malformed, and no one knows what octets are its own."""
        found = _ARGUMENT.fullmatch(argument)
        if found is None:
            return False
        self._left = int(found[1])
        self.reply = replies.chunk_reply(self._left)
        self.ending = Verb.END_OF_LAST if found[2] else Verb.END_OF_CHUNK
        self.is_whole = False
        if self.size_bytes + self._left > self._max_size_bytes:
            self.fault = self.fault or replies.TOO_LARGE
        return True

    def read(self, lines: CommandLines) -> bytes | None:
        """See `DataContent.read`; `is_whole` is the end of each chunk."""
        data = lines.take(self._left)
        if not data and self._left:
            return None
        self._left -= len(data)
        self.is_whole = not self._left
        self.size_bytes += len(data)
        # A bare CR outdoes a bare LF, so that the reply does not depend on how the octets arrived.
        if self.fault and self.fault is not replies.BARE_LF:
            return b""
        decoder = self._decoder
        decoded = decoder.feed(data)
        if self.is_whole and self.ending is Verb.END_OF_LAST:
            decoded += decoder.finish()
        if decoder.bare_lf or decoder.bare_cr:
            self.fault = _bare_fault(decoder)
        return decoded

    def is_error(self) -> bool:
        """Once for each message: a client that pipelines learns of the refusal late."""
        if self.back is not None:
            return self.ending is Verb.END_OF_LAST
        is_first, self._is_told = not self._is_told, True
        return is_first


def _bare_fault(decoder: ContentDecoder | ChunkDecoder) -> bytes:
    if decoder.bare_cr:
        return replies.BARE_CR
    return b"" if decoder.normalises else replies.BARE_LF
