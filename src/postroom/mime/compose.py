"""Building a message from its parts (RFC 5322, RFC 2045, RFC 2046, RFC 2387): text, HTML, images, attachments."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from . import header
from .address import Mailbox

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,200}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_LINE_END = re.compile(r"\r\n|\r|\n")
_LONGEST_LINE = 900
# What only survives when encoded: controls, octets over 127, CR or LF alone, a space that ends a line.
_NEEDS_CODING = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xff]|\r(?!\n)|(?<!\r)\n|[ \t](?=\r\n|\Z)")
_OWN_FIELDS = frozenset({"from", "to", "cc", "reply-to", "subject", "date", "message-id", "mime-version"})
_ENVELOPE_FIELDS = frozenset({"bcc", "resent-bcc", "return-path"})
_FREE_TEXT = frozenset({"comments", "keywords", "organization", "thread-topic", "x-mailer", "user-agent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineImage:
    """An image that the HTML shows with `cid:` and `content_id` (no angle brackets); `media_type` as image/png."""

    content_id: str
    media_type: str
    content: bytes
    file_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file beside the text; `media_type` as application/pdf."""

    file_name: str
    content: bytes
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedMessage:
    """What a message is made of. Recipients that nobody shall see (Bcc) stand in the envelope alone.

    Of `text` and `html` either may be None; line ends in them are of any kind. `headers` are further fields, name
    and value; a value is written as free text if its name is that of free text or if it is not ASCII.
    """

    sender: Mailbox
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    images: tuple[InlineImage, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the tree: its Content-Type line apart, since multipart/related names the type of its root."""

    media_type: str
    fields: bytes
    body: bytes


def compose(message: ComposedMessage, *, date: datetime, message_id: str, boundary_seed: bytes) -> bytes:
    """The message with CRLF line ends: no line over 998 octets, nothing but ASCII unless an address is UTF-8.

    `date` is aware; `message_id` has its angle brackets; boundaries are derived from `boundary_seed` (random).

    Raises:
        ValueError: a value that cannot be written, with the name of its field.
    """
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"Message-ID: {message_id!r} is not of the form <left@right>")
    if message.images and message.html is None:
        raise ValueError("images: there is no HTML to show them")
    fields = [header.addresses("From", [message.sender])]
    fields += [
        header.addresses(name, mailboxes)
        for name, mailboxes in (("Reply-To", message.reply_to), ("To", message.to), ("Cc", message.cc))
        if mailboxes
    ]
    if message.subject:
        fields.append(header.unstructured("Subject", message.subject))
    fields.append(header.token("Date", header.date_value(date)))
    fields.append(header.token("Message-ID", message_id))
    fields += [_further(name, value) for name, value in message.headers]
    root = _tree(message, _boundaries(boundary_seed))
    return b"".join((*fields, b"MIME-Version: 1.0\r\n", root.fields, b"\r\n", root.body))


def _further(name: str, value: str) -> bytes:
    lower = name.lower()
    if lower in _OWN_FIELDS or lower.startswith("content-"):
        raise ValueError(f"{name}: this field is made from the message's own values")
    if lower in _ENVELOPE_FIELDS:
        raise ValueError(f"{name}: this belongs to the envelope, not to the message")
    if lower in _FREE_TEXT or not value.isascii():
        return header.unstructured(name, value)
    return header.token(name, value)


def _tree(message: ComposedMessage, boundaries: Iterator[str]) -> _Part:
    """multipart/mixed around related around alternative, each only where it holds more than one part."""
    bodies = [_text("text/plain", message.text)] if message.text is not None else []
    if message.html is not None:
        bodies.append(_text("text/html", message.html))
    part = _multipart("alternative", bodies or [_text("text/plain", "")], boundaries)
    part = _multipart("related", [part, *map(_image, message.images)], boundaries)
    return _multipart("mixed", [part, *map(_attachment, message.attachments)], boundaries)


def _multipart(kind: str, parts: Sequence[_Part], boundaries: Iterator[str]) -> _Part:
    if len(parts) == 1:
        return parts[0]
    boundary = next(text for text in boundaries if not any(text.encode() in part.body for part in parts))
    parameters = {"boundary": boundary}
    if kind == "related":
        parameters["type"] = parts[0].media_type  # RFC 2387 section 3.1 requires it
    fields = header.parameterised("Content-Type", f"multipart/{kind}", parameters)
    delimiter = b"--" + boundary.encode()
    pieces: list[bytes] = []
    for part in parts:
        pieces += (delimiter, b"\r\n", part.fields, b"\r\n", part.body, b"\r\n")
    return _Part(f"multipart/{kind}", fields, b"".join((*pieces, delimiter, b"--\r\n")))


def _boundaries(seed: bytes) -> Iterator[str]:
    # "=_" occurs neither in quoted-printable nor in base64 (RFC 2045 section 6.7).
    number = 0
    while True:
        yield "=_" + hashlib.sha256(seed + number.to_bytes(4, "big")).hexdigest()[:32]
        number += 1


def _text(media_type: str, text: str) -> _Part:
    try:
        content = _LINE_END.sub("\r\n", text).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{media_type}: half of a surrogate pair, which is no character") from None
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    charset = "us-ascii" if content.isascii() else "utf-8"
    if not _NEEDS_CODING.search(content) and max(map(len, content.split(b"\n"))) < _LONGEST_LINE:
        coding, body = b"7bit", content
    elif (content.count(b"=") + len(content) - len(content.decode().encode("ascii", "ignore"))) * 6 <= len(content):
        coding, body = b"quoted-printable", binascii.b2a_qp(content, istext=True)
    else:
        coding, body = b"base64", _base64(content)
    fields = header.parameterised("Content-Type", media_type, {"charset": charset})
    return _Part(media_type, fields + b"Content-Transfer-Encoding: " + coding + b"\r\n", body)


def _image(image: InlineImage) -> _Part:
    if not _CONTENT_ID.fullmatch(image.content_id):
        raise ValueError(f"images: {image.content_id!r} is not a content id")
    part = _file("inline", image.media_type, image.file_name, image.content)
    return _Part(part.media_type, part.fields + header.token("Content-ID", f"<{image.content_id}>"), part.body)


def _attachment(attachment: Attachment) -> _Part:
    return _file("attachment", attachment.media_type, attachment.file_name, attachment.content)


def _file(disposition: str, media_type: str, file_name: str, content: bytes) -> _Part:
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise ValueError(f"{media_type!r} is not a media type")
    if media_type.lower().startswith(("multipart/", "message/")):
        # RFC 2046 sections 5.1 and 5.2.1 forbid to encode these; as they are, they could break the lines' limits.
        raise ValueError(f"{media_type}: attach it as application/octet-stream, which keeps every octet")
    fields = header.parameterised("Content-Type", media_type, {})
    parameters = {"filename": file_name} if file_name else {}
    fields += header.parameterised("Content-Disposition", disposition, parameters)
    return _Part(media_type, fields + b"Content-Transfer-Encoding: base64\r\n", _base64(content))


def _base64(content: bytes) -> bytes:
    encoded = base64.b64encode(content)
    lines = [encoded[at : at + 76] for at in range(0, len(encoded), 76)]
    return b"\r\n".join((*lines, b"")) if lines else b""
