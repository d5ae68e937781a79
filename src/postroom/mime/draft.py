"""A message taken apart into what a mailbox keeps of it: text, files, and a few fields, as Microsoft Graph has them
(https://learn.microsoft.com/graph/api/resources/message). What cannot be kept so is refused, never left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .address import find_mailboxes
from .head import HeadFields, scan
from .parts import Decoder, Part, PartReader, Piece, decoder
from .words import is_charset, read_text

#: The request that makes a draft is of 4 MB at most (https://learn.microsoft.com/graph/api/user-post-messages).
LONGEST_DRAFT_BYTES = 3_500_000

#: "Maximum number of headers in one message should be less than or equal to 5", and each begins with x-, says Graph
#: (InvalidInternetMessageHeaderCollection, InvalidInternetMessageHeader).
MOST_OWN_FIELDS = 5

#: Fields that MAPI has a property for, by its tag: PidTagInReplyToId, PidTagInternetReferences, PidTagList... and
#: PidTagSensitivity of [MS-OXPROPS].
_PROPERTIES = {
    b"in-reply-to": "String 0x1042",
    b"references": "String 0x1039",
    b"list-help": "String 0x1043",
    b"list-subscribe": "String 0x1044",
    b"list-unsubscribe": "String 0x1045",
}
_SENSITIVITIES = {"normal": "0", "personal": "1", "private": "2", "company-confidential": "3"}
_IMPORTANCE = {
    b"importance": {"high": "high", "normal": "normal", "low": "low"},
    b"priority": {"urgent": "high", "normal": "normal", "non-urgent": "low"},
    b"x-priority": {"1": "high", "2": "high", "3": "normal", "4": "low", "5": "low"},
    b"x-msmail-priority": {"high": "high", "normal": "normal", "low": "low"},
}

#: What the mailbox writes itself (sender, date, structure), traces of the way here, and which program made it.
_NOT_CONTENT = frozenset(
    b"sender date mime-version received return-path delivered-to dkim-signature domainkey-signature received-spf "
    b"authentication-results user-agent x-mailer x-mimeole thread-index thread-topic content-language accept-language "
    b"x-received x-originating-ip "
    # Exchange takes this one out of all mail (https://learn.microsoft.com/answers/questions/325868).
    b"auto-submitted".split()
)
_NOT_CONTENT_BEGINNINGS = (b"content-", b"arc-")

_SIGNED = "it is signed or encrypted"
_REFUSED_TYPES = {
    "application/pkcs7-mime": _SIGNED,
    "application/x-pkcs7-mime": _SIGNED,
    "application/pgp-encrypted": _SIGNED,
    "message/partial": "it is a part of a message",
    "message/external-body": "a part of it lies elsewhere",
}
_REFUSED_CONTAINERS = {"signed": _SIGNED, "encrypted": _SIGNED, "report": "it is a report on another message"}
_TEXTS = ("text/plain", "text/html")
_EXTENSIONS = {"text/plain": ".txt", "text/html": ".html", "message/rfc822": ".eml", "image/jpeg": ".jpg"}
_PGP = re.compile(r"(?m)^-----BEGIN PGP (SIGNED )?MESSAGE-----")
_CHARSETS = {"": "us-ascii", "iso-8859-8-i": "iso-8859-8", "x-unknown": "us-ascii"}


class NotKept(ValueError):
    """What of the message a draft can't keep, as the end of a sentence: "it is signed"."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the message; `leaf` is the number of its part."""

    leaf: int
    name: str
    content_type: str
    size_bytes: int
    content_id: str = ""
    is_inline: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """`message` is the JSON of the draft, without its files."""

    message: bytes
    files: tuple[File, ...]


class DraftReader:
    """Looks at a message for what its draft would be: `feed` its body, then `end`.

    Holds the text, and nothing of the files.
    """

    def __init__(self, head: bytes) -> None:
        self._fields = fields_of(head)
        self._leaves = Leaves(head)
        self._files: list[File] = []
        self._texts: dict[str, str] = {}
        self._alternative = 0  # the number of the container that the text is in
        self._size = 0
        self._text: bytearray | None = None

    def feed(self, piece: bytes) -> None:
        """The next octets of the body.

        Raises:
            NotKept: a draft can't keep it.
        """
        self._take(self._leaves.feed(piece))

    def end(self) -> Draft:
        """The draft. Raises as `feed` does."""
        self._take(self._leaves.end())
        kind = "html" if "text/html" in self._texts else "text"
        body = {"contentType": kind, "content": self._texts.get(f"text/{'plain' if kind == 'text' else kind}", "")}
        message = json.dumps({**self._fields, "body": body}, ensure_ascii=False).encode()
        if len(message) > LONGEST_DRAFT_BYTES:
            raise NotKept(f"its text has more than {LONGEST_DRAFT_BYTES} octets")
        return Draft(message, tuple(self._files))

    def _take(self, leaves: Iterator[tuple[int, Piece]]) -> None:
        for _, piece in _refusing(leaves):
            if isinstance(piece, Part):
                _refuse(piece)
                self._size = 0
                self._text = bytearray() if self._is_text(piece) else None
            elif piece is None:
                part = self._leaves.part
                if self._text is not None:
                    self._texts[part.content_type] = _text_of(part, bytes(self._text))
                else:
                    self._files.append(_file(self._leaves.number, part, self._size))
            else:
                self._size += len(piece)
                if self._text is not None:
                    self._text += piece
                    if len(self._text) > LONGEST_DRAFT_BYTES:
                        raise NotKept(f"its text has more than {LONGEST_DRAFT_BYTES} octets")

    def _is_text(self, part: Part) -> bool:
        """Whether `part` is what people read: the first text, or each form of it."""
        inside = [container for container in part.containers if container.subtype == "alternative"]
        is_form = bool(inside) and part.containers[-1] is inside[-1]
        is_text = part.content_type in _TEXTS and part.disposition != "attachment" and not part.filename
        if is_form and not is_text:
            raise NotKept(f"it has a form of its text that is {part.content_type}")
        if not is_text:
            return False
        number = inside[0].number if inside else 0
        if not self._texts:
            self._alternative = number
            return True
        if not number or number != self._alternative:
            return False  # a text behind the first one is shown as a file
        if part.content_type in self._texts:
            raise NotKept(f"it has two forms of its text that are {part.content_type}")
        return True


class Leaves:
    """The leaves of a message with their numbers, their content decoded."""

    def __init__(self, head: bytes) -> None:
        self._reader = PartReader(head)
        self._decoder = Decoder()
        self.part: Part
        self.number = -1

    def feed(self, piece: bytes) -> Iterator[tuple[int, Piece]]:
        """What the next octets of the body bring; ValueError as in `PartReader`."""
        return self._decoded(self._reader.feed(piece))

    def end(self) -> Iterator[tuple[int, Piece]]:
        """The body is over."""
        return self._decoded(self._reader.end())

    def _decoded(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Piece]]:
        for piece in pieces:
            if isinstance(piece, Part):
                self.part = piece
                self.number += 1
                self._decoder = decoder(piece.encoding)
                yield self.number, piece
            elif piece is None:
                if rest := self._decoder.end():
                    yield self.number, rest
                yield self.number, None
            elif octets := self._decoder.feed(piece):
                yield self.number, octets


def _refusing(leaves: Iterator[tuple[int, Piece]]) -> Iterator[tuple[int, Piece]]:
    try:
        yield from leaves
    except NotKept:
        raise
    except ValueError as error:
        raise NotKept(str(error)) from None


def _refuse(part: Part) -> None:
    kind = part.content_type
    for container in part.containers:
        if container.subtype in _REFUSED_CONTAINERS:
            raise NotKept(_REFUSED_CONTAINERS[container.subtype])
    if kind in _REFUSED_TYPES:
        raise NotKept(_REFUSED_TYPES[kind])
    if kind == "text/calendar" and (part.parameter("method") or part.disposition != "attachment"):
        raise NotKept("it is an invitation or an answer to one (text/calendar)")
    if kind.startswith("message/") and kind != "message/rfc822":
        raise NotKept(f"a part of it is {kind}")


def _file(number: int, part: Part, size: int) -> File:
    name = part.filename or ("message" if part.content_type == "message/rfc822" else f"part-{number + 1}")
    if not part.filename:
        name += _EXTENSIONS.get(part.content_type, "." + part.content_type.rpartition("/")[2].rpartition("+")[2])
    is_related = any(container.subtype == "related" for container in part.containers)
    is_inline = bool(part.content_id) and (is_related or part.disposition == "inline")
    return File(number, name, part.content_type, size, part.content_id, is_inline)


def _text_of(part: Part, octets: bytes) -> str:
    named = part.parameter("charset").strip().lower()
    charset = _CHARSETS.get(named, named)
    if not is_charset(charset):
        raise NotKept(f"its text is in the charset {named}, which is not known here")
    for tried in (charset, "utf-8") if charset in ("us-ascii", "ascii") else (charset,):
        try:
            text = octets.decode(tried)
        except (LookupError, UnicodeError):
            continue
        if _PGP.search(text):
            raise NotKept(_SIGNED)
        return text
    raise NotKept(f"its text is not in the charset that it names ({named or 'none'})")


def fields_of(head: bytes) -> dict[str, Any]:
    """The fields of the header as a draft has them.

    Raises:
        NotKept: there are some that it can't keep.
    """
    fields = scan(head)
    message: dict[str, Any] = {}
    own: list[dict[str, str]] = []
    properties: list[dict[str, str]] = []
    lost: list[str] = []
    for name, start, end in fields.fields:
        label, _, value = head[start:end].partition(b":")
        if name in _NOT_CONTENT or name.startswith(_NOT_CONTENT_BEGINNINGS):
            continue
        if found := _of_field(name, value, fields):
            for key, one in found.items():
                message[key] = message[key] + one if isinstance(message.get(key), list) else one
        elif name in _PROPERTIES:
            properties.append({"id": _PROPERTIES[name], "value": read_text(value)})
        elif name == b"sensitivity" and (level := _SENSITIVITIES.get(read_text(value).lower())):
            properties.append({"id": "Integer 0x36", "value": level})
        elif name.startswith(b"x-") and read_text(value):
            own.append({"name": label.strip().decode("ascii"), "value": read_text(value)})
        elif value.strip():
            lost.append(label.strip().decode("ascii"))
    if lost:
        raise NotKept(f"it has fields that Graph has no place for: {', '.join(dict.fromkeys(lost))}")
    if len(own) > MOST_OWN_FIELDS:
        names = ", ".join(one["name"] for one in own)
        raise NotKept(f"it has more than {MOST_OWN_FIELDS} fields of its own: {names}")
    if own:
        message["internetMessageHeaders"] = own
    if properties:
        message["singleValueExtendedProperties"] = properties
    return message


def _of_field(name: bytes, value: bytes, fields: HeadFields) -> dict[str, Any]:
    """What `value` is in a draft; empty where it has no place of its own."""
    if name in _MAILBOXES:
        key, made = _MAILBOXES[name]
        try:
            mailboxes = _mailboxes(value)
        except ValueError as error:
            raise NotKept(f"its field {name.decode('ascii').title()} can't be read: {error}") from None
        return {key: made(mailboxes)}
    if name == b"subject":
        return {"subject": read_text(value)}
    if name == b"message-id":
        return {"internetMessageId": value.strip().decode("ascii", "replace")}
    if name in _IMPORTANCE:
        words = read_text(value).lower().split()
        level = _IMPORTANCE[name].get(words[0] if words else "")
        return {"importance": level} if level else {}
    if name == b"disposition-notification-to" and _same_addresses(value, fields.first(b"from") or b""):
        return {"isReadReceiptRequested": True}
    return {}


def _from(mailboxes: list[dict[str, Any]]) -> dict[str, Any]:
    if len(mailboxes) != 1:
        raise NotKept("it has not one author but several, or none")
    return mailboxes[0]


_Made = Callable[[list[dict[str, Any]]], Any]
_MAILBOXES: dict[bytes, tuple[str, _Made]] = {
    b"from": ("from", _from),
    b"to": ("toRecipients", list),
    b"cc": ("ccRecipients", list),
    b"bcc": ("bccRecipients", list),
    b"reply-to": ("replyTo", list),
}


def _mailboxes(value: bytes) -> list[dict[str, Any]]:
    made = []
    for found in find_mailboxes(value):
        name = read_text(value[found.start : found.address_start].rpartition(b"<")[0]).strip()
        if name[:1] == '"' == name[-1:] and len(name) > 1:
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
        address = {"address": found.address}
        made.append({"emailAddress": address | ({"name": name} if name else {})})
    return made


def _same_addresses(value: bytes, other: bytes) -> bool:
    try:
        one, two = find_mailboxes(value), find_mailboxes(other)
    except ValueError:
        return False
    return [found.address.lower() for found in one] == [found.address.lower() for found in two]
