"""Message ids: UUIDv7 (RFC 9562 section 5.7), ordered by time so that indexes grow at one end."""

from __future__ import annotations

import uuid

from ..errors import Fault, NotFound
from .queue import MessageId


def new_message_id(milliseconds: int, random: bytes) -> MessageId:
    """An id for the moment `milliseconds` after 1970 (UTC) and ten random octets."""
    tail = bytearray(random)
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return MessageId(milliseconds.to_bytes(6, "big") + bytes(tail))


class MessageIds:
    """Makes ids that grow, within a millisecond too, and when the clock steps back (RFC 9562 section 6.2, method 1)."""

    def __init__(self) -> None:
        self._last = 0  # milliseconds and the 12 bits of the counter

    def make(self, milliseconds: int, random: bytes) -> MessageId:
        """An id for the moment `milliseconds` after 1970 (UTC) and eight random octets."""
        self._last = last = max(milliseconds << 12, self._last + 1)
        head = (last >> 12 << 16 | 0x7000 | last & 0xFFF).to_bytes(8, "big")
        return MessageId(head + bytes((0x80 | random[0] & 0x3F,)) + random[1:])


def message_id_text(message_id: MessageId) -> str:
    """The id as people and programs write it."""
    digits = message_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_message_id(text: str) -> MessageId:
    """The id that `text` writes.

    Raises:
        NotFound: it is not the id of any message.
    """
    try:
        return MessageId(uuid.UUID(text.strip()).bytes)
    except ValueError:
        raise NotFound(Fault("id", f"{text!r} is not a message id", "take it from `postroom queue list`")) from None
