"""Events or RemoteProtocolError, nothing else; a content counts as delivered if, and only if, it got its own 2yz.

An input is what the client does (one octet), how it is cut (one octet), and the octets of a server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from postroom.model.account import Security
from postroom.model.envelope import DsnRequest, Envelope
from postroom.protocol.smtp import RemoteProtocolError
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_states import SessionState
from postroom.protocol.smtp.content import encode
from postroom.protocol.smtp.reply_reader import ReplyLimits
from postroom.protocol.smtp.transaction import MailTransaction
from tests.fuzz.fuzz_reply_reader import read_slowly
from tests.fuzz.inputs import PAUSE, cut, wire
from tests.protocol.client_play import NAME, Sender
from tests.protocol.transcript_file import transcripts

TOKENS = (
    b"250 ok\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n" + PAUSE, b"250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n" + PAUSE,
    PAUSE, b"354 go\r\n", b"354 go\r\n" + PAUSE,
    b"550 5.1.1 no\r\n", b"421 4.3.2 bye\r\n", b"451 later\r\n", b"503 what\r\n", b"220 go\r\n" + PAUSE,
    b"235 welcome\r\n", b"334 VXNlcm5hbWU6\r\n", b"250-PIPELINING\r\n", b"250-SIZE 100\r\n", b"250-STARTTLS\r\n",
    b"250-AUTH PLAIN LOGIN\r\n", b"250-SMTPUTF8\r\n", b"250-DSN\r\n", b"250-LIMITS RCPTMAX=1 MAILMAX=2\r\n",
    b"250-8BITMIME\r\n", b"250 relay.test\r\n", b"\r\n", b"\n", b"\x00", b"299 odd\r\n",
)  # fmt: skip
LIMITS = ReplyLimits(line_bytes=512, reply_bytes=2048)

_MESSAGES = (
    (Envelope("a@s.test", ("r@a.test",)), b"one\r\n"),
    (Envelope("b@s.test", ("r@a.test", "\u00e9@b.test", "r@c.test"), eight_bit=True), b"..\r\n.two \xc3\xa9\r\n"),
    (
        Envelope("c@s.test", ("r@a.test", "r@b.test"), dsn=DsnRequest("HDRS", "x", ("NEVER", ""), ("", "rfc822;x"))),
        b"MAIL FROM:<evil@s.test>\r\nRCPT TO:<r@a.test>\r\nDATA\r\nthree\r\n",
    ),
)
_CONTENTS = {envelope.reverse_path: content for envelope, content in _MESSAGES}
_SECURITIES = (Security.NONE, Security.AUTO, Security.STARTTLS, Security.STARTTLS_IF_OFFERED)
#: The beginning that most servers have; with it, more of the inputs are about messages.
_INTRODUCTION = b"220 relay.test\r\n250-relay.test\r\n250-PIPELINING\r\n250 SIZE\r\n"

_MAIL = re.compile(r"MAIL FROM:<(.*?)>")
_RCPT = re.compile(r"RCPT TO:<(.*?)>")


def seeds() -> list[bytes]:
    """What servers say in the transcripts, to clients of several kinds."""
    said = [wire(one, "S") for one in transcripts("client")]
    whole = [kind + octets for octets in said if len(octets) < 3000 for kind in (b"\x00\x0f", b"\x05\x30", b"\x09\x03")]
    beginning = b"250 PIPELINING\r\n" + PAUSE
    rests = [octets.partition(beginning)[2] for octets in said if beginning in octets and len(octets) < 3000]
    return whole + [kind + rest for rest in rests for kind in (b"\x10\x30", b"\x18\x05")]


def one_input(data: bytes) -> None:
    """See the top."""
    if len(data) < 2:
        return
    flights = (_INTRODUCTION * bool(data[0] & 16) + data[2:]).split(PAUSE)
    waiting = [(MailTransaction(envelope, len(content)), content) for envelope, content in _MESSAGES]
    transactions = [transaction for transaction, _ in waiting]
    client = (SlowSender if data[0] & 8 else Sender)(
        waiting,
        security=_SECURITIES[data[0] & 3],
        username="erp" if data[0] & 4 else "",
        password="right",
        allow_clear_password=True,
        machine=SmtpClient(NAME, LIMITS),
    )
    written = _play(client, flights, data[1] + 1)
    _check_end(client, transactions)
    heard = b"".join(flights)
    told = {
        (transaction.envelope.reverse_path, recipient)
        for transaction in transactions
        for n, recipient in enumerate(transaction.envelope.recipients)
        if transaction.is_delivered(n)
    }
    assert told == delivered(heard, written), (told, written)


def _play(client: Sender, flights: list[bytes], size: int) -> bytes:
    """All that the client writes."""
    written = b""
    for flight in flights:
        for piece in cut(flight, size):
            written += client.hear(piece)
        if client.machine.state is SessionState.HANDSHAKE:
            written += client.start_tls()
    return written + client.end()


def _check_end(client: Sender, transactions: list[MailTransaction]) -> None:
    assert client.is_closed or client.machine.state is SessionState.HANDSHAKE
    assert len(client.ended) == len(set(map(id, client.ended)))
    if not client.failure and client.is_closed:
        assert set(map(id, client.ended)) == set(map(id, transactions))
    for transaction in transactions:
        assert not (transaction.not_started and transaction.content_written)
        assert transaction.error_kind in ("", "network", "protocol", "closing", "aborted")
    if client.machine.state is SessionState.DEAD and client.machine._error is not None:
        for _ in range(2):
            try:
                client.machine.next_event()
            except RemoteProtocolError:
                continue
            raise AssertionError("a dead connection lives")


@dataclass
class SlowSender(Sender):
    """Writes content an octet at a time, some of it each time that something arrives."""

    _left: bytes = b""
    _current: MailTransaction | None = field(default=None)

    def hear(self, octets: bytes) -> bytes:
        """See Sender."""
        return super().hear(octets) + self._feed(4)

    def end(self) -> bytes:
        """See Sender."""
        return self._feed(len(self._left) // 2) + super().end()

    def _write(self, transaction: MailTransaction, content: bytes) -> None:
        self.machine.begin_content()
        self._left, self._current = content, transaction

    def _feed(self, count: int) -> bytes:
        current = self._current
        if current is None or self.is_closed or not self.machine.is_writing_content:
            self._current = None
            return b""
        for at in range(count):
            self.machine.send_chunk(self._left[at : at + 1])
        self._left = self._left[count:]
        if not self._left:
            self.machine.end_content()
            self._current = None
        return b"".join(self.machine.take_output())


def delivered(heard: bytes, written: bytes) -> set[tuple[str, str]]:
    """Who got what, as an observer of both directions counts it: the n-th reply is to the n-th thing said."""
    replies = [int(lines[0][:3]) for lines in read_slowly(heard, LIMITS)[0]]
    if 421 in replies:
        del replies[replies.index(421) + 1 :]
    told = iter(replies[1:])
    found: set[tuple[str, str]] = set()
    sender, recipients = None, set[str]()
    while written:
        command, _, written = written.partition(b"\r\n")
        line = command.decode()
        code = next(told, 0)
        if mail := _MAIL.match(line):
            sender, recipients = (mail[1] if code // 100 == 2 else None), set()
        elif rcpt := _RCPT.match(line):
            recipients |= {rcpt[1]} if code // 100 == 2 else set()
        elif line == "DATA" and code // 100 == 3:
            end = (b"\r\n" + written).find(b"\r\n.\r\n")
            if end < 0:
                assert any(encode(content).startswith(written) for _, content in _MESSAGES), written
                break
            content, written = written[: end + 3], written[end + 3 :]
            final = next(told, 0)
            if sender is not None and recipients:
                assert content == encode(_CONTENTS[sender])
                found |= {(sender, one) for one in recipients} if final // 100 == 2 else set()
            else:
                assert content == b".\r\n"
    return found
