"""The transfer coder of DATA: dot stuffing, and the one end of data that counts (RFC 5321 sections 4.1.1.4, 4.5.2).

And of BDAT, which has neither (RFC 3030)."""

from __future__ import annotations

from .errors import LocalProtocolError

END_OF_DATA = b"\r\n.\r\n"

#: A chunk that ends in one of these may be in the middle of the end of data, longest first.
_TAILS = tuple(END_OF_DATA[:length] for length in range(len(END_OF_DATA) - 1, 0, -1))


#: Dots looked at one by one before the rest is searched for two octets, which takes four times as long as for one.
_FEW_DOTS = 12


def has_bare_line_end(content: bytes) -> bool:
    """Whether a CR without LF or an LF without CR is in `content` (RFC 5321 section 2.3.8 forbids both)."""
    # With as many CR as LF, no more lines than that means that each is half of a pair. Counting pairs takes longer.
    ends = content.count(b"\n")
    if content.count(b"\r") != ends:
        return True
    if content.endswith(b"\n") or not content:
        return len(content.splitlines()) != ends
    return content.endswith(b"\r") or len(content.splitlines()) != ends + 1


def has_dot_behind_line_end(content: bytes) -> bool:
    """Whether a line of `content`, but for the first, begins with a dot."""
    at = content.find(b".", 1)
    for _ in range(_FEW_DOTS):
        if at < 0:
            return False
        if content[at - 1] == 0x0A:
            return True
        at = content.find(b".", at + 1)
    return at >= 0 and content.find(b"\n.", at - 1) >= 0


def encode(content: bytes) -> bytes:
    """The whole `content` as it goes over the wire, the end of data included.

    Raises:
        LocalProtocolError: it has a bare CR or LF; sent on, those could end the data for a lax receiver and smuggle in
            what follows as commands.
    """
    if has_bare_line_end(content):
        raise LocalProtocolError("the content has a bare CR or LF")
    if content.startswith(b"."):
        content = b"." + content
    if has_dot_behind_line_end(content):
        content = content.replace(b"\r\n.", b"\r\n..")
    if not content:
        return b".\r\n"
    return content + (b".\r\n" if content.endswith(b"\r\n") else END_OF_DATA)


class ContentEncoder:
    """Content that comes in chunks, as it goes over the wire: `feed` each chunk, then `finish` once.

    Chunks may be cut anywhere. Both raise LocalProtocolError where `encode` does.
    """

    def __init__(self) -> None:
        self._held = b""  # a CR or CRLF whose next octet decides about a bare CR or a dot
        self._at_start = True

    def feed(self, chunk: bytes) -> bytes:
        """The next octets of the wire; may be empty."""
        if not chunk:
            return b""
        if self._at_start:
            self._at_start = False
            if chunk.startswith(b"."):
                chunk = b"." + chunk
        elif self._held:
            chunk = self._held + chunk
        self._held = b"\r\n" if chunk.endswith(b"\r\n") else b"\r" if chunk.endswith(b"\r") else b""
        whole = chunk[: len(chunk) - len(self._held)]
        if has_bare_line_end(whole):
            raise LocalProtocolError("the content has a bare CR or LF")
        return whole.replace(b"\r\n.", b"\r\n..")

    def finish(self) -> bytes:
        """What is left, and the end of data."""
        if self._held == b"\r":
            raise LocalProtocolError("the content has a bare CR or LF")
        return b".\r\n" if self._at_start else END_OF_DATA


class ContentDecoder:
    """The server's side of DATA: give it what arrives after the 354, in whatever pieces.

    Only CRLF.CRLF ends the data (its first CRLF may be the one of the DATA command), and only a dot behind CRLF is
    taken out: what a lax receiver would read as an end of data stays content. `bare_cr` and `bare_lf` say what has been
    seen so far; a bare CR must be refused, a bare LF refused or, with `normalise_bare_lf`, it comes out as CRLF.
    """

    __slots__ = ("_finished", "_held", "_skip", "bare_cr", "bare_lf", "normalises")

    def __init__(self, normalise_bare_lf: bool = False) -> None:
        self.normalises = normalise_bare_lf
        # As if the CRLF of the DATA command came with the content; `_skip` takes it out again.
        self._held = b"\r\n"
        self._skip = 2
        self._finished = False
        self.bare_cr = False
        self.bare_lf = False

    def feed(self, data: bytes | memoryview) -> tuple[bytes, bool, bytes]:
        """Decode what arrived.

        Returns:
            The content that is certain by now (its pieces make the whole; it ends in CRLF unless empty), whether the
            end of data was met, and, if so, the octets behind it: the commands of a pipelining client.

        Raises:
            LocalProtocolError: the end of data has been met before.
        """
        if self._finished:
            raise LocalProtocolError("content after the end of data")
        if not isinstance(data, bytes):
            data = bytes(data)
        if self._skip and self._held == b"\r\n" and data[:1] != b".":
            # The common case: all of it at once, no copy of it made but the slice.
            end = data.find(END_OF_DATA)
            if end >= 0:
                self._finished = True
                return self._decoded(data[: end + 2]), True, data[end + 5 :]
        data = self._held + data
        end = data.find(END_OF_DATA)
        if end >= 0:
            self._finished = True
            rest = data[end + 5 :]
            data = data[: end + 2]
        else:
            rest = b""
            self._held = next((tail for tail in _TAILS if data.endswith(tail)), b"")
            if self._held:
                data = data[: -len(self._held)]
        decoded = self._decoded(data)
        if self._skip and decoded:
            decoded = decoded[2:]
            self._skip = 0
        return decoded, self._finished, rest

    def _decoded(self, data: bytes) -> bytes:
        """`data` unstuffed; it never ends within a CRLF nor between a CRLF and its dot."""
        is_bare = has_bare_line_end(data)
        bare_lf = is_bare and self._note_bare(data)
        if has_dot_behind_line_end(data):
            data = data.replace(b"\r\n.", b"\r\n")
        if bare_lf and self.normalises:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return data

    def _note_bare(self, data: bytes) -> bool:
        """Which line ends of `data` are bare; whether an LF is."""
        pairs = data.count(b"\r\n")
        bare_lf = data.count(b"\n") != pairs
        self.bare_cr = self.bare_cr or data.count(b"\r") != pairs
        self.bare_lf = self.bare_lf or bare_lf
        return bare_lf


class ChunkDecoder:
    """The server's side of BDAT: give it the octets of all chunks, in whatever pieces, then `finish` once.

    A dot is nothing special here. `bare_cr` and `bare_lf` are as in `ContentDecoder`, over the borders of chunks too.
    """

    __slots__ = ("_ends_line", "_held", "bare_cr", "bare_lf", "normalises")

    def __init__(self, normalise_bare_lf: bool = False) -> None:
        self.normalises = normalise_bare_lf
        self._held = b""  # a CR whose next octet decides
        self._ends_line = True
        self.bare_cr = False
        self.bare_lf = False

    def feed(self, data: bytes) -> bytes:
        """The content that is certain by now."""
        if self._held:
            data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        if self._held:
            data = data[:-1]
        if not data:
            return b""
        pairs = data.count(b"\r\n")
        if data.count(b"\r") != pairs:
            self.bare_cr = True
        if data.count(b"\n") != pairs:
            self.bare_lf = True
            if self.normalises:
                data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._ends_line = data.endswith(b"\r\n")
        return data

    def finish(self) -> bytes:
        """What is left: a CRLF where the last line has none, since only whole lines can go on by DATA."""
        if self._held:
            self.bare_cr = True
        return b"" if self._ends_line else b"\r\n"
