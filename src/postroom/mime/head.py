"""The header section as bytes (RFC 5322 section 2.2): find fields, add and remove some, touch nothing else.

Broken heads are carried as they are: a line without colon belongs to no field, white space before the colon is
skipped (RFC 5322 section 4.5.8), an mbox `From ` line or an orphan continuation stays the first line. A line ends at
LF, with or without CR before it.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Runs of one class are possessive: one pass, no backtracking. Groups are not: before Python 3.11.5 a possessive group
# keeps what its last, failed round has eaten (cpython#106052). What follows a group never fails, so nothing is retried.
_REST = rb"[^\n]*+(?:\n[ \t][^\n]*+)*(?:\n|\Z)"
_NAME = rb"[!-9;-~]"
_FIELD = re.compile(rb"(?m)^(" + _NAME + rb"++)[ \t]*+:" + _REST)
_MBOX_FROM = rb"(?:>?From (?![ \t]*:)[^\n]*+\n)?"
_NOT_FIELDS_AT_TOP = re.compile(_MBOX_FROM + rb"(?:[ \t][^\n]*+(?:\n|\Z))*")
_NEXT_FIELD = re.compile(_NAME + rb"++[ \t]*+:" + _REST)
_STARTS_LIKE_A_HEAD = re.compile(_MBOX_FROM + _NAME + rb"++[ \t]*+:")
_EMPTY_LINE = re.compile(rb"\n\r?\n")


class HeadFields:
    """The fields of one head, in order: `fields` holds (name in small letters, start, end).

    `start` and `end` are offsets into `head` and take in the field's last line end.
    """

    __slots__ = ("fields", "head")

    def __init__(self, head: bytes, fields: list[tuple[bytes, int, int]]) -> None:
        self.head = head
        self.fields = fields

    def first(self, name: bytes) -> bytes | None:
        """The value of the topmost field called `name` (small letters): still folded, without white space around."""
        for found, start, end in self.fields:
            if found == name:
                return self._value(start, end)
        return None

    def all(self, name: bytes) -> list[bytes]:
        """The values of all fields called `name` (small letters), topmost first."""
        return [self._value(start, end) for found, start, end in self.fields if found == name]

    def count(self, name: bytes) -> int:
        """How many fields are called `name` (small letters)."""
        total = 0
        for found, _, _ in self.fields:
            if found == name:
                total += 1
        return total

    def _value(self, start: int, end: int) -> bytes:
        return self.head[self.head.index(b":", start) + 1 : end].strip()


def scan(head: bytes) -> HeadFields:
    """All fields of `head` (what `split` returned, or a header section alone). Never fails; linear."""
    return HeadFields(head, [(m[1], m.start(), m.end()) for m in _FIELD.finditer(head.lower())])


def edit(head: bytes, *, prepend: bytes = b"", remove: frozenset[bytes] = frozenset(), append: bytes = b"") -> bytes:
    """`head` with fields added at its top, taken out, and added after its last field; other octets stay as they are.

    `prepend` and `append` are whole fields with their CRLF. `remove` holds names in small letters; a name that ends
    with `*` stands for all that begin so. In a broken head, `prepend` goes below an mbox `From ` line or orphan
    continuation, and `append` above the first line that is no field, so that both are read as fields.
    """
    if remove:
        finder, remover = _removers(remove)
        if finder.search(b"\n" + head.lower()):
            head = remover.sub(b"", head)
    if append:
        at = _end_of_fields(head)
        head = head[:at] + (b"" if at == 0 or head[at - 1] == 0x0A else b"\r\n") + append + head[at:]
    if not prepend:
        return head
    if head[:1] in (b" ", b"\t", b"F", b">") and (at := _not_fields_at_top(head)):
        return head[:at] + prepend + head[at:]
    return prepend + head


def split(content: bytes) -> tuple[bytes, bytes]:
    """Head (with the empty line that ends it) and body of `content`, or of the beginning of it that holds the head.

    Where the line that begins `content` is no field, all of it is body; where no empty line follows, the head ends
    with its last field. The head gets an empty line then; in every other case head + body is `content`.
    """
    if content[:1] == b"\n" or content[:2] == b"\r\n":
        end = content.index(b"\n") + 1
        return content[:end], content[end:]
    if not _STARTS_LIKE_A_HEAD.match(content):
        return b"\r\n", content
    if found := _EMPTY_LINE.search(content):
        return content[: found.end()], content[found.end() :]
    end = _end_of_fields(content)
    head = content[:end]
    return head + (b"\r\n" if head.endswith(b"\n") else b"\r\n\r\n"), content[end:]


def _not_fields_at_top(head: bytes) -> int:
    found = _NOT_FIELDS_AT_TOP.match(head)
    return found.end() if found else 0


def _end_of_fields(head: bytes) -> int:
    end = _not_fields_at_top(head)
    while found := _NEXT_FIELD.match(head, end):
        end = found.end()
    return end


@lru_cache(maxsize=64)
def _removers(names: frozenset[bytes]) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A pattern that finds any of the fields in b"\\n" + head in small letters, and one that matches them whole."""
    any_name = b"|".join(
        re.escape(name[:-1]) + _NAME + rb"*+" if name.endswith(b"*") else re.escape(name) for name in sorted(names)
    )
    finder = re.compile(rb"\n(?:" + any_name + rb")[ \t]*+:")
    return finder, re.compile(rb"(?mi)^(?:" + any_name + rb")[ \t]*+:" + _REST)
