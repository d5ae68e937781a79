"""Group commit: what waits together is kept together, what fails fails alone, and an answer comes after the commit."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from postroom.errors import InvalidInput, NotRunning, StateConflict, StorageFailed, StorageFull
from postroom.model.account import Account, AccountKind
from postroom.model.queue import Aside, DeliveryState
from postroom.pending import Pending
from postroom.store import DeliveryFilter, Selection
from postroom.store.batch import BATCH_OPERATIONS
from postroom.store.database import Database
from tests.contract.store.examples import (
    LANE,
    NOON,
    ask,
    attempt_of,
    begin,
    claim_of,
    counted,
    make_message,
    result_of,
    states,
    told,
)

_ALL = DeliveryFilter()


@asynccontextmanager
async def busy(store: Database) -> AsyncIterator[None]:
    """The writer is held within a transaction: what is called meanwhile waits, and is one group afterwards."""
    entered, gate = threading.Event(), threading.Event()

    def work(_: object) -> None:
        entered.set()
        gate.wait()

    held = store.write(work)
    try:
        await asyncio.get_running_loop().run_in_executor(None, entered.wait)
        yield
    finally:
        gate.set()
        await held


async def test_many_who_wait_share_one_commit(store: Database) -> None:
    token = await begin(store)
    ready = [make_message() for _ in range(30)]
    for message in ready:
        await store.enqueue(message)
    await asyncio.gather(*(store.claim(claim_of(message, token)) for message in ready[:15]))
    async with busy(store):
        commits = store.commits
        waiting: list[asyncio.Future[Any] | Pending[Any]] = [store.enqueue(make_message()) for _ in range(40)]
        waiting += [store.claim(claim_of(message, token)) for message in ready[15:]]
        waiting += [store.complete(attempt_of(message, token)) for message in ready[:15]]
        waiting += [store.record("account.asleep", account="relay")]
    await asyncio.gather(*waiting)
    assert store.commits - commits == 2  # that of the work which held the writer, and one for all
    assert await told(store) == {(LANE, "queued"): 40, (LANE, "sending"): 15, (LANE, "delivered"): 15}


async def test_a_group_is_bounded(store: Database) -> None:
    async with busy(store):
        commits = store.commits
        waiting = [store.enqueue(make_message()) for _ in range(BATCH_OPERATIONS + 1)]
        large = [store.enqueue(make_message(body=b"x" * 2**21)) for _ in range(6)]
    await asyncio.gather(*waiting, *large)
    assert store.commits - commits == 1 + 2 + 2


async def test_who_fails_fails_alone(store: Database) -> None:
    token = await begin(store)
    twice = make_message()
    await store.enqueue(twice)
    others = [make_message() for _ in range(5)]
    async with busy(store):
        commits = store.commits
        kept = [store.enqueue(message) for message in others]
        failed = store.enqueue(twice)
        claimed = store.claim(claim_of(twice, token))
        refused = store.remove_account(12345)
    await asyncio.gather(*kept)
    assert await claimed == (0,)
    with pytest.raises(StorageFailed):
        await failed
    with pytest.raises(InvalidInput):
        await refused
    assert store.commits - commits == 2
    assert await told(store) == await counted(store) == {(LANE, "queued"): 5, (LANE, "sending"): 1}


async def test_work_that_fails_leaves_nothing_and_tells_its_own_error(store: Database) -> None:
    def work(connection: Any) -> None:
        connection.exec_driver_sql("INSERT INTO setting (name, value) VALUES ('a', 'b')")
        raise StateConflict("not now")

    before = store.save_setting("x", "1")
    failed = store.write(work)
    after = store.save_setting("y", "2")
    await asyncio.gather(before, after)
    with pytest.raises(StateConflict, match="not now"):
        await failed
    assert await store.settings() == {"x": "1", "y": "2"}


async def test_a_fault_of_ours_stops_nothing(store: Database) -> None:
    broken = make_message()
    object.__setattr__(broken, "subject", object())  # nothing that a database could keep
    kept = [store.enqueue(make_message()), store.enqueue(broken), store.enqueue(make_message())]
    await asyncio.gather(kept[0], kept[2])
    with pytest.raises(StorageFailed):
        await kept[1]


async def test_operations_take_effect_in_the_order_of_their_calls(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    async with busy(store):
        store.enqueue(message)
        first = store.claim(claim_of(message, token))
        store.complete(attempt_of(message, token))
        late = store.claim(claim_of(message, token))
        held = store.hold(Selection(message_id=message.id), NOON)
    assert (await first, await late, await held) == ((0,), (), 0)
    assert await states(store, message) == ["delivered"]


async def test_a_claim_does_not_see_an_outcome_that_was_told_later(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    await store.enqueue(message)
    await store.claim(claim_of(message, token))
    async with busy(store):
        early = store.claim(claim_of(message, token))
        store.complete(attempt_of(message, token, result_of(0, DeliveryState.DEFERRED, NOON)))
    assert await early == ()
    assert await states(store, message) == ["deferred"]


async def _wait(kept: Pending[Aside]) -> None:
    await kept


async def test_a_waiter_that_went_away_harms_nobody(store: Database) -> None:
    message = make_message()
    async with busy(store):
        gone = asyncio.ensure_future(_wait(store.enqueue(message)))
        kept = store.enqueue(make_message())
        await asyncio.sleep(0)
        gone.cancel()
    await kept
    assert gone.cancelled()
    assert await states(store, message) == ["queued"]


async def test_the_answer_comes_after_the_commit(store: Database) -> None:
    message = make_message()
    async with busy(store):
        kept = store.enqueue(message)
        assert not kept.done()
    await kept
    # A reader is another connection: it sees only what was committed.
    assert (await store.deliveries(_ALL))[0].message_id == message.id


@pytest.mark.sqlite
async def test_without_room_nothing_is_kept_and_with_room_all_goes_on(store: Database) -> None:
    token = await begin(store)
    claimed = make_message()
    await store.enqueue(claimed)
    await store.claim(claim_of(claimed, token))
    pages = await store.write(ask("PRAGMA page_count"))
    await store.write(ask(f"PRAGMA max_page_count = {pages}"))
    large = make_message(body=b"x" * 100_000)
    with pytest.raises(StorageFull):
        await store.enqueue(large)
    async with busy(store):
        # An outcome needs no new page here: it is kept although the message beside it is not.
        full = store.enqueue(large)
        outcome = store.complete(attempt_of(claimed, token))
    with pytest.raises(StorageFull):
        await full
    await outcome
    assert await store.message(large.id) is None
    await store.write(ask("PRAGMA max_page_count = 1000000"))
    await store.enqueue(large)
    assert await told(store) == await counted(store) == {(LANE, "queued"): 1, (LANE, "delivered"): 1}


class FailingCommit:
    """The writer's connection, whose next commits fail as the disk would make them fail."""

    def __init__(self, raw: Any, code: int, name: str) -> None:
        self._raw = raw
        self._code = code
        self._name = name
        self.times = 1
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def commit(self) -> None:
        """Fail, then work again."""
        self.commits += 1
        if self.times:
            self.times -= 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            error.sqlite_errorname = self._name
            raise error
        self._raw.commit()


@pytest.fixture
def fail_commit(store: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], FailingCommit]:
    """The next commit fails with this error of SQLite."""

    def install(code: int, name: str) -> FailingCommit:
        failing = FailingCommit(store._writer._raw, code, name)
        monkeypatch.setattr(store._writer, "_raw", failing)
        return failing

    return install


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("code", "name", "error"),
    [
        (sqlite3.SQLITE_FULL, "SQLITE_FULL", StorageFull),
        (sqlite3.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE", StorageFailed),
        (sqlite3.SQLITE_BUSY, "SQLITE_BUSY", StorageFailed),
    ],
)
async def test_a_commit_that_fails_fails_its_group_and_no_other(
    store: Database, fail_commit: Callable[[int, str], FailingCommit], code: int, name: str, error: type[Exception]
) -> None:
    lost = [make_message() for _ in range(3)]
    async with busy(store):
        waiting = [store.enqueue(message) for message in lost]
    await asyncio.gather(*waiting)  # the writer is idle now
    fail_commit(code, name)
    with pytest.raises(error):
        await store.enqueue(make_message())
    await store.enqueue(make_message())
    assert await told(store) == await counted(store) == {(LANE, "queued"): 4}
    assert store.broken is None


@pytest.mark.sqlite
async def test_a_failed_fsync_ends_the_store(
    store: Database, fail_commit: Callable[[int, str], FailingCommit], monkeypatch: pytest.MonkeyPatch
) -> None:
    told_of: list[BaseException] = []
    monkeypatch.setattr(store._writer, "_on_broken", told_of.append)
    failing = fail_commit(sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC")
    with pytest.raises(StorageFailed):
        await store.enqueue(make_message())
    with pytest.raises(StorageFailed):
        await store.enqueue(make_message())
    with pytest.raises(StorageFailed):
        await store.hold(Selection(), NOON)
    assert failing.commits == 1  # never tried again
    assert told_of == [store.broken]
    assert await store.deliveries(_ALL) == []


async def test_a_closed_store_takes_nothing_but_keeps_what_it_took(store: Database) -> None:
    async with busy(store):
        kept = store.enqueue(make_message())
        closing = asyncio.ensure_future(store.close())
    await closing
    assert kept.done() and kept.exception() is None
    with pytest.raises(NotRunning):
        await store.enqueue(make_message())
    with pytest.raises(NotRunning):
        await store.accounts()


async def test_a_name_is_taken_once_within_one_group(store: Database) -> None:
    async with busy(store):
        first = store.save_account(Account(id=0, name="Relay", kind=AccountKind.SMTP))
        second = store.save_account(Account(id=0, name="relay", kind=AccountKind.SMTP))
    assert (await first).id == 1
    with pytest.raises(InvalidInput, match="taken"):
        await second
