"""Reads replies out of a stream of bytes, one at a time, within limits (RFC 5321 section 4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...model.reply import Reply
from .errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """The longest line of a reply and the longest reply that are read, in octets with their line ends.

    RFC 5321 section 4.5.3.1.5 allows 512 octets to a line; servers in the wild exceed this.
    """

    line_bytes: int = 8 * 1024
    reply_bytes: int = 256 * 1024


#: A line that comes in crumbs, of less than so many octets, is soon looked at only once in so many of them.
_CRUMB_BYTES = 16
_CRUMBS = 32

#: So much of a reply is kept: all of an EHLO reply is needed, of others only what people and rules read.
KEPT_BYTES = 8 * 1024

#: Relays repeat themselves: so many one-line replies of at most so many octets are kept ready, by command and bytes.
_CACHED_REPLIES = 256
_CACHED_BYTES = 256

DEFAULT_LIMITS = ReplyLimits()

# Any code with a first digit of 2 to 5 is legal (RFC 5321 section 4.3.2); the text may be missing altogether.
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?\Z", re.DOTALL)

# RFC 3463 section 2 (status-code), before white space or the end as RFC 2034 section 4 puts it.
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?:[ \t]+|\Z)")


class ReplyReader:
    """Give it bytes with `receive`, take replies with `next_reply`; a RemoteProtocolError is for good."""

    __slots__ = (
        "_buffer",
        "_cache",
        "_cached_bytes",
        "_crumbs",
        "_error",
        "_limits",
        "_lines",
        "_position",
        "_reply_bytes",
    )

    def __init__(self, limits: ReplyLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._cached_bytes = min(_CACHED_BYTES, limits.line_bytes)
        self._buffer = b""
        self._crumbs = 0
        self._position = 0
        self._lines: list[bytes] = []  # of a reply that is not whole yet
        self._reply_bytes = 0
        self._cache: dict[tuple[bytes, str], Reply] = {}
        self._error: RemoteProtocolError | None = None

    def receive(self, data: bytes) -> bool:
        """Take in what arrived. Whether to look at it: a server that drips octets wins no work for each of them."""
        if self._position == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._position :] + data
        self._position = 0
        if len(data) >= _CRUMB_BYTES or b"\n" in data:
            self._crumbs = 0
            return True
        self._crumbs += 1
        return self._crumbs <= _CRUMBS or self._crumbs % _CRUMBS == 0

    @property
    def has_unread(self) -> bool:
        """Whether anything has arrived beyond the replies taken."""
        return self._position < len(self._buffer) or bool(self._lines)

    def next_reply(self, command: str) -> Reply | None:
        """The next whole reply, marked as the answer to `command`; None until it has arrived.

        Raises:
            RemoteProtocolError: a line is no reply line, or a limit was passed. The replies before it are intact.
        """
        if self._error is not None:
            raise self._error
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\n", start)
        key: tuple[bytes, str] | None = None
        if end >= 0 and buffer[start + 3 : start + 4] == b" " and not self._lines and end - start < self._cached_bytes:
            key = (buffer[start:end], command)
            reply = self._cache.get(key)
            if reply is not None:
                self._position = end + 1
                return reply
        try:
            reply = self._parse(command)
        except RemoteProtocolError as error:
            self._error = error
            raise
        if reply is not None and key is not None:
            if len(self._cache) >= _CACHED_REPLIES:
                self._cache.clear()
            self._cache[key] = reply
        return reply

    def _parse(self, command: str) -> Reply | None:
        while (line := self._next_line()) is not None:
            match = _LINE.match(line)
            if match is None:
                raise RemoteProtocolError(f"not a reply: {quoted(line)}")
            if self._lines and self._lines[0][:3] != match[1]:
                raise RemoteProtocolError(f"a reply with two codes: {quoted(self._lines[0])} and {quoted(line)}")
            # What is not kept counts, and is checked like the rest.
            if not self._lines or self._reply_bytes <= KEPT_BYTES or command == "EHLO":
                self._lines.append(line)
            if match[2] != b"-":
                lines, self._lines, self._reply_bytes = self._lines, [], 0
                return _reply(lines, command)
        return None

    def _next_line(self) -> bytes | None:
        # A line may end in LF alone: some servers do so, and nothing is decided by where a reply's text ends.
        start = self._position
        end = self._buffer.find(b"\n", start)
        size_bytes = (end + 1 if end >= 0 else len(self._buffer)) - start
        limits = self._limits
        if size_bytes > limits.line_bytes:
            raise RemoteProtocolError(f"a reply line of more than {limits.line_bytes} octets")
        if end < 0:
            return None
        self._reply_bytes += size_bytes
        if self._reply_bytes > limits.reply_bytes:
            raise RemoteProtocolError(f"a reply of more than {limits.reply_bytes} octets")
        self._position = end + 1
        return self._buffer[start:end].removesuffix(b"\r")


def _reply(lines: list[bytes], command: str) -> Reply:
    code = int(lines[0][:3])
    texts = [printable(line[4:].decode("utf-8", "replace")) for line in lines]
    enhanced = ""
    # RFC 2034 section 4: no enhanced status on the greeting or on EHLO and HELO; its class is the code's first digit.
    if command not in ("", "EHLO", "HELO"):
        match = _ENHANCED.match(texts[0])
        if match is not None and int(match[1]) == code // 100:
            enhanced = f"{match[1]}.{match[2]}.{match[3]}"
            texts = [text.removeprefix(enhanced).lstrip(" \t") for text in texts]
    return Reply(code, tuple(texts), enhanced, command)


def printable(text: str) -> str:
    """`text` fit for logs, reports and pages: what could move a cursor or hide is shown as a replacement character."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\t" else "\ufffd" for letter in text)


def quoted(line: bytes) -> str:
    """The beginning of a line that is none, for an error: as a Python string, in ASCII."""
    shown = ascii(printable(line[:80].decode("utf-8", "replace")))
    return shown + "..." if len(line) > 80 else shown
