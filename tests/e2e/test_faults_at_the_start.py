"""What a gateway says when it can't start: the cause and the mend, with nothing changed; and that the mend works."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import run_postroom
from tests.e2e.faults import LISTENERS, fill, small_disk, standing_room

#: Root may do everything with every file: without these rights it is as anybody else.
NOT_ALMIGHTY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def environment(data: Path) -> dict[str, str]:
    """Of commands on that folder."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    return others | {"POSTROOM_DATA": str(data), "POSTROOM_SMTP__LISTENERS": LISTENERS}


def refused(data: Path, prefix: Sequence[str] = ()) -> str:
    """What a start that fails says, to a person: no traceback, and an exit status that says what to do with it."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "postroom", "serve"],
        env=environment(data),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (64, 69, 75), done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a gateway's data and, beside it, a backup and the log of a crash after it; two messages wait."""
    folder = tmp_path_factory.mktemp("used")
    with standing_room(folder / "data", POSTROOM_SENDING_ENABLED="false") as room:
        room.submit("small")
        room.submit("large", 400_000)
        room.served.run("backup", str(folder / "backup"), "--with-keys")
        assert room.served.stop() == 0
    shutil.copytree(folder / "data", folder / "crashed")
    with standing_room(folder / "crashed", POSTROOM_SENDING_ENABLED="false") as room:
        room.submit("later")
        room.served.kill()
    assert (folder / "crashed" / "postroom.db-wal").stat().st_size
    return folder


@pytest.fixture
def data(used: Path, tmp_path: Path) -> Path:
    """A copy of that data."""
    return Path(shutil.copytree(used / "data", tmp_path / "data"))


def cut_off(data: Path, used: Path) -> None:
    """Half of the database is gone."""
    file = data / "postroom.db"
    os.truncate(file, file.stat().st_size // 2)


def emptied(data: Path, used: Path) -> None:
    """All of it is gone."""
    os.truncate(data / "postroom.db", 0)


def emptied_beside_its_log(data: Path, used: Path) -> None:
    """All of it is gone, and there is a log, which SQLite would throw away."""
    shutil.copy(used / "crashed" / "postroom.db-wal", data)
    emptied(data, used)


def removed_beside_its_log(data: Path, used: Path) -> None:
    """Somebody has moved the database away, and left its log, which SQLite would write into any other."""
    shutil.copy(used / "crashed" / "postroom.db-wal", data)
    (data / "postroom.db").unlink()


def overwritten(data: Path, used: Path) -> None:
    """Something else stands in the file."""
    with (data / "postroom.db").open("r+b") as file:
        file.write(b"something else altogether" * 1000)


def mangled(data: Path, used: Path) -> None:
    """The beginning is right, what follows is not."""
    with (data / "postroom.db").open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192 * 20)


Harm = Callable[[Path, Path], None]
HARMS = (cut_off, emptied, emptied_beside_its_log, removed_beside_its_log, overwritten, mangled)


def database(data: Path) -> dict[str, bytes]:
    """What lies there under the database's name."""
    return {file.name: file.read_bytes() for file in data.glob("postroom.db*") if file.suffix != ".lock"}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_database_is_refused_with_the_mend_and_left_alone(used: Path, data: Path, harm: Harm) -> None:
    harm(data, used)
    before = database(data)
    said = refused(data)
    assert str(data / "postroom.db") in said
    assert "postroom restore BACKUP --replace" in said
    after = database(data)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("harm", [mangled, removed_beside_its_log])
def test_a_backup_replaces_a_damaged_database(used: Path, data: Path, harm: Harm) -> None:
    harm(data, used)
    restored = run_postroom(environment(data), "restore", str(used / "backup"), "--replace")
    assert "2 messages restored, 2 deliveries held" in restored.stdout
    with standing_room(data) as room:
        room.acknowledged |= {"small", "large"}
        room.api.ask("POST", "queue/release", {})
        room.keeps_its_word()
        assert room.served.stop() == 0
    with contextlib.closing(sqlite3.connect(data / "postroom.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_database_that_another_program_has_locked_is_told_of_and_starts_later(data: Path) -> None:
    with contextlib.closing(sqlite3.connect(data / "postroom.db", isolation_level=None)) as stranger:
        stranger.execute("BEGIN EXCLUSIVE")
        said = refused(data)
    assert "database is locked" in said
    assert "another program" in said
    with standing_room(data) as room:
        room.acknowledged |= {"small", "large"}
        room.keeps_its_word()


@pytest.mark.parametrize("name", ["postroom.db", "postroom.lock", "postroom.db.lock", "keys"])
def test_a_file_that_this_user_may_not_use_is_named_with_the_mend(data: Path, name: str) -> None:
    prefix = NOT_ALMIGHTY if os.geteuid() == 0 else ()
    if prefix and not shutil.which(prefix[0]):
        pytest.skip("setpriv is not installed (apt-get install util-linux)")
    (data / name).chmod(0o000)
    said = refused(data, prefix)
    assert str(data / name) in said
    assert "owner" in said
    (data / name).chmod(0o600)
    with standing_room(data) as room:
        room.acknowledged |= {"small", "large"}
        room.keeps_its_word()


def test_a_folder_that_its_owner_has_closed_to_writing_is_opened_again(data: Path) -> None:
    prefix = NOT_ALMIGHTY if os.geteuid() == 0 else ()
    if prefix and not shutil.which(prefix[0]):
        pytest.skip("setpriv is not installed (apt-get install util-linux)")
    data.chmod(0o500)
    with standing_room(data, prefix=prefix) as room:
        room.acknowledged |= {"small", "large"}
        room.serves_others("after")
        room.keeps_its_word()
    assert data.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_user_is_named_with_the_mend(data: Path) -> None:
    before = database(data)
    os.chown(data, 65_534, 65_534)
    said = refused(data)
    assert f"{data} belongs to the user with the id 65534" in said
    assert "chown -R 0" in said
    assert database(data) == before
    os.chown(data, 0, 0)
    with standing_room(data) as room:
        room.acknowledged |= {"small", "large"}
        room.keeps_its_word()


def test_a_database_that_is_cut_off_under_a_gateway_ends_it_and_is_refused_then(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = data / "postroom.db"
    with standing_room(data, POSTROOM_SENDING_ENABLED="false") as room:
        room.submit("before", 1_500_000)
        room.until(lambda: file.stat().st_size > 1_500_000)  # the log is copied when nothing happens for a second
        cut_off(data, data)
        room.submit("after")
        assert room.served.process.wait(60) == 75
        assert room.served.reader is not None
        room.served.reader.join()
        assert room.log("unless the database is damaged")
        assert room.log("Traceback") == []
    files = ("postroom.db", "postroom.db-wal")  # what is only in the log may still be read by hand
    before = database(data)
    assert all(before[name] for name in files)
    said = refused(data)
    assert "postroom restore BACKUP --replace" in said
    assert "listening" not in said
    after = database(data)
    assert [after[name] == before[name] for name in files] == [True, True]


def test_a_read_only_file_system_is_named_and_starts_once_it_is_writable(data: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * 1024 * 1024) as disk:
        shutil.copytree(data, disk / "data")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = refused(disk / "data")
        assert "read-only" in said
        assert "mount it for writing" in said
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with standing_room(disk / "data") as room:
            room.acknowledged |= {"small", "large"}
            room.keeps_its_word()


@pytest.mark.parametrize("room_bytes", [0, 60_000, 140_000])
def test_a_first_start_on_a_full_disk_says_so_and_works_once_there_is_room(tmp_path: Path, room_bytes: int) -> None:
    with small_disk(tmp_path / "disk", 4 * 1024 * 1024) as disk:
        hog = fill(disk)
        os.truncate(hog, hog.stat().st_size - room_bytes)
        said = refused(disk / "data")
        assert "room" in said or "full" in said
        hog.unlink()
        with standing_room(disk / "data") as room:
            room.serves_others("after")
            room.keeps_its_word()


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_start_that_may_write_nothing_says_so_and_works_later(data: Path, tmp_path: Path, which: str) -> None:
    folder = data if which == "second" else tmp_path / "new"
    said = refused(folder, ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"])
    assert "room" in said or "could not keep it" in said or "cannot be opened" in said
    with standing_room(folder) as room:
        room.acknowledged |= {"small", "large"} if which == "second" else set()
        room.serves_others("after")
        room.keeps_its_word()


def test_too_few_descriptors_are_told_of_before_anything_is_opened(tmp_path: Path) -> None:
    said = refused(tmp_path / "data", ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"])
    assert "40 files open" in said
    assert "ulimit -n" in said
    assert not (tmp_path / "data").exists()
