"""How deeply the parts of a message are nested (RFC 2046 sections 5.1 and 5.2), in one pass over its octets.

Nothing is decoded and no tree is made: from line to line that may delimit a part, with a stack of what is open. Broken
messages are read as the standard library's parser reads them: an outer delimiter ends all within, a header section
ends at the first line that is no field.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ..errors import Refused
from .head import scan

#: The most that is kept of one line and of one Content-Type, in octets.
_LONGEST = 8 * 1024

# These begin at the line end in front of a line. Notable in a header section: an empty line, what may be a delimiter,
# Content-Type, and what is no field; the last two are told apart by what follows.
_NOTABLE = re.compile(
    rb"\n(?:(\r?\n)|(--)|([Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Tt][Yy][Pp][Ee][ \t]*+:)"
    rb"|(?![!-9;-~]*+[ \t]*+:|[ \t]|From )[^\n])"
)
_EMPTY, _DELIMITER, _TYPE = 1, 2, 3
_FIELD = re.compile(rb"\n[!-9;-~]++[ \t]*+:")
_CONTINUATIONS = re.compile(rb"(?:\n[ \t][^\n]*+(?=\n))*")

_CONTAINER = re.compile(rb"[ \t\r\n]*+(?:(multipart)|message)/([^ \t\r\n;]*+)", re.IGNORECASE)
# A quoted string that is not closed is taken up to the next semicolon.
_PARAMETER = re.compile(rb';[ \t\r\n]*+([^=; \t\r\n]++)[ \t\r\n]*+=[ \t\r\n]*+("(?:[^"\\]|\\[^\n])*"|[^;]*+)')
_SECTION = re.compile(rb"boundary\*(?:([0-9]{1,4})\*?)?")


class MimeDepth:
    """Watches a body go by: `feed` its pieces, cut anywhere; `is_exceeded` once a part lies deeper than `limit`.

    The parts of the message itself have depth 1, as has a message within it. `is_flat` says that no part can come any
    more. Linear; holds one line at most (8 KiB of it) beside the piece.
    """

    __slots__ = (
        "_boundaries",
        "_held",
        "_in_header",
        "_is_first",
        "_is_folding",
        "_limit",
        "_open",
        "_type",
        "is_exceeded",
        "is_flat",
    )

    def __init__(self, head: bytes, limit: int) -> None:
        self._limit = limit
        # Outermost first: the delimiter (None for a message), and whether parts are messages unless they say otherwise.
        self._open: list[tuple[bytes | None, bool]] = []
        self._boundaries: dict[bytes, int] = {}  # the place of each delimiter in it; the outermost of equal ones
        self._in_header = False
        self._type: bytes | None = scan(head).first(b"content-type")
        self._is_first = False  # the next line is the first behind a delimiter
        self._is_folding = False  # the last line was of the Content-Type
        self._held = b"\n"
        self.is_exceeded = False
        self.is_flat = False
        self._begin_body()

    def feed(self, piece: bytes) -> None:
        """The next octets of the body."""
        data = self._held + piece if not self.is_flat else b""
        at = 0
        while at >= 0 and not self.is_flat and not self.is_exceeded:
            at = self._in_header_from(data, at) if self._in_header else self._in_body_from(data, at)

    def _in_header_from(self, data: bytes, at: int) -> int:
        """The offset of the line end where the body begins, or -1: it is not there yet. Only whole lines are read."""
        last = data.rfind(b"\n")
        while True:
            while self._is_first and at < last:
                # Behind a delimiter the same one, even one that ends the parts, counts as repeated.
                end = data.index(b"\n", at + 1)
                found = self._delimited(data[at + 1 : end]) if data.startswith(b"--", at + 1) else None
                self._is_first = found is not None and found[0] == len(self._open) - 1
                at = end if self._is_first else at
            if self._is_folding:
                folded = _CONTINUATIONS.match(data, at, last + 1)
                end = folded.end() if folded else at
                self._keep_type(data[at:end])
                at = end
                self._is_folding = at == last
            line = _NOTABLE.search(data, at, last + 1)
            if line is None:
                self._held = data[last : last + _LONGEST]
                return -1
            at = line.start()
            if line[_EMPTY]:
                self._begin_body()
                return line.end() - 1
            end = data.index(b"\n", at + 1)
            if line[_TYPE] and self._type is None:
                self._type = b""
                self._keep_type(data[line.end() : end])
                self._is_folding = True
            elif not line[_TYPE] and not (
                line[_DELIMITER] and _FIELD.match(data, at) and self._delimited(data[at + 1 : end]) is None
            ):
                self._begin_body()  # with this line
                return at
            at = end

    def _in_body_from(self, data: bytes, at: int) -> int:
        """The offset of the line end where the header section of the next part begins, or -1: it is not there yet."""
        while True:
            at = data.find(b"\n--", at)
            if at < 0:
                self._held = b"\n-" if data.endswith(b"\n-") else b"\n" if data.endswith(b"\n") else b""
                return -1
            end = data.find(b"\n", at + 3)
            if end < 0:
                self._held = data[at:] if len(data) - at < _LONGEST else b""
                return -1
            found = self._delimited(data[at + 1 : end])
            at = end
            if found is None:
                continue
            place, begins_part = found
            self._close(place + begins_part)
            if begins_part:
                self._begin_header()
                self._is_first = True
                return at
            if not self._boundaries:
                self.is_flat = True
                return -1

    def _delimited(self, line: bytes) -> tuple[int, bool] | None:
        """Which of what is open `line` delimits, and whether it begins a part or ends them."""
        line = line.rstrip(b" \t\r")
        begins = self._boundaries.get(line)
        ends = self._boundaries.get(line[:-2]) if line.endswith(b"--") else None
        if ends is not None and (begins is None or ends < begins):
            return ends, False
        return None if begins is None else (begins, True)

    def _begin_header(self) -> None:
        self._in_header = True
        self._type = None
        self._is_first = self._is_folding = False
        self.is_exceeded = len(self._open) > self._limit

    def _begin_body(self) -> None:
        self._in_header = False
        if self._type is None:
            is_message, found = bool(self._open and self._open[-1][1]), None
        else:
            found = _CONTAINER.match(self._type)
            is_message = found is not None and not found[1]
        if is_message:
            self._open.append((None, False))
            self._begin_header()
            return
        if found is not None and self._type is not None and (boundary := _boundary(self._type)) is not None:
            delimiter = b"--" + boundary
            self._boundaries.setdefault(delimiter, len(self._open))
            self._open.append((delimiter, found[2].lower() == b"digest"))
        self.is_flat = not self._boundaries

    def _close(self, count: int) -> None:
        """Leave the outermost `count` open."""
        while len(self._open) > count:
            delimiter, _ = self._open.pop()
            if delimiter is not None and self._boundaries[delimiter] == len(self._open):
                del self._boundaries[delimiter]

    def _keep_type(self, more: bytes) -> None:
        self._type = ((self._type or b"") + more)[:_LONGEST]


def refuse_deep_parts(head: bytes, body: bytes, limit: int) -> None:
    """Refuse a message whose parts are nested deeper than `limit`. Costs next to nothing for nearly all messages.

    Raises:
        Refused: they are.
    """
    # Of two containers, one within the other, one names its type at least: the other may be a digest's message.
    if body.count(b":") < limit // 2:
        return
    depth = MimeDepth(head, limit)
    depth.feed(body)
    if depth.is_exceeded:
        raise too_deep(limit)


def too_deep(limit: int) -> Refused:
    """The refusal."""
    return Refused(
        f"the message nests MIME parts more than {limit} deep (setting smtp.max_mime_depth)",
        status="5.6.0",
        reply_code=554,
    )


def _boundary(value: bytes) -> bytes | None:
    """The parameter `boundary` of a Content-Type, in sections too (RFC 2231 sections 3 and 4); None without."""
    sections: list[tuple[int, bool, bytes]] = []
    for name, text in _PARAMETER.findall(value):
        name = name.lower()
        if name == b"boundary":
            return _unquoted(text)
        if section := _SECTION.fullmatch(name):
            sections.append((int(section[1] or 0), name.endswith(b"*"), _unquoted(text)))
    if not sections:
        return None
    sections.sort()
    joined = b"".join(unquote_to_bytes(text) if is_encoded else text for _, is_encoded, text in sections)
    return joined.split(b"'", 2)[-1] if sections[0][1] else joined  # behind charset and language


def _unquoted(text: bytes) -> bytes:
    text = text.strip(b" \t\r\n")
    if len(text) > 1 and text[:1] == b'"' == text[-1:]:
        text = re.sub(rb"\\(.)", rb"\1", text[1:-1])
    return text.rstrip(b" \t\r\n")
