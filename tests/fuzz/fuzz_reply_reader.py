"""Replies or RemoteProtocolError, never anything else, and the same under any cutting; a good one is never lost.

An input is how it is cut (one octet), which command is answered (one octet), and the octets of a server.
"""

from __future__ import annotations

import re

from postroom.model.reply import Reply
from postroom.protocol.smtp import RemoteProtocolError
from postroom.protocol.smtp.reply_reader import ReplyLimits, ReplyReader
from tests.fuzz.inputs import PAUSE, cut, wire
from tests.protocol.transcript_file import transcripts

TOKENS = (b"250 ", b"250-", b"421 ", b"354 ", b"550 5.1.1 ", b"\r\n", b"\n", b"\r", b"\x00", b"\xc3\xa9", b"2.0.0 ")
LIMITS = ReplyLimits(line_bytes=512, reply_bytes=2048)

_COMMANDS = ("", "EHLO", "MAIL", "RCPT", "DATA", ".")
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -]).*)?", re.DOTALL)


def seeds() -> list[bytes]:
    """What servers say in the transcripts."""
    said = [wire(one, "S").replace(PAUSE, b"") for one in transcripts("client")]
    return [b"\x0f\x02" + octets for octets in said if len(octets) < 3000]


def one_input(data: bytes) -> None:
    """See the top."""
    if len(data) < 2:
        return
    size, command, octets = data[0] + 1, _COMMANDS[data[1] % len(_COMMANDS)], data[2:]
    replies, is_broken = _read([octets], command)
    assert _read(list(cut(octets, size)), command) == (replies, is_broken)
    expected, should_break = read_slowly(octets, LIMITS)
    assert [reply.code for reply in replies] == [int(lines[0][:3]) for lines in expected]
    assert is_broken == should_break
    for reply in replies:
        assert reply.command == command and reply.lines
        assert all(letter.isprintable() or letter == "\t" for letter in "".join(reply.lines))
        assert not reply.enhanced or int(reply.enhanced[0]) == reply.code // 100


def _read(pieces: list[bytes], command: str) -> tuple[list[Reply], bool]:
    reader = ReplyReader(LIMITS)
    replies: list[Reply] = []
    for piece in pieces:
        reader.receive(piece)
        try:
            while (reply := reader.next_reply(command)) is not None:
                replies.append(reply)
        except RemoteProtocolError:
            return replies, True
    return replies, False


def read_slowly(octets: bytes, limits: ReplyLimits) -> tuple[list[list[bytes]], bool]:
    """The lines of each reply that RFC 5321 section 4.2 finds, and whether something else comes behind them."""
    found: list[list[bytes]] = []
    lines: list[bytes] = []
    while octets:
        line, end, octets = octets.partition(b"\n")
        if len(line + end) > limits.line_bytes:
            return found, True
        if not end:
            break
        match = _LINE.fullmatch(line.removesuffix(b"\r"))
        lines.append(line + end)
        if match is None or match[1] != lines[0][:3] or sum(map(len, lines)) > limits.reply_bytes:
            return found, True
        if match[2] != b"-":
            found.append(lines)
            lines = []
    return found, False
