"""Crash points between a failure and its report (D7), in a migration and in a key rotation (D8)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from postroom.store import migrations, sqlite_connection
from tests.conftest import Served
from tests.e2e.crash_room import LARGE, SENDER, SMALL, Room, Shape


def reports(room: Room) -> list[Message]:
    """The reports that the relay has taken."""
    return [message for reverse_path, message in room.sink.seen.contents if reverse_path == "<>"]


def told_of(room: Room) -> list[str]:
    """The recipients whom the reports tell of."""
    fields = [part["Final-Recipient"] for report in reports(room) for part in report.walk()]
    return sorted(field.partition("; ")[2] for field in fields if field)


def submit_until_the_last(room: Room, served: Served, shape: Shape) -> list[str]:
    """`nth` messages that the relay refuses, each once the report of the one before is delivered; their recipients."""
    gone = [f"gone{n}" for n in range(shape.nth)]
    for n, name in enumerate(gone):
        while room.query("SELECT count(*) FROM delivery WHERE state = 'delivered'") != [(n,)]:
            assert served.process.poll() is None
        assert room.hand_over(served, name, shape.size_bytes) == 250
    return [f"{name}@sink.example" for name in gone]


@pytest.mark.parametrize(
    ("point", "state"), [("D7-notice", "sending"), ("D7", "bounced"), ("D7-report", "bounced"), ("D1", "bounced")]
)
def test_d7_a_failure_and_its_report_are_kept_both_or_neither_and_told_once(
    room: Room, shape: Shape, point: str, state: str
) -> None:
    """D1 of the report itself: both are kept."""
    served = room.start(f"{point}:{2 * shape.nth if point == 'D1' else shape.nth}")
    gone = submit_until_the_last(room, served, shape)
    room.crashed(served)
    assert told_of(room) == gone[:-1]
    assert room.query(f"SELECT state FROM delivery WHERE recipient = '{gone[-1]}'") == [(state,)]
    kept = room.query(f"SELECT count(*) FROM delivery WHERE recipient = '{SENDER}'") == [(shape.nth,)]
    noted = room.query("SELECT count(*) FROM notice") == [(1,)]
    assert (kept, noted) == (point == "D1", point in ("D7", "D7-report"))

    served = room.start()
    room.sink.wait_for(lambda _: len(reports(room)) >= shape.nth)
    assert served.stop() == 0
    assert told_of(room) == gone
    assert {report["To"] for report in reports(room)} == {SENDER}
    assert room.query("SELECT count(*) FROM notice") == [(0,)]
    rows = sorted((row["recipient"], row["state"]) for row in room.rows())
    assert rows == sorted([(SENDER, "delivered")] * shape.nth + [(recipient, "bounced") for recipient in gone])
    marked = {row["recipient"] for row in room.rows() if row["may_be_sent_twice"]}
    assert marked == {"D7-notice": {gone[-1]}, "D1": {SENDER}}.get(point, set())
    assert "refused for good: 550 5.1.1" in room.told("why", row_of(room, gone[-1])["message_id"])


def row_of(room: Room, recipient: str) -> dict[str, Any]:
    """The delivery to this recipient."""
    return next(row for row in room.rows() if row["recipient"] == recipient)


def revisions() -> list[str]:
    """All revisions of the database, the oldest first."""
    config = _config()
    return [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()][::-1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config


def put_back(database: Path, revision: str) -> None:
    """Make the database what it would be, had it been filled by the version of this revision."""
    old = database.with_name("old.db")
    config = _config()
    with closing(sqlite_connection.connect_writer(old)) as raw:
        config.attributes["connection"] = raw.core
        raw.execute("BEGIN IMMEDIATE")
        command.upgrade(config, revision)
        raw.execute("COMMIT")
        raw.execute("ATTACH ? AS new", (str(database),))
        tables = raw.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            if table != "alembic_version":
                columns = ", ".join(row[1] for row in raw.execute(f"PRAGMA main.table_info({table})"))
                raw.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
    for ending in ("-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)
    old.replace(database)


def test_d8_a_migration_that_is_cut_short_touches_no_message(room: Room, shape: Shape) -> None:
    served = room.start(sending=False)
    names = [f"m{n}" for n in range(shape.nth)]
    for name in names:
        assert room.hand_over(served, name, shape.size_bytes) == 250
    assert room.hand_over(served, "large", LARGE) == 250
    assert served.stop() == 0
    known = revisions()
    before = shape.chance.choice(known[:-1]) if shape.number else known[0]
    put_back(room.data / "postroom.db", before)
    steps = len(known) - 1 - known.index(before)
    kept = [f"SELECT * FROM {table}" for table in ("message", "delivery", "chunk", "account")]
    rows = [room.query(sql) for sql in kept]

    for step in range(steps):  # the last one has everything but the commit
        room.serve_and_crash(f"D8:{step + 1}")
        assert room.query("SELECT version_num FROM alembic_version") == [(before,)]
        assert room.query("PRAGMA integrity_check") == [("ok",)]
        assert [room.query(sql) for sql in kept] == rows
    served = room.start()
    assert room.query("SELECT version_num FROM alembic_version") == [(known[-1],)]
    room.ends_with(served, dict.fromkeys([*names, "large"], 1))


@pytest.mark.parametrize(("step", "keys"), [(1, 1), (2, 2), (3, 2)])
def test_d8_a_key_rotation_that_is_cut_short_locks_nobody_out(room: Room, shape: Shape, step: int, keys: int) -> None:
    file = room.data / "keys"
    served = room.start(f"D8-keys:{step}", sending=False)
    assert room.hand_over(served, "before", shape.size_bytes) == 250
    assert served.run("keys", "rotate", check=False).returncode != 0
    room.crashed(served)
    assert len(file.read_text().split()) == keys

    served = room.start()
    room.sink.wait_for(lambda seen: seen.of("before") == 1)
    served.run("keys", "rotate")
    assert len(file.read_text().split()) == keys + 1
    assert [left.name for left in room.data.glob(".keys*")] == []
    assert served.stop() == 0
    served = room.start()
    assert room.hand_over(served, "behind", SMALL) == 250
    room.ends_with(served, {"before": 1, "behind": 1})
    assert room.sink.seen.verbs["login"] >= 2
    assert room.sink.seen.verbs["wrong login"] == 0


def test_a_database_that_is_put_back_is_of_the_old_revision(room: Room) -> None:
    put_back(room.data / "postroom.db", "0001")
    with closing(sqlite3.connect(room.data / "postroom.db")) as raw:
        names = {row[1] for row in raw.execute("PRAGMA table_info(message)")}
    assert "accepted" in names
    assert "envid" not in names
