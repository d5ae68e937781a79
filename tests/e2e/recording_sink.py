"""An independent relay for the crash test, on aiosmtpd: says what it holds, line by line, and takes its time.

    python recording_sink.py FILE

Each line goes to FILE (with fsync) and then to standard output: `port N`; `open` and `closed` for a connection;
`took ID` when the whole content is there and before the reply is chosen; `answered ID` just before the 250.
The reply comes after 50-500 ms, at once after SIGUSR1. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
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


class Recorder:
    """aiosmtpd's handler: records, waits, accepts."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.delays = True

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """aiosmtpd reads pipelined commands in order; it only does not say so."""
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take a message."""
        content = envelope.content
        assert isinstance(content, bytes)
        name = str(message_from_bytes(content)["X-Crash-Id"])
        self.record.line(f"took {name}")
        if self.delays:
            await asyncio.sleep(random.uniform(0.05, 0.5))
        self.record.line(f"answered {name}")
        return "250 2.0.0 kept"


class RecordingSMTP(SMTP):
    """A connection, recorded from its beginning to its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.event_handler.record.line("open")
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It went."""
        super().connection_lost(error)
        self.event_handler.record.line("closed")


async def main(path: Path) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    recorder = Recorder(Record(path))

    def connection() -> Any:
        return RecordingSMTP(recorder, hostname="sink.example", enable_SMTPUTF8=True, loop=loop)

    def answer_at_once() -> None:
        recorder.delays = False

    loop.add_signal_handler(signal.SIGUSR1, answer_at_once)
    server = await loop.create_server(connection, "127.0.0.1", 0)
    recorder.record.line(f"port {server.sockets[0].getsockname()[1]}")
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
