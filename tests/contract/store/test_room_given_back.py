"""SQLite gives back what retention has made free, in small steps, and keeps a reserve for what comes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from postroom.store import sqlite
from postroom.store.database import Database
from tests.contract.store.examples import NOON, ask, begin, make_message, sent

pytestmark = pytest.mark.sqlite
LATER = NOON + timedelta(hours=1)


async def emptied(store: Database, count: int) -> None:
    """Messages of 200 KB that were sent and removed."""
    token = await begin(store)
    for _ in range(count):
        await sent(store, token, make_message(body=b"x" * 200_000))
    assert await store.reap(LATER, NOON) == count


async def test_free_pages_are_given_back_while_mail_comes(store: Database, tmp_path: Path) -> None:
    await emptied(store, 80)
    before = await store.write(ask("PRAGMA page_count"))
    free = await store.write(ask("PRAGMA freelist_count"))
    assert isinstance(free, int) and free > 1900
    steps = 0
    kept = []
    while await store.shrink():
        steps += 1
        kept.append(make_message())
        await store.enqueue(kept[-1])
    assert steps == (free - sqlite.SPARE_PAGES) // sqlite.VACUUM_PAGES
    after = await store.write(ask("PRAGMA page_count"))
    assert isinstance(before, int) and isinstance(after, int)
    assert before - after >= free - sqlite.SPARE_PAGES - 10 * len(kept)
    assert not await store.shrink()
    for message in kept:
        assert await store.content(message.id) is not None
    assert await store.write(ask("PRAGMA integrity_check")) == "ok"
    await store.close()
    assert (tmp_path / "postroom.db").stat().st_size == after * sqlite.PAGE_BYTES


async def test_little_that_is_free_is_kept(store: Database) -> None:
    await emptied(store, 20)
    before = await store.write(ask("PRAGMA page_count"))
    assert not await store.shrink()
    assert await store.write(ask("PRAGMA page_count")) == before


async def test_a_tenth_of_a_large_file_is_kept(store: Database) -> None:
    assert sqlite.SPARE_PAGES == 1024
    for _ in range(100):
        await store.enqueue(make_message(body=b"x" * 1_000_000))
    await emptied(store, 50)
    assert not await store.shrink()
