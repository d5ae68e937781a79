"""A real gateway whose disk is full: mail is put off, nothing acknowledged is lost, and all goes on when there is room.

Full is a small file system (root), a limit of the process on the size of files (everywhere), or what the shim says of
one file alone.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.attackers import Client, ends_in_a_reply
from tests.e2e.faults import (
    DATABASE,
    LOG,
    SENDER,
    Room,
    Shim,
    code_of,
    content,
    fill,
    limited,
    small_disk,
    standing_room,
)
from tests.e2e.scripted_relay import Talk

#: What clients are told: no room, or, where SQLite does not know why it may not write, that it failed.
PUT_OFF = ("452 4.3.1", "451 4.3.0")
LARGE = 1_500_000


@dataclass
class Way:
    """A way for a disk to be full: where the data folder lies, and the time during which it is."""

    data: Path
    full: Callable[[Room], AbstractContextManager[None]]


@contextlib.contextmanager
def _filled(disk: Path) -> Iterator[None]:
    hog = fill(disk)
    yield
    hog.unlink()


@pytest.fixture(params=["a small disk", "a limit on files"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    """Both ways."""
    if request.param == "a limit on files":
        yield Way(tmp_path / "data", lambda room: limited(room.pid, resource.RLIMIT_FSIZE, 0))
        return
    with small_disk(tmp_path / "disk", 8 * 1024 * 1024) as disk:
        yield Way(disk / "data", lambda _: _filled(disk))


def asked(room: Room, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the problem that the control socket answers to a message."""
    connection = http.client.HTTPConnection("postroom", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(room.served.data / "control.sock"))
    with contextlib.closing(connection):
        connection.request("POST", "/v1/messages", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


MESSAGE = {"from": SENDER, "to": ["api@sink.example"], "subject": "x", "text": "x"}


def test_mail_is_put_off_while_the_disk_is_full_and_taken_when_there_is_room(way: Way) -> None:
    with standing_room(way.data) as room:
        assert room.submit("before").startswith(b"250 ")
        with way.full(room):
            told = [room.submit(f"full{n}", size) for n, size in enumerate((100, 20_000, 200_000, LARGE) * 3)]
            assert {code_of(reply) for reply in told} <= set(PUT_OFF)
            status, problem = asked(room, MESSAGE)
            assert status in (503, 507)
            assert problem["title"] in ("Insufficient Storage", "Service Unavailable")
            with Client(room.port) as client:
                assert client.ask(b"NOOP").startswith(b"250 ")
        for n, size in enumerate((100, 20_000, 200_000, LARGE)):
            assert room.submit(f"after{n}", size).startswith(b"250 ")
        assert asked(room, MESSAGE)[0] == 202
        room.acknowledged.add("api")
        room.until_logged("store_works_again")
        assert len(room.log('"store_fails"')) <= 2  # said once, not once a message
        room.keeps_its_word()
        assert room.served.stop() == 0


def test_a_disk_that_fills_while_a_body_arrives_refuses_that_message_alone(way: Way) -> None:
    whole = content("cut", LARGE)
    with standing_room(way.data) as room, Client(room.port) as client, Client(room.port) as other:
        client.begin("cut@sink.example", SENDER)
        client.send(whole[: LARGE // 2])
        with way.full(room):
            reply = client.pour(whole[LARGE // 2 :] + b".\r\n", ends_in_a_reply)
            assert code_of(reply) in PUT_OFF
        room.note("cut", reply)
        assert room.submit_on(client, "next").startswith(b"250 ")
        assert room.submit_on(other, "other", LARGE).startswith(b"250 ")
        room.keeps_its_word()


def test_what_the_relay_has_taken_while_the_disk_was_full_is_not_sent_again(way: Way) -> None:
    taken: list[str] = []
    answers: list[Talk] = []

    async def keeps_its_answer(talk: Talk) -> None:
        await talk.normally("CONTENT")
        answers.append(talk)
        taken.append("content")
        await talk.go_on()

    with standing_room(way.data, keeps_its_answer) as room:
        assert room.submit("held").startswith(b"250 ")
        room.until(lambda: bool(taken))
        with way.full(room):
            room.relay.run(answers[0].say(b"250 2.0.0 taken\r\n"))
            room.until_logged('"store_fails"')
        room.until_logged('"store_works_again"')
        room.keeps_its_word()
        (row,) = room.api.deliveries()
        assert (row["state"], row["may_be_sent_twice"]) == ("delivered", False)


def test_a_checkpoint_without_room_holds_up_nobody(shim: Shim, tmp_path: Path) -> None:
    shim.aim(DATABASE)
    with standing_room(tmp_path / "data", **shim.environment) as room:
        shim["write_errno"] = errno.ENOSPC
        room.submit("first")
        room.until(lambda: shim["writes_failed"] > 0)  # the log is to be emptied when nothing happens for a second
        for n in range(5):
            assert room.submit(f"more{n}", LARGE).startswith(b"250 ")
        shim["write_errno"] = 0
        room.keeps_its_word()
        assert room.served.stop() == 0
    assert not (tmp_path / "data" / "postroom.db-wal").exists()
    with standing_room(tmp_path / "data") as again:
        assert len(again.api.deliveries()) == 6


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full, standing_room(tmp_path / "data", stderr=full.fileno()) as room:
        for n in range(200):
            with Client(room.port) as client:
                assert client.ask(b"EHLO client.example").startswith(b"250-")
                assert client.ask(b"AUTH PLAIN AGEAYg==").startswith((b"535 ", b"421 "))  # each is logged
            assert room.submit(f"m{n}").startswith(b"250 ")
        room.keeps_its_word()
        room.served.process.terminate()
        room.served.process.wait(60)


def test_a_log_whose_reader_has_gone_stops_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe, standing_room(tmp_path / "data", stderr=pipe.fileno()) as room:
        os.close(reading)
        with Client(room.port) as client:
            assert client.ask(b"EHLO client.example").startswith(b"250-")
            assert client.ask(b"AUTH PLAIN AGEAYg==").startswith(b"535 ")
        room.serves_others("after")
        room.keeps_its_word()


def test_a_log_that_has_room_again_says_that_lines_are_missing(shim: Shim, tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    shim.aim("/gateway.log")
    with log.open("wb") as file, standing_room(tmp_path / "data", stderr=file.fileno(), **shim.environment) as room:
        shim["write_errno"] = errno.ENOSPC
        fail_to_log_in(room)
        assert shim["writes_failed"] > 0
        shim["write_errno"] = 0
        fail_to_log_in(room)
        assert room.served.stop() == 0
    lines = log.read_text().splitlines()
    assert any("log_lines_lost" in line for line in lines)
    assert [json.loads(line)["event"] for line in lines][-1] == "ending"


def fail_to_log_in(room: Room) -> None:
    """A client that makes the gateway log something."""
    with Client(room.port) as client:
        client.ask(b"EHLO client.example")
        client.ask(b"AUTH PLAIN AGEAYg==")


def test_a_backup_without_room_leaves_nothing_and_disturbs_nobody(shim: Shim, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    shim.aim(f"{target}/postroom.db"[-60:])
    with standing_room(tmp_path / "data", **shim.environment) as room:
        room.submit("before", 300_000)
        shim["write_errno"] = errno.ENOSPC
        done = room.served.run("backup", str(target), check=False)
        assert done.returncode == 75
        assert "no room" in done.stderr
        assert not target.exists()
        room.serves_others("after")
        shim["write_errno"] = 0
        assert "read back and sound" in room.served.run("backup", str(target)).stdout
        room.keeps_its_word()


def test_a_backup_on_a_full_file_system_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 * 1024) as disk, standing_room(tmp_path / "data") as room:
        room.submit("before", 600_000)
        done = room.served.run("backup", str(disk / "backup"), check=False)
        assert done.returncode == 75
        assert "free" in done.stderr or "no room" in done.stderr
        assert not (disk / "backup").exists()
        room.keeps_its_word()


@pytest.mark.parametrize("fault", [errno.EIO, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.__getitem__)
def test_a_disk_that_cannot_be_written_puts_mail_off_until_it_can(shim: Shim, tmp_path: Path, fault: int) -> None:
    shim.aim(LOG)
    with standing_room(tmp_path / "data", **shim.environment) as room:
        room.submit("before")
        shim["write_errno"] = fault
        assert {code_of(room.submit(f"failing{n}", size)) for n, size in enumerate((100, LARGE))} <= set(PUT_OFF)
        assert room.log('"store_fails"')
        shim["write_errno"] = 0
        room.serves_others("after")
        room.keeps_its_word()
