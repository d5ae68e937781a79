"""A disk whose fsync fails: nothing is acknowledged any more, nothing is tried again on that file, the process leaves.

The kernel tells of a failed write once and takes the pages for clean then, so a second fsync that succeeds proves
nothing. A recovery reads what is really there.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from tests.e2e.attackers import Client
from tests.e2e.faults import DATABASE, LOG, Room, Shim, counting_relay, standing_room
from tests.e2e.scripted_relay import Talk, behaving

SENDING_OFF: dict[str, Any] = {"POSTROOM_SENDING_ENABLED": "false"}


def submit_until_the_end(room: Room, clients: list[Client]) -> None:
    """Messages in turn on each connection, until the gateway answers on none of them."""
    number = len(room.acknowledged)
    while clients:
        for client in list(clients):
            number += 1
            try:
                reply = room.submit_on(client, f"m{number}")
            except (AssertionError, OSError):  # it has closed before the end of data
                reply = b""
            if not reply.startswith(b"250"):
                clients.remove(client)
                client.close()


def test_nothing_is_acknowledged_after_an_fsync_that_failed_and_the_gateway_leaves(shim: Shim, tmp_path: Path) -> None:
    shim.aim(LOG)
    with counting_relay() as relay:
        with standing_room(tmp_path / "data", relay=relay, **SENDING_OFF, **shim.environment) as room:
            for n in range(10):
                assert room.submit(f"before{n}").startswith(b"250 ")
            clients = [Client(room.port) for _ in range(4)]
            shim["sync_errno"] = errno.EIO
            answered_before = set(room.acknowledged)
            submit_until_the_end(room, clients)
            assert room.served.process.wait(60) == 75
            assert (shim["syncs_failed"], shim["syncs_after"]) == (1, 0)
            assert room.acknowledged == answered_before
            assert room.unanswered  # whether it was kept nobody knows: neither yes nor no
            assert any("what was acknowledged is kept" in line for line in _whole_log(room))
        with standing_room(tmp_path / "data", relay=relay) as again:
            again.acknowledged, again.unanswered = room.acknowledged, room.unanswered
            again.refused = room.refused
            again.keeps_its_word()
            again.serves_others("after")


def test_a_checkpoint_whose_fsync_fails_loses_nothing(shim: Shim, tmp_path: Path) -> None:
    shim.aim(DATABASE)
    with counting_relay() as relay:
        with standing_room(tmp_path / "data", relay=relay, **SENDING_OFF, **shim.environment) as room:
            for n in range(10):
                assert room.submit(f"before{n}", 50_000).startswith(b"250 ")
            shim["sync_errno"] = errno.EIO
            assert room.served.process.wait(60) == 75  # the log is emptied when nothing happens for a second
            assert (shim["syncs_failed"], shim["syncs_after"]) == (1, 0)
        with standing_room(tmp_path / "data", relay=relay) as again:
            again.acknowledged = room.acknowledged
            again.keeps_its_word()


def test_what_was_delivered_while_the_fsync_failed_is_marked_if_it_is_sent_again(shim: Shim, tmp_path: Path) -> None:
    shim.aim(LOG)
    with counting_relay() as relay:
        talks: list[Talk] = []

        async def keeps_its_answer(talk: Talk) -> None:
            await talk.normally("CONTENT")
            talks.append(talk)
            await talk.go_on()

        relay.script = keeps_its_answer
        with standing_room(tmp_path / "data", relay=relay, **shim.environment) as room:
            assert room.submit("twice").startswith(b"250 ")
            room.until(lambda: bool(talks))
            shim["sync_errno"] = errno.EIO
            relay.run(talks[0].say(b"250 2.0.0 taken\r\n"))
            assert room.served.process.wait(60) == 75
        relay.script = behaving
        with standing_room(tmp_path / "data", relay=relay) as again:
            again.send_all()
            (row,) = again.api.deliveries()
            assert row["state"] == "delivered"
            assert again.taken() == {"twice": 2 if row["may_be_sent_twice"] else 1}


def _whole_log(room: Room) -> list[str]:
    assert room.served.reader is not None
    room.served.reader.join()
    return room.served.output
