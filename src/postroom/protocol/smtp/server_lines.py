"""Command lines out of octets: CRLF, printable ASCII, and a limit (RFC 5321 sections 2.3.8, 2.4 and 4.5.3.1.4)."""

from __future__ import annotations

import re

from .server_replies import BARE_LINE_END, LINE_TOO_LONG, NOT_ASCII, TLS_NOT_STARTED

_BAD_OCTET = re.compile(rb"[^\t -~]")
_TLS_HANDSHAKE = 0x16


class LineRefused(Exception):
    """A line that is no command: the reply it gets. The lines behind it can be read, unless it `is_fatal`."""

    def __init__(self, reply: bytes, *, is_fatal: bool = False) -> None:
        super().__init__(reply.decode("ascii").rstrip())
        self.reply = reply
        self.is_fatal = is_fatal


class CommandLines:
    """What has arrived and was not read yet. `limit` is in octets with the CRLF, `login_limit` that of AUTH lines."""

    __slots__ = ("_at", "_buffer", "_limit", "_login_limit", "_skipping", "_start")

    def __init__(self, limit: int, login_limit: int) -> None:
        self._limit = limit
        self._login_limit = login_limit
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
            self._at = end or len(buffer)
            self._skipping = not end
            raise LineRefused(LINE_TOO_LONG)
        if not end:
            if size and buffer[start] == _TLS_HANDSHAKE:
                raise LineRefused(TLS_NOT_STARTED, is_fatal=True)
            return None
        self._at = end
        self._start = start
        line = buffer[start:end]
        if line[-2:] != b"\r\n" or _BAD_OCTET.search(line, 0, size - 2):
            raise _bad_line(line)
        return line

    def _is_auth(self, start: int) -> bool:
        return self._buffer[start : start + 5].upper() == b"AUTH "


def _bad_line(line: bytes) -> LineRefused:
    if line[0] == _TLS_HANDSHAKE:
        return LineRefused(TLS_NOT_STARTED, is_fatal=True)
    if line[-2:] != b"\r\n" or b"\r" in line[:-2]:
        return LineRefused(BARE_LINE_END)
    return LineRefused(NOT_ASCII)
