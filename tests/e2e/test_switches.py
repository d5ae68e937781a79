"""The master switch, holding at the start, and batches, by command on a gateway under load."""

from __future__ import annotations

import contextlib
import itertools
import json
import smtplib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served
from tests.e2e.counting_sink import PATIENCE, CountingSink
from tests.e2e.crash_room import arrived, begin, letter

SENDERS = 3


class Load:
    """Clients that submit without a pause until they are stopped; `taken` are their acknowledged recipients."""

    def __init__(self, port: int) -> None:
        self.taken: set[str] = set()
        self._port = port
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._submit, args=(n,), daemon=True) for n in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _submit(self, number: int) -> None:
        with smtplib.SMTP("127.0.0.1", self._port, timeout=PATIENCE) as client:
            client.ehlo("client.example")
            for count in itertools.count():
                if self._stop.is_set():
                    return
                name = f"c{number}-{count}"
                begin(client, f"{name}@sink.example")
                client.data(letter(name, b"text\r\n"))
                with self._news:
                    self.taken.add(f"{name}@sink.example")
                    self._news.notify_all()

    def more(self, count: int) -> None:
        """Wait until so many more were taken."""
        with self._news:
            wanted = len(self.taken) + count
            assert self._news.wait_for(lambda: len(self.taken) >= wanted, PATIENCE), "mail is no longer taken"

    def end(self) -> set[str]:
        """Everything that was taken."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return self.taken


@pytest.fixture
def load() -> Iterator[Callable[[Served], Load]]:
    """Begins a load that ends with the test."""
    begun: list[Load] = []

    def begin_load(served: Served) -> Load:
        begun.append(Load(served.port))
        return begun[-1]

    yield begin_load
    for one in begun:
        with contextlib.suppress(AssertionError):
            one.end()


def rows(served: Served, state: str) -> list[dict[str, Any]]:
    """All deliveries in this state, as the command lists them."""
    found: list[dict[str, Any]] = []
    cursor: tuple[str, ...] = ()
    while True:
        page = json.loads(served.run("queue", "list", "--state", state, "--limit", "1000", *cursor, "--json").stdout)
        found += page["deliveries"]
        if not page["next"]:
            return found
        cursor = ("--cursor", page["next"])


def until_none(served: Served, state: str) -> None:
    """Ask until no delivery is in this state; each answer takes the gateway's turn."""
    while rows(served, state):
        pass


def begun_between(data: Path, after: datetime, before: datetime) -> int:
    """How many attempts began between two times: an attempt begins with its claim."""
    with closing(sqlite3.connect(f"file:{data}/postroom.db?mode=ro", uri=True)) as reader:
        limits = tuple(int(one.timestamp() * 1_000_000) for one in (after, before))
        (count,) = reader.execute("SELECT count(*) FROM attempt WHERE started > ? AND started < ?", limits).fetchone()
    return int(count)


def test_nothing_leaves_once_sending_is_off(
    start: Callable[..., Served], counting_sink: CountingSink, load: Callable[[Served], Load]
) -> None:
    served = start()
    clients = load(served)
    counting_sink.wait_for(lambda seen: len(seen.copies) >= 60)
    counting_sink.hold("DATA", counting_sink.seen.verbs["DATA"] + 10)
    clients.more(100)
    served.run("settings", "set", "sending_enabled", "off")
    off = datetime.now(UTC)
    claimed = {row["recipient"] for row in rows(served, "sending")}
    before = set(arrived(counting_sink.seen.copies))
    assert claimed - before or claimed & before  # the sink keeps its answers: something is under way
    counting_sink.release()
    until_none(served, "sending")
    after = set(arrived(counting_sink.seen.copies))
    assert after - before <= claimed
    assert claimed <= after

    clients.more(100)
    waiting = rows(served, "queued")
    why = served.run("why", waiting[0]["message_id"]).stdout
    assert "sending is switched off" in why
    assert "postroom settings set sending_enabled on" in why
    assert "sending is switched off" in served.run("status").stdout
    clients.more(100)
    assert set(arrived(counting_sink.seen.copies)) == after
    on = datetime.now(UTC)
    assert begun_between(served.data, off, on) == 0

    served.run("settings", "set", "sending_enabled", "on")
    clients.more(20)
    taken = clients.end()
    counting_sink.wait_for(lambda seen: arrived(seen.copies).keys() >= taken)
    until_none(served, "sending")
    assert arrived(counting_sink.seen.copies) == dict.fromkeys(taken, 1)
    said = json.loads(served.run("queue", "list", "--json", "--limit", "1").stdout)
    assert said["deliveries"][0]["state"] == "delivered"
    assert served.stop() == 0


def test_what_is_pending_at_the_start_is_held_and_new_mail_flows(
    start: Callable[..., Served], counting_sink: CountingSink
) -> None:
    served = start()
    served.run("settings", "set", "sending_enabled", "off")
    served.run("settings", "set", "hold_pending_at_start", "on")
    for n in range(3):
        served.run("send", "--from", "a@source.example", "--to", f"old{n}@sink.example", "--text", "x")
    assert "everything that waits is held" in served.run("status").stdout
    assert served.stop() == 0

    served = start(data=served.data)
    served.run("settings", "set", "sending_enabled", "on")
    held = rows(served, "held")
    assert {row["recipient"] for row in held} == {f"old{n}@sink.example" for n in range(3)}
    new = served.run("send", "--from", "a@source.example", "--to", "new@sink.example", "--text", "x", "--wait").stdout
    assert "delivered" in new
    assert set(arrived(counting_sink.seen.copies)) == {"new@sink.example"}
    message = held[0]["message_id"]
    why = served.run("why", message).stdout
    assert "hold_pending_at_start" in why
    assert f"postroom queue release {message}" in why
    assert "3 held: postroom queue release --all" in served.run("status").stdout

    served.run("queue", "release", "--all")
    wanted = {f"{name}@sink.example": 1 for name in ("new", "old0", "old1", "old2")}
    counting_sink.wait_for(lambda seen: arrived(seen.copies) == wanted)
    assert served.stop() == 0


def test_mail_waits_for_its_batch_and_says_until_when(
    start: Callable[..., Served], counting_sink: CountingSink
) -> None:
    served = start()
    served.run("settings", "set", "batch_interval", "1h")
    served.run("send", "--from", "a@source.example", "--to", "later@sink.example", "--text", "x")
    (one,) = json.loads(served.run("why", "last", "--json").stdout)["deliveries"]
    assert one["reason"] == "it waits for the next batch (setting batch_interval)"
    assert datetime.fromisoformat(one["until"]) > datetime.now(UTC)
    assert one["command"] == "postroom settings set batch_interval 0s"
    assert "the next batch leaves at" in served.run("status").stdout
    assert not counting_sink.seen.copies
    served.run(*one["command"].split()[1:])
    counting_sink.wait_for(lambda seen: set(arrived(seen.copies)) == {"later@sink.example"})
    assert served.stop() == 0
