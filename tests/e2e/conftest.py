"""What the tests of crash points share, and the library that lets a disk fail and clocks step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Served, end_serving, start_serving
from tests.e2e.counting_sink import CountingSink
from tests.e2e.crash_room import SEED, SHAPES, Room, Shape, prepare
from tests.e2e.faults import Shim, compile_shim
from tests.postgresql import Cluster

LISTENERS = '[{"address": "127.0.0.1", "port": 0}]'


@pytest.fixture(scope="session")
def counting_sink() -> Iterator[CountingSink]:
    """One relay for all of them."""
    sink = CountingSink()
    yield sink
    sink.stop()


@pytest.fixture(scope="session")
def prepared(counting_sink: CountingSink, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an account at the relay."""
    data = tmp_path_factory.mktemp("prepared") / "data"
    prepare(data, counting_sink, start_serving, end_serving)
    return data


@pytest.fixture(scope="session")
def prepared_elsewhere(
    counting_sink: CountingSink, tmp_path_factory: pytest.TempPathFactory, cluster: Cluster
) -> tuple[Path, str]:
    """The same with its database in PostgreSQL; the name of that."""
    data, url = tmp_path_factory.mktemp("prepared") / "data", cluster.new_store()
    prepare(data, counting_sink, start_serving, end_serving, POSTROOM_DATABASE=url)
    return data, url.rpartition("/")[2]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Crash points vary from round to round; those that every database has are met on PostgreSQL too, once each."""
    if "shape" in metafunc.fixturenames:
        cases = [(shape, "sqlite") for shape in SHAPES]
        if "kind" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both"):
            cases.append((SHAPES[0], "postgresql"))
        names = [f"{kind}-round{shape.number}" for shape, kind in cases]
        metafunc.parametrize(("shape", "kind"), cases, ids=names)


@pytest.fixture
def room(
    request: pytest.FixtureRequest, counting_sink: CountingSink, tmp_path: Path, shape: Shape, kind: str
) -> Iterator[Room]:
    """A copy of the folder and its database, and a relay that has forgotten everything."""
    started: list[Served] = []

    def start(data: Path, settings: dict[str, str]) -> Served:
        started.append(start_serving(data, LISTENERS, **settings))
        return started[-1]

    print(f"CRASH_SEED={SEED} {shape}")
    database = ""
    if kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        folder, template = request.getfixturevalue("prepared_elsewhere")
        database = cluster.new_database(template)
    else:
        folder = request.getfixturevalue("prepared")
    counting_sink.again(pipelining=shape.pipelining)
    shutil.copytree(folder, tmp_path / "data")
    room = Room(tmp_path / "data", start, counting_sink, database)
    room.told("accounts", "edit", "relay", "--max-connections", str(shape.connections))
    yield room
    for served in started:
        end_serving(served)


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shim.c`, compiled; skips where there is no compiler."""
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def shim(shim_library: Path, tmp_path: Path) -> Shim:
    """Faults for a gateway that is started with its `environment`; none so far."""
    return Shim(shim_library, tmp_path / "orders")


@pytest.fixture
def start(
    prepared: Path, counting_sink: CountingSink, tmp_path: Path, serve: Callable[..., Served]
) -> Callable[..., Served]:
    """A gateway whose mail goes to the sink; again on the same folder."""
    counting_sink.again()
    shutil.copytree(prepared, tmp_path / "data")
    return serve
