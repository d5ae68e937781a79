"""The stores under test, each on a database of its own: one suite for every kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from postroom.store.database import Database, open_store
from tests.contract.store.examples import Hour, OpenKeyring
from tests.postgresql import Cluster

Opener = Callable[[], Awaitable[Database]]


@pytest.fixture
def hour() -> Hour:
    """The time of day, moved by hand."""
    return Hour()


KINDS = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test on each kind of database, but for those that are marked as being about one."""
    if "database" in metafunc.fixturenames:
        kinds = [kind for kind in KINDS if metafunc.definition.get_closest_marker(kind)] or KINDS
        metafunc.parametrize("database", kinds, indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store that is empty, or not there yet, will be."""
    if request.param == "sqlite":
        return str(tmp_path / "postroom.db")
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_store()


@pytest_asyncio.fixture
async def open_again(database: str, hour: Hour) -> AsyncIterator[Opener]:
    """Opens the same store each time; a store opened before must have been closed."""
    opened: list[Database] = []

    async def open_it() -> Database:
        opened.append(await open_store(database, OpenKeyring(), hour.now))
        return opened[-1]

    yield open_it
    for store in opened:
        await store.close()


@pytest_asyncio.fixture
async def store(open_again: Opener) -> Database:
    """An empty store."""
    return await open_again()
