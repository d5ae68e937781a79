"""PostgreSQL alone: what is required of a server, one owner, and what is left when the connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ClauseElement, Executable, Select, create_engine
from sqlalchemy.ext.compiler import compiles

from postroom.errors import Busy, InvalidInput, MaybeStored, StateConflict, StorageFailed, StorageFull
from postroom.model.queue import DeliveryState
from postroom.pending import Pending
from postroom.store import DeliveryFilter, EventFilter, Selection, expiry, hot, lists, postgresql, schema
from postroom.store import writer as writers
from postroom.store.database import Database, open_store
from postroom.store.postgresql import meanings
from postroom.store.postgresql.statements import columns, text_of, translated
from postroom.store.readers import Readers
from postroom.store.rows import Rows
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import (
    LANE,
    Hour,
    attempt_of,
    begin,
    claim_of,
    counted,
    make_message,
    states,
    told,
)
from tests.contract.store.test_group_commit import busy
from tests.postgresql import PASSWORD, Cluster

pytestmark = pytest.mark.postgresql

_ALL = DeliveryFilter()


def name_of(database: str) -> str:
    """The database's name in its URL."""
    return database.rpartition("/")[2]


def end_sessions(cluster: Cluster, database: str) -> None:
    """The server ends every session of a database, as at a restart."""
    cluster.query(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name_of(database)}'")


# --- what is required of a server ---


async def test_a_server_that_does_not_sync_is_refused(own_cluster: Cluster, hour: Hour) -> None:
    own_cluster.query("ALTER SYSTEM SET fsync = off")
    own_cluster.stop("fast")
    own_cluster.start()
    with pytest.raises(StorageFailed, match="fsync is off on this server.*set fsync = on"):
        await open_store(own_cluster.new_database(), None, hour.now)


async def test_a_database_in_another_encoding_is_refused(cluster: Cluster, hour: Hour) -> None:
    cluster.query("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StorageFailed, match="its encoding is LATIN1"):
        await open_store(cluster.url("latin"), None, hour.now)


async def test_commits_are_durable_whatever_the_database_says(store: Database, cluster: Cluster, database: str) -> None:
    def asked(connection: Any) -> object:
        return connection.exec_driver_sql("SELECT current_setting('synchronous_commit')").scalar()

    assert await store.write(asked) == "on"
    cluster.query(f"ALTER DATABASE {name_of(database)} SET synchronous_commit = off")
    end_sessions(cluster, database)
    assert await store.write(asked) == "on"


@pytest.mark.parametrize("wrong", ["password", "database", "port"])
async def test_what_cannot_be_opened_is_told_without_the_password(cluster: Cluster, hour: Hour, wrong: str) -> None:
    url = {
        "password": cluster.url("postgres").replace(PASSWORD, "wrong-secret"),
        "database": cluster.url("nowhere"),
        "port": cluster.url("postgres").replace(f":{cluster.port}/", ":1/"),
    }[wrong]
    with pytest.raises(StorageFailed, match="the database cannot be opened: .*; look whether") as told_of:
        await open_store(url, None, hour.now)
    assert PASSWORD not in str(told_of.value) and "wrong-secret" not in str(told_of.value)


async def test_a_url_that_cannot_be_read_is_not_repeated(hour: Hour) -> None:
    with pytest.raises(InvalidInput, match="is not a URL that libpq can read") as told_of:
        await open_store("postgresql://ann:secret%@host/name?nonsense=1", None, hour.now)
    assert "secret" not in str(told_of.value)


# --- one owner ---


async def test_a_second_gateway_is_refused_and_told_who_has_it(
    store: Database, database: str, hour: Hour, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_patience:
        without_patience.setattr("postroom.store.postgresql.writing.LOCK_SECONDS", 0.0)
        with pytest.raises(
            StateConflict, match=r"in use by another gateway \(postroom .* from 127\.0\.0\.1, backend \d+\)"
        ):
            await open_store(database, None, hour.now)
    await store.enqueue(make_message())
    await store.close()
    await (await open_store(database, None, hour.now)).close()


async def test_who_finds_that_another_gateway_was_here_writes_no_more(
    open_again: Opener, cluster: Cluster, database: str, hour: Hour
) -> None:
    broken: list[BaseException] = []
    store = await open_store(database, None, hour.now, on_broken=broken.append)
    token = await begin(store)
    message = make_message()
    await store.enqueue(message)
    cluster.query("UPDATE sequence SET last = last + 1 WHERE name = 'token'", name_of(database))
    end_sessions(cluster, database)
    with pytest.raises(StorageFailed, match="another gateway has used the database"):
        await store.claim(claim_of(message, token))
    with pytest.raises(StorageFailed):
        await store.enqueue(make_message())
    assert [type(error) for error in broken] == [meanings.TakenOver]
    assert await states(store, message) == ["queued"]
    await store.close()


# --- the connection is lost ---


async def test_sessions_that_the_server_has_ended_are_made_anew(
    store: Database, cluster: Cluster, database: str
) -> None:
    token = await begin(store)
    restored: list[None] = []
    store.on_restored.append(lambda: restored.append(None))
    first, second = make_message(), make_message()
    await store.enqueue(first)
    end_sessions(cluster, database)
    assert await store.claim(claim_of(first, token)) == (0,)
    end_sessions(cluster, database)
    assert await states(store, first) == ["sending"]
    await store.enqueue(second)
    await store.hold(Selection(message_id=second.id), Hour().at)  # with the writer's own table
    await store.complete(attempt_of(first, token))
    assert len(restored) == 2
    assert await told(store) == await counted(store) == {(LANE, "delivered"): 1, (LANE, "held"): 1}


async def test_what_was_not_committed_is_written_again_after_a_loss(
    store: Database, cluster: Cluster, database: str
) -> None:
    lost: list[None] = []

    def lose(_: object) -> str:
        if not lost:
            lost.append(None)
            end_sessions(cluster, database)
            store._writer._raw.execute("SELECT 1")
        return "done"

    async with busy(store):
        waiting: list[asyncio.Future[Any] | Pending[Any]] = [
            store.enqueue(make_message()),
            store.write(lose),
            store.enqueue(make_message()),
        ]
    await asyncio.gather(*waiting[::2], return_exceptions=False)
    assert len(await store.deliveries(_ALL)) == 2


@contextlib.asynccontextmanager
async def commit_cut(
    store: Database, *, kept: bool, meanwhile: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """What is called within is one group, whose COMMIT gets no answer: it was `kept` by the server, or never came
    there."""
    raw = store._writer._raw.raw  # type: ignore[attr-defined]
    execute, commits = raw.execute, itertools.count()

    def cut(query: object, *arguments: Any, **more: Any) -> Any:
        if query != b"COMMIT" or not next(commits):  # the first is that of the work which holds the writer
            return execute(query, *arguments, **more)
        if kept:
            execute(query)
        meanwhile()
        raw.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    raw.execute = cut
    async with busy(store):
        yield


@pytest.mark.parametrize("kept", [True, False])
async def test_a_commit_without_an_answer_is_looked_up(store: Database, kept: bool) -> None:
    token = await begin(store)
    ready, fresh = make_message(), make_message()
    await store.enqueue(ready)
    async with commit_cut(store, kept=kept):
        enqueued, claimed = store.enqueue(fresh), store.claim(claim_of(ready, token))
    if kept:
        await enqueued
        assert await claimed == (0,)
    else:
        with pytest.raises(StorageFailed, match="nothing was kept"):
            await enqueued
        with pytest.raises(StorageFailed, match="nothing was kept"):
            await claimed
    assert await states(store, ready) == ["sending" if kept else "queued"]
    assert (await store.message(fresh.id) is not None) is kept
    await store.enqueue(make_message())
    assert await told(store) == await counted(store)


async def test_what_cannot_be_looked_up_is_answered_as_unknown_and_refuses_what_comes_then(
    own_cluster: Cluster, hour: Hour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "DOUBT_SECONDS", 0.0)
    store = await open_store(own_cluster.new_store(), None, hour.now)
    token = await begin(store)
    ready, fresh = make_message(), make_message()
    await store.enqueue(ready)
    async with commit_cut(store, kept=True, meanwhile=own_cluster.stop):
        enqueued, claimed = store.enqueue(fresh), store.claim(claim_of(ready, token))
    with pytest.raises(MaybeStored):
        await enqueued
    with pytest.raises(StorageFailed) as refused:
        await store.enqueue(make_message())
    assert not isinstance(refused.value, MaybeStored)
    with pytest.raises(StorageFailed):
        await store.deliveries(_ALL)
    assert not claimed.done()
    await asyncio.to_thread(own_cluster.start)
    assert await claimed == (0,)
    assert await store.message(fresh.id) is not None
    await store.close()


async def test_a_commit_that_a_crash_undid_is_not_taken_for_what_came_after(own_cluster: Cluster, hour: Hour) -> None:
    """A crashed server gives the number of a transaction that never came to its log to another."""
    own_cluster.query("ALTER SYSTEM SET wal_writer_delay = '10s'")  # what is not committed stays out of the log
    own_cluster.query("SELECT pg_reload_conf()")

    def number(of: str) -> int:
        return int(str(own_cluster.query(f"SELECT {of}::text")[0][0]))

    def crash() -> None:
        following = number("pg_snapshot_xmax(pg_current_snapshot())")
        own_cluster.stop()
        own_cluster.start()
        while number("pg_current_xact_id()") < following:
            pass

    store = await open_store(own_cluster.new_store(), None, hour.now)
    token = await begin(store)
    ready, fresh = make_message(), make_message()
    await store.enqueue(ready)
    async with commit_cut(store, kept=False, meanwhile=crash):
        enqueued, claimed = store.enqueue(fresh), store.claim(claim_of(ready, token))
    with pytest.raises(StorageFailed, match="nothing was kept"):
        await enqueued
    with pytest.raises(StorageFailed, match="nothing was kept"):
        await claimed
    assert await states(store, ready) == ["queued"]
    assert await store.message(fresh.id) is None
    await store.close()


async def test_closing_waits_for_no_answer(own_cluster: Cluster, hour: Hour) -> None:
    store = await open_store(own_cluster.new_store(), None, hour.now)
    async with commit_cut(store, kept=False, meanwhile=own_cluster.stop):
        enqueued = store.enqueue(make_message())
    await store.close()
    with pytest.raises(MaybeStored):
        await enqueued


async def test_a_server_without_room_refuses_and_goes_on(store: Database) -> None:
    raw = store._writer._raw.raw  # type: ignore[attr-defined]
    execute = raw.execute

    def full(query: object, *arguments: Any, **more: Any) -> Any:
        if b"INSERT INTO content" in query:  # type: ignore[operator]
            raise psycopg.errors.DiskFull("could not extend file: No space left on device")
        return execute(query, *arguments, **more)

    raw.execute = full
    with pytest.raises(StorageFull):
        await store.enqueue(make_message())
    raw.execute = execute
    await store.enqueue(make_message())
    assert await told(store) == await counted(store) == {(LANE, "queued"): 1}


# --- reads ---


async def test_readers_cannot_write_and_are_cut(store: Database, database: str) -> None:
    readers = Readers(partial(postgresql.ReadingConnection, database), count=1, seconds=0.2)
    with pytest.raises(StorageFailed, match="read-only"):
        await readers.read(lambda reader: reader.raw.execute("INSERT INTO setting (name, value) VALUES ('a', 'b')"))
    with pytest.raises(Busy):
        await readers.read(lambda reader: reader.raw.execute("SELECT pg_sleep(60)").fetchone())
    with pytest.raises(Busy):
        await readers.read(lambda reader: reader.core.exec_driver_sql("SELECT pg_sleep(60)").first())
    assert await readers.read(lambda reader: reader.raw.execute("SELECT 1").fetchone()) == (1,)
    await readers.close()


async def test_a_read_sees_one_moment(store: Database, database: str) -> None:
    with contextlib.closing(postgresql.ReadingConnection(database)) as raw, raw.snapshot(60):
        assert raw.execute("SELECT count(*) FROM message").fetchone() == (0,)
        await store.enqueue(make_message())
        assert raw.execute("SELECT count(*) FROM message").fetchone() == (0,)
    assert len(await store.deliveries(_ALL)) == 1


# --- tables and statements ---


def _tables(url: str) -> list[tuple[object, ...]]:
    """Columns with their types, keys and indexes."""
    with psycopg.connect(url, autocommit=True) as raw:
        columns = raw.execute(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2"
        ).fetchall()
        indexes = raw.execute(
            "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
            " AND tablename <> 'alembic_version' ORDER BY 1, 2"
        ).fetchall()
    return columns + indexes


async def test_migrating_an_empty_database_makes_what_the_tables_declare(cluster: Cluster, hour: Hour) -> None:
    migrated, declared = cluster.new_database(), cluster.new_database()
    await (await open_store(migrated, None, hour.now)).close()
    engine = create_engine(declared.replace("postgresql://", "postgresql+psycopg://"))
    schema.metadata.create_all(engine)
    engine.dispose()
    assert _tables(migrated) == _tables(declared)
    assert len({row[0] for row in _tables(migrated)}) == len(schema.metadata.tables)


async def test_a_migration_that_fails_leaves_nothing(cluster: Cluster, hour: Hour) -> None:
    url = cluster.new_database()
    cluster.query("CREATE TABLE sequence (in_the_way INTEGER)", name_of(url))
    with pytest.raises(StorageFailed, match="cannot be migrated"):
        await open_store(url, None, hour.now)
    assert {row[0] for row in _tables(url)} == {"sequence"}


SAMPLES = {"b": b"x" * 16, "t": "x", "i": 1}


@pytest.mark.parametrize(
    "rows",
    [hot._CLAIM_QUEUED, hot._UNCLAIM, hot._COMPLETE, hot._INSERT_ATTEMPT, expiry._PICK],
    ids=["claim", "unclaim", "complete", "attempt", "expire"],
)
async def test_hot_statements_use_keys_however_small_the_tables_were(store: Database, rows: Rows) -> None:
    def plan(_: object) -> list[str]:
        raw = store._writer._raw.raw  # type: ignore[attr-defined]
        given = columns(rows.types, [SAMPLES[kind] for kind in rows.types] * 3)
        return [line for (line,) in raw.execute(b"EXPLAIN " + text_of(rows), given).fetchall()]

    found = await store.write(plan)
    assert any("Index Scan using delivery_pkey on delivery" in line for line in found), found
    assert not any("Seq Scan on delivery" in line or "Bitmap" in line for line in found), found


class _Explained(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(_Explained)
def _explained(element: _Explained, compiler: Any, **words: Any) -> str:
    return "EXPLAIN " + str(compiler.process(element.query, **words))


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (DeliveryFilter(recipient="ann@sink.example"), "delivery_recipient"),
        (DeliveryFilter(domain="sink.example"), "delivery_domain"),
        (DeliveryFilter(sender="bob@source.example"), "message_sender"),
        (DeliveryFilter(message_id="<1@source.example>"), "message_header_id"),
    ],
    ids=["recipient", "domain", "sender", "message id"],
)
async def test_a_search_does_not_walk_through_all_messages(
    store: Database, monkeypatch: pytest.MonkeyPatch, wanted: DeliveryFilter, index: str
) -> None:
    plans: list[str] = []

    def explain(reader: Any, query: Select[Any]) -> list[Any]:
        # The table is small: what the plan would avoid in a large one, it avoids here.
        reader.raw.execute("SET LOCAL enable_seqscan = off")
        reader.raw.execute("SET LOCAL enable_sort = off")
        plans.append("\n".join(row[0] for row in reader.core.execute(_Explained(query))))
        return []

    await store.enqueue(make_message())
    monkeypatch.setattr(lists, "_key_rows", explain)
    await store.deliveries(wanted)
    by_index = [plan for plan in plans if "unsearchable" not in plan]
    assert by_index and all(f"Scan on {index}" in plan or f"using {index}" in plan for plan in by_index), plans
    assert not any("Index Scan Backward" in plan for plan in by_index), plans


async def test_text_that_postgresql_cannot_hold_is_kept_as_far_as_it_can(store: Database) -> None:
    message = dataclasses.replace(make_message(), subject="a\x00b")
    await store.enqueue(message)
    view = await store.message(message.id)
    assert view is not None and view.subject == "a\ufffdb"
    await store.record("odd", detail="c\x00d")
    assert (await store.events(EventFilter())).events[-1].detail == "c\ufffdd"
    assert await states(store, message) == [DeliveryState.QUEUED.value]


@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.none(), st.binary(max_size=20)),
            st.one_of(st.none(), st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))),
            st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.booleans()),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_columns_arrive_as_they_were(rows: list[tuple[Any, ...]], reader: postgresql.ReadingConnection) -> None:
    with reader.snapshot(60):
        found = reader.returned(Rows("", "bti"), [value for row in rows for value in row])
    assert found == rows


@pytest.fixture(scope="module")
def reader(cluster: Cluster) -> Any:
    """A connection that reads."""
    with contextlib.closing(postgresql.ReadingConnection(cluster.url("postgres"))) as found:
        yield found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a = ? AND b LIKE '%x%'", b"a = %s AND b LIKE '%%x%%'"),
        ("SET due = :now, x = :detail", b"SET due = %(now)s, x = %(detail)s"),
        ("a::text = ?", b"a::text = %s"),
    ],
)
def test_places_of_values_are_written_as_the_driver_wants_them(ours: str, theirs: bytes) -> None:
    assert translated(ours) == theirs


def _wanted(make: Callable[[], Exception]) -> type[Exception]:
    return type(meanings.storage_error(make()))


def test_what_errors_mean() -> None:
    assert _wanted(lambda: psycopg.errors.DiskFull("full")) is StorageFull
    assert _wanted(lambda: meanings.InDoubt("lost")) is MaybeStored
    assert _wanted(lambda: psycopg.errors.TooManyConnections("many")) is StorageFailed
    assert "max_connections" in str(meanings.storage_error(psycopg.errors.TooManyConnections("many")))
