"""SQLite alone: settings of the file, migrations, indexes, one owner, and what a full or failing disk leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from postroom.errors import Busy, InvalidInput, StateConflict, StorageFailed
from postroom.model.ids import message_id_text
from postroom.store import (
    NOTHING_IN_HAND,
    DeliveryFilter,
    expiry,
    hot,
    migrations,
    schema,
    sqlite,
    sqlite_connection,
    waiting,
)
from postroom.store.database import Database, open_store
from postroom.store.readers import Reader, Readers
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import LANE, NOON, Hour, ask, make_message

pytestmark = pytest.mark.sqlite

WRITES = """
import asyncio, sys
from pathlib import Path
from postroom.errors import GatewayError
from postroom.model.ids import message_id_text
from postroom.store.database import open_store
from tests.contract.store.examples import NOON, make_message

async def enqueue(store, body):
    message = make_message(body=body)
    await store.enqueue(message)
    print("kept", message_id_text(message.id), flush=True)
"""


def run_child(code: str, *before: str) -> subprocess.Popen[str]:
    """A process that runs `code` after the words of WRITES; `before` goes in front of the interpreter."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [*before, sys.executable, "-c", WRITES + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def kept_by(output: str) -> list[str]:
    """The ids that a child said were kept."""
    return [line.split()[1] for line in output.splitlines() if line.startswith("kept ")]


async def stored(store: Database) -> list[str]:
    """The ids that are in the store."""
    return [message_id_text(row.message_id) for row in await store.deliveries(DeliveryFilter(limit=10_000))]


# --- settings ---


async def test_the_file_has_its_settings(store: Database, tmp_path: Path) -> None:
    await store.enqueue(make_message())
    for name, value in {
        "journal_mode": "wal",
        "synchronous": 2,
        "page_size": 8192,
        "auto_vacuum": 2,
        "application_id": schema.APPLICATION_ID,
        "wal_autocheckpoint": 0,
        "secure_delete": 2,
    }.items():
        assert await store.write(ask(f"PRAGMA {name}")) == value, name
    files = sorted(os.listdir(tmp_path))
    assert files == ["postroom.db", "postroom.db-shm", "postroom.db-wal", "postroom.db.lock"]
    assert {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in files} == {0o600}


async def test_closing_empties_the_log(store: Database, tmp_path: Path) -> None:
    await store.enqueue(make_message())
    await store.close()
    assert sorted(os.listdir(tmp_path)) == ["postroom.db", "postroom.db.lock"]


async def test_the_log_is_copied_while_work_goes_on(store: Database, tmp_path: Path) -> None:
    body = b"x" * 200_000
    for _ in range(20):
        await asyncio.gather(*(store.enqueue(make_message(body=body)) for _ in range(20)))
    # 80 MB passed through the log: it was copied and used again from its beginning several times.
    assert (tmp_path / "postroom.db-wal").stat().st_size < 48 * 1024 * 1024


async def test_a_strangers_file_is_left_alone(tmp_path: Path, hour: Hour) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StorageFailed, match="not a Postroom database"):
        await open_store(path, None, hour.now)
    assert path.read_bytes() == before
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StorageFailed):
        await open_store(path, None, hour.now)


async def test_another_kind_of_database_is_refused_with_a_mend(hour: Hour) -> None:
    with pytest.raises(InvalidInput, match="mysql is not supported"):
        await open_store("mysql://localhost/postroom", None, hour.now)


# --- one owner ---


async def test_a_second_store_on_the_same_file_is_refused(store: Database, tmp_path: Path, hour: Hour) -> None:
    with pytest.raises(StateConflict, match=f"in use by another gateway \\(process {os.getpid()}\\)"):
        await open_store(tmp_path / "postroom.db", None, hour.now)
    child = run_child(f"asyncio.run(open_store({str(tmp_path / 'postroom.db')!r}, None, lambda: NOON))")
    _, errors = await asyncio.to_thread(child.communicate)
    assert f"StateConflict: {tmp_path / 'postroom.db'} is in use by another gateway" in errors
    await store.enqueue(make_message())


async def test_a_file_whose_opening_failed_is_not_held(tmp_path: Path, hour: Hour) -> None:
    path = tmp_path / "postroom.db"
    path.write_bytes(b"rubbish" * 1000)
    for _ in range(2):
        with pytest.raises(StorageFailed):
            await open_store(path, None, hour.now)
    path.unlink()
    await (await open_store(path, None, hour.now)).close()


async def test_readers_cannot_write(store: Database, tmp_path: Path) -> None:
    reader = sqlite_connection.open_reader(tmp_path / "postroom.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"), reader.snapshot(2):
        reader.execute("INSERT INTO setting (name, value) VALUES ('a', 'b')")
    reader.close()


async def test_a_read_that_takes_too_long_is_cut(store: Database, tmp_path: Path) -> None:
    readers = Readers(partial(sqlite_connection.open_reader, tmp_path / "postroom.db"), count=1, seconds=0.01)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Busy):
        await readers.read(lambda reader: reader.raw.execute(endless).fetchone())
    with pytest.raises(Busy):
        await readers.read(lambda reader: reader.core.exec_driver_sql(endless).first())
    assert await readers.read(lambda reader: reader.raw.execute("SELECT 1").fetchone()) == (1,)
    await readers.close()


# --- migrations ---


def objects(raw: sqlite3.Connection) -> dict[str, str]:
    """Everything that the schema declares, by name, with its SQL without white space."""
    rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    return {name: "".join(sql.split()) for name, sql in rows}


def test_migrating_an_empty_file_makes_what_the_tables_declare(tmp_path: Path) -> None:
    raw = sqlite_connection.connect_writer(tmp_path / "migrated.db")
    assert migrations.migrate(raw)
    assert not migrations.migrate(raw)
    engine = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    schema.metadata.create_all(engine)
    engine.dispose()
    declared = sqlite3.connect(tmp_path / "declared.db")
    assert objects(raw) == objects(declared)
    assert len(objects(raw)) == len(schema.metadata.tables) + len(schema.INDEXES)
    declared.close()
    raw.close()


def test_the_newest_revision_is_the_one_that_the_schema_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


async def test_a_file_of_a_newer_version_is_refused(store: Database, open_again: Opener) -> None:
    await store.write(lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    await store.close()
    with pytest.raises(StorageFailed, match="cannot be migrated"):
        await open_again()


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    raw = sqlite_connection.connect_writer(tmp_path / "postroom.db")
    raw.execute("CREATE TABLE sequence (in_the_way INTEGER)")
    with pytest.raises(StorageFailed, match="cannot be migrated"):
        migrations.migrate(raw)
    assert objects(raw).keys() == {"sequence"}
    raw.close()


# --- indexes ---


def plan_of(sql: str, connection: Connection) -> list[str]:
    """How SQLite would run it."""
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?"))]


async def test_hot_statements_use_keys_and_indexes(store: Database) -> None:
    statements = {
        "claim": hot._CLAIM_QUEUED.texts[3],
        "unclaim": hot._UNCLAIM.texts[3],
        "complete": hot._COMPLETE.texts[3],
        "attempt": hot._INSERT_ATTEMPT.texts[3],
        "due": waiting._DUE,
        "flows": waiting._FLOWS_DUE,
        "next due": waiting._NEXT_DUE,
        "recover": f"SELECT message_id, n FROM delivery WHERE {schema.SENDING_SQL} AND token < ?",
        "expire": expiry._PICK.texts[3],
        "window": expiry._WINDOW,
        "own window": expiry._OWN_WINDOW,
        "next own window": expiry._NEXT_OWN_WINDOW,
        "own give up": expiry._OWN_GIVE_UP,
    }
    for name, sql in statements.items():
        plan = await store.write(partial(plan_of, sql))
        on_delivery = [line for line in plan if "delivery" in line]
        assert on_delivery, (name, plan)
        assert all("USING" in line for line in on_delivery), (name, plan)
        assert not any("SCAN delivery" in line and "USING" not in line for line in plan), (name, plan)
        if name == "due":
            assert not any("TEMP B-TREE" in line for line in plan), plan


# --- what is left after an accident ---


async def test_what_was_answered_is_there_after_a_kill(tmp_path: Path, hour: Hour) -> None:
    path = tmp_path / "postroom.db"
    child = run_child(f"""
async def main():
    store = await open_store({str(path)!r}, None, lambda: NOON)
    while True:
        await asyncio.gather(*(enqueue(store, b"x" * 4096) for _ in range(5)))
asyncio.run(main())
""")
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(200)]
    child.send_signal(signal.SIGKILL)
    rest, _ = await asyncio.to_thread(child.communicate)
    kept = kept_by("".join(lines) + rest)
    assert len(kept) >= 200
    store = await open_store(path, None, hour.now)
    found = await stored(store)
    assert set(kept) <= set(found)
    assert len(found) - len(kept) <= 5  # those that were committed and not yet told of
    assert await store.write(ask("PRAGMA integrity_check")) == "ok"
    await store.close()


async def test_a_full_disk_refuses_and_recovers_without_a_restart(tmp_path: Path, hour: Hour) -> None:
    path = tmp_path / "postroom.db"
    child = run_child(f"""
import resource
async def main():
    store = await open_store({str(path)!r}, None, lambda: NOON)
    await enqueue(store, b"small")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
    refused = 0
    for _ in range(30):
        try:
            await enqueue(store, b"x" * 100_000)
        except GatewayError as error:
            refused += 1
    print("refused", refused, store.broken, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await asyncio.gather(*(enqueue(store, b"x" * 100_000) for _ in range(3)))
    await store.close()
asyncio.run(main())
""")
    output, errors = await asyncio.to_thread(child.communicate)
    assert child.returncode == 0, errors
    kept = kept_by(output)
    (refused,) = [line.split() for line in output.splitlines() if line.startswith("refused")]
    assert int(refused[1]) >= 15
    assert refused[2] == "None"
    assert len(kept) == 1 + 30 - int(refused[1]) + 3
    store = await open_store(path, None, hour.now)
    assert sorted(await stored(store)) == sorted(kept)
    assert await store.write(ask("PRAGMA integrity_check")) == "ok"
    await store.close()


@pytest.mark.peer("strace")
async def test_an_fsync_that_fails_is_never_answered_nor_tried_again(
    tmp_path: Path, hour: Hour, peer: Callable[[str], Path]
) -> None:
    path = tmp_path / "postroom.db"
    syncs = "fsync,fdatasync"
    trace = [str(peer("strace")), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={syncs}"]
    code = f"""
async def main():
    left = asyncio.get_running_loop().create_future()
    store = await open_store({str(path)!r}, None, lambda: NOON, on_broken=left.set_result)
    for _ in range(1000):
        try:
            await enqueue(store, b"x")
        except GatewayError as error:
            print("refused", error, flush=True)
            break
    else:
        sys.exit("no fsync failed")
    await left
    try:
        await enqueue(store, b"y")
    except GatewayError:
        print("left", flush=True)
asyncio.run(main())
"""
    child = run_child(code, *trace, "-e", f"inject={syncs}:error=EIO:when=40+")
    output, errors = await asyncio.to_thread(child.communicate)
    if "ptrace" in errors:
        pytest.skip(f"strace is not allowed here: {errors.splitlines()[0]}")
    kept = kept_by(output)
    assert 0 < len(kept) < 40, errors
    assert output.splitlines()[-2].startswith("refused the store could not keep it"), output
    assert output.splitlines()[-1] == "left"
    store = await open_store(path, None, hour.now)
    found = await stored(store)
    assert set(kept) <= set(found)
    await store.close()


async def test_the_writer_waits_for_no_reader(store: Database, tmp_path: Path) -> None:
    await store.enqueue(make_message())
    begun, gate = threading.Event(), threading.Event()
    readers = Readers(partial(sqlite_connection.open_reader, tmp_path / "postroom.db"), count=1)

    def read_slowly(reader: Reader) -> int:
        seen = len(waiting.due(reader, LANE, NOON, 10, NOTHING_IN_HAND).messages)
        begun.set()
        gate.wait()
        assert (
            len(waiting.due(reader, LANE, NOON, 10, NOTHING_IN_HAND).messages) == seen
        )  # one moment for the whole read
        return seen

    slow = asyncio.ensure_future(readers.read(read_slowly))
    await asyncio.to_thread(begun.wait)
    await store.enqueue(make_message())
    gate.set()
    assert await slow == 1
    assert len((await store.due(LANE, NOON, 10)).messages) == 2
    await readers.close()


async def test_a_lock_of_another_process_holds_up_the_store_and_not_the_loop(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 1000.0)
    other = sqlite3.connect(tmp_path / "postroom.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    message = make_message()
    kept = store.enqueue(message)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not kept.done()
    other.execute("ROLLBACK")
    other.close()
    await kept
    assert await store.message(message.id) is not None
