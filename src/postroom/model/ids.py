"""Message ids: UUIDv7 (RFC 9562 section 5.7), ordered by time so that indexes grow at one end."""

from __future__ import annotations

import uuid

from ..errors import Fault, NotFound
from .queue import MessageId


def new_message_id(milliseconds: int, random: bytes) -> MessageId:
    """An id for the moment `milliseconds` after 1970 (UTC) and ten random octets."""
    head = milliseconds.to_bytes(6, "big")
    tail = bytearray(random)
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return MessageId(head + bytes(tail))


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
