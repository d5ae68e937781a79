"""The staging guard (SPEC section 3): mail leaves for listed recipients alone, all else is redirected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..mime.head import edit, scan
from ..mime.header import unstructured
from ..mime.words import encoded_words
from .pattern_index import PatternIndex

#: The field of a redirected message that says to whom it was; doors take out what begins so.
ORIGINAL_TO = "X-Postroom-Original-To"

_LINE = 76  # RFC 2047 section 2


@dataclass(frozen=True, slots=True)
class StagingGuard:
    """A guard that is on. `only_to` are patterns as `parse_patterns` gives them; `redirect_to` is listed as well."""

    only_to: tuple[str, ...]
    redirect_to: str
    subject_prefix: str
    _listed: PatternIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_listed", PatternIndex([self.only_to]))

    def redirects(self, recipient: str) -> bool:
        """Whether mail for `recipient` goes to `redirect_to` instead."""
        if recipient.lower() == self.redirect_to.lower():
            return False
        return not (self.only_to and self._listed.covering(recipient))  # an empty list of an index covers everybody

    def marked(self, head: bytes, recipients: Sequence[str]) -> bytes:
        """`head` with the prefix in its subject, and a field that names the `recipients`; all else as it was.

        Raises:
            ValueError: a control character that may not stand in a header.
        """
        head = _prefixed(head, self.subject_prefix.strip(" "))
        return edit(head, prepend=unstructured(ORIGINAL_TO, ", ".join(recipients)))


def _prefixed(head: bytes, prefix: str) -> bytes:
    """Readers differ in which of several subjects they show: each gets the prefix."""
    if not prefix:
        return head
    found = [(start, end) for name, start, end in scan(head).fields if name == b"subject"]
    if not found:
        return edit(head, append=unstructured("Subject", prefix))
    for start, end in reversed(found):
        colon = head.index(b":", start) + 1
        head = head[:colon] + b" " + _before(prefix, head[colon:end]) + head[end:]
    return head


def _before(prefix: str, value: bytes) -> bytes:
    """`prefix` and then `value`, which keeps its octets; between them a space or, where the line gets long, a fold."""
    follows_word = value.lstrip().startswith(b"=?")
    if prefix.isascii() and "=?" not in prefix:
        written = prefix.encode("ascii")
    else:  # between two encoded words a space does not count: it stands inside (RFC 2047 section 6.2)
        written = "\r\n ".join(encoded_words(prefix + " " * follows_word, _LINE - len("Subject: "))).encode("ascii")
    if value[:1] not in (b" ", b"\t", b"\r", b"\n"):
        value = b" " + value
    last = len("Subject: ") + len(written.rpartition(b"\n")[2])
    first = value.partition(b"\n")[0].rstrip(b"\r")
    is_folded = last + len(first) > _LINE and first.strip()
    return written + (b"\r\n" if is_folded else b"") + value
