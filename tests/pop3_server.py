"""A POP3 server whose behaviour the test configures; it keeps what it was told.

It speaks just enough POP3 to be a far side. That real servers understand us is proved in tests/interop.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

TIMESTAMP = "<1896.697170952@pop.test>"
GREETING = f"+OK pop.test ready {TIMESTAMP}"


@dataclass
class Pop3Behaviour:
    """How the server answers.

    `replies` maps a verb ("GREETING", "CAPA", "STLS", "APOP", "USER", "PASS", "QUIT") to the reply for it, or to a list
    of replies for the first, second, ... time (the last stays); "" closes the connection. From `silent_at` on nothing
    is answered. `behind_stls` is written in clear behind the reply to STLS.
    """

    replies: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    silent_at: str = ""
    behind_stls: bytes = b""


class Pop3Server:
    """Listens on a free loopback port; `context`: for STLS, or from the first octet where `implicit`.

    `logged_in` is called for each login, before it is answered; while `gate` is closed no login is.
    """

    def __init__(
        self, behaviour: Pop3Behaviour | None = None, context: ssl.SSLContext | None = None, *, implicit: bool = False
    ) -> None:
        self.behaviour = behaviour or Pop3Behaviour()
        self.logged_in: Callable[[], None] = lambda: None
        self.commands: list[str] = []
        self.logins = 0
        self.port = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()  # for a login
        self._context = context
        self._implicit = implicit
        self._times: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Pop3Server:
        context = self._context if self._implicit else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.gate.set()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    def digest(self, password: str) -> str:
        """What APOP sends for it."""
        return hashlib.md5((TIMESTAMP + password).encode()).hexdigest()

    def _reply(self, verb: str) -> str:
        default = {"GREETING": GREETING, "CAPA": "+OK\r\nUSER\r\nSTLS\r\n.", "NOOP": "-ERR"}
        answer = self.behaviour.replies.get(verb, default.get(verb, "+OK"))
        if not isinstance(answer, str):
            times = self._times[verb] = self._times.get(verb, 0) + 1
            answer = answer[min(times, len(answer)) - 1]
        return answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb = "GREETING"
        while True:
            if verb == self.behaviour.silent_at:
                await reader.read()
                return
            reply = self._reply(verb)
            if verb in ("APOP", "PASS"):
                self.asked.set()
                await self.gate.wait()
                if reply.startswith("+OK"):
                    self.logins += 1
                    self.logged_in()
            if not reply:
                return
            behind = self.behaviour.behind_stls if verb == "STLS" else b""
            writer.write(reply.encode() + b"\r\n" + behind)
            await writer.drain()
            if verb == "QUIT":
                return
            if verb == "STLS" and reply.startswith("+OK") and self._context is not None and not behind:
                await writer.start_tls(self._context)
            line = (await reader.readline()).decode("utf-8", "replace")
            if not line:
                return
            self.commands.append(line.removesuffix("\r\n"))
            verb = line.split()[0].upper()
