"""Writing header fields (RFC 5322 section 2.2, RFC 2047, RFC 2231): whole fields as bytes, folded, with their CRLF.

A value with a control character is refused before anything is built from it, so no value can end its field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from .address import Mailbox, is_address
from .words import encoded_words

_LINE = 76  # RFC 2047 section 2, for lines with an encoded word; RFC 5322 section 2.1.1 would let others have 78
_LINE_LIMIT = 998  # RFC 5322 section 2.1.1
_LONG_WORD = 200  # words and runs of spaces from here on are encoded, which lets them be divided

_NAME = re.compile(r"[!-9;-~]{1,70}")
# Controls, and what other readers take for the end of a line; lone surrogates cannot be written at all.
_REFUSED = re.compile("[\x00-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff]")
_PIECE = re.compile(r"( *)([^ ]+)")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")
_ATTRIBUTE_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# A word and the white space in front of it, at which the line may be folded.
_Piece = tuple[str, str]


def unstructured(name: str, value: str) -> bytes:
    """A field of free text, as Subject: any characters; encoded words (at most 75 octets) where it must.

    Raises:
        ValueError: `name` is no field name, or `value` has a control character.
    """
    _check(name, value)
    return _fold(name, [_free_text(value, _LINE - len(name) - 2)])


def addresses(name: str, mailboxes: Sequence[Mailbox]) -> bytes:
    """A field of mailboxes, as To: each kept on one line where it fits; an address is never folded.

    A non-ASCII address stands in UTF-8 (RFC 6532): its message needs SMTPUTF8.

    Raises:
        ValueError: no mailbox at all, an address that is none, or a control character.
    """
    _check(name, "")
    if not mailboxes:
        raise ValueError(f"{name}: no mailbox")
    units: list[list[_Piece]] = []
    for mailbox in mailboxes:
        _check(name, mailbox.name)
        if not is_address(mailbox.address):
            raise ValueError(f"{name}: {mailbox.address!r} is not an address")
        units.append(_mailbox(mailbox, _LINE - (len(name) + 2 if not units else 1)))
    for unit in units[:-1]:
        unit[-1] = (unit[-1][0], unit[-1][1] + ",")
    return _fold(name, units)


def token(name: str, value: str) -> bytes:
    """A field whose words a program reads, as Message-ID, References, List-Unsubscribe: folded only at white space.

    Raises:
        ValueError: a character that is not printable ASCII, or a word longer than a line may be.
    """
    _check(name, value)
    if not value.isascii():
        raise ValueError(f"{name}: only ASCII may stand here")
    return _fold(name, [_pieces(value.strip(" "))])


def parameterised(name: str, value: str, parameters: Mapping[str, str]) -> bytes:
    """A MIME field with parameters, as Content-Type: bare, quoted, or by RFC 2231 what is not ASCII or long.

    Raises:
        ValueError: a control character, or a parameter whose name is no token.
    """
    _check(name, value)
    pieces = _pieces(value)
    for attribute, content in parameters.items():
        _check(f"{name} {attribute}", content, name_too=False)
        if not _TOKEN.fullmatch(attribute) or "*" in attribute or "'" in attribute or "%" in attribute:
            raise ValueError(f"{name}: {attribute!r} is no name of a parameter")
        pieces[-1] = (pieces[-1][0], pieces[-1][1] + ";")
        pieces += [(" ", part) for part in _parameter(attribute, content)]
    return _fold(name, [pieces])


def date_value(moment: datetime) -> str:
    """`moment` (aware) as RFC 5322 section 3.3 writes it.

    Raises:
        ValueError: it has no time zone.
    """
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError("a date without a time zone")
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    hours, minutes = divmod(abs(minutes), 60)
    day = f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04}"
    return f"{day} {moment.hour:02}:{moment.minute:02}:{moment.second:02} {sign}{hours:02}{minutes:02}"


def _check(name: str, value: str, *, name_too: bool = True) -> None:
    if name_too and not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header field")
    if found := _REFUSED.search(value):
        raise ValueError(f"{name}: the control character {found[0]!r} may not stand in a header field")


def _fold(name: str, units: Sequence[Sequence[_Piece]]) -> bytes:
    """The field: a unit goes on a new line if that lets it stand whole, else it is folded between its pieces."""
    lines: list[str] = []
    line = name + ":"
    empty = True  # nothing but the name, or white space, on the line: a fold here could leave an empty line
    for unit in units:
        width = sum(len(space) + len(word) for space, word in unit)
        if not empty and len(line) + width > _LINE and width <= _LINE:
            lines.append(line)
            line, empty = "", True
        for space, word in unit:
            if len(line) + len(space or " ") + len(word) > _LINE and (
                not empty or len(line) + len(word) >= _LINE_LIMIT
            ):
                lines.append(line)
                line = ""
            line += (space or " ") + word
            empty = False
    lines.append(line)
    if any(len(line.encode()) > _LINE_LIMIT for line in lines):
        raise ValueError(f"{name}: a word longer than {_LINE_LIMIT} octets cannot be folded")
    return "\r\n".join(lines).encode() + b"\r\n"


def _free_text(value: str, room: int) -> list[_Piece]:
    """The pieces of `value`; from the first to the last word that needs it, all is encoded together."""
    pieces = _pieces(value)
    needy = [at for at, (_, word) in enumerate(pieces) if _needs_encoding(word)]
    for at, (space, _) in enumerate(pieces):
        if len(space) > _LONG_WORD:
            needy += (max(at - 1, 0), at)
    if value != value.strip(" "):
        if not pieces:
            return [(" ", word) for word in encoded_words(value, room)]
        needy = [0, len(pieces) - 1]
    if not needy:
        return pieces
    first, last = min(needy), max(needy)
    plain = "".join(space + word for space, word in pieces[:first])
    end = len(value) - sum(len(space) + len(word) for space, word in pieces[last + 1 :])
    space = pieces[first][0] if first else ""
    encoded = encoded_words(value[len(plain) + len(space) : end], room if not first else _LINE - 1)
    return [*pieces[:first], *((" " if at else space, word) for at, word in enumerate(encoded)), *pieces[last + 1 :]]


def _pieces(value: str) -> list[_Piece]:
    return _PIECE.findall(value.rstrip(" "))


def _needs_encoding(word: str) -> bool:
    return not word.isascii() or "=?" in word or len(word) > _LONG_WORD


def _mailbox(mailbox: Mailbox, room: int) -> list[_Piece]:
    name = mailbox.name.strip(" ")
    if not name:
        return [(" ", mailbox.address)]
    if any(_needs_encoding(word) or len(space) > _LONG_WORD for space, word in _pieces(name)):
        pieces = [(" ", word) for word in encoded_words(name, room)]
    elif _ATOMS.fullmatch(name):
        pieces = [(" ", word) for word in name.split(" ")]
    else:
        # White space inside quotes may be folded (RFC 5322 section 3.2.4); the quotes stay on their words.
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        pieces = _pieces(quoted)
        pieces[0] = (" ", pieces[0][1])
    return [*pieces, (" ", f"<{mailbox.address}>")]


def _parameter(attribute: str, content: str) -> list[str]:
    if content.isascii() and len(attribute) + len(content) <= 60:
        if _TOKEN.fullmatch(content):
            return [f"{attribute}={content}"]
        return ['{}="{}"'.format(attribute, content.replace("\\", "\\\\").replace('"', '\\"'))]
    # RFC 2231 sections 3 and 4: charset and language in front of the first part, parts numbered from 0.
    parts: list[str] = []
    part = "utf-8''"
    for character in content:
        octets = character.encode()
        encoded = "".join(chr(octet) if octet in _ATTRIBUTE_CHARS else f"%{octet:02X}" for octet in octets)
        if len(attribute) + len(part) + len(encoded) > 66:
            parts.append(part)
            part = ""
        part += encoded
    parts.append(part)
    if len(parts) == 1:
        return [f"{attribute}*={part}"]
    whole = [f"{attribute}*{number}*={part};" for number, part in enumerate(parts)]
    return [*whole[:-1], whole[-1][:-1]]
