"""A real gateway that runs out of descriptors, that is stopped and goes on, and whose database a stranger locks."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.attackers import Client, ends_in_a_reply
from tests.e2e.faults import SENDER, Room, Shim, code_of, content, cpu_ticks, descriptors, limited, standing_room
from tests.e2e.scripted_relay import Talk

#: How long a process is really stopped (`make soak`: a minute); else the shim lets so much time pass at once.
REALLY_STOPPED_SECONDS = float(os.environ.get("STOPPED_SECONDS", "0"))


# --- descriptors ---


def test_clients_that_take_every_descriptor_stop_no_mail(tmp_path: Path) -> None:
    few = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh"]
    with standing_room(tmp_path / "data", prefix=few) as room, contextlib.ExitStack() as hoard:
        clients: list[Client] = []
        while True:
            client = Client(room.port, greeting=b"")
            hoard.callback(client.close)
            if not client.reply().startswith(b"220 "):
                break
            clients.append(client)
        assert 8 <= len(clients) <= 40
        for _ in range(100):  # each of them is told why, and none is left without a word
            with Client(room.port, greeting=b"421 4.3.2 Too many connections") as another:
                assert another.reply() == b""
        for n, client in enumerate(clients):
            assert room.submit_on(client, f"there{n}", 300_000 if n == 0 else 2000).startswith(b"250 ")
        room.keeps_its_word()  # a connection to the relay and the control socket had room
        backup = room.served.run("backup", str(tmp_path / "backup"))
        assert "read back and sound" in backup.stdout
        assert descriptors(room.pid) < 80
        assert room.log("too_many_connections_in_all")
        hoard.close()
        room.until(lambda: greets(room))
        room.serves_others("after")
        room.keeps_its_word()


def greets(room: Room) -> bool:
    """Whether a new client may stay."""
    with Client(room.port, greeting=b"") as client:
        return client.reply().startswith(b"220 ")


def test_a_listener_without_a_descriptor_neither_spins_nor_ends(tmp_path: Path) -> None:
    with standing_room(tmp_path / "data") as room, Client(room.port) as there:
        with limited(room.pid, resource.RLIMIT_NOFILE, 10), Client(room.port, greeting=b""):  # fewer than are open
            while not (tries := tries_without_a_descriptor(room)):
                assert there.ask(b"NOOP").startswith(b"250 ")  # who is there is served
            began, computed = time.monotonic(), cpu_ticks(room.pid)
            while tries_without_a_descriptor(room) < tries + 3:
                assert time.monotonic() < began + 60, "it has given up"
            elapsed = time.monotonic() - began
            assert tries_without_a_descriptor(room) - tries <= elapsed + 2, "it tries more than once a second"
            assert cpu_ticks(room.pid) - computed < elapsed * os.sysconf("SC_CLK_TCK") / 2, "it is busy with nothing"
        room.until(lambda: greets(room))
        room.serves_others("after")
        room.keeps_its_word()


def tries_without_a_descriptor(room: Room) -> int:
    """How often the listener has said that it could not take a connection."""
    return len(room.log("no_descriptor_for_a_connection"))


# --- a stranger's lock ---


def test_a_database_that_a_stranger_locks_puts_mail_off_until_it_is_free(tmp_path: Path) -> None:
    answers: list[Talk] = []

    async def keeps_its_answer(talk: Talk) -> None:
        await talk.normally("CONTENT")
        answers.append(talk)
        await talk.go_on()

    data = tmp_path / "data"
    with standing_room(data, keeps_its_answer) as room, Client(room.port) as client:
        assert room.submit("before").startswith(b"250 ")
        room.until(lambda: bool(answers))
        with contextlib.closing(sqlite3.connect(data / "postroom.db", isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            client.begin("locked@sink.example", SENDER)
            client.send(content("locked", 2000) + b".\r\n")
            with Client(room.port) as other:  # nobody else waits for the store
                assert other.ask(b"NOOP").startswith(b"250 ")
                assert room.api.ask("GET", "status")["running"]
            reply = client.reply()
            assert code_of(reply) == "451 4.3.0"
            room.note("locked", reply)
            room.relay.run(answers[0].say(b"250 2.0.0 taken\r\n"))
            room.until_logged("another program")
        room.until_logged("store_works_again")
        assert room.submit_on(client, "after").startswith(b"250 ")
        room.keeps_its_word()
        assert [row["may_be_sent_twice"] for row in room.api.deliveries()] == [False, False]


# --- SIGSTOP ---


@contextlib.contextmanager
def stopped(room: Room, shim: Shim, seconds: int) -> Iterator[None]:
    """The process does nothing here (SIGSTOP), while so much time passes for the world."""
    room.served.process.send_signal(signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(room.pid, os.WUNTRACED)[1])
    try:
        yield
        if REALLY_STOPPED_SECONDS:
            time.sleep(REALLY_STOPPED_SECONDS)
        else:
            shim.pass_time(seconds)
    finally:
        room.served.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("seconds", [61, 3600])
def test_a_gateway_that_was_stopped_reads_what_came_meanwhile_before_it_judges(
    shim: Shim, tmp_path: Path, seconds: int
) -> None:
    """Every timer has run out when it goes on: the relay's answer and the client's content were there in time."""
    answers: list[Talk] = []

    async def keeps_its_answer(talk: Talk) -> None:
        await talk.normally("CONTENT")
        answers.append(talk)
        await talk.go_on()

    whole = content("halfway", 40_000)
    with standing_room(tmp_path / "data", keeps_its_answer, **shim.environment) as room, Client(room.port) as client:
        assert room.submit("sent").startswith(b"250 ")
        room.until(lambda: bool(answers))
        client.begin("halfway@sink.example", SENDER)
        client.send(whole[:20_000])
        with stopped(room, shim, seconds):
            room.relay.run(answers[0].say(b"250 2.0.0 taken\r\n"))
            client.send(whole[20_000:] + b".\r\n")
        reply = client.reply()
        assert reply.startswith(b"250 ")
        room.note("halfway", reply)
        room.serves_others("after")
        room.keeps_its_word()
        assert {row["may_be_sent_twice"] for row in room.api.deliveries()} == {False}


@pytest.mark.parametrize("at", ["MAIL", "CONTENT"])
def test_a_relay_that_left_while_the_gateway_was_stopped_gets_the_mail_later(
    shim: Shim, tmp_path: Path, at: str
) -> None:
    reached: list[Talk] = []

    async def leaves_at_its_time(talk: Talk) -> None:
        if reached:
            await talk.normally()
            return
        await talk.normally(at)
        reached.append(talk)
        await talk.stopped.wait()

    with standing_room(tmp_path / "data", leaves_at_its_time, **shim.environment) as room:
        assert room.submit("sent").startswith(b"250 ")
        room.until(lambda: bool(reached))
        with stopped(room, shim, 61):
            room.relay.run(hang_up(reached[0]))
        (row,) = room.api.wait_for("deliveries", lambda found: found["deliveries"][0]["state"] != "sending")[
            "deliveries"
        ]
        room.send_all()
        (row,) = room.api.deliveries()
        assert row["state"] == "delivered"
        assert room.taken() == {"sent": 1 if at == "MAIL" else 2}
        assert row["unknowns"] == (0 if at == "MAIL" else 1)


async def hang_up(talk: Talk) -> None:
    """The relay closes."""
    talk.writer.transport.abort()


def test_a_client_that_waited_for_a_stopped_gateway_is_served(shim: Shim, tmp_path: Path) -> None:
    with standing_room(tmp_path / "data", **shim.environment) as room, Client(room.port) as early:
        early.begin("early@sink.example", SENDER)
        with stopped(room, shim, 240):
            late = Client(room.port, greeting=b"")
            early.send(content("early", 100) + b".\r\n")
        reply = early.reply()
        room.note("early", reply)
        assert reply.startswith(b"250 ")
        assert late.reply().startswith(b"220 ")
        late.begin("late@sink.example", SENDER)
        reply = late.pour(content("late", 100) + b".\r\n", ends_in_a_reply)
        room.note("late", reply)
        assert reply.startswith(b"250 ")
        late.close()
        room.keeps_its_word()
