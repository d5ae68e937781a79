"""Mailboxes in address headers (RFC 5322 section 3.4, RFC 6532, RFC 6854): read strictly, in one linear pass.

What is read here decides who may send, so nothing is guessed: an address is one unbroken `local@domain`, comments
are skipped only between words, and text that could make two readers see two addresses is an error.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

# RFC 6532 section 3.2 adds the octets of UTF-8 to atext; a decoded address is looked at again below.
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]++"
_DOT_ATOM = _ATOM + rb"(?:\." + _ATOM + rb")*"
_QUOTED = rb'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff]|\r\n(?=[ \t]))*"'
_LITERAL = rb"\[[!-Z^-~]*+\]"
_ADDRESS = re.compile(rb"(" + _DOT_ATOM + rb"|" + _QUOTED + rb")@(" + _DOT_ATOM + rb"|" + _LITERAL + rb")")
# Words of a display name; dots among them are RFC 5322 section 4.1 (obs-phrase).
_WORDS = re.compile(rb"(?:(?:" + _ATOM + rb"|\.)|" + _QUOTED + rb"|[ \t]|\r?\n(?=[ \t]))+")
_SPACE = re.compile(rb"(?:[ \t]|\r?\n(?=[ \t]|\Z))*")
_IN_COMMENT = re.compile(rb"(?:[^()\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\\[^\r\n\x00])*")
_PLAIN_LOCAL = re.compile(_DOT_ATOM)

_COMMAS = re.compile(rb",(?:[ \t,]|\r?\n(?=[ \t]))*")
_END = (b"", b",")
_CACHED_OCTETS = 512


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address, `local@domain` without angle brackets, and the display name beside it ("": none)."""

    address: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class FoundMailbox:
    """Where a mailbox stands in the value of an address header: `value[start:end]`, its address in between.

    What is in front of `address_start` is the name, with comments and the `<`; nothing where the address stands bare.
    """

    start: int
    address_start: int
    address_end: int
    end: int
    address: str
    in_group: bool


def parse_mailboxes(value: bytes) -> tuple[str, ...]:
    """The addresses in the value of an address header, in order; those in groups too (an empty group has none).

    A local part that is quoted without need loses its quotes, so that one mailbox has one spelling.

    Raises:
        ValueError: it cannot be read with certainty; the text names the fault.
    """
    return _cached(value) if len(value) <= _CACHED_OCTETS else _addresses(value)


def find_mailboxes(value: bytes) -> tuple[FoundMailbox, ...]:
    """The mailboxes of `parse_mailboxes` with their places; raises as it does."""
    return tuple(
        FoundMailbox(start, found.start(), found.end(), end, _address(found), in_group)
        for start, found, end, in_group in _parse(value)
    )


def is_address(address: str) -> bool:
    """Whether `address` is one `local@domain` that can stand in an address header as it is."""
    try:
        found = _ADDRESS.fullmatch(address.encode())
        return found is not None and len(found[0]) <= 320 and bool(_address(found))
    except ValueError:
        return False


def _addresses(value: bytes) -> tuple[str, ...]:
    return tuple([_address(found) for _, found, _, _ in _parse(value)])


_Found = tuple[int, re.Match[bytes], int, bool]


def _parse(value: bytes) -> list[_Found]:
    """Where each mailbox begins, its address, where it ends, whether it stands in a group."""
    found: list[_Found] = []
    at = 0
    in_group = False
    while True:
        at = _skip(value, at)
        mark = value[at : at + 1]
        if mark == b"":
            if in_group:
                raise ValueError("a group is not closed with ';'")
            return found
        if commas := _COMMAS.match(value, at):  # empty elements: RFC 5322 section 4.4 (obs-addr-list)
            at = commas.end()
        elif mark == b";" and in_group:
            in_group = False
            at = _expect_end(value, at + 1, in_group)
        else:
            start = at
            at, address = _one(value, start)
            if address is None:
                if in_group:
                    raise ValueError("a group within a group")
                in_group = True
            else:
                found.append((start, address, at, in_group))
                at = _expect_end(value, at, in_group)


def _one(value: bytes, at: int) -> tuple[int, re.Match[bytes] | None]:
    """A mailbox that begins at `at`, or None for the beginning of a group; with the offset behind it."""
    if bare := _ADDRESS.match(value, at):
        after = _skip(value, bare.end())
        if value[after : after + 1] != b"<":
            return bare.end(), bare
        end, angle = _angle(value, after)
        if _address(angle).lower() != _address(bare).lower():
            raise ValueError(f"two different addresses, {_address(bare)} and {_address(angle)}, in one mailbox")
        return end, angle
    start = at
    while True:
        if words := _WORDS.match(value, at):
            at = words.end()
        mark = value[at : at + 1]
        if mark == b"(":
            at = _comment(value, at)
        elif mark == b"<":
            return _angle(value, at)
        elif mark == b":" and at > start:
            return at + 1, None
        else:
            raise ValueError(_fault(value, at))


def _angle(value: bytes, at: int) -> tuple[int, re.Match[bytes]]:
    at = _skip(value, at + 1)
    if value[at : at + 1] == b"@":
        raise ValueError("a source route in front of the address")
    found = _ADDRESS.match(value, at)
    if found is None:
        raise ValueError("no address of the form local@domain between '<' and '>'")
    at = _skip(value, found.end())
    if value[at : at + 1] != b">":
        raise ValueError(f"something other than '>' behind the address {_address(found)}")
    return at + 1, found


def _expect_end(value: bytes, at: int, in_group: bool) -> int:
    at = _skip(value, at)
    mark = value[at : at + 1]
    if mark in _END or (mark == b";" and in_group):
        return at
    raise ValueError("no comma behind a mailbox")


def _skip(value: bytes, at: int) -> int:
    """The offset behind white space and comments."""
    while True:
        found = _SPACE.match(value, at)
        at = found.end() if found else at
        if value[at : at + 1] != b"(":
            return at
        at = _comment(value, at)


def _comment(value: bytes, at: int) -> int:
    """The offset behind the comment that begins at `at`; comments nest (RFC 5322 section 3.2.2)."""
    depth = 0
    while True:
        mark = value[at : at + 1]
        if mark == b"(":
            depth += 1
        elif mark == b")":
            depth -= 1
        else:
            raise ValueError("a comment is not closed" if not mark else "a control character in a comment")
        at += 1
        if not depth:
            return at
        found = _IN_COMMENT.match(value, at)
        at = found.end() if found else at


def _address(found: re.Match[bytes]) -> str:
    local = found[1]
    if local.startswith(b'"'):
        if b"\r" in local:
            raise ValueError("a line break in an address")
        plain = re.sub(rb"\\(.)", rb"\1", local[1:-1])
        local = plain if _PLAIN_LOCAL.fullmatch(plain) else b'"' + re.sub(rb'(["\\])', rb"\\\1", plain) + b'"'
    raw = local + b"@" + found[2]
    if raw.isascii():
        return raw.decode("ascii")
    try:
        address = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("an address that is not UTF-8") from None
    # A look-alike of "@" or white space would give the address another domain for another reader.
    if not address.isprintable() or unicodedata.normalize("NFKC", address).count("@") != address.count("@"):
        raise ValueError("an address with a character that is not printable or stands for '@'")
    return address


def _fault(value: bytes, at: int) -> str:
    mark = value[at : at + 1]
    if not mark:
        return "a name without an address"
    if mark == b'"':
        return "a quoted string is not closed, or has a control character in it"
    if mark == b"@":
        return "an address that is not one unbroken local@domain"
    if mark == b",":
        return "a name without an address in front of a comma (a name with a comma needs quotes)"
    return f"{mark.decode('latin-1')!r} where a mailbox should be"


_cached = lru_cache(maxsize=1024)(_addresses)
