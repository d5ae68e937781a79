"""PostgreSQL goes away under a running gateway: temporary errors at the doors, and all goes on by itself."""

from __future__ import annotations

import contextlib
import itertools
import json
import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import Served, end_serving, run_postroom, start_serving
from tests.e2e.conftest import LISTENERS
from tests.e2e.counting_sink import PATIENCE, CountingSink
from tests.e2e.crash_room import SMALL, Room, begin, body_of, letter, prepare, reply_of
from tests.postgresql import PASSWORD, Cluster


@pytest.fixture
def room(own_cluster: Cluster, counting_sink: CountingSink, tmp_path: Path) -> Iterator[Room]:
    """A folder whose database is on a server of its own, and a relay that has forgotten everything."""
    started: list[Served] = []

    def start(data: Path, settings: dict[str, str]) -> Served:
        started.append(start_serving(data, LISTENERS, **{"POSTROOM_RETRY_SCHEDULE": "1s", **settings}))
        return started[-1]

    counting_sink.again()
    url = own_cluster.new_database()
    prepare(tmp_path / "data", counting_sink, start_serving, end_serving, POSTROOM_DATABASE=url)
    yield Room(tmp_path / "data", start, counting_sink, url)
    for served in started:
        end_serving(served)


def taken_at_last(room: Room, served: Served, name: str) -> None:
    """Submitted again and again until it is taken; what is not, is refused for the moment."""
    while (code := room.hand_over(served, name)) != 250:
        assert code in (451, 452)
        assert served.process.poll() is None


class Load:
    """Clients that submit without a pause, and what each was told."""

    def __init__(self, room: Room, served: Served) -> None:
        self.acknowledged: set[str] = set()
        self.refused: list[int] = []
        self.unanswered: set[str] = set()
        self._news = threading.Condition()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(room, served, n), daemon=True) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self, room: Room, served: Served, client: int) -> None:
        for number in itertools.count():
            if self._ending.is_set():
                return
            self._submit(room, served, f"c{client}-{number}")

    def _submit(self, room: Room, served: Served, name: str) -> None:
        code: int | None = None
        with contextlib.suppress(OSError, smtplib.SMTPException), room.client(served) as client:
            begin(client, f"{name}@sink.example")
            assert client.docmd("DATA")[0] == 354
            client.send(letter(name, body_of(SMALL)) + b".\r\n")
            code = reply_of(client)
            if code is None:
                self.unanswered.add(name)
        with self._news:
            if code == 250:
                self.acknowledged.add(name)
            elif code is not None:
                self.refused.append(code)
            self._news.notify_all()

    def wait_for_more(self) -> None:
        """Until more messages were taken than now."""
        with self._news:
            now = len(self.acknowledged)
            assert self._news.wait_for(lambda: len(self.acknowledged) >= now + 40, PATIENCE)

    def wait_for_refusals(self) -> None:
        """Until something was refused."""
        with self._news:
            assert self._news.wait_for(lambda: self.refused, PATIENCE)

    def end(self) -> None:
        """Submit nothing more."""
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.mark.timeout(240)
def test_a_crash_of_the_server_under_load_loses_nothing_and_repeats_nothing(room: Room, own_cluster: Cluster) -> None:
    served = room.start()
    load = Load(room, served)
    for _ in range(2):
        load.wait_for_more()
        own_cluster.stop()
        load.refused.clear()
        load.wait_for_refusals()
        own_cluster.start()
        load.wait_for_more()
    load.end()
    room.sink.wait_for(lambda seen: {name for name, _ in seen.copies} >= load.acknowledged)
    while room.query("SELECT count(*) FROM delivery WHERE ended IS NULL") != [(0,)]:
        assert served.process.poll() is None
    assert served.stop() == 0
    assert set(load.refused) <= {451, 452}
    came = {name: times for (name, _), times in room.sink.seen.copies.items()}
    assert load.acknowledged - came.keys() == set(), "acknowledged and lost"
    assert came.keys() - load.acknowledged - load.unanswered == set(), "delivered though never taken"
    assert max(came.values()) == 1
    assert room.query("SELECT DISTINCT state, twice FROM delivery") == [("delivered", 0)]
    tallies = room.query("SELECT state, count FROM tally WHERE count <> 0")
    assert tallies == room.query("SELECT state, count(*) FROM delivery GROUP BY state")
    assert PASSWORD not in "\n".join(served.output)
    assert any("database_connected_again" in line for line in served.output)


def test_a_reply_that_came_while_the_database_was_gone_is_kept(room: Room, own_cluster: Cluster) -> None:
    room.sink.hold("DATA")
    served = room.start()
    assert room.hand_over(served, "m") == 250
    room.sink.wait_for(lambda seen: seen.of("m") == 1)
    own_cluster.stop()
    room.sink.release()
    assert room.hand_over(served, "refused") == 451
    own_cluster.start()
    taken_at_last(room, served, "again")
    room.ends_with(served, {"m": 1, "again": 1})


def test_without_connections_mail_is_refused_until_there_are_some(room: Room, own_cluster: Cluster) -> None:
    served = room.start()
    assert room.hand_over(served, "before") == 250
    with contextlib.ExitStack() as others:
        ending = others.enter_context(psycopg.connect(own_cluster.url("postgres"), autocommit=True))
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                others.enter_context(psycopg.connect(own_cluster.url("postgres"), autocommit=True))
        end = b"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'postroom %'"
        ended = len(ending.execute(end).fetchall())
        assert ended
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                others.enter_context(psycopg.connect(own_cluster.url("postgres"), autocommit=True))
        assert room.hand_over(served, "refused") == 451
        status = served.run("status", check=False)
        assert status.returncode == 75 and "max_connections" not in status.stdout
    taken_at_last(room, served, "again")
    room.ends_with(served, {"before": 1, "again": 1})


def test_a_second_gateway_on_the_same_database_is_refused(room: Room, tmp_path: Path) -> None:
    served = room.start()
    environment = {**served.environment, "POSTROOM_DATA": str(tmp_path / "other"), "POSTROOM_SMTP__LISTENERS": "[]"}
    for command in ("serve", "status"):
        refused = run_postroom(environment, command, check=False)
        assert refused.returncode == 65
        assert "is in use by another gateway (postroom " in refused.stderr
        assert "Traceback" not in refused.stderr
    assert room.hand_over(served, "m") == 250
    room.ends_with(served, {"m": 1})


def test_keys_are_not_made_anew_for_a_database_that_others_have_sealed(room: Room, tmp_path: Path) -> None:
    served = room.start()
    assert served.stop() == 0
    other = tmp_path / "other"
    refused = run_postroom({**served.environment, "POSTROOM_DATA": str(other)}, "status", check=False)
    assert refused.returncode == 64
    assert refused.stderr.startswith("postroom: keys: none of the keys opens what is stored")
    assert not (other / "keys").exists()


def test_commands_tell_of_the_database_and_not_of_its_password(room: Room) -> None:
    shown = json.loads(room.told("check", "--json"))
    (found,) = [
        finding for finding in shown["findings"] if finding["subject"] == "database" and finding["level"] == "ok"
    ]
    assert found["what"].startswith("is PostgreSQL ")
    assert PASSWORD not in json.dumps(shown)
    assert PASSWORD not in room.told("settings", "show", "database")
    assert "***" in room.told("settings", "show", "database")


def test_a_backup_says_what_to_do_instead(room: Room, tmp_path: Path) -> None:
    served = room.start()
    refused = served.run("backup", str(tmp_path / "copy"), check=False)
    assert refused.returncode == 64
    assert "pg_dump" in refused.stderr and "keys" in refused.stderr
    assert PASSWORD not in refused.stderr
    assert not (tmp_path / "copy").exists()
