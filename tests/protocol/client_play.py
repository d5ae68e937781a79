"""Plays a client transcript: `S:` is sent, to the machine in memory or to a connection over a socket."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field, fields
from typing import Any

from postroom.model.account import Account, Authentication, Security
from postroom.model.reply import Reply
from postroom.net.smtp_client import ConnectFailed, ContentSource, SmtpConnection, connect
from postroom.protocol.sasl import SaslError
from postroom.protocol.sasl.choice import client_stepper, left_after, mechanisms, sends_clear_password
from postroom.protocol.smtp import LocalProtocolError, RemoteProtocolError
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import Answered, ContentWanted, Event, MailAnswered, TransactionEnded
from postroom.protocol.smtp.client_login import ClientLogin
from postroom.protocol.smtp.client_states import SessionState
from postroom.protocol.smtp.transaction import MailTransaction
from tests.flow.smtp_client.talk import Line, Relay
from tests.protocol.server_play import Cut
from tests.protocol.transcript_file import Said, Transcript
from tests.submission_door import until

NAME = "client.test"


@dataclass
class Sender:
    """A client machine and who drives it, in the order of `net.smtp_client`: introduction, TLS, login, messages, QUIT.

    It acts on each event at once, so that what arrives early is read all the same.
    """

    waiting: list[tuple[MailTransaction, bytes]]
    security: Security = Security.AUTO
    username: str = ""
    password: str = ""
    allow_clear_password: bool = False
    machine: SmtpClient = field(default_factory=lambda: SmtpClient(NAME))
    ended: list[MailTransaction] = field(default_factory=list)
    failure: str = ""
    is_closed: bool = False
    _contents: dict[int, bytes] = field(default_factory=dict)
    _stage: str = "greeting"
    _secure: bool = False
    _to_try: list[str] | None = None
    _login: ClientLogin | None = None

    def hear(self, octets: bytes) -> bytes:
        """What the client writes when these octets come."""
        if self.is_closed:
            return b""
        self.machine.receive(octets)
        return self._turn()

    def end(self) -> bytes:
        """What the client writes when the server closes its side."""
        if self.is_closed:
            return b""
        self.machine.receive_eof()
        return self._turn()

    def start_tls(self) -> bytes:
        """What the client writes over TLS."""
        assert self.machine.state is SessionState.HANDSHAKE
        self.machine.tls_started()
        self._secure = True
        self._introduce()
        return b"".join(self.machine.take_output())

    def _turn(self) -> bytes:
        written: list[bytes] = []
        try:
            while not self.is_closed and (event := self.machine.next_event()) is not None:
                self._handle(event)
                written += self.machine.take_output()
            if self._stage == "messages":
                self._go_on()  # the reply to RSET makes no event
        except RemoteProtocolError as error:
            self._lose(str(error), "protocol")
        return b"".join([*written, *self.machine.take_output()])

    def _handle(self, event: Event) -> None:
        if isinstance(event, Answered):
            self._answered(event.reply)
        elif isinstance(event, ContentWanted):
            try:
                self._write(event.transaction, self._contents[id(event.transaction)])
            except LocalProtocolError as error:
                self._lose(str(error), "local")
        elif isinstance(event, TransactionEnded):
            self.ended.append(event.transaction)
            self._go_on()
        elif not isinstance(event, MailAnswered):
            self._lose(event.reason, "closing" if event.reply else "network")

    def _write(self, transaction: MailTransaction, content: bytes) -> None:
        self.machine.send_content(content)

    def _answered(self, reply: Reply) -> None:
        stage = self._stage
        if stage == "quit":
            self._lose("", "aborted")
        elif stage == "ehlo" and reply.is_permanent:
            self.machine.helo()
            self._stage = "helo"
        elif stage == "starttls":
            if reply.is_positive:
                return  # the handshake is next
            if self.security is Security.STARTTLS:
                self._fail("starttls", "tls")
            else:
                self._log_in()
        elif stage == "auth":
            self._auth_answered(reply)
        elif not reply.is_positive:
            self._fail("ehlo" if stage == "helo" else stage, "reply")
        elif stage == "greeting":
            self._introduce()
        else:
            self._encrypt()

    def _auth_answered(self, reply: Reply) -> None:
        login = self._login
        assert login is not None and self._to_try is not None
        if reply.is_intermediate:
            self.machine.respond(login.answer(reply))
            return
        if reply.is_positive:
            login.accept()
        if login.fault:
            self._fail("auth", "sasl")
        elif reply.is_positive:
            self._go_on()
        else:
            self._to_try = left_after(login.stepper.mechanism, reply.code, self._to_try, is_verified=self._secure)
            self._try_next("auth")

    def _introduce(self) -> None:
        self._stage = "ehlo"
        self.machine.ehlo()

    def _encrypt(self) -> None:
        if self._secure or self.security is Security.NONE:
            self._log_in()
        elif "STARTTLS" in self.machine.extensions:
            self._stage = "starttls"
            self.machine.starttls()
        elif self.security is Security.STARTTLS:
            self._fail("starttls", "tls")
        else:
            self._log_in()

    def _log_in(self) -> None:
        if not self.username:
            self._go_on()
            return
        self._stage = "auth"
        offered = mechanisms(self.machine.extensions.get("AUTH", "").split(), is_verified=self._secure)
        clear_may_go = self._secure or self.allow_clear_password
        self._to_try = [name for name in offered if clear_may_go or not sends_clear_password(name)]
        self._try_next("clear-password" if offered else "no-mechanism")

    def _try_next(self, otherwise: str) -> None:
        assert self._to_try is not None
        if not self._to_try:
            self._fail("auth", otherwise)
            return
        try:
            self._login = ClientLogin(client_stepper(self._to_try.pop(0), self.username, self.password, "nonce"))
        except SaslError:
            self._try_next("credentials")
            return
        self.machine.authenticate(self._login.command())

    def _go_on(self) -> None:
        self._stage = "messages"
        while self.waiting and self.machine.may_begin:
            transaction, content = self.waiting.pop(0)
            self._contents[id(transaction)] = content
            try:
                begun = self.machine.begin(transaction)
            except LocalProtocolError as error:
                transaction.error, transaction.error_kind = str(error), "local"
                begun = False
            if not begun:
                self.ended.append(transaction)
        if not self.waiting and self.machine.is_idle:
            self.machine.quit()
            self._stage = "quit"

    def _fail(self, stage: str, kind: str) -> None:
        self.failure = f"not connected: {stage}, {kind}"
        if self.machine.may_quit:
            self.machine.quit()
        self.is_closed = True

    def _lose(self, reason: str, kind: str) -> None:
        if self._stage not in ("messages", "quit") and not self.failure:
            kind = {"closing": "reply"}.get(kind, kind)
            self.failure = f"not connected: {'ehlo' if self._stage == 'helo' else self._stage}, {kind}"
        self.ended += self.machine.give_up(reason, kind)
        for transaction, _ in self.waiting if not self.failure else ():
            transaction.error, transaction.error_kind, transaction.not_started = reason, kind, True
            self.ended.append(transaction)
        self.is_closed = True


def sender(transcript: Transcript) -> Sender:
    """A sender with the options and messages of a transcript."""
    return Sender(
        [(MailTransaction(one.envelope, len(content)), content) for one, content in _messages(transcript)],
        security=Security(transcript.options.get("security", "auto")),
        username=transcript.options.get("username", ""),
        password=transcript.options.get("password", ""),
        allow_clear_password=transcript.options.get("allow_clear_password") == "yes",
    )


def in_memory(transcript: Transcript, cut: Cut) -> None:
    """Play it; what the server says at once arrives in the pieces that `cut` makes of it."""
    client = sender(transcript)
    transactions = [transaction for transaction, _ in client.waiting]
    written = b""
    for turn in transcript.turns:
        where = f"{transcript.name}, at {turn}"
        if isinstance(turn, Said) and turn.side == "C":
            assert turn.pattern.fullmatch(written), f"{where}: {written!r}"
            written = b""
            continue
        assert written == b"", f"{where}: {written!r}"
        if isinstance(turn, Said):
            written = b"".join(client.hear(piece) for piece in cut(turn.octets))
        elif turn == "starttls":
            written = client.start_tls()
        elif turn == "server closes":
            written = client.end()
        else:
            assert turn == "client closes" and client.is_closed, where
    assert written == b""
    assert client.is_closed
    _compare(transcript, transactions, client.failure)


async def over_a_socket(transcript: Transcript, server: ssl.SSLContext, authority: bytes) -> None:
    """Play it; `server` has a certificate for localhost by `authority` (PEM)."""
    turns = list(transcript.turns)

    async def talk(line: Line) -> None:
        while turns:
            await _turn(transcript, turns.pop(0), line, server)

    transactions: list[MailTransaction] = []
    failure = ""
    async with Relay(talk) as relay:
        account = relay.account(host="localhost", ca_bundle=authority.decode(), **_fields(transcript))
        try:
            connection = await connect(account, helo_name=NAME, resolver=relay.resolve)
        except ConnectFailed as failed:
            failure = f"not connected: {failed.stage}, {failed.kind}"
        else:
            transactions = await _send_all(connection, transcript)
            await until(lambda: connection.is_idle or not connection.is_usable)
            await connection.quit()
    assert not turns, f"{transcript.name}: not played: {turns}"
    _compare(transcript, transactions, failure)


async def _send_all(connection: SmtpConnection, transcript: Transcript) -> list[MailTransaction]:
    """Hand each message over as soon as the connection takes one; their results, in order."""
    waiting = list(_messages(transcript))
    results: list[asyncio.Future[MailTransaction]] = [asyncio.get_running_loop().create_future() for _ in waiting]
    begun = 0

    def go_on(_: object = None) -> None:
        nonlocal begun
        while begun < len(waiting) and (connection.may_start or not connection.is_usable):
            one, content = waiting[begun]
            done = results[begun].set_result
            results[begun].add_done_callback(go_on)
            begun += 1
            connection.start(one.envelope, ContentSource(b"", content), done)

    go_on()
    return await asyncio.gather(*results)


async def _turn(transcript: Transcript, turn: Said | str, line: Line, server: ssl.SSLContext) -> None:
    if isinstance(turn, Said):
        if turn.side == "S":
            line.write(turn.octets)
            return
        for expected in turn.lines:
            written = await line.line()
            assert expected.pattern.fullmatch(written), f"{transcript.name}, at {expected.octets!r}: {written!r}"
    elif turn == "starttls":
        await line.start_tls(server)
    elif turn == "server closes":
        line.close()
    else:
        assert await line.end() == b"", transcript.name


def _fields(transcript: Transcript) -> dict[str, Any]:
    """The fields of an account that a transcript names."""
    known = {one.name for one in fields(Account)}
    unknown = transcript.options.keys() - known
    assert not unknown, f"{transcript.name} has unknown options: {unknown}"
    found: dict[str, Any] = dict(transcript.options)
    found["security"] = Security(found.get("security", "auto"))
    found["allow_clear_password"] = found.get("allow_clear_password") == "yes"
    if "username" in found:
        found["authentication"] = Authentication.PASSWORD
    return found


def _messages(transcript: Transcript) -> list[tuple[Any, bytes]]:
    return [
        (one, b"message %d\r\n" % number if one.content is None else one.content)
        for number, one in enumerate(transcript.messages, 1)
    ]


def _compare(transcript: Transcript, transactions: list[MailTransaction], failure: str) -> None:
    results = [failure] if failure else [outcome(transaction) for transaction in transactions]
    assert results == transcript.results, transcript.name


def outcome(transaction: MailTransaction) -> str:
    """How a transaction ended, as `R:` has it."""
    if transaction.error_kind:
        details = [transaction.error_kind]
        details += ["not started"] * transaction.not_started
        details += ["content written"] * transaction.content_written
        return ", ".join(details)
    return ", ".join(_of_one(transaction, n) for n in range(len(transaction.rcpt)))


def _of_one(transaction: MailTransaction, n: int) -> str:
    if n in transaction.left_out:
        return f"left out ({transaction.left_out[n].value})"
    if transaction.is_delivered(n):
        return "delivered"
    rcpt = transaction.rcpt[n]
    for reply in (transaction.mail, rcpt, transaction.data, transaction.final):
        if reply is not None and not reply.is_positive and not reply.is_intermediate:
            return f"{reply.command.replace('.', 'content')} {reply.code}"
    return "no reply"
