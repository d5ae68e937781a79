"""The stores under test, each in a temporary folder: one suite for every implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from postroom.store.database import Database, open_store
from tests.contract.store.examples import Hour, OpenKeyring

Opener = Callable[[], Awaitable[Database]]


@pytest.fixture
def hour() -> Hour:
    """The time of day, moved by hand."""
    return Hour()


@pytest_asyncio.fixture(params=["sqlite"])
async def open_again(request: pytest.FixtureRequest, tmp_path: Path, hour: Hour) -> AsyncIterator[Opener]:
    """Opens the same store each time; a store opened before must have been closed."""
    opened: list[Database] = []

    async def sqlite() -> Database:
        opened.append(await open_store(tmp_path / "postroom.db", OpenKeyring(), hour.now))
        return opened[-1]

    yield {"sqlite": sqlite}[request.param]
    for store in opened:
        await store.close()


@pytest_asyncio.fixture
async def store(open_again: Opener) -> Database:
    """An empty store."""
    return await open_again()
