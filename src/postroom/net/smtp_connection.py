"""Drives the SMTP client machine over a socket: an asyncio.Protocol that hands transactions over and results back."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import cast

from ..crashing import reach, written
from ..model.content import StagedBody
from ..model.envelope import Envelope
from ..model.quantity import duration_in_words
from ..model.reply import Reply
from ..protocol.smtp.client import SmtpClient
from ..protocol.smtp.client_events import (
    Answered,
    ConnectionEnded,
    ContentWanted,
    Event,
    MailAnswered,
    TransactionEnded,
)
from ..protocol.smtp.client_login import ClientLogin
from ..protocol.smtp.client_states import SessionState, Step
from ..protocol.smtp.errors import LocalProtocolError, RemoteProtocolError
from ..protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from ..protocol.smtp.transaction import MailTransaction
from .local_address import address_literal
from .observer import NOBODY, Observer
from .smtp_sending import ConnectionLost, ContentSource, Sending, TransactionResult, handed_back
from .stream import start_tls
from .tls import ClientTls
from .transcript import Transcript

#: How long a server may take to say goodbye.
QUIT_SECONDS = 2.0

#: How much of a large content is written at once; a slow line must move this much within the command timeout.
_PIECE_BYTES = 64 * 1024

#: A timer that comes so late, or later, was held up with the whole process.
LATE_SECONDS = 1.0

_NEVER = float("inf")


class SmtpConnection(asyncio.Protocol):
    """One connection to a server; made by `net.smtp_client.connect`.

    `on_closed` is called once, after the results of what was under way, with the reason; also after `quit` and `abort`.
    """

    def __init__(
        self,
        remote_host: str,
        helo_name: str,
        command_timeout: timedelta,
        end_of_data_timeout: timedelta,
        reply_limits: ReplyLimits = DEFAULT_LIMITS,
    ) -> None:
        self.remote_host = remote_host
        self.remote_address = ""
        self.on_closed: Callable[[str], None] | None = None
        self.recorded = Transcript()
        self.machine = SmtpClient(helo_name, reply_limits)
        self.is_encrypted = False
        self.may_start_tls = False  # STARTTLS was not sent, or only because it was offered, and the account allows it
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._command_seconds = command_timeout.total_seconds()
        self._end_of_data_seconds = end_of_data_timeout.total_seconds()
        self._deadline = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._pumping = False
        self._blocked = False
        self._withheld: Sending | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._early: Reply | None = None  # the greeting, when it comes before it is asked for
        self._closed_reason = ""
        self._closed_kind = ""
        self._closed_reply: Reply | None = None

    # For those who send

    @property
    def extensions(self) -> dict[str, str]:
        """What the last EHLO offered, by keyword in capitals."""
        return self.machine.extensions

    @property
    def pipelining(self) -> bool:
        """Whether the envelope of the next transaction may go ahead."""
        return self.machine.pipelining

    @property
    def size_limit(self) -> int | None:
        """The largest message that the server takes, in octets."""
        return self.machine.size_limit

    @property
    def most_mails(self) -> int | None:
        """How many messages the server takes on this connection; None where it does not say."""
        limits = self.machine.limits
        return limits.mails if limits is not None else None

    @property
    def is_usable(self) -> bool:
        """Open and in step: it serves transactions."""
        return not self._closed_reason and self.machine.state in (SessionState.READY, SessionState.RESET)

    @property
    def may_start(self) -> bool:
        """Usable, and no transaction is ahead."""
        return not self._closed_reason and self.machine.may_begin

    @property
    def is_idle(self) -> bool:
        """Usable, with nothing under way."""
        return not self._closed_reason and self.machine.is_idle

    def start(
        self,
        envelope: Envelope,
        content: ContentSource,
        done: Callable[[TransactionResult], None],
        mail_answered: Callable[[], None] | None = None,
    ) -> None:
        """Hand over one transaction; at most one may be ahead of the one under way.

        `mail_answered` is called when its MAIL was answered, unless the connection is lost before.
        `done` is called exactly once with the result, from within a callback of the loop, never from `start`: also
        when the connection is closed by now (`not_started`), nobody is left to ask for (`left_out`), or the envelope
        cannot be written (`error_kind` "local").

        Raises:
            LocalProtocolError: one is ahead already, or the session is not ready.
        """
        transaction = Sending(envelope, content, done, mail_answered)
        if self._closed_reason:
            transaction.error, transaction.error_kind = self._closed_reason, self._closed_kind
            transaction.not_started = True
            self._loop.call_soon(self._hand_back, transaction)
            return
        if not self.machine.may_begin:
            raise LocalProtocolError("no transaction can begin now")
        try:
            begun = self.machine.begin(transaction)
        except LocalProtocolError as error:
            transaction.error, transaction.error_kind = str(error), "local"
            begun = False
        if not begun:
            self._loop.call_soon(self._hand_back, transaction)
        elif not self._pumping:
            self._flush()

    def block_content(self) -> None:
        """Write no content from now on until `allow_content`; envelopes and replies go on."""
        self._blocked = True

    def allow_content(self) -> None:
        """Content may be written; what waits for it goes out now."""
        self._blocked = False
        withheld, self._withheld = self._withheld, None
        if withheld is not None:
            self._write_content(withheld)
            if not self._pumping:
                self._flush()

    def transcript(self, transaction: MailTransaction | None = None) -> str:
        """What was said until the session was ready, and in `transaction`; no content, no secrets."""
        return self.recorded.text(transaction, pipelined=self.machine.pipelining)

    async def quit(self) -> None:
        """Say goodbye and close; with something under way, close at once."""
        if not self._closed_reason and self.machine.may_quit:
            try:
                async with asyncio.timeout(QUIT_SECONDS):
                    await self._answer(self.machine.quit)
            except (ConnectionLost, TimeoutError):
                pass
        self._end("closed by us", "aborted", polite=True)

    def leave(self) -> None:
        """Say goodbye without waiting for the answer, and close."""
        if not self._closed_reason and self.machine.may_quit:
            self.machine.quit()
            self._flush()
        self._end("closed by us", "aborted", polite=True)

    def abort(self) -> None:
        """Close at once; what is under way ends with an error."""
        self._end("closed by us", "aborted")

    # For those who open it, stage by stage

    @property
    def tls(self) -> ssl.SSLObject | None:
        """What was agreed on encryption; None in clear."""
        return self._transport.get_extra_info("ssl_object") if self._transport is not None else None

    async def greeting(self) -> Reply:
        """The greeting. Raises ConnectionLost, as all of these."""
        return await self._answer(None)

    async def ehlo(self) -> Reply:
        """The reply to EHLO."""
        return await self._answer(self.machine.ehlo)

    async def helo(self) -> Reply:
        """The reply to HELO."""
        return await self._answer(self.machine.helo)

    async def starttls(self, host: str, tls: ClientTls, observer: Observer = NOBODY) -> Reply:
        """The reply to STARTTLS; if it is positive, TLS has been started and EHLO must follow.

        Raises:
            ConnectFailed: the handshake failed, or the certificate is not taken.
        """
        reply = await self._answer(self.machine.starttls)
        if reply.is_positive:
            if self._transport is None or self._closed_reason:
                raise ConnectionLost(self._closed_reason, self._closed_kind)
            observer.began("tls")
            self._transport = await start_tls(self._transport, self, host, tls)
            self.machine.tls_started()
            self.note_encryption()
        return reply

    async def authenticate(self, login: ClientLogin) -> Reply:
        """The reply that ends the exchange; a yes that must not be believed leaves its reason in `login.fault`."""
        reply = await self._answer(lambda: self.machine.authenticate(login.command()))
        while reply.is_intermediate:
            if login.fault:  # it was cancelled, and the server goes on asking
                raise ConnectionLost(login.fault, "protocol")
            answer = partial(login.answer, reply)
            line = await asyncio.to_thread(answer) if login.stepper.takes_long else answer()
            for secret in login.stepper.secrets:
                self.recorded.hide(secret)
            reply = await self._answer(partial(self.machine.respond, line))
        if reply.is_positive:
            login.accept()
        return reply

    async def ask(self, command: bytes) -> Reply:
        """The reply to one command of a transaction that will have no content, or to RSET, with nothing under way."""
        return await self._answer(partial(self.machine.ask, command))

    def require_open(self) -> None:
        """Raise ConnectionLost if it is closed by now."""
        if self._closed_reason:
            raise ConnectionLost(self._closed_reason, self._closed_kind, self._closed_reply)

    def note_encryption(self) -> None:
        """TLS is on: keep its version and cipher for the transcript."""
        found = self.tls
        self.is_encrypted = True
        cipher = found.cipher() if found is not None else None
        if found is not None and cipher is not None:
            self.recorded.note(f"{found.version()} with {cipher[0]}")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected (and TLS started, if implicit)."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.remote_address = f"{peer[0]}" if isinstance(peer, tuple) else ""
        if not self.machine.helo_name:
            self.machine.helo_name = address_literal(transport.get_extra_info("sockname"))
        if transport.get_extra_info("ssl_object") is not None:
            self.note_encryption()

    def data_received(self, data: bytes) -> None:
        """Replies, or pieces of them."""
        if self.machine.receive(data):
            self._pump()

    def eof_received(self) -> bool:
        """The server closed its side."""
        self.machine.receive_eof()
        self._pump()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if isinstance(exc, ssl.SSLError) and self._waiter is not None:
            # The verdict of TLS 1.3 on a client's certificate comes behind the handshake.
            self._end(f"TLS with {self.remote_host} was ended: {exc.reason or exc}", "tls")
            return
        self._end(f"the connection was lost: {exc}" if exc is not None else "the connection was closed", "network")

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The socket takes more."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # Inside

    def _pump(self) -> None:
        machine = self.machine
        replies = machine.replies
        self._pumping = True
        try:
            while (event := machine.next_event()) is not None:
                self._handle(event)
        except RemoteProtocolError as error:
            self._end(self.recorded.without_secrets(str(error)), "protocol")
        finally:
            self._pumping = False
        if not self._closed_reason:
            self._flush(progressed=machine.replies != replies)

    def _handle(self, event: Event) -> None:
        if isinstance(event, TransactionEnded):
            self._hand_back(cast(Sending, event.transaction))
        elif isinstance(event, ContentWanted):
            if self._blocked:
                self._withheld = cast(Sending, event.transaction)
            else:
                self._write_content(cast(Sending, event.transaction))
        elif isinstance(event, Answered):
            reply = event.reply
            if self.machine.state is not SessionState.CHALLENGED:  # of challenges not a word is kept, nor changed
                reply = self.recorded.clean(reply)
                self.recorded.received(reply)
            waiter, self._waiter = self._waiter, None
            if waiter is None:
                self._early = reply
            elif not waiter.done():
                waiter.set_result(reply)
        elif isinstance(event, MailAnswered):
            cast(Sending, event.transaction).tell_mail_answered()
        else:
            self._connection_ended(event)

    def _connection_ended(self, event: ConnectionEnded) -> None:
        reply = event.reply
        if reply is None:
            self._end(event.reason, "network")
            return
        reply = self.recorded.clean(reply)
        if self._waiter is not None:
            self.recorded.received(reply)
        self._end(reply.text, "closing", reply)

    def withdraw(self) -> None:
        """Give back the transactions of which nothing was written yet, as not started."""
        for transaction in self.machine.withdraw():
            self._loop.call_soon(self._hand_back, cast(Sending, transaction))

    def _hand_back(self, transaction: Sending) -> None:
        self.recorded.clean_transaction(transaction)
        # Let go of it: whoever keeps the result would else keep itself, and only the collector could end that.
        done, transaction.done = transaction.done, handed_back
        try:
            done(transaction)
        except Exception as error:
            self._loop.call_exception_handler({"message": "a result could not be handed back", "exception": error})

    def _write_content(self, transaction: Sending) -> None:
        reach("D2")
        content = transaction.content
        if not isinstance(content.body, bytes):
            self._feeder = self._loop.create_task(self._feed(transaction, content.body))
            return
        try:
            self.machine.send_content(content.head + content.body)
            written("D4", self._transport)
        except LocalProtocolError as error:
            self._end(str(error), "local")

    async def _feed(self, transaction: Sending, body: StagedBody) -> None:
        machine, content = self.machine, transaction.content
        try:
            machine.begin_content()
            machine.send_chunk(content.head)
            if content.chunks is None:
                raise LocalProtocolError("a staged body without its reader")
            async for chunk in content.chunks(body):
                for start in range(0, len(chunk), _PIECE_BYTES):
                    while self._writable is not None:
                        await self._writable
                    if transaction.step is not Step.CONTENT:
                        return  # refused before its end
                    machine.send_chunk(chunk[start : start + _PIECE_BYTES])
                    self._flush()
                    written("D3", None)
            machine.end_content()
            self._flush()
            written("D4", self._transport)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._feeder = None
            self._end(f"the content could not be read: {error}", "local")

    def _flush(self, progressed: bool = True) -> None:
        machine, transport = self.machine, self._transport
        output = machine.take_output()
        if transport is None:
            return
        if output:
            if self._waiter is not None:
                self._record(output)
            if len(output) == 1:
                transport.write(output[0])
            else:
                transport.writelines(output)
            progressed = True
        if not progressed:
            return
        if machine.awaits_final_reply:
            self._expect(self._end_of_data_seconds)
        elif machine.awaits_reply or machine.is_writing_content:
            self._expect(self._command_seconds)
        else:
            self._deadline = _NEVER

    def _expect(self, seconds: float) -> None:
        """Set the deadline. One timer serves all: it is made anew only if it would come too late."""
        self._deadline = deadline = self._loop.time() + seconds
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        remaining = self._deadline - self._loop.time()
        if self._deadline == _NEVER:
            return
        if remaining > 0:
            self._expect(remaining)
            return
        if remaining < -LATE_SECONDS:
            # The process stood still (SIGSTOP, a suspended machine): what came meanwhile is read before it is judged.
            self._expect(LATE_SECONDS)
            return
        seconds = self._end_of_data_seconds if self.machine.awaits_final_reply else self._command_seconds
        awaited = "no progress" if self.machine.is_writing_content else "no reply"
        self._end(f"{awaited} within {duration_in_words(timedelta(seconds=seconds))}", "timeout")

    async def _answer(self, send: Callable[[], None] | None) -> Reply:
        early, self._early = self._early, None
        if early is not None:
            return early
        self.require_open()
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiter = waiter
        if send is not None:
            send()
        self._flush()
        return await waiter

    def _record(self, output: list[bytes]) -> None:
        for line in output:
            if self.machine.state is SessionState.AUTH and not line.startswith(b"AUTH "):
                self.recorded.sent_secret(line)
            else:
                self.recorded.sent(line)

    def _end(self, reason: str, kind: str, reply: Reply | None = None, *, polite: bool = False) -> None:
        if self._closed_reason:
            return
        self._closed_reason, self._closed_kind, self._closed_reply = reason, kind, reply
        unfinished = self.machine.give_up(reason, kind)
        if not unfinished:  # else they tell it
            self.recorded.note(reason)
        self._withheld = None
        if self._timer is not None:
            self._timer.cancel()
        if self._feeder is not None:
            self._feeder.cancel()
        if self._transport is not None and polite:
            self._transport.close()
        elif self._transport is not None:
            self._transport.abort()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ConnectionLost(reason, kind, reply))
        for transaction in unfinished:
            self._hand_back(cast(Sending, transaction))
        on_closed, self.on_closed = self.on_closed, None  # it knows who has us: no circle is left to the collector
        if on_closed is not None:
            on_closed(reason)
