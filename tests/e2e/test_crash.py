"""SIGKILL under load, again and again: nothing acknowledged is lost, nothing else appears, and little comes twice.

One data folder lives through all kills. The relay is aiosmtpd in a process of its own; clients are smtplib. The relay
sends the SIGKILL itself, or keeps its answers while a client does, and so knows what is open at that moment.
CRASH_KILLS and CRASH_MESSAGES say how much (`make soak` more), CRASH_SEED repeats the choices, CRASH_REPORT names a
file for the figures.
"""

from __future__ import annotations

import json
import os
import random
import smtplib
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postroom.store.selections import RECOVERED
from tests.conftest import Served
from tests.e2e.crash_clients import Clients, Fate, Moment
from tests.e2e.crash_report import LEAST_OPEN, Judgement, Row, expected
from tests.e2e.sink_process import RecordingSink

KILLS = int(os.environ.get("CRASH_KILLS", "10"))
#: On PostgreSQL fewer: the gateway's own part is the same.
KILLS_ELSEWHERE = 4
MESSAGES = int(os.environ.get("CRASH_MESSAGES", str(60 * KILLS)))
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.randrange(1, 1_000_000)
CONNECTIONS = 24
ASKED_AT_MOST = 100
UNFINISHED = ("queued", "sending", "deferred", "held")

#: After what the kill comes: events at the sink, and so many milliseconds at most; moments of a client, at once.
MOMENTS = ("open", "envelope", "took", "answered", *Moment, *Moment)
MOST_MILLISECONDS = 20.0

Serve = Callable[..., Served]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[RecordingSink]:
    """A relay that lives as long as the test."""
    relay = RecordingSink(tmp_path / "sink.record")
    yield relay
    relay.stop()


def deliveries(served: Served) -> list[dict[str, Any]]:
    """All deliveries as the command shows them, page by page."""
    found: list[dict[str, Any]] = []
    cursor: list[str] = []
    while True:
        page = json.loads(served.run("queue", "list", "--json", "--limit", "1000", *cursor).stdout)
        found += page["deliveries"]
        if not page["next"]:
            return found
        cursor = ["--cursor", page["next"]]


def unfinished(served: Served) -> int:
    """How many deliveries have not ended."""
    accounts = json.loads(served.run("status", "--json").stdout)["accounts"]
    return sum(number for of in accounts for state, number in of["counts"].items() if state in UNFINISHED)


class Marks:
    """What each start has marked, by the events that it left: a mark stays, so marks alone don't say which start."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._last = 0

    def new(self) -> list[str]:
        """The recipients marked since the last call."""
        with closing(self._connect()) as reader:
            rows = reader.execute(
                "SELECT event.id, recipient FROM event JOIN delivery USING (message_id, n)"
                f" WHERE event.id > {self._last} AND detail = '{RECOVERED}' ORDER BY event.id"
            ).fetchall()
        self._last = max((identity for identity, _ in rows), default=self._last)
        return [recipient for _, recipient in rows]


def kill(served: Served, sink: RecordingSink, clients: Clients, names: int, moment: str, milliseconds: float) -> None:
    """One kill, once so many names are at the sink: by the sink, or by a client while the sink keeps its answers."""
    kills, holds = sink.counts["killed"], sink.counts["holding"]
    if moment in set(Moment):

        def blow() -> None:
            served.process.kill()
            sink.order("killed")

        sink.order("hold", names, LEAST_OPEN)
        sink.wait_for(lambda: sink.counts["holding"] > holds)
        clients.strike(Moment(moment), blow)
    else:
        sink.order("kill", names, LEAST_OPEN, served.process.pid, moment, milliseconds)
    sink.wait_for(lambda: sink.counts["killed"] > kills)
    served.process.wait()


def start_again(
    serve: Serve, served: Served, sink: RecordingSink, clients: Clients, settings: dict[str, str]
) -> Served:
    """On the same folder and port, while clients knock."""
    clients.gateway_went()
    sink.wait_until_all_closed()
    sink.order("restarted")
    again = serve(data=served.data, port=served.port, **settings)
    clients.gateway_came()
    return again


def drain(served: Served, sink: RecordingSink, clients: Clients) -> None:
    """Until nothing is left, or nothing happens any more."""
    sink.order("at-once")
    awaited = {name for one in clients.submissions if one.fate is Fate.ACKNOWLEDGED for name in expected(one)}
    if sink.comes(lambda: awaited <= sink.recipients):  # else the report says what is missing
        for _ in range(ASKED_AT_MOST):
            assert served.process.poll() is None
            if not unfinished(served):
                break


@pytest.mark.timeout(120 + 20 * KILLS)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_sigkill_under_load_loses_nothing_and_repeats_little(
    request: pytest.FixtureRequest, serve: Serve, sink: RecordingSink, kind: str
) -> None:
    chance, began = random.Random(SEED), time.monotonic()
    kills = KILLS if kind == "sqlite" else min(KILLS, KILLS_ELSEWHERE)
    messages = MESSAGES * kills // KILLS
    print(f"CRASH_SEED={SEED} kills: {kills}, messages: {messages}")
    settings = {"POSTROOM_RETRY_SCHEDULE": "1s"}
    if kind == "postgresql":
        settings["POSTROOM_DATABASE"] = request.getfixturevalue("cluster").new_database()
    served = serve(**settings)
    relay = ["--host", "127.0.0.1", "--port", str(sink.port), "--security", "none"]
    pool = ["--max-connections", str(CONNECTIONS), "--messages-per-connection", "20"]
    served.run("accounts", "add", "relay", *relay, *pool, "--for", "local", "--allow-sender", "*@source.example")
    file = f"file:{served.data}/postroom.db?mode=ro"
    marks = Marks(
        partial(psycopg.connect, settings["POSTROOM_DATABASE"], autocommit=True)
        if kind == "postgresql"
        else partial(sqlite3.connect, file, uri=True)
    )
    marked = []

    clients = Clients(served.port, str(SEED), lambda: len(sink.names))
    sink.on_took = clients.look_again
    clients.start()
    moments = [moment for _ in range(-(-kills // len(MOMENTS))) for moment in chance.sample(MOMENTS, len(MOMENTS))]
    for number, moment in enumerate(moments[:kills], 1):
        names = number * messages // (kills + 1)
        kill(served, sink, clients, names, moment, chance.uniform(0, MOST_MILLISECONDS))
        served = start_again(serve, served, sink, clients, settings)
        marked.append(marks.new())
    submissions = clients.finish(messages)
    drain(served, sink, clients)

    rows = [Row(row["recipient"], row["state"], row["may_be_sent_twice"]) for row in deliveries(served)]
    judgement = Judgement(submissions, sink.lines(), marked, rows, moments)
    print(judgement.table())
    figures = {"seed": SEED, "messages": messages, "seconds": round(time.monotonic() - began), **judgement.figures()}
    if (path := os.environ.get("CRASH_REPORT")) and kind == "sqlite":
        Path(path).write_text(json.dumps(figures, indent=1))
    assert judgement.faults == []
    assert len(judgement.kills) == kills
    assert served.stop() == 0


def test_after_a_sigkill_port_folder_and_control_socket_are_free_at_once(serve: Serve) -> None:
    first = serve()
    with smtplib.SMTP("127.0.0.1", first.port) as client, socket.socket() as behind:
        client.ehlo()
        behind.connect(("127.0.0.1", first.port))
        first.kill()
        assert (first.data / "control.sock").is_socket()
        assert (first.data / "postroom.lock").read_text().startswith(f"{first.process.pid} ")
        second = serve(data=first.data, port=first.port)  # while the clients of the first one have not closed
        assert second.port == first.port
        with smtplib.SMTP("127.0.0.1", second.port) as other:
            assert other.noop()[0] == 250
        assert second.run("queue", "list").stdout == "no deliveries\n"
        client.close()
    assert second.stop() == 0
    assert not (first.data / "control.sock").exists()
