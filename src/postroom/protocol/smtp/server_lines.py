"""Command lines out of octets: CRLF, printable ASCII, and a limit (RFC 5321 sections 2.3.8, 2.4 and 4.5.3.1.4).

Only what holds an address may be UTF-8 (RFC 6531 section 3.3), and a name in EHLO anything where it does not matter.
"""

from __future__ import annotations

import re

from .server_replies import BARE_LINE_END, LINE_TOO_LONG, NOT_ASCII, TLS_NOT_STARTED

_BAD_OCTET = re.compile(rb"[^\t -~]")
_WITH_ADDRESS = re.compile(rb"(?i:MAIL|RCPT|VRFY|EXPN) [\t -~\x80-\xff]*\r\n")
_WITH_NAME = re.compile(rb"(?i:EHLO|HELO) [\t -~\x80-\xff]*\r\n")
_TLS_HANDSHAKE = 0x16


class LineRefused(Exception):
    """A line that is no command: the reply it gets. The lines behind it can be read, unless it `is_fatal`."""

    def __init__(self, reply: bytes, *, is_fatal: bool = False) -> None:
        super().__init__(reply.decode("ascii").rstrip())
        self.reply = reply
        self.is_fatal = is_fatal


class CommandLines:
    """What has arrived and was not read yet. `limit` is in octets with the CRLF, `login_limit` that of AUTH lines.

    With `any_helo` a name in EHLO or HELO may hold octets over 127.
    """

    __slots__ = ("_any_helo", "_at", "_buffer", "_limit", "_login_limit", "_skipping", "_start")

    def __init__(self, limit: int, login_limit: int, *, any_helo: bool = False) -> None:
        self._limit = limit
        self._login_limit = login_limit
        self._any_helo = any_helo
        self._buffer = b""
        self._at = 0
        self._start = 0
        self._skipping = False

    def add(self, data: bytes) -> None:
        """Octets that arrived."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    def take_all(self) -> bytes:
        """Everything, as it is: content."""
        data = self._buffer[self._at :] if self._at else self._buffer
        self._buffer = b""
        self._at = 0
        return data

    def take(self, most: int) -> bytes:
        """Up to `most` octets, as they are: of a chunk."""
        data = self._buffer[self._at : self._at + most]
        self._at += len(data)
        return data

    def unread(self) -> None:
        """Put the last line back."""
        self._at = self._start

    def next(self, *, is_login: bool) -> bytes | None:
        """The next line with its CRLF, None while it is not all there.

        Raises:
            LineRefused: it breaks a rule; reading goes on behind it.
        """
        buffer, start = self._buffer, self._at
        end = buffer.find(b"\n", start) + 1
        size = (end or len(buffer)) - start
        if self._skipping:
            self._at = end or len(buffer)
            self._skipping = not end
            return self.next(is_login=is_login) if end else None
        if size > self._limit and not (size <= self._login_limit and (is_login or self._is_auth(start))):
            if buffer[start] == _TLS_HANDSHAKE:
                raise LineRefused(TLS_NOT_STARTED, is_fatal=True)
            self._at = end or len(buffer)
            self._skipping = not end
            raise LineRefused(LINE_TOO_LONG, is_fatal=announces_octets(buffer[start : start + 4]))
        if not end:
            if size and buffer[start] == _TLS_HANDSHAKE:
                raise LineRefused(TLS_NOT_STARTED, is_fatal=True)
            return None
        self._at = end
        self._start = start
        line = buffer[start:end]
        if line[-2:] != b"\r\n" or _BAD_OCTET.search(line, 0, size - 2):
            if is_login or not self._may_be_international(line):
                raise _bad_line(line)
        return line

    def _may_be_international(self, line: bytes) -> bool:
        if self._any_helo and _WITH_NAME.fullmatch(line):
            return True
        if not _WITH_ADDRESS.fullmatch(line):
            return False
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def _is_auth(self, start: int) -> bool:
        return self._buffer[start : start + 5].upper() == b"AUTH "


def announces_octets(line: bytes) -> bool:
    """Whether octets come behind the line that are no commands; after a malformed one nobody knows how many."""
    return line[:4].upper() == b"BDAT"


def _bad_line(line: bytes) -> LineRefused:
    if line[0] == _TLS_HANDSHAKE:
        return LineRefused(TLS_NOT_STARTED, is_fatal=True)
    is_bare = line[-2:] != b"\r\n" or b"\r" in line[:-2]
    return LineRefused(BARE_LINE_END if is_bare else NOT_ASCII, is_fatal=announces_octets(line))
