"""The server side of SMTP submission as a machine without I/O (RFC 5321, RFC 6409).

`receive` takes octets, `next_event` gives what has to be decided, one at a time; `accept`, `refuse` and `fill` answer;
`data_to_send` holds the replies in the order of their commands. Once `is_finished`, the connection is to be closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ...model.envelope import Envelope
from ..sasl import Credentials
from . import server_replies as replies
from .errors import LocalProtocolError
from .path import ArgumentError, parse_mail, parse_rcpt
from .server_content import ChunkContent, DataContent
from .server_envelope import build_envelope
from .server_events import Content, ContentRefused, Event, Login, MailFrom, RcptTo, ReplySlot, StartTls
from .server_greeting import ehlo_reply, helo_name
from .server_lines import CommandLines, LineRefused
from .server_login import LoginExchange, LoginRefused
from .server_refusals import mail_fault, out_of_order, rcpt_fault, unknown
from .server_replies import GO_AHEAD, OK_MAIL, OK_RCPT, reply_line
from .server_states import ALLOWED, TRANSITIONS, ServerLimits, State, Verb

__all__ = ["MAX_REPLIES", "TRANSITIONS", "ServerLimits", "ServerMachine", "State", "Verb"]

#: Replies that wait behind an open slot, or to be sent, before commands wait too.
MAX_REPLIES = 512

# Bound once: a member of an enum is slow to reach on Python 3.11, and these are on the way of every message.
_CONNECTED, _READY, _DATA, _CHUNK = State.CONNECTED, State.READY, State.DATA, State.CHUNK
_AUTH, _TLS, _CLOSED = State.AUTH, State.TLS, State.CLOSED
_VERB_MAIL, _VERB_RCPT, _VERB_DATA, _VERB_BDAT = Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.BDAT
_END_OF_CHUNK, _NO_MAIL = Verb.END_OF_CHUNK, MailFrom("")

#: Read only once nothing waits for its commit: one message of a connection does at a time, and what changes the
#: connection itself comes in its turn.
_IN_TURN = frozenset((Verb.DATA, Verb.BDAT, Verb.STARTTLS))


class ServerMachine:
    """One connection.

    `secure` is whether TLS is on, `starttls` whether it may be started, `clear_login` whether AUTH is offered without
    it, `normalise_bare_lf` whether a bare LF in content becomes CRLF instead of being refused, `any_helo` whether every
    name is taken in EHLO, or none given, and parameters after a HELO.
    """

    def __init__(
        self,
        limits: ServerLimits,
        hostname: str,
        *,
        secure: bool = False,
        starttls: bool = False,
        clear_login: bool = False,
        normalise_bare_lf: bool = False,
        any_helo: bool = False,
    ) -> None:
        self._limits = limits
        self._hostname = hostname
        self.secure = secure
        self._starttls = starttls
        self._clear_login = clear_login
        self._normalise_bare_lf = normalise_bare_lf
        self._any_helo = any_helo
        self._lines = CommandLines(limits.command_line_bytes, limits.auth_line_bytes, any_helo=any_helo)
        self._out: list[bytes] = [f"220 {hostname} ESMTP Postroom\r\n".encode("ascii")]
        self._slots: deque[ReplySlot] = deque()
        self._reply: Callable[[bytes], None] = self._out.append
        self._asked: MailFrom | RcptTo | Login | None = None
        self._draining = False
        self._errors = 0
        self._failed_logins = 0
        self._forget()

    def _forget(self) -> None:
        """As if the client had only just connected (RFC 3207 section 4.2); failures stay counted."""
        self.state = _READY if self._any_helo else _CONNECTED
        self.helo = ""
        self.is_extended = False
        self.logged_in = False
        self.is_waiting = False
        self._mail = _NO_MAIL
        self._recipients: list[str] = []
        self._asks: dict[int, RcptTo] = {}  # by number of the recipient: what had parameters
        self._over_limit = 0
        self._exchange: LoginExchange | None = None
        self._incoming: DataContent | ChunkContent | None = None

    # The driver's side

    def receive(self, data: bytes) -> None:
        """Octets from the client; ignored once closed, and while a handshake is due."""
        if self.state is not _CLOSED and self.state is not _TLS:
            self._lines.add(data)

    def receive_eof(self) -> None:
        """The client will send no more: an unfinished command or content is nothing."""
        if self.state is not _CLOSED:
            self._close(b"")

    def data_to_send(self) -> bytes:
        """Replies that may go out now."""
        out = self._out
        if len(out) == 1:
            return out.pop()
        data = b"".join(out)
        out.clear()
        return data

    @property
    def is_finished(self) -> bool:
        """No command is read any more and all replies are known: send what there is and close."""
        return self.state is _CLOSED and not self._slots

    @property
    def is_uncommitted(self) -> bool:
        """A reply is still owed by `fill`."""
        return bool(self._slots)

    @property
    def offers_auth(self) -> bool:
        """Whether a password may be sent on this connection as it is."""
        return self.secure or self._clear_login

    @property
    def offers_starttls(self) -> bool:
        """Whether STARTTLS would be taken."""
        return self._starttls and not self.secure

    @property
    def is_in_content(self) -> bool:
        """Whether content has begun and not ended."""
        return self._incoming is not None

    @property
    def content_bytes(self) -> int:
        """How much of the content has come."""
        return self._incoming.size_bytes if self._incoming is not None else 0

    def envelope(self, eight_bit: bool = False) -> Envelope:
        """What the transaction has by now; `eight_bit` is whether its content was found to hold octets over 127."""
        return build_envelope(self._mail, self._recipients, self._asks, eight_bit)

    def next_event(self) -> Event | None:
        """The next thing to decide, or None: more octets, an answer by `fill` (`is_waiting`), or the end are needed, or
        `MAX_REPLIES` are there to be sent first.

        Raises:
            LocalProtocolError: the last event has not been answered.
        """
        if self._asked is not None:
            raise LocalProtocolError("the last event has not been answered")
        while True:
            state = self.state
            if state is _DATA or state is _CHUNK:
                event: Event | None = self._content()
                if event is None and self.state is state:
                    return None
            elif state is _CLOSED or state is _TLS or self.is_waiting or len(self._out) >= MAX_REPLIES:
                return None
            else:
                try:
                    line = self._lines.next(is_login=state is _AUTH)
                except LineRefused as refused:
                    self._bad_line(refused)
                    continue
                if line is None:
                    return None
                event = self._login_line(line[:-2]) if state is _AUTH else self._command(line)
            if event is not None:
                return event

    def accept(self) -> None:
        """Yes to the last event."""
        asked, self._asked = self._asked, None
        if isinstance(asked, RcptTo):
            if not asked.is_plain:
                self._asks[len(self._recipients)] = asked
            self._recipients.append(asked.address)
            self.state = ALLOWED[self.state][_VERB_RCPT]
            self._reply(OK_RCPT)
        elif isinstance(asked, MailFrom):
            self._mail = asked
            self._recipients = []
            if self._asks:
                self._asks = {}
            self._over_limit = 0
            self.state = ALLOWED[self.state][_VERB_MAIL]
            self._reply(OK_MAIL)
        elif asked is not None:
            self.logged_in = True
            self._reply(replies.LOGGED_IN)
        else:
            raise LocalProtocolError("there is nothing to accept")

    def refuse(self, code: int, enhanced: str, text: str) -> None:
        """No to the last event; 421 ends the connection."""
        asked, self._asked = self._asked, None
        if asked is None:
            raise LocalProtocolError("there is nothing to refuse")
        reply = reply_line(code, enhanced, text)
        if code == 421:
            self._close(reply)
        elif isinstance(asked, Login) and code >= 500:
            self._login_failed(reply)
        else:
            self._error(reply)

    def fill(self, slot: ReplySlot, reply: bytes) -> None:
        """The reply that belongs into `slot`, with its CRLF. Errors are counted between messages that were taken."""
        if slot.reply is not None or slot not in self._slots:
            raise LocalProtocolError("the slot is not open")
        slot.reply = reply
        if reply.startswith(b"2"):
            self._errors = 0
        slots, out = self._slots, self._out
        while slots and (known := slots[0].reply) is not None:
            out.append(known)
            out.extend(slots.popleft().behind)
        if not slots:
            self._reply = out.append
            self.is_waiting = False
        if reply.startswith(b"5"):
            self._count_error()

    def tls_started(self) -> None:
        """The handshake is done: EHLO, login and transaction are forgotten, as is what came in clear."""
        if self.state is not _TLS:
            raise LocalProtocolError("no handshake was due")
        self._forget()
        self.secure = True

    def close(self, code: int, enhanced: str, text: str) -> None:
        """End the connection with a reply that no command asked for (RFC 5321 section 3.8: 421)."""
        if self.state is not _CLOSED:
            self._close(reply_line(code, enhanced, text))

    def drain(self) -> None:
        """Begin no more transactions; 421 once none is under way. To be called again after each answer."""
        self._draining = True
        if not self._slots and self.state in (_CONNECTED, _READY, _AUTH):
            self._close(replies.SHUTTING_DOWN)

    # Content

    def _content(self) -> Content | ContentRefused | None:
        incoming = self._incoming
        assert incoming is not None
        decoded = incoming.read(self._lines)
        if not incoming.is_whole:
            if incoming.fault and decoded is not None:
                return ContentRefused()
            return Content(decoded, None) if decoded else None
        ending = incoming.ending
        self.state = incoming.back or ALLOWED[self.state][ending]
        if ending is not _END_OF_CHUNK or incoming.back:
            self._incoming = None
        if incoming.fault:
            answer = self._error if incoming.is_error() else self._reply
            answer(incoming.fault)
            return ContentRefused()
        if ending is _END_OF_CHUNK:
            self._reply(incoming.reply)
            return Content(decoded, None) if decoded else None
        slot = ReplySlot()
        self._slots.append(slot)
        self._reply = slot.behind.append
        return Content(decoded or b"", slot)

    def _drop_chunks(self) -> ContentRefused | None:
        """The transaction ends between two chunks: what has come of it is taken back."""
        if self._incoming is None:
            return None
        self._incoming = None
        return ContentRefused()

    # Commands

    def _command(self, line: bytes) -> Event | None:
        word = line[:4]
        verb = _COMMANDS.get(word)
        if verb is None or line[4] not in b" \r":
            word = line[:-2].partition(b" ")[0].upper()
            verb = _COMMANDS.get(word)
            if verb is None:
                self._bad_line(unknown(word))
                return None
        if self._slots and (verb in _IN_TURN or len(self._slots[-1].behind) >= MAX_REPLIES):
            self._lines.unread()
            self.is_waiting = True
            return None
        if verb not in ALLOWED[self.state] and verb is not _VERB_BDAT:
            self._error(out_of_order(self.state, verb))
            return None
        return _HANDLERS[verb](self, line[len(word) + 1 : -2])

    def _ehlo(self, argument: bytes) -> Event | None:
        reply = ehlo_reply(self._hostname, self._limits.max_size_bytes, self.offers_starttls, self.offers_auth)
        return self._greet(Verb.EHLO, argument, reply)

    def _helo(self, argument: bytes) -> Event | None:
        return self._greet(Verb.HELO, argument, f"250 {self._hostname}\r\n".encode("ascii"))

    def _greet(self, verb: Verb, argument: bytes, reply: bytes) -> Event | None:
        name = helo_name(argument, takes_any=self._any_helo)
        if name is None:
            self._error(replies.BAD_HELO)
            return None
        self.helo = name
        self.is_extended = verb is Verb.EHLO
        self.state = ALLOWED[self.state][verb]
        self._reply(reply)
        return self._drop_chunks()

    def _mail_from(self, argument: bytes) -> Event | None:
        if self._draining:
            self._close(replies.SHUTTING_DOWN)
            return None
        try:
            mail = parse_mail(argument)
        except ArgumentError as error:
            self._error(reply_line(error.reply_code, error.enhanced, str(error)))
            return None
        if mail.has_parameters and (fault := mail_fault(mail, self._limits, self.is_extended or self._any_helo)):
            self._error(fault)
            return None
        self._asked = mail
        return mail

    def _rcpt(self, argument: bytes) -> Event | None:
        try:
            rcpt = parse_rcpt(argument)
        except ArgumentError as error:
            self._error(reply_line(error.reply_code, error.enhanced, str(error)))
            return None
        if not rcpt.is_plain and (fault := rcpt_fault(rcpt, self._mail, self.is_extended or self._any_helo)):
            self._error(fault)
            return None
        if len(self._recipients) < self._limits.max_recipients:
            self._asked = rcpt
            return rcpt
        # RFC 5321 section 4.5.3.1.10: an honest client sends the rest later, so this is no error until it is abuse.
        self._over_limit += 1
        answer = self._reply if self._over_limit <= self._limits.max_recipients else self._error
        answer(replies.TOO_MANY_RECIPIENTS)
        return None

    def _data(self, argument: bytes) -> None:
        if self._takes_none(argument):
            self.state = ALLOWED[self.state][_VERB_DATA]
            self._incoming = DataContent(self._limits.max_size_bytes, self._normalise_bare_lf)
            self._reply(GO_AHEAD)

    def _bdat(self, argument: bytes) -> None:
        """A chunk is announced, in order or not: its octets are never read as commands."""
        incoming = self._incoming
        if not isinstance(incoming, ChunkContent):
            is_due = _VERB_BDAT in ALLOWED[self.state]
            fault, back = (b"", None) if is_due else (out_of_order(self.state, _VERB_BDAT), self.state)
            incoming = ChunkContent(self._limits.max_size_bytes, self._normalise_bare_lf, fault, back)
        if not incoming.announce(argument):
            self._close(replies.BAD_CHUNK)
            return
        self._incoming = incoming
        self.state = _CHUNK

    def _rset(self, argument: bytes) -> Event | None:
        if not self._takes_none(argument):
            return None
        self.state = ALLOWED[self.state][Verb.RSET]
        self._reply(replies.OK)
        return self._drop_chunks()

    def _noop(self, argument: bytes) -> None:
        self._reply(replies.OK)

    def _help(self, argument: bytes) -> None:
        self._reply(replies.COMMANDS)

    def _vrfy(self, argument: bytes) -> None:
        # RFC 5321 section 7.3: no word on who exists.
        self._reply(replies.WILL_TRY)

    def _quit(self, argument: bytes) -> None:
        if self._takes_none(argument):
            self._close(replies.BYE)

    def _start_tls(self, argument: bytes) -> Event | None:
        if not self._takes_none(argument):
            return None
        if not self.offers_starttls:
            self._error(replies.TLS_IS_ON if self.secure else replies.NO_TLS)
            return None
        # What came in clear behind the command may be somebody else's (CVE-2011-0411): discarded, not read after TLS.
        self._lines.take_all()
        self.state = ALLOWED[self.state][Verb.STARTTLS]
        self._reply(replies.TLS_GO_AHEAD)
        return StartTls()

    def _takes_none(self, argument: bytes) -> bool:
        if argument.strip(b" "):
            self._error(replies.NO_ARGUMENT)
            return False
        return True

    # Login (RFC 4954)

    def _auth(self, argument: bytes) -> Event | None:
        if not self.offers_auth or self.logged_in:
            self._error(replies.ALREADY_LOGGED_IN if self.offers_auth else replies.ENCRYPT_FIRST)
            return None
        try:
            self._exchange = LoginExchange(argument)
            answer = self._exchange.begin()
        except LoginRefused as refused:
            self._error(refused.reply)
            return None
        self.state = ALLOWED[self.state][Verb.AUTH]
        return self._login_answer(answer)

    def _login_line(self, line: bytes) -> Event | None:
        assert self._exchange is not None
        try:
            answer = self._exchange.step(line)
        except LoginRefused as refused:
            self._end_exchange()
            self._error(refused.reply)
            return None
        return self._login_answer(answer)

    def _login_answer(self, answer: bytes | Credentials) -> Event | None:
        if isinstance(answer, bytes):
            self._reply(answer)
            return None
        self._end_exchange()
        if answer.authorization not in ("", answer.login):
            self._login_failed(replies.NO_PROXY_LOGIN)
            return None
        self._asked = Login(answer.login, answer.password)
        return self._asked

    def _end_exchange(self) -> None:
        self.state = ALLOWED[_AUTH][Verb.LOGGED_IN]
        self._exchange = None

    # Refusals

    def _bad_line(self, refused: LineRefused) -> None:
        if self.state is _AUTH:
            self._end_exchange()
        answer = self._close if refused.is_fatal else self._error
        answer(refused.reply)

    def _login_failed(self, reply: bytes) -> None:
        self._failed_logins += 1
        if self._failed_logins >= self._limits.max_auth_failures:
            self._close(replies.TOO_MANY_FAILED_LOGINS)
        else:
            self._reply(reply)

    def _error(self, reply: bytes) -> None:
        self._reply(reply)
        self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= self._limits.max_errors and self.state is not _CLOSED:
            self._close(replies.TOO_MANY_ERRORS)

    def _close(self, reply: bytes) -> None:
        self.state = _CLOSED
        self._lines.take_all()
        self._incoming = None
        self._asked = None
        if reply:
            self._reply(reply)


_HANDLERS: dict[Verb, Callable[[ServerMachine, bytes], Event | None]] = {
    Verb.EHLO: ServerMachine._ehlo,
    Verb.HELO: ServerMachine._helo,
    Verb.MAIL: ServerMachine._mail_from,
    Verb.RCPT: ServerMachine._rcpt,
    Verb.DATA: ServerMachine._data,
    Verb.BDAT: ServerMachine._bdat,
    Verb.RSET: ServerMachine._rset,
    Verb.NOOP: ServerMachine._noop,
    Verb.HELP: ServerMachine._help,
    Verb.VRFY: ServerMachine._vrfy,
    Verb.QUIT: ServerMachine._quit,
    Verb.AUTH: ServerMachine._auth,
    Verb.STARTTLS: ServerMachine._start_tls,
}
_COMMANDS: dict[bytes, Verb] = {verb.encode(): verb for verb in _HANDLERS}
