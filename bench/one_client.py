"""One load by one SMTP client over connections that persist, in a process of its own: prints its figures as JSON.

`python -m bench.one_client NAME LOOP PORT CONNECTIONS MESSAGES WARM_UP`
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import json
import smtplib
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

import aiosmtplib

from postroom.daemon.process import COLLECTOR
from postroom.model.account import Account, AccountKind, Security
from postroom.model.envelope import Envelope
from postroom.net.smtp_client import ContentSource, SmtpConnection, TransactionResult, connect

from .traffic import RECIPIENT, SENDER

HEAD = f"From: <{SENDER}>\r\nTo: <{RECIPIENT}>\r\nSubject: a message of 4 KiB\r\n\r\n".encode()
BODY = (b"x" * 70 + b"\r\n") * 56
CONTENT = HEAD + BODY


class Load(Protocol):
    """Connections to 127.0.0.1 that messages are sent over."""

    async def open(self, port: int, connections: int) -> None:
        """All of them, up to EHLO."""

    async def send(self, messages: int) -> None:
        """So many, spread over the connections; an error if one was not taken."""

    async def close(self) -> None:
        """QUIT."""


class Postroom:
    """Postroom's connections, each with one transaction under way and the next envelope ahead, as its pool does."""

    def __init__(self) -> None:
        self._connections: list[SmtpConnection] = []
        self._left = 0
        self._unanswered = 0
        self._finished: asyncio.Future[None]

    async def open(self, port: int, connections: int) -> None:
        """See `Load`."""
        account = Account(
            id=1, name="relay", kind=AccountKind.SMTP, host="127.0.0.1", port=port, security=Security.NONE
        )
        self._connections = [await connect(account, helo_name="client.example") for _ in range(connections)]

    async def send(self, messages: int) -> None:
        """See `Load`."""
        self._left = self._unanswered = messages
        self._finished = asyncio.get_running_loop().create_future()
        for connection in self._connections:
            self._feed(connection)
        await self._finished

    def _feed(self, connection: SmtpConnection) -> None:
        while self._left and connection.may_start:
            self._left -= 1
            envelope, content = Envelope(SENDER, (RECIPIENT,)), ContentSource(HEAD, BODY)
            connection.start(envelope, content, functools.partial(self._done, connection))

    def _done(self, connection: SmtpConnection, result: TransactionResult) -> None:
        if self._finished.done():
            return
        if not result.is_delivered(0):
            self._finished.set_exception(RuntimeError(f"not taken: {result.final} {result.error}"))
            return
        self._unanswered -= 1
        if self._left:
            self._feed(connection)
        elif not self._unanswered:
            self._finished.set_result(None)

    async def close(self) -> None:
        """See `Load`."""
        await asyncio.gather(*(connection.quit() for connection in self._connections))


class Aiosmtplib:
    """One task for each connection, which sends one message after the other."""

    def __init__(self) -> None:
        self._clients: list[aiosmtplib.SMTP] = []
        self._left = 0

    async def open(self, port: int, connections: int) -> None:
        """See `Load`."""
        for _ in range(connections):
            client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False, use_tls=False)
            await client.connect()
            await client.ehlo()
            self._clients.append(client)

    async def send(self, messages: int) -> None:
        """See `Load`."""
        self._left = messages
        await asyncio.gather(*map(self._one_after_the_other, self._clients))

    async def _one_after_the_other(self, client: aiosmtplib.SMTP) -> None:
        while self._left:
            self._left -= 1
            await client.sendmail(SENDER, [RECIPIENT], CONTENT)

    async def close(self) -> None:
        """See `Load`."""
        for client in self._clients:
            await client.quit()


class Smtplib:
    """One thread for each connection."""

    def __init__(self) -> None:
        self._clients: list[smtplib.SMTP] = []

    async def open(self, port: int, connections: int) -> None:
        """See `Load`."""
        for _ in range(connections):
            client = smtplib.SMTP("127.0.0.1", port)
            client.ehlo()
            self._clients.append(client)

    async def send(self, messages: int) -> None:
        """See `Load`."""
        failures: list[Exception] = []

        def one_after_the_other(client: smtplib.SMTP, count: int) -> None:
            try:
                for _ in range(count):
                    client.sendmail(SENDER, [RECIPIENT], CONTENT)
            except (OSError, smtplib.SMTPException) as error:
                failures.append(error)

        share, more = divmod(messages, len(self._clients))
        threads = [
            threading.Thread(target=one_after_the_other, args=(client, share + (n < more)))
            for n, client in enumerate(self._clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    async def close(self) -> None:
        """See `Load`."""
        for client in self._clients:
            client.quit()


LOADS: dict[str, Callable[[], Load]] = {"postroom": Postroom, "aiosmtplib": Aiosmtplib, "smtplib": Smtplib}


async def measure(load: Load, port: int, connections: int, messages: int, warm_up: int) -> dict[str, float]:
    """Seconds, and seconds of CPU of this process, from the first MAIL to the last reply, after `warm_up` messages."""
    await load.open(port, connections)
    if warm_up:
        await load.send(warm_up)
    gc.collect()
    began, used = time.perf_counter(), time.process_time()
    await load.send(messages)
    figures = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
    await load.close()
    return figures


def main(name: str, loop: str, port: str, connections: str, messages: str, warm_up: str) -> None:
    """Print the figures of one load."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    gc.set_threshold(*COLLECTOR)  # as the gateway does; the same for all
    with asyncio.Runner(loop_factory=factory) as runner:
        work = measure(LOADS[name](), int(port), int(connections), int(messages), int(warm_up))
        print(json.dumps(runner.run(work)))


if __name__ == "__main__":
    main(*sys.argv[1:])
