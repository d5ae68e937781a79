"""SIGKILL under load, counted at an independent relay: nothing acknowledged is lost, nothing else appears.

The relay is aiosmtpd in a process of its own and lives through the crash; clients are smtplib. CRASH_ROUNDS repeats it
(`make soak`); each round's random choices come from its number and CRASH_SEED.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served
from tests.e2e.crash_clients import Clients

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.randrange(1, 1_000_000)
PATIENCE = 60.0
UNFINISHED = ("queued", "sending", "deferred", "held")

Serve = Callable[..., Served]


class RecordingSink:
    """The relay's process, and the lines that it has said."""

    def __init__(self, record: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("recording_sink.py")), str(record)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for(lambda lines: lines[0] if lines else None).removeprefix("port "))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, found: Callable[[list[str]], str | None]) -> str:
        """What `found` makes of the lines, once it is something."""
        with self._news:
            assert self._news.wait_for(lambda: found(self._lines), PATIENCE), "the relay did not see it"
            return found(self._lines) or ""

    def lines(self) -> list[str]:
        """All so far."""
        with self._news:
            return list(self._lines)

    def answer_at_once(self) -> None:
        """No more delays."""
        self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """End it."""
        self._process.communicate()
        self._reader.join()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[RecordingSink]:
    """A relay that lives as long as the test."""
    relay = RecordingSink(tmp_path / "sink.record")
    yield relay
    relay.stop()


def taken(lines: list[str]) -> Counter[str]:
    """How often the relay took each message."""
    return Counter(line.removeprefix("took ") for line in lines if line.startswith("took "))


def count_of(lines: list[str], *words: str) -> int:
    """How many lines begin with one of the words."""
    return sum(line.partition(" ")[0] in words for line in lines)


def deliveries(served: Served, *states: str) -> list[dict[str, Any]]:
    """All deliveries (in these states) as the command shows them, page by page."""
    wanted = [word for state in states for word in ("--state", state)]
    found: list[dict[str, Any]] = []
    cursor: list[str] = []
    while True:
        page = json.loads(served.run("queue", "list", "--json", "--limit", "1000", *wanted, *cursor).stdout)
        found += page["deliveries"]
        if not page["next"]:
            return found
        cursor = ["--cursor", page["next"]]


def unfinished(served: Served) -> int:
    """How many deliveries have not ended."""
    accounts = json.loads(served.run("status", "--json").stdout)["accounts"]
    return sum(number for of in accounts for state, number in of["counts"].items() if state in UNFINISHED)


def is_now(lines: list[str], word: str, number: int) -> bool:
    """The relay has said `word` so often, and holds a message that it has not answered."""
    return count_of(lines, word) >= number and count_of(lines, "took") > count_of(lines, "answered")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_sigkill_under_load_loses_nothing_and_repeats_little(
    serve: Serve, sink: RecordingSink, round_number: int
) -> None:
    chance = random.Random(f"{SEED}/{round_number}")
    moment = chance.choice(("took", "answered")), chance.randrange(8, 40)
    print(f"CRASH_SEED={SEED} round {round_number}: SIGKILL at {moment[0]!r} number {moment[1]}")
    served = serve()
    relay = ["--host", "127.0.0.1", "--port", str(sink.port), "--security", "none"]
    served.run("accounts", "add", "relay", *relay, "--for", "local", "--allow-sender", "*")

    clients = Clients(served.port, SEED + round_number)
    clients.start()
    sink.wait_for(lambda lines: "now" if is_now(lines, *moment) else None)
    closed_before = count_of(sink.lines(), "closed")
    served.kill()
    ledger = clients.join()
    sink.wait_for(lambda lines: "all" if count_of(lines, "open") == count_of(lines, "closed") else None)
    before = sink.lines()
    connections = count_of(before, "open") - closed_before
    unanswered_at_sink = count_of(before, "took") - count_of(before, "answered")
    assert unanswered_at_sink > 0, "the kill met no open delivery"
    assert len(ledger.acknowledged) > sum(taken(before).values()), "the kill met no queue"

    sink.answer_at_once()
    served = serve(data=served.data, port=served.port)
    while unfinished(served):
        assert served.process.poll() is None

    arrived = taken(sink.lines())
    assert ledger.acknowledged - arrived.keys() == set(), "acknowledged and lost"
    assert arrived.keys() - ledger.acknowledged - ledger.unanswered == set(), "delivered though never taken"
    rows = deliveries(served)
    assert {row["state"] for row in rows} == {"delivered"}
    marked = {row["recipient"].partition("@")[0] for row in rows if row["may_be_sent_twice"]}
    twice = {name for name, times in arrived.items() if times > 1}
    print(f"{len(arrived)} arrived, {len(twice)} twice, {len(marked)} marked, {connections} connections at the kill")
    assert max(arrived.values()) <= 2
    assert twice - marked == set(), "sent twice and not marked"
    assert len(twice) <= 2 * connections
    assert len(marked) <= 3 * connections
    shown = json.loads(served.run("queue", "show", message_of(rows, marked), "--json").stdout)
    assert shown["deliveries"][0]["may_be_sent_twice"]
    assert served.stop() == 0


def message_of(rows: list[dict[str, Any]], names: set[str]) -> str:
    """The id of one of the messages to these recipients."""
    return next(str(row["message_id"]) for row in rows if row["recipient"].partition("@")[0] in names)
