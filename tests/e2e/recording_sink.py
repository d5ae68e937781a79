"""An independent relay for the crash tests, on aiosmtpd: says what it holds, line by line, and takes its time.

    python recording_sink.py FILE

Each line goes to FILE (with fsync) and then to standard output:

    port N                                    where it listens
    open C, closed C                          connection number C
    took C NAME DIGEST RECIPIENT,RECIPIENT    the whole content is there, before the reply is chosen; NAME is its
                                              X-Crash-Id, DIGEST the SHA-256 of its body
    answered C                                just before the 250 to the last `took` of C
    holding                                   from now on no content is answered
    killed                                    a SIGKILL was sent: by this process just now, or by who says so
    restarted                                 a new process begins

Orders come as lines on standard input:

    kill NAMES LEAST PID EVENT MS    SIGKILL to PID: once so many different recipients are there, MS ms after the next
                                     EVENT (open, envelope, took or answered), if LEAST messages at least are taken and
                                     not answered at that moment; else after the EVENT after that
    hold NAMES LEAST                 answer no content until `restarted`, once so many recipients are there and LEAST
                                     messages at least are taken and not answered: somebody else kills meanwhile
    killed, restarted                put it among the lines
    at-once                          no more delays

The reply to the content comes after 50-500 ms. What stands behind
the dot in a recipient's local part says how it is answered: `no` 550, `later` 451 the first time, `busy` 451 to the
content the first time. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import sys
from email import message_from_bytes
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class Record:
    """Lines that survive this process."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def line(self, text: str) -> None:
        """Keep one line, then say it."""
        os.write(self._descriptor, f"{text}\n".encode())
        os.fsync(self._descriptor)
        print(text, flush=True)


class Killer:
    """Waits for the moment that was ordered; sends SIGKILL in the turn of the loop in which the condition holds."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.recipients: set[str] = set()
        self.held = 0  # messages taken and not answered
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._order: list[str] = []

    def order(self, words: list[str]) -> None:
        """`kill` or `hold`, as above."""
        self._order = words

    def happened(self, event: str) -> None:
        """Something did."""
        if not self._order or len(self.recipients) < int(self._order[1]):
            return
        order = self._order
        if order[0] == "hold":
            if self.held >= int(order[2]):
                self._order = []
                self.may_answer.clear()
                self.record.line("holding")
        elif event == order[4]:
            self._order = []
            asyncio.get_running_loop().call_later(float(order[5]) / 1000, self._strike, order)

    def _strike(self, order: list[str]) -> None:
        if self.held < int(order[2]):
            self._order = order
            return
        os.kill(int(order[3]), signal.SIGKILL)
        self.record.line("killed")


class Recorder:
    """aiosmtpd's handler: records, waits, accepts."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.killer = Killer(record)
        self.delays = True
        self._put_off: set[str] = set()

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """aiosmtpd reads pipelined commands in order; it only does not say so."""
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        self.killer.happened("envelope")
        if _way(address) == "no":
            return "550 5.1.1 nobody of that name"
        if self._is_put_off(address, "later"):
            return "451 4.2.0 later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 yes"

    def _is_put_off(self, address: str, way: str) -> bool:
        if _way(address) != way or address in self._put_off:
            return False
        self._put_off.add(address)
        return True

    async def handle_DATA(self, server: RecordingSMTP, session: Session, envelope: Envelope) -> str:
        """Take a message."""
        if any(self._is_put_off(address, "busy") for address in envelope.rcpt_tos):
            return "451 4.3.0 busy"
        content = envelope.content
        assert isinstance(content, bytes)
        name = message_from_bytes(content.partition(b"\r\n\r\n")[0])["X-Crash-Id"]
        digest = hashlib.sha256(content.partition(b"\r\n\r\n")[2]).hexdigest()
        self.record.line(f"took {server.number} {name} {digest} {','.join(envelope.rcpt_tos)}")
        self.killer.recipients.update(envelope.rcpt_tos)
        self.killer.held += 1
        try:
            self.killer.happened("took")
            if self.delays:
                await asyncio.sleep(random.uniform(0.05, 0.5))
            await self.killer.may_answer.wait()
        finally:
            self.killer.held -= 1
        self.record.line(f"answered {server.number}")
        self.killer.happened("answered")
        return "250 2.0.0 kept"


def _way(address: str) -> str:
    return address.partition("@")[0].rpartition(".")[2]


class RecordingSMTP(SMTP):
    """A connection, recorded from its beginning to its end."""

    number = 0
    _count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        RecordingSMTP._count += 1
        self.number = RecordingSMTP._count
        self.event_handler.record.line(f"open {self.number}")
        self.event_handler.killer.happened("open")
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It went."""
        super().connection_lost(error)
        self.event_handler.record.line(f"closed {self.number}")


class Orders(asyncio.Protocol):
    """Standard input."""

    def __init__(self, recorder: Recorder, ended: asyncio.Future[None]) -> None:
        self._recorder = recorder
        self._ended = ended
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Whole lines are orders."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._obey(line.decode().split())

    def _obey(self, words: list[str]) -> None:
        if words[0] in ("kill", "hold"):
            self._recorder.killer.order(words)
        elif words[0] == "at-once":
            self._recorder.delays = False
        else:
            self._recorder.record.line(words[0])
            if words[0] == "restarted":
                self._recorder.killer.may_answer.set()

    def connection_lost(self, error: Exception | None) -> None:
        """The end."""
        self._ended.set_result(None)


async def main(path: Path) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    recorder = Recorder(Record(path))
    ended: asyncio.Future[None] = loop.create_future()

    def connection() -> Any:
        return RecordingSMTP(recorder, hostname="sink.example", enable_SMTPUTF8=True, loop=loop)

    server = await loop.create_server(connection, "127.0.0.1", 0)
    recorder.record.line(f"port {server.sockets[0].getsockname()[1]}")
    await loop.connect_read_pipe(lambda: Orders(recorder, ended), sys.stdin)
    await ended


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
