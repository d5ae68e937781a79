"""What the tests of crash points share: a data folder, clients, and what is left, counted at the relay and here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import random
import smtplib
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import structlog
from typer.testing import CliRunner

from postroom.cli import app
from postroom.model.content import CHUNK_BYTES
from postroom.queue import maintenance, retention
from postroom.store.database import open_store
from tests.conftest import Served, run_postroom
from tests.e2e.counting_sink import NAMED, PATIENCE, CountingSink
from tests.waited_too_long import rules

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.randrange(1, 1_000_000)
SENDER = "sender@source.example"
CRASHED = 137

LINE = b"Text of a message that must not be lost, and not come twice...\r\n"

#: A body over 256 KiB is staged in chunks while it arrives.
SMALL, LARGE = 2_000, 3 * CHUNK_BYTES + 5_000


@dataclass(frozen=True)
class Shape:
    """What varies from round to round; the first round is always the same.

    `nth`: at which message (or part) the process ends; `size_bytes`: of a body; `connections`: to the relay.
    """

    number: int
    nth: int
    size_bytes: int
    pipelining: bool
    connections: int

    @property
    def chance(self) -> random.Random:
        """Random choices of this round."""
        return random.Random(f"{SEED}/{self.number}")


def shape_of(number: int) -> Shape:
    """The parameters of a round."""
    if not number:
        return Shape(0, nth=2, size_bytes=SMALL, pipelining=True, connections=2)
    chance = random.Random(f"{SEED}/{number}")
    bounds = chance.choice(((1, SMALL), (SMALL, 250_000), (LARGE, 2 * LARGE)))
    size = chance.randrange(*bounds)
    return Shape(number, chance.randrange(1, 5), size, chance.random() < 0.6, chance.randrange(1, 5))


SHAPES = [shape_of(number) for number in range(ROUNDS)]


def body_of(size_bytes: int) -> bytes:
    """So many octets (at least three) in lines of 64."""
    whole, rest = divmod(max(size_bytes, 3), len(LINE))
    if rest < 3:
        whole, rest = max(whole - 1, 0), rest + len(LINE)
    return LINE * whole + b"x" * (rest - 2) + b"\r\n"


def letter(name: str, body: bytes) -> bytes:
    """A message that says its name."""
    head = f"Subject: crash {name}\r\n{NAMED}: {name}\r\nFrom: <{SENDER}>\r\n\r\n"
    return head.encode() + body


def begin(client: smtplib.SMTP, *recipients: str) -> None:
    """The envelope; SMTPException where it is not taken."""
    codes = [client.mail(SENDER)[0], *(client.rcpt(recipient)[0] for recipient in recipients)]
    if set(codes) != {250}:
        raise smtplib.SMTPException(f"the envelope is refused: {codes}")


def reply_of(client: smtplib.SMTP) -> int | None:
    """The code of the next reply; None where the connection ends instead."""
    try:
        return client.getreply()[0]
    except (OSError, smtplib.SMTPException):
        return None


class Room:
    """One data folder and its relay, from crash to count."""

    def __init__(
        self, data: Path, start: Callable[[Path, dict[str, str]], Served], sink: CountingSink, database: str = ""
    ) -> None:
        self.data = data
        self.environment = {"POSTROOM_DATABASE": database} if database else {}
        self._database = database
        self.sink = sink
        self._start = start

    def start(self, crash_at: str = "", *, sending: bool = True, under: Mapping[str, str] | None = None) -> Served:
        """The gateway, ready; it ends itself at a point where one is named. `under`: more of its environment."""
        settings = {"POSTROOM_SENDING_ENABLED": str(sending).lower(), **self.environment, **(under or {})}
        if crash_at:
            settings["POSTROOM_CRASH_AT"] = crash_at
        return self._start(self.data, settings)

    def told(self, *arguments: str) -> str:
        """What a command says, without a process of its own."""
        handlers = logging.root.handlers[:]
        mask = os.umask(0o077)  # as the command sets it, and leaves it
        try:
            done = CliRunner().invoke(app, [*arguments, "--data", str(self.data)], env=self.environment)
        finally:  # it has sent the log to where its errors went
            os.umask(mask)
            logging.root.handlers[:] = handlers
            structlog.reset_defaults()
        assert done.exit_code == 0, done.output
        return done.stdout

    def serve_and_crash(self, crash_at: str) -> None:
        """The gateway ends itself before it is ready."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        environment |= {"POSTROOM_DATA": str(self.data), "POSTROOM_CRASH_AT": crash_at, **self.environment}
        assert run_postroom(environment, "serve", check=False).returncode == CRASHED

    @staticmethod
    @contextlib.contextmanager
    def client(served: Served) -> Iterator[smtplib.SMTP]:
        """A client that has said its name, and goes without a word."""
        client = smtplib.SMTP("127.0.0.1", served.port, timeout=PATIENCE)
        try:
            client.ehlo("client.example")
            yield client
        finally:
            client.close()

    def hand_over(self, served: Served, name: str, size_bytes: int = SMALL, *recipients: str) -> int | None:
        """Submit one message on a connection of its own; the reply to its end of data."""
        with self.client(served) as client:
            begin(client, *(recipients or (f"{name}@sink.example",)))
            assert client.docmd("DATA")[0] == 354
            client.send(letter(name, body_of(size_bytes)) + b".\r\n")
            return reply_of(client)

    @staticmethod
    def crashed(served: Served) -> None:
        """It has ended itself."""
        assert served.process.wait(PATIENCE) == CRASHED

    def rows(self) -> list[dict[str, Any]]:
        """All deliveries, of a gateway that is stopped."""
        page = json.loads(self.told("queue", "list", "--json", "--limit", "1000"))
        assert not page["next"]
        found: list[dict[str, Any]] = page["deliveries"]
        return found

    def ends_with(self, served: Served, copies: dict[str, int], *, marked: Collection[str] = ()) -> None:
        """Everything is delivered: so many copies for each recipient and no others, these marked and no others."""
        expected = {f"{name}@sink.example": times for name, times in copies.items()}
        self.sink.wait_for(lambda seen: arrived(seen.copies).items() >= expected.items())
        assert served.stop() == 0
        rows = self.rows()
        assert arrived(self.sink.seen.copies) == expected
        assert {row["recipient"]: row["state"] for row in rows} == dict.fromkeys(expected, "delivered")
        assert {row["recipient"].partition("@")[0] for row in rows if row["may_be_sent_twice"]} == set(marked)
        for name in sorted(marked)[:1]:
            self.says_that_it_may_be_sent_twice(name)

    def says_that_it_may_be_sent_twice(self, name: str) -> None:
        """Commands tell of it, and agree with one another."""
        row = next(row for row in self.rows() if row["recipient"].partition("@")[0] == name)
        shown = json.loads(self.told("queue", "show", row["message_id"], "--json"))
        mine = shown["deliveries"][row["n"]]
        assert (mine["recipient"], mine["state"], mine["may_be_sent_twice"]) == (row["recipient"], row["state"], True)
        assert "may be sent twice" in self.told("queue", "show", row["message_id"])
        why = json.loads(self.told("why", row["message_id"], "--json"))["deliveries"][row["n"]]
        assert (why["recipient"], why["state"]) == (row["recipient"], row["state"])

    def query(self, sql: str) -> list[Any]:
        """What the database says."""
        if self._database:
            with psycopg.connect(self._database, autocommit=True) as connection:
                return connection.execute(sql.encode()).fetchall()
        with contextlib.closing(sqlite3.connect(f"file:{self.data}/postroom.db?mode=ro", uri=True)) as raw:
            return raw.execute(sql).fetchall()

    def orphans(self) -> int:
        """Chunks that no message has."""
        owned = "SELECT content_id FROM content WHERE content_id IS NOT NULL"
        (count,) = self.query(f"SELECT count(*) FROM chunk WHERE content_id NOT IN ({owned})")[0]
        assert isinstance(count, int)
        return count

    def collects_orphans(self) -> None:
        """Maintenance leaves staged chunks for an hour, then removes them: its step is run with its clock moved."""
        assert self.orphans() > 0
        asyncio.run(maintained(self._database or self.data / "postroom.db", timedelta(minutes=59)))
        assert self.orphans() > 0
        asyncio.run(maintained(self._database or self.data / "postroom.db", timedelta(minutes=61)))
        assert self.orphans() == 0
        assert self.query("SELECT count(*) FROM staging") == [(0,)]


class Ledger:
    """Three clients that submit until the gateway is gone, and what each was told of its messages."""

    def __init__(self, room: Room, served: Served, size_bytes: int) -> None:
        self.acknowledged: set[str] = set()
        self.unanswered: set[str] = set()  # end of data, and no reply
        self._room = room
        self._threads = [
            threading.Thread(target=self._submit, args=(served, f"c{n}", size_bytes), daemon=True) for n in range(3)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """All have seen the end of their connections."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _submit(self, served: Served, client_name: str, size_bytes: int) -> None:
        body = body_of(size_bytes)
        with contextlib.suppress(OSError, smtplib.SMTPException), self._room.client(served) as client:
            for number in itertools.count():
                name = f"{client_name}-{number}"
                begin(client, f"{name}@sink.example")
                if client.docmd("DATA")[0] != 354:
                    return
                client.send(letter(name, body) + b".")
                self.unanswered.add(name)
                client.send(b"\r\n")
                if reply_of(client) != 250:
                    return
                self.unanswered.discard(name)
                self.acknowledged.add(name)


async def maintained(database: str | Path, later: timedelta) -> None:
    """One step of maintenance on a database whose gateway is stopped, with the clock moved."""

    def now() -> datetime:
        return datetime.now(UTC) + later

    store = await open_store(database, None, now)
    month = timedelta(days=30)
    await maintenance.step(store, now(), rules(month, month))
    await retention.step(store, now(), retention.Ages(month, month))
    await store.close()


def arrived(copies: dict[tuple[str, str], int]) -> dict[str, int]:
    """How many copies came for each recipient."""
    found: dict[str, int] = {}
    for (_, recipient), times in copies.items():
        found[recipient] = found.get(recipient, 0) + times
    return found


def prepare(
    data: Path, sink: CountingSink, start: Callable[..., Served], end: Callable[[Served], None], **settings: str
) -> None:
    """A data folder whose applications may send everything through the sink."""
    served = start(data, "[]", **settings)
    try:
        relay = ("--host", "127.0.0.1", "--port", str(sink.port), "--security", "none", "--allow-clear-password")
        served.run(
            "accounts", "add", "relay", *relay, "--username", "ann", "--password-stdin", "--for", "local",
            "--allow-sender", "*", stdin="marked-secret\n",
        )  # fmt: skip
        assert served.stop() == 0
    finally:
        end(served)
