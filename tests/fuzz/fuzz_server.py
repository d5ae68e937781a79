"""Any octets end in replies, never an exception; what is taken is what a slow reader finds, without bare CR or LF.

An input is what the server is like (one octet), how it is cut (one octet), and the octets of a client.
"""

from __future__ import annotations

import re

from postroom.model.envelope import Envelope
from postroom.protocol.smtp import server_events as events
from postroom.protocol.smtp.content import ContentDecoder, encode, has_bare_line_end
from postroom.protocol.smtp.server import ServerLimits, ServerMachine, State
from postroom.protocol.smtp.transaction import MailTransaction
from tests.fuzz.fuzz_content import read_slowly
from tests.fuzz.fuzz_path import OFFERED
from tests.fuzz.inputs import PAUSE, cut, wire
from tests.protocol.server_play import Desk
from tests.protocol.transcript_file import transcripts
from tests.submission_door import ACCEPTED

TOKENS = (
    b"EHLO a\r\n", b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n", b"DATA\r\n", b".\r\n", b"\r\n.\r\n",
    b"BDAT 5\r\n", b"BDAT 5 LAST\r\n", b"BDAT 0 LAST\r\n", b"RSET\r\n", b"QUIT\r\n", b"STARTTLS\r\n", PAUSE,
    b"AUTH LOGIN\r\n", b"*\r\n", b"AUTH PLAIN AGVycAByaWdodA==\r\n", b" SMTPUTF8", b" BODY=8BITMIME", b"\r\n", b"\n",
    b"\r", b"\n.\n", b"\xc3\xa9", b"\x00", b"\x16", b"NOOP\r\n", b"GET / HTTP/1.1\r\n",
)  # fmt: skip

_REPLIES = re.compile(rb"(?:(?:([2-5])[0-9][0-9]-[ -~]{0,500}\r\n)*[2-5][0-9][0-9] [ -~]{0,506}\r\n)*")
#: With it, the input begins within content.
_BEGINNING = b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"

_CHUNK = re.compile(rb"(?i:BDAT 0*[1-9][0-9]{0,8}(?: LAST)?\r\n)")
_COMMANDING = (State.CONNECTED, State.READY, State.MAIL, State.RCPT, State.CHUNKS)

_LOOSE = ServerLimits(max_errors=100_000, max_size_bytes=2000, max_recipients=5)
_TIGHT = ServerLimits(
    max_errors=4, max_auth_failures=2, max_size_bytes=100, max_recipients=2, command_line_bytes=64, auth_line_bytes=96
)


def seeds() -> list[bytes]:
    """What clients say in the transcripts, to servers of several kinds."""
    said = [wire(one, "C") for one in transcripts("server")]
    kinds = (b"\x05\x03", b"\x0d\x11", b"\x42\x30")
    whole = [kind + octets for octets in said if len(octets) < 2000 for kind in kinds]
    contents = [rest for octets in said if (rest := octets.partition(b"DATA\r\n" + PAUSE)[2]) and len(octets) < 2000]
    return whole + [kind + rest for rest in contents for kind in (b"\x25\x07", b"\x2d\x20")]


def one_input(data: bytes) -> None:
    """See the top."""
    if len(data) < 2:
        return
    size, flights = data[1] + 1, (_BEGINNING * bool(data[0] & 32) + data[2:]).split(PAUSE)
    said, taken = _slowly(Desk(_machine(data[0])), flights, normalise=bool(data[0] & 8))
    assert _REPLIES.fullmatch(said), said
    # Errors are counted from a message that was taken on, so where few are allowed the moment of the commit matters.
    late = LateDesk(_machine(data[0])) if not data[0] & 64 else Desk(_machine(data[0]))
    answered = late.machine.data_to_send()
    for flight in flights:
        for piece in cut(flight, size):
            answered += late.hear(piece)
        if isinstance(late, LateDesk):
            answered += late.commit_all()
        if late.awaits_tls:
            answered += late.start_tls()
    assert answered + late.hang_up() == said
    assert late.taken == taken


def _machine(options: int) -> ServerMachine:
    return ServerMachine(
        _TIGHT if options & 64 else _LOOSE,
        "mx.test",
        starttls=bool(options & 1),
        secure=bool(options & 2),
        clear_login=bool(options & 4),
        normalise_bare_lf=bool(options & 8),
        any_helo=bool(options & 16),
    )


class LateDesk(Desk):
    """Messages wait for their commit until `commit_all`, or until nothing else goes on."""

    def __init__(self, machine: ServerMachine) -> None:
        super().__init__(machine)
        self.waiting: list[events.ReplySlot] = []

    def hear(self, octets: bytes) -> bytes:
        """See Desk."""
        said = super().hear(octets)
        return said + self.commit_all() if self.machine.is_waiting else said

    def commit_all(self) -> bytes:
        """Everything that waits is durable."""
        said = b""
        while self.waiting:
            self.machine.fill(self.waiting.pop(0), ACCEPTED)
            said += self.turn()
        return said

    def _fill(self, slot: events.ReplySlot) -> None:
        self.waiting.append(slot)


def _slowly(desk: Desk, flights: list[bytes], *, normalise: bool) -> tuple[bytes, list[tuple[Envelope, bytes]]]:
    """Octet by octet: between two of them the state tells which are content, and so what a message must hold."""
    machine = desk.machine
    said = machine.data_to_send()
    content = line = b""
    is_chunked = False
    for flight in flights:
        for at in range(len(flight)):
            before, count = machine.state, len(desk.taken)
            octet = flight[at : at + 1]
            said += desk.hear(octet)
            if before is State.DATA or (before is State.CHUNK and is_chunked):
                content += octet
            line = line + octet if before in _COMMANDING else b""
            if octet == b"\n":
                if _CHUNK.fullmatch(line):  # in order or not, what follows is no command
                    assert machine.state in (State.CHUNK, State.CLOSED)
                line = b""
            if len(desk.taken) > count:
                _check(desk.taken[-1], _decoded(content, normalise, is_chunked=before is not State.DATA))
            if machine.state is State.CHUNK and before is not State.CHUNK:
                is_chunked = before in (State.RCPT, State.CHUNKS)
            if machine.state in (State.READY, State.MAIL, State.RCPT):
                content, is_chunked = b"", False
        if desk.awaits_tls:
            said += desk.start_tls()
            content = line = b""
    said += desk.hang_up()
    assert machine.is_finished
    return said, desk.taken


def _decoded(content: bytes, normalise: bool, *, is_chunked: bool) -> bytes:
    if not is_chunked:
        assert (b"\r\n" + content).index(b"\r\n.\r\n") == len(content) - 3
        content = read_slowly(content[:-3])
    if normalise:
        content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def _check(taken: tuple[Envelope, bytes], expected: bytes) -> None:
    envelope, content = taken
    assert content == expected
    assert not has_bare_line_end(content)
    assert ContentDecoder().feed(encode(content)) == (content, True, b"")
    assert envelope.smtputf8 or all(map(str.isascii, (envelope.reverse_path, *envelope.recipients)))
    transaction = MailTransaction(envelope, len(content))
    transaction.prepare(OFFERED, None)  # our client can write whatever was taken
    assert len(transaction.lines) == len(envelope.recipients) + 2
