"""The leaves of a MIME message (RFC 2046 section 5.1), one after the other as its body goes by.

Messages within the message are leaves too: what they hold is theirs.
"""

from __future__ import annotations

import binascii
import email.message
import email.parser
import email.policy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .words import read_text

#: A header section of a part that is longer is refused.
LONGEST_HEAD_BYTES = 256 * 1024

_LONGEST_DELIMITER = 200  # RFC 2046 section 5.1.1 lets a boundary have 70 characters; white space may follow
_PARSER = email.parser.BytesHeaderParser(policy=email.policy.compat32)
_PADDED = re.compile(rb"[^=]+=*+")  # padding ends one text; another may follow
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")


@dataclass(frozen=True, slots=True)
class Container:
    """A multipart that is open: the number that tells it from others, and its subtype in small letters."""

    number: int
    subtype: str


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf: its type in small letters, as `text/plain`, what its header says, and what it stands in, outermost first.

    `encoding` is the Content-Transfer-Encoding in small letters.
    """

    content_type: str
    encoding: str
    containers: tuple[Container, ...]
    header: email.message.Message = field(repr=False)

    @property
    def filename(self) -> str:
        """The name that its sender gave to the file; empty where it has none."""
        name = self.header.get_filename()
        return "" if not name else read_text(name.encode("utf-8", "surrogateescape"))

    @property
    def disposition(self) -> str:
        """`inline`, `attachment`, another in small letters, or empty (RFC 2183)."""
        return str(self.header.get_content_disposition() or "")

    @property
    def content_id(self) -> str:
        """Its Content-ID without the angle brackets; empty where it has none."""
        return str(self.header.get("content-id", "")).strip().removeprefix("<").removesuffix(">")

    def parameter(self, name: str) -> str:
        """A parameter of its Content-Type; empty where it has none."""
        found = self.header.get_param(name, "")
        return found[2] if isinstance(found, tuple) else str(found)


#: The beginning of a leaf, octets of it as they stand in the message, or its end.
Piece = Part | bytes | None


class PartReader:
    """Cuts a body into its leaves: `feed` its pieces, cut anywhere, then `end`. Line ends are CRLF.

    Linear; holds one header section or one line beside the piece.
    """

    def __init__(self, head: bytes) -> None:
        self._held = b""
        self._open: list[tuple[bytes, Container]] = []
        self._count = 0
        self._go: Callable[[bool], Iterator[Piece]] = self._skip
        self._drop = 0
        self._first = self._begin(head)

    def feed(self, piece: bytes) -> Iterator[Piece]:
        """What the next octets of the body bring.

        Raises:
            ValueError: a part's header section is too long, or its container has no boundary.
        """
        self._held += piece
        yield from self._run(at_end=False)

    def end(self) -> Iterator[Piece]:
        """The body is over; raises as `feed` does."""
        yield from self._run(at_end=True)

    def _run(self, *, at_end: bool) -> Iterator[Piece]:
        yield from self._first
        before: object = None
        while before != (before := (self._go, len(self._held))):
            yield from self._go(at_end)

    def _begin(self, head: bytes) -> Iterator[Piece]:
        """A header section is whole: what follows is a leaf, or parts."""
        header = _PARSER.parsebytes(head)
        kind = header.get_content_type()
        self._held, self._drop = b"\r\n" + self._held, 2  # a delimiter may follow at once
        if header.get_content_maintype() == "multipart":
            boundary = header.get_boundary()
            if not boundary:
                raise ValueError(f"a {kind} has no boundary")
            self._count += 1
            delimiter = b"--" + boundary.encode("utf-8", "surrogateescape")
            self._open.append((delimiter, Container(self._count, header.get_content_subtype())))
            self._go = self._skip
            return
        if "content-type" not in header and self._open and self._open[-1][1].subtype == "digest":
            kind = "message/rfc822"  # RFC 2046 section 5.1.5
        encoding = str(header.get("content-transfer-encoding", "7bit")).partition(";")[0].strip().lower()
        self._go = self._leaf
        yield Part(kind, encoding, tuple(container for _, container in self._open), header)

    def _leaf(self, at_end: bool) -> Iterator[Piece]:
        """Octets up to the next delimiter."""
        yield from self._body(at_end, is_leaf=True)

    def _skip(self, at_end: bool) -> Iterator[Piece]:
        """What is in front of the first delimiter and behind the last one belongs to no part."""
        yield from self._body(at_end, is_leaf=False)

    def _body(self, at_end: bool, *, is_leaf: bool) -> Iterator[Piece]:
        held, at = self._held, 0
        while True:
            found = held.find(b"\r\n--", at) if self._open else -1
            if found < 0:
                break
            line_end = held.find(b"\r\n", found + 2)
            if line_end < 0 and not at_end and len(held) - found < _LONGEST_DELIMITER:
                yield from self._out(held[:found], is_leaf)
                self._held = held[found:]
                return
            line = held[found + 2 :] if line_end < 0 else held[found + 2 : line_end]
            place = self._delimited(line) if len(line) < _LONGEST_DELIMITER else None
            if place is not None:
                yield from self._out(held[:found], is_leaf)
                if is_leaf:
                    yield None
                self._held = b"" if line_end < 0 else held[line_end:]
                self._delimit(*place)
                return
            at = found + 4
        keep = 0 if at_end else next((n for n in (3, 2, 1) if held.endswith(b"\r\n--"[:n])), 0)
        yield from self._out(held[: len(held) - keep], is_leaf)
        self._held = held[len(held) - keep :]
        if at_end and is_leaf:
            yield None
            self._go = self._skip

    def _out(self, octets: bytes, is_leaf: bool) -> Iterator[Piece]:
        if self._drop and octets:
            dropped = min(self._drop, len(octets))
            self._drop -= dropped
            octets = octets[dropped:]
        if is_leaf and octets:
            yield octets

    def _head(self, at_end: bool) -> Iterator[Piece]:
        """The header section of a part; `_held` begins with the line end in front of it."""
        held = self._held
        at = 0
        while (line_end := held.find(b"\r\n", at + 2)) >= 0 or at_end:
            line = held[at + 2 :] if line_end < 0 else held[at + 2 : line_end]
            place = self._delimited(line) if line.startswith(b"--") else None
            if not line or place is not None or line_end < 0:
                head = held[2 : at + 2] if line_end >= 0 or place is not None else held[2:]
                self._held = b""
                yield from self._begin(head)
                # The line end of the empty line, or that in front of the delimiter, begins what follows.
                self._held, self._drop = (held[line_end:], 2) if not line and line_end >= 0 else (held[at:], 2)
                if line_end < 0 and place is None:
                    self._held = b""
                return
            at = line_end
            if at > LONGEST_HEAD_BYTES:
                raise ValueError("the header section of a part is too long")
        if len(held) - at > LONGEST_HEAD_BYTES:
            raise ValueError("the header section of a part is too long")

    def _delimited(self, line: bytes) -> tuple[int, bool] | None:
        """Which of what is open `line` delimits, innermost first, and whether it begins a part."""
        line = line.rstrip(b" \t")
        for place in range(len(self._open) - 1, -1, -1):
            delimiter = self._open[place][0]
            if line == delimiter:
                return place, True
            if line == delimiter + b"--":
                return place, False
        return None

    def _delimit(self, place: int, begins: bool) -> None:
        del self._open[place + begins :]
        self._drop = 0
        self._go = self._head if begins else self._skip


def decoder(encoding: str) -> Decoder:
    """What undoes a Content-Transfer-Encoding (RFC 2045 section 6).

    Raises:
        ValueError: nobody knows it.
    """
    if encoding == "base64":
        return _Base64()
    if encoding == "quoted-printable":
        return _QuotedPrintable()
    if encoding not in ("7bit", "8bit", "binary"):
        raise ValueError(f"a part has the transfer encoding {encoding}, which is none")
    return Decoder()


class Decoder:
    """Undoes a transfer encoding, piece by piece; this one had nothing done to it."""

    def feed(self, octets: bytes) -> bytes:
        """The content of the next octets, as far as it is known."""
        return octets

    def end(self) -> bytes:
        """The rest."""
        return b""


class _Base64(Decoder):
    def __init__(self) -> None:
        self._held = b""

    def feed(self, octets: bytes) -> bytes:
        held = self._held + _NOT_BASE64.sub(b"", octets)
        whole = len(held) // 4 * 4
        self._held = held[whole:]
        return self._decoded(held[:whole])

    def end(self) -> bytes:
        return self._decoded(self._held + b"=" * (-len(self._held) % 4))

    @staticmethod
    def _decoded(octets: bytes) -> bytes:
        try:
            return b"".join([binascii.a2b_base64(padded) for padded in _PADDED.findall(octets)])
        except binascii.Error:
            raise ValueError("a part is not the base64 that it says it is") from None


class _QuotedPrintable(Decoder):
    def __init__(self) -> None:
        self._held = b""

    def feed(self, octets: bytes) -> bytes:
        held = self._held + octets
        end = held.rfind(b"\n") + 1
        self._held = held[end:]
        return binascii.a2b_qp(held[:end])

    def end(self) -> bytes:
        return binascii.a2b_qp(self._held)
