"""One SMTP connection: drives the server machine, decides who may submit, and hands messages to the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

import structlog

from ..crashing import reach, written
from ..errors import GatewayError, MaybeStored, TooLarge, Unauthenticated
from ..mime.head import split
from ..model.application import Application
from ..model.clock import Timer
from ..model.content import INLINE_BYTES, Content
from ..model.ids import message_id_text
from ..model.submission import Accepted, Door, Submission
from ..pending import Pending
from ..protocol.smtp import server_events as events
from ..protocol.smtp.server import MAX_REPLIES, ServerMachine, State
from ..protocol.smtp.server_replies import reply_line
from .clients import address_literal, is_loopback, plain_address
from .rules import SessionRules, refusal
from .spool import ContentSpool

_log = structlog.get_logger()

#: For a TLS handshake, and for the last reply to leave.
HANDSHAKE_SECONDS = 30.0
LINGER_SECONDS = 10.0

#: A timer that comes so late, or later, was held up with the whole process.
LATE_SECONDS = 1.0

_CLOSED = State.CLOSED

#: Trace keywords (RFC 3848) by (EHLO, TLS, AUTH).
_KEYWORDS = {
    (extended, secure, logged_in): ("ESMTP" + "S" * secure + "A" * logged_in) if extended else "SMTP"
    for extended in (False, True)
    for secure in (False, True)
    for logged_in in (False, True)
}


#: For a client that may not log in in clear and has no other way.
_NO_WAY_TO_LOG_IN = (
    'Authentication required, and there is no TLS here (listener setting tls; or profile = "devices" and '
    "allow_clear_login = true)"
)


class Owner(Protocol):
    """Who made the sessions and ends them."""

    def opened(self, session: Session) -> None:
        """A connection is there."""

    def ended(self, session: Session) -> None:
        """It is gone; called once for each that was opened."""


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, rules: SessionRules, owner: Owner) -> None:
        self._rules = rules
        self._gateway = rules.gateway
        self._owner = owner
        self._monotonic = rules.gateway.clock.monotonic
        self._transport: asyncio.Transport
        self._machine: ServerMachine
        self._peer = ""
        self._is_admitted = False
        self._is_loopback = False
        self._has_ended = False
        self._is_closing = False
        self._is_paused = False
        self._cannot_write = False
        self._handshake: asyncio.Task[None] | None = None
        self._early = b""
        self._timer: Timer | None = None
        self._looks_at = 0.0  # when it comes
        self._active = 0.0
        self._content_began: float | None = None
        self._spool: ContentSpool | None = None
        self._application: Application | None = None
        self._login: Application | None = None
        self._snapshot: tuple[Application, ...] = ()
        self._handlers: dict[type, Callable[..., None]] = {
            events.MailFrom: self._mail,
            events.RcptTo: self._rcpt,
            events.Content: self._content,
            events.ContentRefused: self._content_refused,
            events.Login: self._log_in,
            events.StartTls: self._start_tls,
        }

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._owner.opened(self)
        peername = transport.get_extra_info("peername")
        if not peername:  # gone before it was taken
            self._transport.abort()
            return
        self._peer = plain_address(peername[0])
        self._is_loopback = is_loopback(self._peer)
        rules = self._rules
        clients = rules.clients
        self._is_admitted = rules.admits(self._peer) and not clients.is_full and clients.admit(self._peer)
        if rules.tls == "implicit":
            if self._is_admitted:
                self._begin_handshake()
            else:
                self._transport.abort()
            return
        self._begin()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._handshake is not None:
            # Over TLS already: the handshake is done and only its task has not run yet. Or, with implicit TLS, the
            # client's hello: uvloop reads after `connection_made` even where that paused the transport.
            self._early += data
            return
        self._machine.receive(data)
        self._pump()

    def eof_received(self) -> bool:
        """See asyncio.Protocol. A client that only stopped sending still gets the reply to its message."""
        if self._handshake is not None:
            return False
        self._machine.receive_eof()
        return self._machine.is_uncommitted and not self._machine.secure

    def pause_writing(self) -> None:
        """The client does not read its replies: no more commands are read."""
        self._cannot_write = True
        self._set_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._cannot_write = False
        if self._handshake is None and not self._has_ended:
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol; what was handed to the gateway goes on."""
        if self._has_ended:
            return
        self._has_ended = True
        self._handlers = {}  # they hold us: no circle is left to the collector
        self._spool = None
        if self._timer is not None:
            self._timer.cancel()
        if self._is_admitted:
            self._rules.clients.left(self._peer)
        self._owner.ended(self)

    # Called by the listener

    def drain(self) -> None:
        """End as soon as no transaction is under way (`rules.draining` is set)."""
        if self._timer is not None and self._handshake is None and not self._has_ended:
            self._pump()

    def abort(self) -> None:
        """End now, without a reply."""
        if self._handshake is not None:
            self._handshake.cancel()
        self._transport.abort()

    # The dialogue

    def _begin(self, *, secure: bool = False) -> None:
        rules = self._rules
        self._machine = rules.machine(is_loopback=self._is_loopback, secure=secure)
        if not self._is_admitted:
            self._machine.data_to_send()  # instead of the greeting
            self._turn_away()
        self._active = self._monotonic()
        self._look_in(rules.idle_seconds)
        self._pump()

    def _turn_away(self) -> None:
        if self._rules.clients.is_full:
            _log.warning("too_many_connections_in_all", peer=self._peer)
            self._machine.close(421, "4.3.2", "Too many connections, try again later")
        elif self._rules.admits(self._peer):
            _log.warning("too_many_connections", peer=self._peer)
            self._machine.close(421, "4.7.0", "Too many connections from your address")
        else:
            _log.warning("address_not_allowed", peer=self._peer)
            self._machine.close(554, "5.7.1", "Your address may not connect")

    def _pump(self) -> None:
        machine = self._machine
        while True:
            try:
                while (event := machine.next_event()) is not None:
                    self._handlers[type(event)](event)
            except Exception:
                _log.exception("session_failed", peer=self._peer)
                self.abort()
                return
            if self._rules.draining:
                machine.drain()
            if out := machine.data_to_send():
                self._active = self._monotonic()
                self._transport.write(out)
            if len(out) < MAX_REPLIES or self._cannot_write:  # with fewer octets than that no command waited
                break
        if machine.state is _CLOSED and machine.is_finished:
            self._close()
        else:
            self._set_reading()

    def _set_reading(self) -> None:
        """Read only while what is read has somewhere to go."""
        spool = self._spool
        pause = self._cannot_write or self._machine.is_waiting or (spool is not None and spool.is_full)
        if pause is not self._is_paused and self._handshake is None and not self._is_closing:
            self._is_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _mail(self, event: events.MailFrom) -> None:
        application = self._who_submits()
        if application is None:
            if self._machine.offers_auth:
                self._machine.refuse(530, "5.7.0", "Authentication required")
            elif self._machine.offers_starttls:
                self._machine.refuse(530, "5.7.0", "Must issue a STARTTLS command first")  # RFC 3207 section 4
            else:
                self._machine.refuse(530, "5.7.0", _NO_WAY_TO_LOG_IN)
        elif not self._gateway.may_send_as(application, event.path):
            # The null reverse-path is an allowed sender only where all are (`*`).
            fault = f"<{event.path}> is not an allowed sender of application {application.name}"
            _log.info("sender_refused", peer=self._peer, application=application.name, sender=event.path)
            self._machine.refuse(550, "5.7.1", fault)
        else:
            self._application = application
            self._machine.accept()

    def _rcpt(self, event: events.RcptTo) -> None:
        self._machine.accept()

    def _who_submits(self) -> Application | None:
        """The application as it is now: the one logged in, else the one known by its address."""
        if self._login is None:
            return self._gateway.applications.identify(self._peer)
        snapshot = self._gateway.applications.snapshot()
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            login = self._login
            self._login = next(
                (
                    one
                    for one in snapshot
                    if one.id == login.id
                    and one.enabled
                    and (one.credential, one.networks) == (login.credential, login.networks)
                ),
                None,
            )
            if self._login is None:  # switched off, or its password or networks changed: to log in again
                self._machine.logged_in = False
        return self._login

    def _log_in(self, event: events.Login) -> None:
        clients, now = self._rules.clients, self._monotonic()
        if clients.is_throttled(self._peer, event.login, now):
            _log.warning("login_throttled", peer=self._peer, login=event.login)
            self._machine.refuse(421, "4.7.0", "Too many failed logins, try again in a minute")
            return
        try:
            application = self._gateway.applications.authenticate(event.login, event.password, self._peer)
        except Unauthenticated as error:
            clients.login_failed(self._peer, event.login, now)
            _log.warning("login_failed", peer=self._peer, login=event.login)
            self._machine.refuse(error.reply_code, error.status, "Authentication failed")
        except GatewayError as error:
            _log.warning("login_failed", peer=self._peer, login=event.login, reason=str(error))
            self._machine.refuse(454, "4.7.0", "Temporary authentication failure")  # RFC 4954 section 6
        else:
            self._login = application
            self._snapshot = self._gateway.applications.snapshot()
            self._machine.accept()

    # Content

    def _content(self, event: events.Content) -> None:
        data, slot, spool = event.data, event.slot, self._spool
        if spool is None and slot is not None and len(data) <= INLINE_BYTES:
            head, body = split(data)
            if len(head) <= self._rules.limits.max_header_bytes:
                self._submit(slot, Content(head, body), not data.isascii())
            else:
                self._refuse(slot, TooLarge("the header section is too large"))
            return
        if spool is None:
            self._start_content_clock()
            rules = self._rules
            spool = self._spool = ContentSpool(
                rules.gateway.store, rules.limits.max_header_bytes, self._resume, rules.max_mime_depth
            )
        self._active = self._monotonic()
        spool.add(data)
        if slot is None:
            reach("A1")
            return
        self._spool = None
        self._content_began = None
        try:
            content = spool.finish()
        except GatewayError as error:
            self._refuse(slot, error)
        else:
            self._submit(slot, content, spool.eight_bit)

    def _content_refused(self, event: events.ContentRefused) -> None:
        self._spool = None
        self._start_content_clock()
        self._active = self._monotonic()
        if not self._machine.is_in_content:
            self._content_began = None

    def _start_content_clock(self) -> None:
        rules = self._rules
        if self._content_began is None:
            self._content_began = self._active
            if rules.content_seconds < rules.idle_seconds and self._timer is not None:
                self._timer.cancel()
                self._look_in(rules.content_seconds)

    def _resume(self) -> None:
        if not self._has_ended:
            self._set_reading()

    def _submit(self, slot: events.ReplySlot, content: Content, has_eight_bit: bool) -> None:
        machine = self._machine
        assert self._application is not None
        envelope = machine.envelope(has_eight_bit)
        keyword = _KEYWORDS[machine.is_extended, machine.secure, machine.logged_in]
        submission = Submission(
            door=Door.SMTP,
            application=self._application,
            envelope=envelope,
            content=content,
            received=self._gateway.clock.now(),
            peer=self._peer,
            helo=machine.helo or address_literal(self._peer),
            with_protocol=keyword.replace("E", "UTF8", 1) if envelope.smtputf8 else keyword,  # RFC 6531 section 4.3
        )
        try:
            future = self._gateway.submit(submission)
        except GatewayError as error:
            self._refuse(slot, error)
        else:
            future.add_done_callback(partial(self._committed, slot))

    def _committed(self, slot: events.ReplySlot, future: Pending[Accepted]) -> None:
        """Answer the end of data, now that the message is durable or known not to be."""
        error = future.exception()
        if self._has_ended:
            return
        if error is None:
            reach("A4")
            text = message_id_text(future.result().id)
            self._machine.fill(slot, f"250 2.0.0 Ok: queued as {text}\r\n".encode("ascii"))
        elif isinstance(error, GatewayError) and not isinstance(error, MaybeStored):
            self._refuse(slot, error)
        else:
            # Whether it was kept is unknown: any reply could be a lie, and without one the client tries again.
            _log.error("submit_failed", peer=self._peer, exc_info=error)
            self.abort()
            return
        self._pump()
        if error is None:
            written("A5", self._transport)

    def _refuse(self, slot: events.ReplySlot, error: GatewayError) -> None:
        code, status, text = refusal(error)
        name = self._application.name if self._application else ""
        _log.warning("message_refused", peer=self._peer, application=name, code=code, status=status, reason=str(error))
        self._machine.fill(slot, reply_line(code, status, text))

    # TLS

    def _start_tls(self, event: events.StartTls) -> None:
        # Reading stops before the 220 leaves: no octet that follows in clear is read as SMTP.
        self._begin_handshake()
        self._transport.write(self._machine.data_to_send())

    def _begin_handshake(self) -> None:
        if not self._is_paused:
            self._transport.pause_reading()
        self._handshake = asyncio.get_running_loop().create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        secured: asyncio.Transport | None = None
        try:
            assert self._rules.context is not None
            loop = asyncio.get_running_loop()
            starting = loop.create_task(
                loop.start_tls(
                    self._transport,
                    self,
                    self._rules.context(),
                    server_side=True,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                )
            )
            await asyncio.sleep(0)  # TLS has the transport now, and gets what was read before
            hello, self._early = self._early, b""
            if hello:
                loop.call_soon(_hand_over, self._transport.get_protocol(), hello)
            secured = await starting
        except (OSError, GatewayError) as error:
            _log.info("handshake_failed", peer=self._peer, reason=str(error) or type(error).__name__)
        finally:
            self._handshake = None
            if secured is None:
                self._transport.abort()
                self.connection_lost(None)  # the loop does not say so during a handshake
        if secured is not None and not self._has_ended:
            self._go_on_over_tls(secured)

    def _go_on_over_tls(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_paused = False
        if self._rules.tls == "implicit":
            self._begin(secure=True)
        else:
            self._login = None
            self._machine.tls_started()
        early, self._early = self._early, b""
        self.data_received(early)

    # Time and the end

    def _look_in(self, seconds: float) -> None:
        self._looks_at = self._monotonic() + seconds
        self._timer = self._gateway.clock.call_later(seconds, self._look_at_time)

    def _look_at_time(self) -> None:
        """The one timer of the connection: looks at what is due and waits for that."""
        now = self._monotonic()
        if self._machine.is_uncommitted:
            self._active = now  # the client waits for us
        due, text = self._active + self._rules.idle_seconds, "Idle for too long"
        if self._content_began is not None:
            content_due = self._rules.content_due(self._content_began, self._machine.content_bytes)
            if content_due < due:
                due, text = content_due, "The content takes too long"
        if now < due:
            self._look_in(due - now)
            return
        if now - self._looks_at > LATE_SECONDS:
            # The process stood still (SIGSTOP, a suspended machine): what came meanwhile is read before it is judged.
            self._look_in(LATE_SECONDS)
            return
        if self._handshake is not None:
            self.abort()
            return
        self._machine.close(421, "4.4.2", text)
        self._pump()

    def _close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        # A client that does not read must not keep the connection.
        self._timer = self._gateway.clock.call_later(LINGER_SECONDS, self._transport.abort)
        self._transport.close()


def _hand_over(protocol: asyncio.BaseProtocol, octets: bytes) -> None:
    """Give octets to the protocol that TLS put in our place."""
    taker = cast(asyncio.BufferedProtocol, protocol)
    while octets:
        buffer = memoryview(taker.get_buffer(len(octets)))
        size = min(len(buffer), len(octets))
        buffer[:size] = octets[:size]
        octets = octets[size:]
        taker.buffer_updated(size)
