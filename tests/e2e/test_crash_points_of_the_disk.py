"""Named faults of the disk (O1, O2), and a power cut (O3): a crash after which only what was synced is there.

Disks that are really full, and errors that the kernel gives, are in the tests of faults (docs/reliability.md).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Served, find_peer
from tests.e2e.crash_room import LARGE, SMALL, Room, Shape

BLOCK = 4096


def submit_until_refused(room: Room, served: Served, size_bytes: int) -> tuple[list[str], int | None]:
    """The names that were acknowledged, and the first other reply; the message that got it is `refused`."""
    acknowledged: list[str] = []
    while (code := room.hand_over(served, name := f"m{len(acknowledged)}", size_bytes)) == 250:
        acknowledged.append(name)
    return acknowledged, code


def test_o1_no_room_for_a_body_refuses_it_alone(room: Room, shape: Shape) -> None:
    served = room.start(f"O1-body:{shape.nth}", sending=False)
    acknowledged, code = submit_until_refused(room, served, LARGE)
    assert code in (451, 452)  # 451 where the end of data was read before the chunk was known to have failed
    assert room.hand_over(served, "again", LARGE) == 250
    assert served.stop() == 0
    room.ends_with(room.start(), dict.fromkeys([*acknowledged, "again"], 1))
    assert room.query("SELECT count(*) FROM content WHERE content_id IS NULL") == [(0,)]


def test_o1_no_room_in_the_log_refuses_and_passes(room: Room, shape: Shape) -> None:
    served = room.start(f"O1-wal:{10 + shape.nth}", sending=False)
    acknowledged, code = submit_until_refused(room, served, SMALL)
    assert code == 452
    assert 0 < len(acknowledged) < 10 + shape.nth
    while room.hand_over(served, "again") != 250:  # the second of two
        assert served.process.poll() is None
    assert served.stop() == 0
    room.ends_with(room.start(), dict.fromkeys([*acknowledged, "again"], 1))


def test_o1_no_room_at_a_checkpoint_holds_up_nobody(room: Room, shape: Shape) -> None:
    served = room.start("O1-checkpoint")
    assert room.hand_over(served, "large", 18 * 1024 * 1024) == 250  # from 16 MiB on the log is copied after each group
    names = [f"m{n}" for n in range(4)]
    assert [room.hand_over(served, name, shape.size_bytes) for name in names] == [250] * 4
    room.ends_with(served, dict.fromkeys([*names, "large"], 1))
    assert sum("checkpoint_failed" in line for line in served.output) == 1


def test_o2_after_an_fsync_that_failed_nothing_is_acknowledged(room: Room, shape: Shape) -> None:
    served = room.start(f"O2:{10 + shape.nth}", sending=False)
    acknowledged, code = submit_until_refused(room, served, SMALL)
    assert code in (451, None)
    assert served.process.wait(60) not in (0, 137)
    assert any("the store has failed and the gateway has left" in line for line in served.output)
    room.ends_with(room.start(), dict.fromkeys(acknowledged, 1))


@pytest.fixture(scope="session")
def platter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that keeps what was synced."""
    library = tmp_path_factory.mktemp("platter") / "platter.so"
    source = Path(__file__).with_name("platter.c")
    command = [str(find_peer("cc")), "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


class Disk:
    """What the folder's disk holds after a power cut."""

    def __init__(self, room: Room, library: Path) -> None:
        self._room = room
        self._synced = room.data.with_name("synced")
        shutil.copytree(room.data, self._synced)
        self.environment = {"LD_PRELOAD": str(library), "PLATTER_OF": str(room.data), "PLATTER": str(self._synced)}

    def after_the_cut(self, shape: Shape) -> None:
        """What was synced; in later rounds some blocks more that were written since, as a cache lets them go."""
        for file in self._synced.iterdir():
            written = self._room.data / file.name
            if shape.number and file.name.startswith("postroom.db") and written.is_file():
                file.write_bytes(self._mixed(file.read_bytes(), written.read_bytes(), shape))
        shutil.rmtree(self._room.data)
        self._synced.rename(self._room.data)

    @staticmethod
    def _mixed(synced: bytes, written: bytes, shape: Shape) -> bytes:
        chance = shape.chance
        length = chance.choice((len(synced), max(len(synced), len(written))))
        synced, written = synced.ljust(length, b"\0"), written[:length].ljust(length, b"\0")
        blocks = range(0, length, BLOCK)
        return b"".join(chance.choice((synced, written))[at : at + BLOCK] for at in blocks)


def test_o3_a_power_cut_takes_nothing_that_was_acknowledged(room: Room, shape: Shape, platter: Path) -> None:
    disk = Disk(room, platter)
    served = room.start(f"O3:{4 * shape.nth}", sending=False, under=disk.environment)
    names = [f"m{n}" for n in range(4 * shape.nth)]
    assert [room.hand_over(served, name, shape.size_bytes) for name in names] == [250] * len(names)
    room.crashed(served)
    disk.after_the_cut(shape)
    room.ends_with(room.start(), dict.fromkeys(names, 1))


def test_o3_after_a_power_cut_nothing_that_was_noted_as_delivered_comes_again(
    room: Room, shape: Shape, platter: Path
) -> None:
    disk = Disk(room, platter)
    served = room.start(f"D6:{shape.nth}", under=disk.environment)
    names = [f"m{n}" for n in range(shape.nth)]
    for n, name in enumerate(names):
        room.sink.wait_for(lambda seen: len(seen.copies) == n)  # noqa: B023
        assert room.hand_over(served, name, shape.size_bytes) == 250
    room.crashed(served)
    disk.after_the_cut(shape)
    room.ends_with(room.start(), dict.fromkeys(names, 1))
