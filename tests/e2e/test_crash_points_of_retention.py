"""Crash points while old mail is removed and its room given back (D8)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from tests.conftest import run_postroom
from tests.e2e.crash_room import CRASHED, LARGE, SMALL, Room, Shape, arrived

MONTH, NOTHING = "30d", "1ms"

#: What each point needs: how long records and content are kept, and how large what ended is.
POINTS = {
    "D8-purge": (NOTHING, NOTHING, SMALL),
    "D8-content": (MONTH, NOTHING, SMALL),
    "D8-vacuum": (NOTHING, NOTHING, LARGE),
}

WAITING = "SELECT {} FROM {} WHERE {} IN (SELECT message_id FROM delivery WHERE ended IS NULL)"
CHUNKS = (
    "SELECT chunk.* FROM chunk JOIN content USING (content_id) JOIN delivery USING (message_id) WHERE ended IS NULL"
)


def everything_that_waits(room: Room) -> list[object]:
    """The rows of messages that have not ended; they may have become searchable."""
    found: list[object] = [room.query(CHUNKS)]
    for table in ("message", "content", "delivery", "event"):
        columns = [row[1] for row in room.query(f"PRAGMA table_info({table})") if row[1] != "searchable"]
        key = "id" if table == "message" else "message_id"
        found.append(room.query(WAITING.format(", ".join(columns), table, key)))
    return found


def counted(room: Room) -> bool:
    """The counters are what is there."""
    kept = "SELECT lane, state, count FROM tally WHERE count <> 0 ORDER BY lane, state"
    there = "SELECT lane, state, count(*) FROM delivery GROUP BY lane, state ORDER BY lane, state"
    return room.query(kept) == room.query(there)


def crash(room: Room, at: str, retention: str, content_retention: str) -> None:
    """The gateway, sending nothing, ends itself while it removes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    environment |= {
        "POSTROOM_DATA": str(room.data),
        "POSTROOM_SMTP__LISTENERS": "[]",
        "POSTROOM_SENDING_ENABLED": "false",
        "POSTROOM_RETENTION": retention,
        "POSTROOM_CONTENT_RETENTION": content_retention,
        "POSTROOM_CRASH_AT": at,
    }
    assert run_postroom(environment, "serve", check=False).returncode == CRASHED


@pytest.mark.parametrize("point", POINTS)
def test_d8_a_removal_that_is_cut_short_touches_nothing_that_has_not_ended(
    room: Room, shape: Shape, point: str
) -> None:
    retention, content_retention, size_bytes = POINTS[point]
    nth = 1 + shape.nth % 2
    # A step removes 50 messages; giving room back begins where 8 MiB are free.
    ended = [f"e{n}" for n in range(20 if size_bytes == LARGE else 51 * (nth - 1) + shape.nth)]
    waiting = [f"w{n}" for n in range(3)]
    served = room.start()
    for name in ended:
        assert room.hand_over(served, name, size_bytes) == 250
    room.sink.wait_for(lambda seen: len(arrived(seen.copies)) == len(ended))
    while room.query("SELECT count(*) FROM delivery WHERE state = 'delivered'") != [(len(ended),)]:
        assert served.process.poll() is None
    assert served.stop() == 0
    served = room.start(sending=False)
    for name in waiting:
        assert room.hand_over(served, name, shape.size_bytes) == 250
    assert room.hand_over(served, "large", LARGE) == 250
    assert served.stop() == 0

    before = everything_that_waits(room)
    crash(room, f"{point}:{nth}", retention, content_retention)
    assert everything_that_waits(room) == before
    assert counted(room)
    with closing(sqlite3.connect(f"file:{room.data}/postroom.db?mode=ro", uri=True)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    left = {"D8-purge": 50 * (nth - 1), "D8-content": 0, "D8-vacuum": len(ended)}[point]
    assert room.query("SELECT count(*) FROM message") == [(len(ended) + 4 - left,)]

    served = room.start(under={"POSTROOM_RETENTION": retention, "POSTROOM_CONTENT_RETENTION": content_retention})
    room.sink.wait_for(lambda seen: len(arrived(seen.copies)) == len(ended) + 4)
    assert served.stop() == 0
    everyone = [*ended, *waiting, "large"]
    assert arrived(room.sink.seen.copies) == {f"{name}@sink.example": 1 for name in everyone}
    assert counted(room)
    assert room.orphans() == 0
