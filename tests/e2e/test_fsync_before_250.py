"""A 250 is written only after the fsync of the commit that keeps its message: read from the gateway's system calls.

SIGKILL leaves the kernel's cache alone and so can't show a missing fsync; a trace of system calls can. In the log of
SQLite a frame is a header of 24 octets and a page, and a header with a size of the database in it ends a commit.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from tests.conftest import find_peer
from tests.e2e.attackers import Client, queued_as
from tests.e2e.faults import SENDER, Room, standing_room
from tests.e2e.system_calls import Call, Trace

pytestmark = pytest.mark.peer("strace")

CLIENTS, EACH = 6, 8
LINES = 100_000
LINE = re.compile(rb"Line ([0-9]{8}) of the large one\r\n")


@dataclass
class Traced:
    """What a gateway did, and the ids of the messages that it said it has, by how they came."""

    data: Path
    port: int
    calls: list[Call]
    alone: list[str] = field(default_factory=list)
    together: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    @property
    def log(self) -> list[Call]:
        """Writes to the database's log, and its syncs."""
        return [call for call in self.calls if call.what == f"{self.data}/postroom.db-wal"]

    def reply(self, message_id: str) -> Call:
        """The call that told a client of the message."""
        told = [call for call in self.calls if message_id.encode() in call.octets and "postroom.db" not in call.what]
        assert told, f"nobody was told of {message_id}"
        return told[0]

    def synced(self, at: int) -> Call:
        """The sync that made durable what the call number `at` of the log wrote: the first after its commit."""
        log = self.log
        commit = next(n for n in range(at - 1, len(log)) if len(log[n].octets) == 24 and any(log[n].octets[4:8]))
        written = log[commit + 1].ended  # its page
        return next(call for call in log if call.is_sync and call.began > written)

    def first_with(self, octets: bytes) -> int:
        """The number of the call that brought `octets` into the log."""
        return next(n for n, call in enumerate(self.log) if call.name == "pwrite64" and octets in call.octets)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A gateway from its first start to its end, with mail by every way."""
    folder = tmp_path_factory.mktemp("traced")
    trace = Trace(find_peer("strace"), folder)
    seen = Traced(folder / "new" / "data", 0, [])
    with standing_room(seen.data, prefix=trace.prefix) as room:
        seen.port = room.port
        for n in range(10):
            seen.alone.append(queued_as(room.submit(f"alone{n}", 100 + 6000 * n)))
        seen.together = _together(room)
        with Client(room.port) as client:
            client.begin("large@sink.example", SENDER)
            body = b"".join(b"Line %08d of the large one\r\n" % n for n in range(LINES))
            client.send(b"Subject: large\r\n\r\n" + body + b".\r\n")
            seen.large.append(queued_as(client.reply()))
        message = {"from": SENDER, "to": ["rest@sink.example"], "text": "x"}
        seen.rest.append(room.api.ask("POST", "messages", message)["id"])
        room.send_all()
        assert room.served.stop() == 0
    seen.calls = trace.calls()
    if not seen.calls:
        pytest.skip("strace may not trace here")
    yield seen


def _together(room: Room) -> list[str]:
    ids: list[str] = []

    def submit(number: int) -> None:
        with Client(room.port) as client:
            for n in range(EACH):
                ids.append(queued_as(room.submit_on(client, f"together{number}-{n}")))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ids


def synced_too_late(traced: Traced, ids: list[str]) -> list[str]:
    """Messages that a client was told of before the sync of their commit had ended."""
    return [one for one in ids if traced.synced(traced.first_with(UUID(one).bytes)).ended >= traced.reply(one).began]


def test_each_250_waits_for_the_fsync_of_its_commit(traced: Traced) -> None:
    assert len(traced.alone) == 10
    assert {traced.reply(one).octets[:4] for one in traced.alone} == {b"250 "}
    assert synced_too_late(traced, traced.alone) == []


def test_clients_that_share_a_commit_wait_for_its_fsync(traced: Traced) -> None:
    assert len(set(traced.together)) == CLIENTS * EACH
    assert synced_too_late(traced, traced.together) == []
    syncs = {id(traced.synced(traced.first_with(UUID(one).bytes))) for one in traced.together}
    assert len(syncs) < len(traced.together)


def test_the_250_of_a_large_message_waits_for_the_fsync_of_every_piece(traced: Traced) -> None:
    (large,) = traced.large
    first: dict[bytes, int] = {}
    for n, call in enumerate(traced.log):
        for number in LINE.findall(call.octets):
            first.setdefault(number, n)
    assert len(first) > LINES * 0.99  # the others are cut by the ends of pages
    told = traced.reply(large).began
    syncs = [traced.synced(n) for n in set(first.values())]
    assert [sync for sync in syncs if sync.ended >= told] == []
    assert len({id(sync) for sync in syncs}) > 1
    assert synced_too_late(traced, traced.large) == []


def test_the_control_socket_answers_after_the_fsync(traced: Traced) -> None:
    assert len(traced.rest) == 1
    assert synced_too_late(traced, traced.rest) == []


def test_the_names_of_new_files_are_durable_before_the_first_250(traced: Traced) -> None:
    """A power cut could else take away the folder, the keys or the database with everything in it."""
    first = min(traced.reply(one).began for one in traced.alone)
    log_is_there = next(call for call in traced.calls if call in traced.log).began
    of_folder = [call for call in traced.calls if call.is_sync and call.what == str(traced.data)]
    assert any(log_is_there < call.began and call.ended < first for call in of_folder)
    for parent in (traced.data.parent, traced.data.parent.parent):  # the folder of the folder was made as well
        assert any(call.is_sync and call.ended < first for call in traced.calls if call.what == str(parent))


def test_the_database_is_synced_before_its_log_is_emptied_or_begun_anew(traced: Traced) -> None:
    copied = [call for call in traced.calls if call.what == f"{traced.data}/postroom.db" and call.name == "pwrite64"]
    assert copied, "nothing was ever copied into the database"
    last = max(call.ended for call in copied)
    assert any(call.is_sync and call.began > last for call in traced.calls if call.what == f"{traced.data}/postroom.db")
