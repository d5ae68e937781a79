"""A backup is one moment of a room in use; a restore holds what is pending, and is whole or not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import stat
from collections import namedtuple
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from postroom import backup
from postroom.config import Settings
from postroom.config.folder import make_data_folder
from postroom.errors import GatewayError, InvalidInput, StorageFailed, StorageFull
from postroom.gateway import Gateway
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.queue import LaneId, MessageId
from postroom.model.submission import Door, Submission
from postroom.store import Claim, Selection
from postroom.store.backup import digest

NOW = datetime(2026, 11, 20, 12, 0, 0, 5, tzinfo=UTC)
SECRET = "marked-secret"


@dataclass
class Kept:
    """A data folder; `accepted` are its messages in order."""

    settings: Settings
    accepted: list[MessageId]

    @property
    def files(self) -> set[str]:
        """The names in it."""
        return {path.name for path in self.settings.data.iterdir()}


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway on the folder, which takes mail and delivers none."""
    gateway = await Gateway.open(settings)
    yield gateway
    await gateway.stop()


def folder(path: Path) -> Settings:
    """Settings of a data folder, which is made."""
    settings = Settings.load(path, hostname="gate.test", smtp={"listeners": []})
    make_data_folder(path)
    return settings


async def submit(gateway: Gateway, recipient: str = "b@y.test") -> MessageId:
    content = Content(b"From: a@x.test\r\nSubject: hi\r\n\r\n", b"hello\r\n")
    application = gateway.applications.get("erp")
    submission = Submission(
        door=Door.SMTP, application=application, envelope=Envelope("a@x.test", (recipient,)), content=content,
        received=NOW,
    )  # fmt: skip
    return (await gateway.submit(submission)).id


async def filled(path: Path) -> Kept:
    """A folder with a relay, an application, and three messages that wait."""
    settings = folder(path)
    async with opened(settings) as gateway:
        await gateway.accounts.add({"name": "relay", "host": "127.0.0.1", "username": "ann", "password": SECRET})
        await gateway.applications.add({"name": "erp", "senders": ["*"], "accounts": ["relay"]})
        return Kept(settings, [await submit(gateway) for _ in range(3)])


@pytest.fixture
async def kept(tmp_path: Path) -> Kept:
    """A filled folder."""
    return await filled(tmp_path / "data")


@pytest.fixture
def kept_in_turn(tmp_path: Path) -> Kept:
    """The same, with no loop around the test, which forks."""
    return asyncio.run(filled(tmp_path / "data"))


async def backed_up(kept: Kept, to: Path, with_keys: bool = True) -> Path:
    await backup.backup(kept.settings, to, with_keys=with_keys, now=NOW)
    return to


async def restored(settings: Settings, source: Path, replace: bool = False) -> backup.Restored:
    return await backup.restore(settings, source, replace=replace, now=datetime.now(UTC))


async def states(settings: Settings, messages: list[MessageId]) -> list[str]:
    async with opened(settings) as gateway:
        views = [await gateway.store.message(message) for message in messages]
        return [view.deliveries[0].state.value if view is not None else "gone" for view in views]


# The backup -------------------------------------------------------------------------------------------------------


async def test_a_backup_while_mail_is_taken_is_one_moment(kept: Kept, tmp_path: Path) -> None:
    accepted = list(kept.accepted)
    async with opened(kept.settings) as gateway:
        is_over = asyncio.Event()

        async def client() -> None:
            while not is_over.is_set():
                accepted.append(await submit(gateway))

        clients = [asyncio.create_task(client()) for _ in range(20)]
        moments = []
        for number in range(3):
            before = len(accepted)
            made = await gateway.backup(tmp_path / f"backup{number}", with_keys=True)
            moments.append((before, made.messages, len(accepted)))
        is_over.set()
        await asyncio.gather(*clients)
    assert all(before <= there <= after for before, there, after in moments)
    assert moments[0][0] < moments[-1][1]
    again = folder(tmp_path / "again")
    done = await restored(again, tmp_path / "backup2")
    assert (done.messages, done.held) == (moments[2][1], moments[2][1])
    # What was answered before it was asked for is in it.
    assert await states(again, accepted[: moments[2][0]]) == ["held"] * moments[2][0]


async def test_nobody_else_can_read_a_backup(kept: Kept, tmp_path: Path) -> None:
    (kept.settings.data / "postroom.toml").write_text('log_level = "debug"\n')
    mask = os.umask(0)
    try:
        made = await backed_up(kept, tmp_path / "backup")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {(path.name, stat.S_IMODE(path.stat().st_mode)) for path in made.iterdir()} == {
        (name, 0o600) for name in ("postroom.db", "manifest.json", "keys", "postroom.toml")
    }


@pytest.mark.parametrize("there", ["folder", "backup", "file", "dangling link"])
async def test_a_backup_overwrites_nothing(kept: Kept, tmp_path: Path, there: str) -> None:
    target = tmp_path / "backup"
    if there == "folder":
        target.mkdir()
    elif there == "backup":
        await backed_up(kept, target)
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput) as refused:
        await backed_up(kept, target)
    (fault,) = refused.value.faults
    assert "is there already" in fault.fault
    assert ("cut off" in fault.mend) == (there == "folder")
    assert not (tmp_path / "elsewhere").exists()


Usage = namedtuple("Usage", ["total", "used", "free"])


async def test_without_room_nothing_is_begun(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await backed_up(kept, tmp_path / "backup")
    again = folder(tmp_path / "again")
    size = (made / "postroom.db").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, size + 100 * 1024**2 - 1))
    for attempt in (backed_up(kept, tmp_path / "second"), restored(again, made)):
        with pytest.raises(StorageFull, match="must stay free"):
            await attempt
    assert not (tmp_path / "second").exists()
    assert list(again.data.iterdir()) == []


async def test_a_backup_that_fails_leaves_nothing(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("postroom.store.backup.sync", no_room)
    with pytest.raises(StorageFailed, match="No space left"):
        await backed_up(kept, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


# The restore ------------------------------------------------------------------------------------------------------


async def test_everything_pending_is_held_and_says_why(kept: Kept, tmp_path: Path) -> None:
    queued, sending, deferred = kept.accepted
    async with opened(kept.settings) as gateway:
        token, _ = await gateway.store.recover(NOW)
        lane = LaneId(gateway.accounts.get("relay").id)
        await gateway.store.claim(Claim(sending, (0,), lane, token))
        await gateway.store.hold(Selection(message_id=deferred), NOW)
        ended = await submit(gateway)
        await gateway.store.cancel(Selection(message_id=ended), NOW)
    done = await restored(again := folder(tmp_path / "again"), await backed_up(kept, tmp_path / "backup"))
    assert (done.messages, done.held) == (4, 2)  # one was held already
    assert {row.message_id for row in done.first} == set(kept.accepted)
    assert await states(again, [*kept.accepted, ended]) == ["held", "held", "held", "cancelled"]
    async with opened(again) as gateway:
        (why,) = await gateway.answers.why(queued)
        (of_sending,) = await gateway.answers.why(sending)
        (of_held,) = await gateway.answers.why(deferred)
    assert why.reason == (
        "it was pending in the backup of 2026-11-20T12:00:00Z that was restored: it may have been sent since"
    )
    assert of_sending.marks == ("it may be sent twice: the gateway stopped while it was being sent",)
    assert of_held.reason == "a person holds it"


async def test_a_restore_leaves_nothing_beside_the_database(kept: Kept, tmp_path: Path) -> None:
    (kept.settings.data / "postroom.toml").write_text('log_level = "debug"\n')
    again = folder(tmp_path / "again")
    await restored(again, await backed_up(kept, tmp_path / "backup"))
    assert {path.name for path in again.data.iterdir()} == {"postroom.db", "keys", "postroom.toml"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in again.data.iterdir()} == {0o600}


@pytest.mark.parametrize("damage", ["flipped", "cut", "no manifest", "half a manifest", "no database"])
async def test_a_damaged_backup_is_refused(kept: Kept, tmp_path: Path, damage: str) -> None:
    made = await backed_up(kept, tmp_path / "backup")
    database, manifest = made / "postroom.db", made / "manifest.json"
    content = bytearray(database.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        database.write_bytes(content)
    elif damage == "cut":
        database.write_bytes(content[: len(content) // 2])
    elif damage == "no database":
        database.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:40])
    again = folder(tmp_path / "again")
    with pytest.raises((InvalidInput, StorageFailed)):
        await restored(again, made)
    assert list(again.data.iterdir()) == []


async def test_a_backup_of_a_newer_version_is_refused(kept: Kept, tmp_path: Path) -> None:
    made = await backed_up(kept, tmp_path / "backup")
    with contextlib.closing(sqlite3.connect(made / "postroom.db")) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    manifest = json.loads((made / "manifest.json").read_text())
    (made / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest(made / "postroom.db")}))
    with pytest.raises(StorageFailed, match="newer version"):
        await restored(folder(tmp_path / "again"), made)


@pytest.mark.parametrize("missing", ["of the account", "of the application"])
async def test_a_missing_key_is_found_at_once(kept: Kept, tmp_path: Path, missing: str) -> None:
    if missing == "of the application":
        async with opened(kept.settings) as gateway:
            await gateway.accounts.edit("relay", {"username": "", "password": ""})
    made = await backed_up(kept, tmp_path / "backup", with_keys=False)
    again = folder(tmp_path / "again")
    with pytest.raises(InvalidInput, match="key"):
        await restored(again, made)
    assert list(again.data.iterdir()) == []
    shutil.copy(kept.settings.data / "keys", again.data / "keys")
    assert (await restored(again, made)).held == 3


async def test_the_keys_that_are_there_stay(kept: Kept, tmp_path: Path) -> None:
    made = await backed_up(kept, tmp_path / "backup")
    async with opened(kept.settings) as gateway:
        await gateway.rotate_keys()
    two_keys = (kept.settings.data / "keys").read_bytes()
    await restored(kept.settings, made, replace=True)
    assert (kept.settings.data / "keys").read_bytes() == two_keys
    assert set(await states(kept.settings, kept.accepted)) == {"held"}


async def test_a_database_that_is_there_is_set_aside_whole(kept: Kept, tmp_path: Path) -> None:
    made = await backed_up(kept, tmp_path / "backup")
    data = kept.settings.data
    async with opened(kept.settings) as gateway:
        later = await submit(gateway)
        shutil.copytree(data, tmp_path / "killed")  # as a crash leaves it: the message is in the log alone
    killed = folder(tmp_path / "killed")
    assert (killed.data / "postroom.db-wal").stat().st_size > 0
    with pytest.raises(InvalidInput, match="holds a database"):
        await restored(killed, made)
    done = await restored(killed, made, replace=True)
    assert await states(killed, [*kept.accepted, later]) == ["held", "held", "held", "gone"]
    before = folder(tmp_path / "before")
    shutil.copy(done.set_aside, before.database_path)
    shutil.copy(data / "keys", before.data)
    assert await states(before, [later]) == ["queued"]


async def test_a_damaged_database_is_set_aside_with_its_log(kept: Kept, tmp_path: Path) -> None:
    made = await backed_up(kept, tmp_path / "backup")
    database = kept.settings.database_path
    database.write_bytes(b"no database at all")
    database.with_name("postroom.db-wal").write_bytes(b"a log")
    done = await restored(kept.settings, made, replace=True)
    aside = database.with_name(os.path.basename(done.set_aside))
    assert aside.read_bytes() == b"no database at all"
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == b"a log"
    assert set(await states(kept.settings, kept.accepted)) == {"held"}


# Cut off ------------------------------------------------------------------------------------------------------------

#: What changes names or makes them durable, and so divides what a crash can leave.
STEPS = ("link", "replace", "rename", "unlink", "fsync", "mkdir")


def cut_off(at: int, work: Callable[[], Any]) -> int:
    """Do `work` in a process that ends itself before the step number `at`; the exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = at

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def take(*given: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(137)
            left -= 1
            return step(*given, **named)

        return take

    status = 1
    try:
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        work()
        status = 0
    except GatewayError:
        status = 2
    finally:
        os._exit(status)


def test_a_restore_that_is_cut_off_leaves_the_folder_as_it_was_or_is_done(kept_in_turn: Kept, tmp_path: Path) -> None:
    made = tmp_path / "backup"
    asyncio.run(backed_up(kept_in_turn, made))

    async def one_more() -> MessageId:
        async with opened(kept_in_turn.settings) as gateway:
            return await submit(gateway)

    later = asyncio.run(one_more())
    seen = set()
    for at in range(100):
        again = folder(tmp_path / f"again{at}")
        for name in ("postroom.db", "keys"):
            shutil.copy(kept_in_turn.settings.data / name, again.data / name)
        status = cut_off(at, lambda again=again: asyncio.run(restored(again, made, replace=True)))  # type: ignore[misc]
        left = asyncio.run(states(again, [*kept_in_turn.accepted, later]))
        assert left in (["queued"] * 4, ["held", "held", "held", "gone"])
        seen.add(left[0])
        asyncio.run(restored(again, made, replace=True))  # nothing that is left stands in the way
        assert asyncio.run(states(again, kept_in_turn.accepted)) == ["held"] * 3
        if status == 0:
            break
        assert status == 137
    assert at > 10
    assert seen == {"queued", "held"}


def test_a_backup_that_is_cut_off_is_none(kept_in_turn: Kept, tmp_path: Path) -> None:
    whole = 0
    for at in range(100):
        made = tmp_path / f"backup{at}"
        status = cut_off(at, lambda made=made: asyncio.run(backed_up(kept_in_turn, made)))  # type: ignore[misc]
        again = folder(tmp_path / f"again{at}")
        if (made / "manifest.json").exists():
            assert asyncio.run(restored(again, made)).held == 3
            whole += 1
        else:
            with pytest.raises(InvalidInput, match="no whole backup"):
                asyncio.run(restored(again, made))
            assert list(again.data.iterdir()) == []
        if status == 0:
            break
        assert status == 137
    assert 0 < whole < at
