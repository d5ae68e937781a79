"""How far a backlog delays what is urgent, and how applications share an account (SPEC section 2.8).

100,000 messages of class `bulk` wait on one account. Urgent messages come in by SMTP, one after the other: how many
others does the relay see begin between the 250 to one and its own MAIL? Then 100,000 of one application wait, and 200
of another behind them: how do they share?
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postroom.model.queue import PriorityClass

from . import page, results
from .backlog import fill
from .gateways import Postroom
from .traffic import SENDER, Void

WAITING = 100_000
PROBES = 50
#: Of the second application, submitted at once.
BURST = 200
CONNECTIONS = 4  # of an account as shipped
#: DESIGN section 3: so many messages of each open connection are being sent at most.
UNDER_WAY = 3 * CONNECTIONS
#: One more begins on each of the other connections while its own turn comes; it delays nothing.
BESIDE = CONNECTIONS - 1

BULK, BACKLOG, OTHER = "bulk", "backlog", "other"

_PATIENCE = 120
_BODY = (b"x" * 70 + b"\r\n") * 56


@dataclass
class OrderingSink:
    """A relay in this process: the recipients in the order of their MAILs."""

    order: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink.example\r\n")
        place = 0
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"MAIL":
                place = len(self.order)
                self.order.append("")
            elif verb == b"RCPT":
                self.order[place] = line[line.index(b"<") + 1 : line.index(b"@")].decode()
                self.news.set()
            if verb == b"EHLO":
                writer.write(b"250-sink.example\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 2.0.0 ok\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")

    async def sees(self, name: str, since: int) -> int:
        """The place of the next message for `name`, once it has begun."""
        async with asyncio.timeout(_PATIENCE):
            while name not in self.order[since:]:
                self.news.clear()
                await self.news.wait()
        return self.order.index(name, since)


class SmtpClient:
    """A client with one connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> SmtpClient:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        await self._reply()
        await self._ask(b"EHLO bench.example")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def _reply(self) -> bytes:
        async with asyncio.timeout(_PATIENCE):
            while (line := await self._reader.readline())[3:4] == b"-":
                pass
        return line

    async def _ask(self, line: bytes) -> None:
        self._writer.write(line + b"\r\n")
        if (reply := await self._reply())[:1] not in b"23":
            raise Void(f"the gateway said {reply.decode().strip()}")

    async def submit(self, name: str, sender: str, fields: bytes = b"") -> None:
        """One message, acknowledged when this returns."""
        for line in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{name}@sink.example>", "DATA"):
            await self._ask(line.encode())
        await self._ask(fields + b"From: <" + sender.encode() + b">\r\nSubject: hi\r\n\r\n" + _BODY + b".")


@dataclass
class Found:
    """Messages ahead of each urgent one, and milliseconds from its 250 to its MAIL. How many of the first application
    went before the last of the second one's, and the longest row of them between two of its own."""

    ahead: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    others: int = 0
    longest_row: int = 0


async def _urgent(sink: OrderingSink, port: int, found: Found) -> None:
    """One urgent message after the other, while the backlog goes."""
    async with SmtpClient(port) as client:
        for n in range(PROBES):
            before = len(sink.order)
            await sink.sees(BULK, before)
            await client.submit(f"urgent{n}", SENDER, b"X-Postroom-Priority: urgent\r\n")
            accepted, began = len(sink.order), time.monotonic()
            place = await sink.sees(f"urgent{n}", before)
            found.milliseconds.append((time.monotonic() - began) * 1000)
            found.ahead.append(max(0, place - accepted))
    if BULK not in sink.order[place:]:
        await sink.sees(BULK, place)  # it was still there


async def _turns(sink: OrderingSink, since: int, found: Found) -> None:
    """The messages of a second application, behind the backlog of the first; what is left of class bulk goes beside."""
    place = since - 1
    for _ in range(BURST):
        before, place = place, await sink.sees(OTHER, place + 1)
        between = sink.order[before + 1 : place].count(BACKLOG)
        found.others += between
        found.longest_row = max(found.longest_row, between)


async def measure(folder: Path, waiting: int) -> Found:
    """All of it, on one gateway.

    Raises:
        Void: a message was not taken, or the backlog was gone too soon.
    """
    sink, found = OrderingSink(), Found()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0, limit=1 << 20)
    gateway = Postroom(folder, server.sockets[0].getsockname()[1])
    try:
        await asyncio.to_thread(gateway.start)
        rights = ("--urgent", "--header-doors", "priority")
        await asyncio.to_thread(gateway.command, "applications", "edit", "local", *rights)
        await asyncio.to_thread(gateway.stop)
        await fill(gateway.database, waiting, priority=PriorityClass.BULK, recipient=f"{BULK}@sink.example")
        await asyncio.to_thread(gateway.launch)
        await sink.sees(BULK, 0)
        await _urgent(sink, gateway.port, found)
        await asyncio.to_thread(gateway.stop)
        await fill(gateway.database, waiting, recipient=f"{BACKLOG}@sink.example")
        shop = (2, "shop")
        await fill(gateway.database, waiting + BURST, application=shop, recipient=f"{OTHER}@sink.example")
        since = len(sink.order)
        await asyncio.to_thread(gateway.launch)
        await _turns(sink, since, found)
    except TimeoutError:
        raise Void("nothing came for long") from None
    finally:
        await asyncio.to_thread(gateway.kill)
        server.close()
    return found


def _row(what: str, value: float, unit: str, goal: float | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"what": what, "value": round(value, 2), "unit": unit}
    return row if goal is None else row | {"goal": goal, "met": value <= goal}


def _rows(found: Found, waiting: int) -> list[dict[str, Any]]:
    urgent = f"an urgent message behind {waiting:,} of class bulk"
    shared = f"the {BURST} messages of an application behind {waiting:,} of another"
    return [
        _row(f"{urgent}: others that begin before it, at most", max(found.ahead), "messages", UNDER_WAY + BESIDE),
        _row(f"{urgent}: in the median", statistics.median(found.ahead), "messages"),
        _row(f"{urgent}: from its 250 to its MAIL, in the median", statistics.median(found.milliseconds), "ms"),
        _row(f"{urgent}: at most", max(found.milliseconds), "ms"),
        _row(f"{shared}: others that begin before the last of them", found.others, "messages", BURST + UNDER_WAY),
        _row(f"{shared}: most others between two of them", found.longest_row, "messages", UNDER_WAY),
    ]


def main(arguments: list[str]) -> int:
    """Measure, print and keep the figures; 1 if the run was void, 2 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="make bench PART=fairness", description=__doc__)
    parser.add_argument("--messages", type=int, default=WAITING, help="that wait")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the disk to measure; not tmpfs")
    parser.add_argument("--dry", action="store_true", help="print only; keep no figures")
    options = parser.parse_args(arguments)
    kept: dict[str, Any] = {"surroundings": results.surroundings(options.folder)}
    try:
        with tempfile.TemporaryDirectory(prefix="postroom-bench-", dir=options.folder) as folder:
            found = asyncio.run(measure(Path(folder), options.messages))
    except Void as reason:
        print(f"void: {reason}")
        return 1
    rows = kept["rows"] = _rows(found, options.messages)
    print("\n".join(page.fairness(kept)))
    if not options.dry:
        print(f"written: {results.keep('fairness', kept)}")
        page.write("fairness", page.fairness(kept))
    return 0 if all(row.get("met", True) for row in rows) else 2
