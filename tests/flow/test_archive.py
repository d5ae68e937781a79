"""The archive has every message that was accepted, once and whole, and retention waits for it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from postroom.errors import StorageFailed
from postroom.model.ids import message_id_text
from postroom.model.queue import MessageId
from postroom.queue import retention
from postroom.queue.archive import NEVER, Archive
from postroom.store import EventFilter

from .conftest import Room


@dataclass
class Kept:
    """What the next start is given."""

    text: str = ""
    refuses: bool = False
    texts: list[str] = field(default_factory=list)

    def keep(self, text: str) -> asyncio.Future[None]:
        """As the store does."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.refuses:
            kept.set_exception(StorageFailed("no room"))
        else:
            self.text = text
            kept.set_result(None)
        return kept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty one."""
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def kept() -> Kept:
    """Nothing so far."""
    return Kept("0")


def archive(room: Room, folder: Path | str, kept: Kept) -> Archive:
    """One that goes on from what was kept."""
    return Archive(room.store, room.clock, lambda: str(folder), kept.keep, kept.text)


async def all_of(one: Archive) -> None:
    while await one.step():
        pass


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def empty(folder: Path) -> None:
    for path in folder.rglob("*.eml"):
        path.unlink()


def names(*messages: MessageId) -> list[str]:
    day = "2026/01/01"
    return sorted(f"{day}/{message_id_text(one)}.{kind}" for one in messages for kind in ("eml", "json"))


async def test_each_message_is_a_file_as_it_was_stored_with_its_envelope_beside_it(
    room: Room, folder: Path, kept: Kept
) -> None:
    messages = [await room.submit("b@y.test", "c@z.test", body=b"\xff%d\r\n" % n) for n in range(250)]
    await all_of(archive(room, folder, kept))
    assert files(folder) == names(*messages)
    for message in messages:
        path = folder / "2026/01/01" / message_id_text(message)
        assert path.with_suffix(".eml").read_bytes() == await room.store.content(message)
        envelope = json.loads(path.with_suffix(".json").read_text())
        assert envelope == {
            "id": message_id_text(message), "accepted": "2026-01-01T00:00:00+00:00", "door": "smtp",
            "application": "erp", "reverse_path": "a@x.test", "recipients": ["b@y.test", "c@z.test"],
        }  # fmt: skip
        assert path.with_suffix(".eml").stat().st_mode & 0o777 == 0o600
    assert (folder / "2026").stat().st_mode & 0o777 == 0o700


async def test_it_goes_on_after_a_restart_and_writes_nothing_under_another_name(
    room: Room, folder: Path, kept: Kept
) -> None:
    messages = [await room.submit() for _ in range(3)]
    kept.refuses = True  # the gateway ends before it is noted
    with pytest.raises(StorageFailed):
        await archive(room, folder, kept).step()
    kept.refuses = False
    assert files(folder) == names(*messages)
    await all_of(archive(room, folder, kept))
    assert files(folder) == names(*messages)
    messages.append(await room.submit())
    empty(folder)
    await all_of(archive(room, folder, kept))
    assert [name for name in files(folder) if name.endswith(".eml")] == [
        name for name in names(messages[-1]) if "eml" in name
    ]


async def test_a_full_disk_loses_nothing_and_is_told_once(
    room: Room, folder: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [await room.submit() for _ in range(3)]
    one = archive(room, folder, kept)
    fsync, failed = os.fsync, []

    def no_room(descriptor: int) -> None:
        failed.append(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    working = asyncio.create_task(one.run())
    try:
        assert "No space left on device" in await room.until_event("archive.failed")
        for _ in range(3):
            before = len(failed)
            while len(failed) == before:
                room.clock.advance(timedelta(seconds=10))
                await asyncio.sleep(0)
        assert [name for name in files(folder) if not Path(name).name.startswith(".")] == []
        assert one.bound(room.clock.now()) == NEVER
        monkeypatch.setattr(os, "fsync", fsync)

        async def recovered() -> bool:
            room.clock.advance(timedelta(seconds=10))
            return bool((await room.store.events(EventFilter(kinds=("archive.recovered",)))).events)

        while not await recovered():
            await asyncio.sleep(0)
    finally:
        working.cancel()
    assert files(folder) == names(*messages)
    assert len((await room.store.events(EventFilter(kinds=("archive.failed",), limit=100))).events) == 1


async def test_nothing_is_removed_before_it_is_archived(room: Room, folder: Path, kept: Kept) -> None:
    message = await room.submit()
    await room.until(message, "delivered")
    one = archive(room, folder, kept)
    room.clock.advance(timedelta(days=60))
    ages = retention.Ages(timedelta(days=30), timedelta(days=10))
    while await retention.step(room.store, room.clock.now(), ages, one.bound):
        pass
    assert await room.store.content(message) is not None
    await all_of(one)
    while await retention.step(room.store, room.clock.now(), ages, one.bound):
        pass
    assert await room.store.message(message) is None
    assert files(folder) == names(message)


async def test_a_folder_that_is_not_there_is_not_made(room: Room, folder: Path, kept: Kept) -> None:
    await room.submit()
    with pytest.raises(NotADirectoryError, match="make it, or mount it"):
        await archive(room, folder / "mount", kept).step()
    assert files(folder) == []


async def test_what_was_taken_before_it_was_switched_on_is_not_archived(room: Room, folder: Path) -> None:
    await room.submit()
    kept = Kept()
    one = archive(room, folder, kept)
    await one.begin()
    after = await room.submit()
    await all_of(one)
    assert files(folder) == names(after)


async def test_a_change_of_the_setting_takes_what_came_right_behind_it(room: Room, folder: Path) -> None:
    await room.submit()
    await room.store.record("settings.changed", detail=f'archive.folder: "" -> {folder}')
    after = await room.submit()
    await all_of(archive(room, folder, Kept()))
    assert files(folder) == names(after)


async def test_switched_on_while_no_gateway_runs_it_takes_what_came_before_the_start(room: Room, folder: Path) -> None:
    await room.submit()
    await room.store.record("settings.changed", detail='archive.folder: "/old" -> ""')
    await room.store.record("settings.changed", detail=f'archive.folder: "" -> {folder}')
    after = await room.submit()
    one = archive(room, folder, Kept())
    await one.begin()
    await all_of(one)
    assert files(folder) == names(after)


async def test_given_at_the_start_it_takes_nothing_of_an_older_time_on(room: Room, folder: Path) -> None:
    await room.store.record("settings.changed", detail='archive.folder: "" -> /old')
    await room.submit()
    await room.store.record("settings.changed", detail='archive.folder: "/old" -> ""')
    await room.submit()
    one = archive(room, folder, Kept())
    await one.begin()
    after = await room.submit()
    await all_of(one)
    assert files(folder) == names(after)


async def test_switched_off_it_forgets_where_it_was(room: Room, kept: Kept) -> None:
    await archive(room, "", kept).step()
    assert kept.text == ""
