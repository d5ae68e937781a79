"""An independent relay for the crash points, on aiosmtpd: counts every copy, keeps a reply back where it is told to.

It runs on a thread and a loop of its own, which outlive the gateway's crash.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PATIENCE = 60.0
NAMED = "X-Crash-Id"

LOGIN = LoginPassword(b"ann", b"marked-secret")


@dataclass
class Seen:
    """What came in: how often each message came for each recipient; all contents; how often each verb came; how many
    octets each connection brought that is closed by now."""

    copies: Counter[tuple[str, str]] = field(default_factory=Counter)
    contents: list[tuple[str, Message]] = field(default_factory=list)
    verbs: Counter[str] = field(default_factory=Counter)
    cut: list[int] = field(default_factory=list)
    opened: int = 0

    def of(self, name: str) -> int:
        """How many copies of a message came, for any recipient."""
        return sum(times for (one, _), times in self.copies.items() if one == name)


class Connection(SMTP):
    """A connection that counts its octets."""

    octets = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.event_handler.note(lambda seen: setattr(seen, "opened", seen.opened + 1))
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        self.octets += len(data)
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """It went."""
        super().connection_lost(error)
        self.event_handler.note(lambda seen: seen.cut.append(self.octets))


class CountingSink:
    """The relay. `hold(verb, n)` keeps back the reply to the nth `verb` (MAIL, DATA for a content) and all later ones,
    until `release`; recipients named `gone...` are refused for good."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.pipelining = True
        self._news = threading.Condition()
        self._held = ("", 0)
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = self._run(self._loop.create_server(self._connection, "127.0.0.1", 0))
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def _connection(self) -> Connection:
        return Connection(
            self, hostname="sink.example", enable_SMTPUTF8=True, authenticator=self._login, auth_require_tls=False,
            loop=self._loop, data_size_limit=100_000_000,
        )  # fmt: skip

    # For the test

    def again(self, *, pipelining: bool = True) -> None:
        """Forget everything."""
        self.release()
        with self._news:
            self.seen = Seen()
            self.pipelining = pipelining

    def hold(self, verb: str, nth: int = 1) -> None:
        """Keep back replies from the nth `verb` on."""
        self._run(self._set(verb, nth))

    def release(self) -> None:
        """Answer everything."""
        self._run(self._set("", 0))

    async def _set(self, verb: str, nth: int) -> None:
        self._held = verb, nth
        if verb:
            self._open.clear()
        else:
            self._open.set()

    def wait_for(self, found: Callable[[Seen], bool]) -> None:
        """Until what came is as `found` says."""
        with self._news:
            assert self._news.wait_for(lambda: found(self.seen), PATIENCE), f"the relay did not see it: {self.seen}"

    def stop(self) -> None:
        """End it."""
        self.release()
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # For aiosmtpd

    def note(self, change: Callable[[Seen], None]) -> None:
        """Change what was seen, and tell who waits."""
        with self._news:
            change(self.seen)
            self._news.notify_all()

    async def _came(self, verb: str) -> None:
        self.note(lambda seen: seen.verbs.update([verb]))
        held, nth = self._held
        if verb == held and self.seen.verbs[verb] >= nth:
            await self._open.wait()

    def _login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.note(lambda seen: seen.verbs.update(["login" if data == LOGIN else "wrong login"]))
        return AuthResult(success=data == LOGIN, handled=data == LOGIN)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, replies: list[str]
    ) -> list[str]:
        """aiosmtpd reads pipelined commands in order; it only does not say so."""
        session.host_name = hostname
        return [*replies[:-1], "250-PIPELINING", replies[-1]] if self.pipelining else replies

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A transaction begins."""
        await self._came("MAIL")
        envelope.mail_from = address
        return "250 2.1.0 ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A recipient."""
        await self._came("RCPT")
        if address.startswith("gone"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """The whole content is there: from now on it counts."""
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content)
        recipients = list(envelope.rcpt_tos)

        def count(seen: Seen) -> None:
            seen.contents.append((str(envelope.mail_from), message))
            seen.copies.update((str(message[NAMED]), recipient) for recipient in recipients)

        self.note(count)
        await self._came("DATA")
        return "250 2.0.0 kept"
