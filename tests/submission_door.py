"""The two sides of the SMTP door for its tests: a client for the server machine, a gateway that keeps what comes."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from postroom.config import ListenerSettings, SmtpSettings
from postroom.errors import GatewayError, Unauthenticated
from postroom.model.application import Application
from postroom.model.clock import Timer
from postroom.model.content import Content, ContentId, StagedBody
from postroom.model.envelope import Envelope
from postroom.model.queue import MessageId
from postroom.model.submission import Accepted, Submission
from postroom.pending import Pending
from postroom.protocol.smtp import server_events as events
from postroom.protocol.smtp.server import ServerLimits, ServerMachine
from postroom.submission.listener import Listener

ACCEPTED = b"250 2.0.0 Ok: queued as 1\r\n"


class Dialogue:
    """A server machine whose every question is answered with yes, except for paths and logins named otherwise."""

    def __init__(self, *, commits: bool = True, limits: ServerLimits | None = None, **options: bool) -> None:
        self.machine = ServerMachine(limits or ServerLimits(), "mx.test", **options)
        self.commits = commits
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.envelopes: list[Envelope] = []
        self.refused_paths: set[str] = set()
        self.logins: list[tuple[str, str]] = []
        self.password = "right"
        self.tls_asked = False
        self.content_refusals = 0
        self.open: list[events.ReplySlot] = []
        self._pieces: list[bytes] = []
        self.greeting = self.machine.data_to_send()

    def send(self, data: bytes) -> bytes:
        """What the server says to `data`."""
        self.machine.receive(data)
        return self.turn()

    def turn(self) -> bytes:
        """Answer everything that can be answered; what the server says."""
        said = b""
        while True:
            while (event := self.machine.next_event()) is not None:
                self._answer(event)
            replies = self.machine.data_to_send()
            if not replies:
                return said
            said += replies

    def commit(self, reply: bytes = ACCEPTED) -> bytes:
        """The oldest message that waits is durable now."""
        self.machine.fill(self.open.pop(0), reply)
        return self.turn()

    def _answer(self, event: events.Event) -> None:
        match event:
            case events.MailFrom(path=path):
                if path in self.refused_paths:
                    self.machine.refuse(550, "5.7.1", "no")
                else:
                    self.machine.accept()
            case events.RcptTo(address=address):
                if address in self.refused_paths:
                    self.machine.refuse(550, "5.1.1", "no")
                else:
                    self.machine.accept()
            case events.Login(login=login, password=password):
                self.logins.append((login, password))
                if password == self.password:
                    self.machine.accept()
                else:
                    self.machine.refuse(535, "5.7.8", "no")
            case events.StartTls():
                self.tls_asked = True
            case events.ContentRefused():
                self.content_refusals += 1
                self._pieces.clear()
            case events.Content(data=data, slot=slot):
                self._pieces.append(data)
                if slot is not None:
                    content = b"".join(self._pieces)
                    self._pieces.clear()
                    envelope = self.machine.envelope()
                    self.envelopes.append(envelope)
                    self.messages.append((envelope.reverse_path, list(envelope.recipients), content))
                    if self.commits:
                        self.machine.fill(slot, ACCEPTED)
                    else:
                        self.open.append(slot)


def ready(**options: Any) -> Dialogue:
    """A dialogue after EHLO."""
    dialogue = Dialogue(**options)
    assert dialogue.send(b"EHLO client.test\r\n").startswith(b"250-mx.test\r\n")
    return dialogue


def codes(replies: bytes) -> list[int]:
    """The code of each reply, multi-line replies once."""
    return [int(line[:3]) for line in replies.split(b"\r\n") if line and line[3:4] == b" "]


class HandClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self._order = itertools.count()
        self._calls: list[tuple[float, int, _Call]] = []

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        """See `Clock`."""
        return self.seconds

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """See `Clock`."""
        call = _Call(callback)
        heapq.heappush(self._calls, (self.seconds + seconds, next(self._order), call))
        return call

    def advance(self, seconds: float) -> None:
        """Move on, making the calls that come due in their order."""
        end = self.seconds + seconds
        while self._calls and self._calls[0][0] <= end:
            self.seconds, _, call = heapq.heappop(self._calls)
            if call.callback is not None:
                call.callback()
        self.seconds = end


@dataclass
class _Call:
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


LOCAL = Application(id=1, name="local", passwordless=True, networks=("127.0.0.0/8",), senders=("*",))
ERP = Application(id=2, name="erp", senders=("erp@app.test",), credential=b"hash")


@dataclass
class Applications:
    """`local` by its address, if `passwordless`; `erp` with the password `right`."""

    passwordless: bool = True
    erp: Application = ERP
    asked: int = 0
    error: GatewayError | None = None

    def __post_init__(self) -> None:
        self._snapshot = (LOCAL, self.erp)

    def snapshot(self) -> tuple[Application, ...]:
        """See `submission.Applications`."""
        return self._snapshot

    def identify(self, peer_ip: str) -> Application | None:
        """See `submission.Applications`."""
        return LOCAL if self.passwordless else None

    def authenticate(self, login: str, password: str, peer_ip: str) -> Application:
        """See `submission.Applications`."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        if (login, password) != ("erp", "right"):
            raise Unauthenticated
        return self.erp

    def change_erp(self, **fields: Any) -> None:
        """An administrator edits `erp`."""
        self.erp = replace(self.erp, **fields)
        self._snapshot = (LOCAL, self.erp)


@dataclass
class KeepingGateway:
    """Keeps submissions. With `commits` off, a message waits until the test resolves its future in `waiting`."""

    commits: bool = True
    applications: Applications = field(default_factory=Applications)
    clock: HandClock = field(default_factory=HandClock)
    error: GatewayError | None = None
    submissions: list[Submission] = field(default_factory=list)
    waiting: list[Pending[Accepted]] = field(default_factory=list)
    stages: bool = True
    staged: dict[ContentId, dict[int, bytes]] = field(default_factory=dict)
    staging: list[asyncio.Future[None]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def store(self) -> KeepingGateway:
        """Its own store."""
        return self

    def may_send_as(self, application: Application, address: str) -> bool:
        """See `submission.Intake`."""
        return "*" in application.senders or address in application.senders

    def submit(self, submission: Submission) -> Pending[Accepted]:
        """See `submission.Intake`."""
        if self.error is not None:
            raise self.error
        self.submissions.append(submission)
        future: Pending[Accepted] = Pending()
        self.waiting.append(future)
        if self.commits:
            self.commit()
        self.came.set()
        return future

    def commit(self) -> None:
        """The oldest message that waits is durable."""
        self.waiting.pop(0).set_result(Accepted(id=MessageId(bytes(16)), accounts=("sandbox",)))

    def stage(self, content_id: ContentId, index: int, chunk: bytes) -> asyncio.Future[None]:
        """See `submission.Staging`."""
        self.staged.setdefault(content_id, {})[index] = chunk
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.staging.append(future)
        if self.stages:
            future.set_result(None)
        self.came.set()
        return future

    def content(self, content: Content) -> bytes:
        """Head and body together."""
        body = content.body
        if isinstance(body, StagedBody):
            chunks = self.staged[body.content_id]
            body = b"".join(chunks[index] for index in range(body.chunks))
        return content.head + body


@asynccontextmanager
async def listening(
    gateway: KeepingGateway, listener: ListenerSettings | None = None, **smtp: Any
) -> AsyncIterator[Listener]:
    """A started listener on a free port of the loopback address."""
    door = Listener(gateway, listener or ListenerSettings(port=0), SmtpSettings(**smtp), hostname="mx.test")
    await door.start()
    try:
        yield door
    finally:
        stopping = asyncio.ensure_future(door.stop())
        while not stopping.done():
            await asyncio.sleep(0)
            gateway.clock.advance(60)
        await stopping


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come about")


class RawClient:
    """A client that writes octets and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, door: Listener, *, greeting: bytes = b"220 ", **options: Any) -> RawClient:
        """Connect and read the greeting."""
        client = cls(*await asyncio.open_connection(*door.address, **options))
        assert (await client.reply()).startswith(greeting)
        return client

    async def reply(self) -> bytes:
        """The next whole reply; b"" at the end of the connection."""
        whole = b""
        while line := await self.reader.readline():
            whole += line
            if line[3:4] == b" ":
                break
        return whole

    async def ask(self, line: bytes) -> bytes:
        """The reply to a command."""
        self.writer.write(line + b"\r\n")
        return await self.reply()

    async def begin(self, sender: bytes = b"a@b.test") -> None:
        """EHLO to DATA."""
        for line in (b"EHLO c.test", b"MAIL FROM:<" + sender + b">", b"RCPT TO:<c@d.test>", b"DATA"):
            assert (await self.ask(line))[:1] in b"23", line

    async def is_closed(self) -> bool:
        """Wait for the server to close; whether it did so without another octet."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True
        finally:
            self.close()

    def close(self) -> None:
        """Hang up."""
        self.writer.close()
