"""An independent relay, on aiosmtpd, that tells when MAIL came and what it took, by its own clock.

    python timing_sink.py

Each line goes to standard output:

    port N                     where it listens
    mail C NANOSECONDS         MAIL was read on connection number C
    took C RECIPIENT           a content is there, just before its 250

MAIL and content are answered after 0-60 ms each; a recipient named `later...` is refused the first time. Ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time

from aiosmtpd.smtp import SMTP, Envelope, Session


class Handler:
    """aiosmtpd's handler: tells, waits, accepts."""

    def __init__(self) -> None:
        self._connections = itertools.count(1)
        self._numbers: dict[Session, int] = {}
        self._put_off: set[str] = set()

    def _say(self, what: str, session: Session, detail: object) -> None:
        print(what, self._numbers[session], detail, flush=True)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """aiosmtpd reads pipelined commands in order; it only does not say so."""
        self._numbers[session] = next(self._connections)
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A message begins."""
        self._say("mail", session, time.monotonic_ns())
        await self._pause()
        envelope.mail_from = address
        return "250 2.1.0 ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        if address.startswith("later") and address not in self._put_off:
            self._put_off.add(address)
            return "450 4.2.0 later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """The whole content is there."""
        await self._pause()
        self._say("took", session, envelope.rcpt_tos[0])
        return "250 2.0.0 kept"

    async def _pause(self) -> None:
        await asyncio.sleep(random.uniform(0, 0.06))


async def main() -> None:
    """Serve until standard input ends."""
    handler = Handler()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="sink.example", loop=loop), "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
