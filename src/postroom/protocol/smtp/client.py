"""The client's side of SMTP as a state machine without I/O (RFC 5321; RFC 2920 for what goes ahead).

Give it bytes with `receive`, take events with `next_event` until there is none, and write what `take_output` returns.
With PIPELINING, MAIL, RCPT and DATA of a transaction go in one flight, and those of the next one behind the end of
data of the one before (RFC 2920 section 3.1: after 354 the content ends the transaction, whatever its reply).
"""

from __future__ import annotations

import re
from collections import deque

from ...model.reply import Reply
from .client_events import Answered, ConnectionEnded, ContentWanted, Event, MailAnswered, TransactionEnded
from .client_limits import OfferedLimits
from .client_states import ALLOWED, SESSION_MOVES, TRANSACTION_MOVES, Cause, SessionState, Step
from .content import ContentEncoder, encode
from .errors import LocalProtocolError, RemoteProtocolError
from .reply_reader import DEFAULT_LIMITS, ReplyLimits, ReplyReader
from .transaction import END_OF_DATA_COMMAND, MailTransaction

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_NAMES = {SessionState.EHLO: "EHLO", SessionState.HELO: "HELO", SessionState.RESET: "RSET", SessionState.QUIT: "QUIT"}
_NAMES |= {SessionState.STARTTLS: "STARTTLS", SessionState.AUTH: "AUTH"}

# Bound once: a member of an enum is slow to reach on Python 3.11, and these are on the way of every message.
_READY, _HANDSHAKE, _CLOSED = SessionState.READY, SessionState.HANDSHAKE, SessionState.CLOSED
_WAITING, _ENVELOPE, _DATA, _GO = Step.WAITING, Step.ENVELOPE, Step.DATA, Step.GO
_CONTENT, _SENT, _DOT, _DONE = Step.CONTENT, Step.SENT, Step.DOT, Step.DONE
_SEND_ENVELOPE, _SEND_DATA = Cause.ENVELOPE, Cause.DATA
_SEND_CONTENT, _SEND_END_OF_DATA = Cause.CONTENT, Cause.END_OF_DATA


class SmtpClient:
    """One connection.

    `extensions` has what the last EHLO offered, by keyword in capitals, with its parameters; `limits` what its LIMITS
    (RFC 9422) said, None where it was not offered.
    """

    __slots__ = (
        "_ahead",
        "_begun",
        "_current",
        "_encoder",
        "_eof",
        "_error",
        "_goes_ahead",
        "_output",
        "_question",
        "_queued",
        "_reader",
        "extensions",
        "helo_name",
        "limits",
        "pipelining",
        "remote_name",
        "replies",
        "state",
    )

    def __init__(self, helo_name: str, reply_limits: ReplyLimits = DEFAULT_LIMITS) -> None:
        self.helo_name = helo_name
        self._reader = ReplyReader(reply_limits)
        self._output: list[bytes] = []
        self._queued: deque[Event] = deque()
        self._current: MailTransaction | None = None
        self._ahead: MailTransaction | None = None
        self._begun = False
        self._eof = False
        self._error: RemoteProtocolError | None = None
        self._encoder: ContentEncoder | None = None
        self._goes_ahead = False
        self.state = SessionState.GREETING
        self.extensions: dict[str, str] = {}
        self.limits: OfferedLimits | None = None
        self.pipelining = False
        self.remote_name = ""
        self.replies = 0  # taken so far: what has arrived counts as progress only when it is a whole reply

    # What arrives

    def receive(self, data: bytes) -> bool:
        """Take in what arrived. Whether there may be an event now."""
        return self._reader.receive(data)

    def receive_eof(self) -> None:
        """The other side will send nothing more."""
        self._eof = True

    def next_event(self) -> Event | None:
        """The next thing that happened; None until more arrives.

        One at a time, so that what is behind a good reply cannot undo it.

        Raises:
            RemoteProtocolError: the server broke the protocol; the connection is dead, and each further call raises it.
        """
        if self._error is not None:
            raise self._error
        try:
            while True:
                if self._queued:
                    return self._queued.popleft()
                if self.state >= _CLOSED:
                    return None
                if self.state is _HANDSHAKE and self._reader.has_unread:
                    raise RemoteProtocolError("octets in clear behind the reply to STARTTLS")
                reply = self._reader.next_reply(self._awaited_command())
                if reply is None:
                    return self._ended() if self._eof else None
                self.replies += 1
                event = self._take(reply)
                if event is not None:
                    return event
        except RemoteProtocolError as error:
            self._error = error
            self.state = SessionState.DEAD
            raise

    def take_output(self) -> list[bytes]:
        """What shall be written now, in order; it is handed out once."""
        output = self._output
        if output:
            self._output = []
        return output

    # Where it stands

    @property
    def is_idle(self) -> bool:
        """Ready, with nothing under way."""
        return self.state is _READY and self._current is None

    @property
    def may_begin(self) -> bool:
        """Whether `begin` can take a transaction."""
        return self._ahead is None and self.state in (_READY, SessionState.RESET)

    @property
    def may_quit(self) -> bool:
        """Whether `quit` may be called."""
        return self._current is None and Cause.QUIT in ALLOWED[self.state]

    @property
    def awaits_reply(self) -> bool:
        """Whether the server must speak next (false while content is still to be written)."""
        if self.state is _READY:
            return self._current is not None and self._current.step not in (_GO, _CONTENT)
        return self.state not in (SessionState.GREETED, _HANDSHAKE, SessionState.REFUSED) and (self.state < _CLOSED)

    @property
    def awaits_final_reply(self) -> bool:
        """Whether it is the reply to an end of data that must come next."""
        return self._current is not None and self._current.step in (_SENT, _DOT)

    @property
    def is_writing_content(self) -> bool:
        """Whether a part of a content was written and its end was not."""
        return self._current is not None and self._current.step is _CONTENT

    @property
    def size_limit(self) -> int | None:
        """The largest message that the server takes, in octets (RFC 1870 section 4); None where it names none."""
        value = self.extensions.get("SIZE", "")
        return int(value) or None if value.isascii() and value.isdigit() and len(value) <= 20 else None

    # The session

    def ehlo(self) -> None:
        """Send EHLO."""
        self._send(Cause.EHLO, b"EHLO " + self._helo_argument())

    def helo(self) -> None:
        """Send HELO, for a server that refused EHLO (RFC 5321 section 3.2)."""
        self._send(Cause.HELO, b"HELO " + self._helo_argument())

    def starttls(self) -> None:
        """Send STARTTLS (RFC 3207). After its 2yz: the handshake, `tls_started`, `ehlo`."""
        self._require_no_transaction()
        self._send(Cause.STARTTLS, b"STARTTLS")

    def tls_started(self) -> None:
        """The handshake is done."""
        self.state = self._moved(Cause.TLS_STARTED)
        self._forget()

    def authenticate(self, command: bytes) -> None:
        """Send AUTH (RFC 4954), as `client_login` has it. Each 334 is an event, and `respond` its answer."""
        self._require_no_transaction()
        self._send(Cause.AUTH, command)

    def respond(self, line: bytes) -> None:
        """Answer the challenge that AUTH, or the response before, was answered with."""
        self._send(Cause.RESPONSE, line)

    def ask(self, command: bytes) -> None:
        """Send MAIL or RCPT of a transaction that will have no content, or the RSET that must come behind them."""
        self._require_no_transaction()
        self._send(Cause.QUESTION, command)
        self._question = command[:4].decode("ascii")

    def quit(self) -> None:
        """Send QUIT, with nothing under way."""
        self._require_no_transaction()
        self._send(Cause.QUIT, b"QUIT")

    # Mail transactions

    def begin(self, transaction: MailTransaction) -> bool:
        """Take one more transaction; its envelope is written as soon as the protocol allows.

        False: every recipient is `left_out`; nothing of the transaction will be written, and no event tells of it.

        Raises:
            LocalProtocolError: one is ahead already, the session is not ready, or the envelope cannot be written.
        """
        if not self.may_begin:
            raise LocalProtocolError("no transaction can begin now")
        transaction.prepare(self.extensions, self.limits)
        if not transaction.lines:
            return False
        transaction.is_first = not self._begun
        self._begun = True
        current = self._current
        if current is None:
            self._current = transaction
            if self.state is _READY:
                self._write_envelope(transaction)
        else:
            self._ahead = transaction
            if current.step is _SENT and self._goes_ahead:
                self._write_envelope(transaction)
        return True

    def send_content(self, content: bytes) -> None:
        """Write the whole content of the transaction that wants it, with the envelope ahead behind it.

        Raises:
            LocalProtocolError: none wants content, or it has a bare CR or LF (nothing of it is written then).
        """
        self._content_begins(encode(content))
        self._content_ended()

    def begin_content(self) -> None:
        """From here on, `send_chunk` any number of times, then `end_content`."""
        self._encoder = ContentEncoder()
        self._content_begins(b"")

    def send_chunk(self, chunk: bytes) -> None:
        """Write the next piece of content, cut anywhere; a bare CR or LF in it is a LocalProtocolError."""
        if self._encoder is None:
            raise LocalProtocolError("no content was begun")
        self._output.append(self._encoder.feed(chunk))

    def end_content(self) -> None:
        """Write the end of data, with the envelope ahead behind it."""
        if self._encoder is None:
            raise LocalProtocolError("no content was begun")
        self._output.append(self._encoder.finish())
        self._encoder = None
        self._content_ended()

    def give_up(self, reason: str, kind: str) -> list[MailTransaction]:
        """The connection is lost or of no more use: it is dead, and what had not ended is returned with its error.

        `kind` is one of those of `MailTransaction.error_kind`. The oldest comes first.
        """
        unfinished = [transaction for transaction in (self._current, self._ahead) if transaction is not None]
        self._current = self._ahead = None
        self._output = []
        if self.state is not _CLOSED:
            self.state = SessionState.DEAD
        for transaction in unfinished:
            transaction.error = reason
            transaction.error_kind = kind
            # Content that could not be written breaks the connection by itself, and would again.
            is_at_fault = kind == "local" and transaction.step is _GO
            transaction.not_started = not is_at_fault and transaction.is_untouched
        return unfinished

    def withdraw(self) -> list[MailTransaction]:
        """Take back the transactions of which nothing was written yet: `not_started`, and no event tells of them."""
        unwritten = [one for one in (self._current, self._ahead) if one is not None and one.step is _WAITING]
        for transaction in unwritten:
            transaction.not_started = True
            if transaction is self._current:
                self._current = None
            else:
                self._ahead = None
        return unwritten

    # Inside: replies

    def _awaited_command(self) -> str:
        transaction = self._current
        if self.state is not _READY:
            return self._question if self.state is SessionState.ASKED else _NAMES.get(self.state, "")
        if transaction is None:
            return ""
        step = transaction.step
        if step is _ENVELOPE:
            return "RCPT" if transaction.answered else "MAIL"
        return "DATA" if step is _DATA else END_OF_DATA_COMMAND if step >= _CONTENT else ""

    def _take(self, reply: Reply) -> Event | None:
        if reply.code == 421:
            return self._closing(reply)
        if self.state is not _READY:
            return self._session_reply(reply)
        transaction = self._current
        if transaction is None:
            raise RemoteProtocolError(f"a reply that nothing asked for: {reply.text[:200]}")
        at = transaction.step
        step = TRANSACTION_MOVES.get((at, reply.code // 100))
        if step is None:
            raise RemoteProtocolError(f"out of step at {at.name}: {reply.text[:200]}")
        if at is _ENVELOPE:
            return self._envelope_reply(transaction, reply)
        transaction.step = step
        if at is _DATA:
            transaction.data = reply
            if step is _GO:
                return self._go(transaction)
        elif at is not _DOT:  # that reply is about no content
            transaction.final = reply
        if at is _CONTENT:
            return self._last(transaction, self._ended("the server answered before the end of the content"))
        self._finish(transaction)
        return TransactionEnded(transaction)

    def _envelope_reply(self, transaction: MailTransaction, reply: Reply) -> Event | None:
        n = transaction.answered
        transaction.answered = n + 1
        if n == 0:
            transaction.mail = reply
            abandoned = not reply.is_positive
            if transaction.is_watched:
                self._queued.append(MailAnswered(transaction))
        else:
            asked = transaction.asked
            transaction.rcpt[n - 1 if asked is None else asked[n - 1]] = reply
            mail = transaction.mail
            if reply.is_positive and mail is not None and mail.is_positive:
                transaction.accepted += 1
            abandoned = not transaction.accepted
        last = n == len(transaction.lines) - 2
        if self.pipelining:
            if last:
                transaction.step = TRANSACTION_MOVES[transaction.step, _SEND_DATA]
            return None
        if abandoned and (last or n == 0):
            transaction.step = TRANSACTION_MOVES[transaction.step, Cause.ABANDON]
            self._finish(transaction)
            return TransactionEnded(transaction)
        self._output.append(transaction.lines[n + 1].encode())
        if last:
            transaction.step = TRANSACTION_MOVES[transaction.step, _SEND_DATA]
        return None

    def _go(self, transaction: MailTransaction) -> Event | None:
        if self._reader.has_unread:
            # What came with the 354 can be no reply to a content that was not written yet.
            reply = self._reader.next_reply("")
            if reply is not None and reply.code == 421:
                return self._closing(reply)
            raise RemoteProtocolError("a reply before the content that it answers")
        if transaction.accepted:
            return ContentWanted(transaction)
        # RFC 2920 section 3.1: 354 though no recipient was accepted; send only the dot.
        transaction.step = TRANSACTION_MOVES[transaction.step, _SEND_END_OF_DATA]
        self._output.append(b".\r\n")
        return None

    def _finish(self, transaction: MailTransaction) -> None:
        following = self._current = self._ahead
        self._ahead = None
        mail = transaction.mail
        if transaction.data is None or not transaction.data.is_intermediate or mail is None or not mail.is_positive:
            # The server may still hold a transaction open.
            self._send(Cause.RSET, b"RSET")
        elif following is not None and following.step is _WAITING:
            self._write_envelope(following)

    def _session_reply(self, reply: Reply) -> Event | None:
        at = self.state
        state = SESSION_MOVES.get((at, reply.code // 100))
        if state is None:
            raise RemoteProtocolError(f"out of step at {at.name}: {reply.text[:200]}")
        self.state = state
        if at is SessionState.RESET:
            if self._current is not None:
                self._write_envelope(self._current)
            return None
        if at is SessionState.EHLO or at is SessionState.HELO:
            self._forget()
            if state is _READY:
                self._learn(reply, extended=at is SessionState.EHLO)
        elif state is _HANDSHAKE and self._reader.has_unread:
            raise RemoteProtocolError("octets in clear behind the reply to STARTTLS")
        return Answered(reply)

    def _learn(self, reply: Reply, *, extended: bool) -> None:
        self.remote_name = reply.lines[0].split(" ", 1)[0]
        for line in reply.lines[1:] if extended else ():
            if line[:5].upper() == "AUTH=":  # how servers offered it before RFC 2554
                line = "AUTH " + line[5:]
            keyword, _, parameters = line.partition(" ")
            keyword = keyword.upper()
            if keyword == "AUTH" and keyword in self.extensions:
                parameters = self.extensions[keyword] + " " + parameters
            self.extensions[keyword] = parameters.strip()
        self.pipelining = "PIPELINING" in self.extensions
        # Dovecot (2.3, known by its BURL) dies of an envelope ahead, when it has handed on the message in front of it.
        self._goes_ahead = self.pipelining and "BURL" not in self.extensions
        if "LIMITS" in self.extensions:
            self.limits = OfferedLimits.parse(self.extensions["LIMITS"])

    def _forget(self) -> None:
        self.extensions = {}
        self.limits = None
        self.pipelining = self._goes_ahead = False

    def _closing(self, reply: Reply) -> Event:
        ended = self._ended(reply.text, reply)
        transaction = self._current
        if transaction is None:
            return ended
        step = transaction.step
        if step is _ENVELOPE and transaction.answered == 0:
            transaction.mail = reply
        elif step is _ENVELOPE:
            n, asked = transaction.answered - 1, transaction.asked
            transaction.rcpt[n if asked is None else asked[n]] = reply
        elif step is _DATA:
            transaction.data = reply
        elif step >= _CONTENT:
            if step is not _DOT:
                transaction.final = reply
            return self._last(transaction, ended)
        return ended

    def _last(self, transaction: MailTransaction, ended: ConnectionEnded) -> Event:
        """`transaction` has its final reply, and it is the last one of this connection."""
        transaction.step = _DONE
        self._current, self._ahead = self._ahead, None
        self._encoder = None
        self._queued.append(ended)
        return TransactionEnded(transaction)

    def _ended(self, reason: str = "", reply: Reply | None = None) -> ConnectionEnded:
        self.state = _CLOSED
        return ConnectionEnded(reason or "the server closed the connection", reply)

    # Inside: commands

    def _write_envelope(self, transaction: MailTransaction) -> None:
        self._moved(_SEND_ENVELOPE)
        transaction.step = TRANSACTION_MOVES[transaction.step, _SEND_ENVELOPE]
        lines = transaction.lines
        self._output.append(("".join(lines) if self.pipelining else lines[0]).encode())

    def _content_begins(self, encoded: bytes) -> None:
        transaction = self._current
        if transaction is None or transaction.step is not _GO:
            raise LocalProtocolError("no transaction wants content")
        transaction.step = TRANSACTION_MOVES[transaction.step, _SEND_CONTENT]
        self._output.append(encoded)

    def _content_ended(self) -> None:
        transaction = self._current
        if transaction is None or transaction.step is not _CONTENT:
            raise LocalProtocolError("no content is being written")
        transaction.step = TRANSACTION_MOVES[transaction.step, _SEND_END_OF_DATA]
        transaction.content_written = True
        ahead = self._ahead
        if ahead is not None and self._goes_ahead:
            self._write_envelope(ahead)

    def _send(self, cause: Cause, line: bytes) -> None:
        if _CONTROLS.search(line) is not None:
            raise LocalProtocolError("a control character in a command")
        self.state = self._moved(cause)
        self._output.append(line + b"\r\n")

    def _moved(self, cause: Cause) -> SessionState:
        state = SESSION_MOVES.get((self.state, cause))
        if state is None:
            raise LocalProtocolError(f"{cause.name} is not allowed at {self.state.name}")
        return state

    def _helo_argument(self) -> bytes:
        name = self.helo_name
        if not name or not name.isascii() or " " in name:
            raise LocalProtocolError(f"{name!r} is not a name for EHLO")
        return name.encode("ascii")

    def _require_no_transaction(self) -> None:
        if self._current is not None:
            raise LocalProtocolError("a transaction is under way")
