"""Backup of a gateway's data folder while it runs, and restore into an empty one (SPEC section 10).

A backup is a folder: the database, `manifest.json`, the configuration file if there is one, and the keys only where
they are asked for. What was pending in a backup may have been sent since, so a restore holds all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from . import __version__
from .config import Settings
from .errors import Fault, InvalidInput, StorageFailed
from .model.queue import DeliveryState
from .secrets import KEYS_FILE, Keyring
from .store import DeliveryFilter, DeliveryRow, Selection, Store
from .store.backup import CopyFacts, copy, copy_file, digest, give_name, need_room, settle, sync, verify
from .store.database import open_store
from .store.notices import RESTORED
from .store.schema import micros

DATABASE = "postroom.db"
MANIFEST = "manifest.json"
CONFIGURATION = "postroom.toml"

#: Held deliveries that a restore lists; the queue's own list has them all.
LISTED = 20


@dataclass(frozen=True, slots=True)
class Backup:
    """What was backed up, and where."""

    folder: str
    messages: int
    deliveries: dict[str, int]
    with_keys: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought back: deliveries that are held now, the first of them, and where the old database lies."""

    messages: int
    held: int
    first: tuple[DeliveryRow, ...]
    set_aside: str


async def backup(settings: Settings, folder: Path, *, with_keys: bool, now: datetime) -> Backup:
    """Back up the data folder of `settings` into the new folder `folder` (0700); safe while mail is taken and sent.

    Raises:
        InvalidInput: `folder` is there, or can't be made; there is no keys file to take along.
        StorageFailed: the copy could not be written or proved. Nothing is left then.
    """
    _refuse_elsewhere(settings, "backup", f"pg_dump -Fc NAME > FILE, and copy the keys and {CONFIGURATION}")
    return await asyncio.to_thread(_backup, settings, folder, with_keys, now)


def _refuse_elsewhere(settings: Settings, verb: str, instead: str) -> None:
    if settings.database:
        fault = f"`postroom {verb}` is for the SQLite file, and the database is {settings.database}"
        raise InvalidInput(Fault("database", fault, f"{instead} (docs/operate.md has the steps)"))


def _backup(settings: Settings, folder: Path, with_keys: bool, now: datetime) -> Backup:
    keys = settings.data / KEYS_FILE
    if with_keys and not keys.is_file():
        raise InvalidInput(Fault("with_keys", f"there is no {keys}", "the keys come from elsewhere: keep them there"))
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        cut_off = folder.is_dir() and not (folder / MANIFEST).exists()
        mend = "name a new folder" + (", or remove this one if it is a backup that was cut off" if cut_off else "")
        raise InvalidInput(Fault("folder", f"{folder} is there already", mend)) from None
    except OSError as error:
        raise InvalidInput(Fault("folder", f"{folder} can't be made: {error.strerror}", "name a new folder")) from None
    try:
        facts = copy(settings.database_path, folder / DATABASE)
        for name in (CONFIGURATION, *((KEYS_FILE,) if with_keys else ())):
            if (settings.data / name).is_file():
                copy_file(settings.data / name, folder / name)
        _write_manifest(folder, facts, now)
        sync(folder.parent)
    except OSError as error:
        shutil.rmtree(folder)
        raise StorageFailed(f"the backup can't be written: {error}") from error
    except BaseException:
        shutil.rmtree(folder)
        raise
    return Backup(str(folder), facts.messages, facts.deliveries, with_keys)


def _write_manifest(folder: Path, facts: CopyFacts, now: datetime) -> None:
    """Last and in one piece, so that a folder with a manifest is a whole backup."""
    manifest = {
        "postroom": __version__,
        "made": now.isoformat(),
        "revision": facts.revision,
        "sha256": facts.sha256,
        "messages": facts.messages,
        "deliveries": facts.deliveries,
    }
    fresh = folder / f"{MANIFEST}.writing"
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_text(json.dumps(manifest, indent=2) + "\n")
    sync(fresh)
    sync(folder)
    os.rename(fresh, folder / MANIFEST)
    sync(folder)


async def restore(settings: Settings, folder: Path, *, replace: bool, now: datetime) -> Restored:
    """Put the backup in `folder` into the data folder of `settings`, whose lock the caller holds.

    The restored database takes its name only when everything pending in it is held: a restore that is cut off leaves
    the folder as it was, or is done. With `replace`, a database that is there is set aside under another name.

    Raises:
        InvalidInput: no whole backup, a database is there, or the keys that opened it are missing.
        StorageFull: there is not enough room.
        StorageFailed: the backup is damaged.
    """
    hold = "start the gateway with POSTROOM_HOLD_PENDING_AT_START=true: what was pending may have been sent since"
    _refuse_elsewhere(settings, "restore", f"stop the gateway, pg_restore --clean -d NAME FILE, then {hold}")
    target, keys = settings.database_path, settings.data / KEYS_FILE
    if _is_there(target) and not replace:
        fault = f"{settings.data} holds a database already"
        raise InvalidInput(Fault("data", fault, "name another folder with --data, or set it aside with --replace"))
    fresh = target.with_name(f"{DATABASE}.restoring")
    made = await asyncio.to_thread(_bring, folder, fresh)
    had_keys = keys.exists()
    try:
        if (folder / KEYS_FILE).is_file() and not had_keys:
            copy_file(folder / KEYS_FILE, keys)
        held, first, messages = await _hold_all(settings, fresh, made, now)
        set_aside = await asyncio.to_thread(_take_place, fresh, target, now)
    except BaseException:
        _remove(fresh)
        if not had_keys:
            keys.unlink(missing_ok=True)
        raise
    _remove(fresh)  # what was beside it
    if (folder / CONFIGURATION).is_file() and not (settings.data / CONFIGURATION).exists():
        copy_file(folder / CONFIGURATION, settings.data / CONFIGURATION)
    return Restored(messages, held, first, set_aside)


def _bring(folder: Path, fresh: Path) -> str:
    """Copy the database of the backup, proved, to `fresh`; when the backup was made."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        expected, made = str(manifest["sha256"]), str(manifest["made"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not what `postroom backup` writes"
        fault = f"{folder} is no whole backup: {MANIFEST}: {why}"
        raise InvalidInput(Fault("folder", fault, "name a folder that `postroom backup` made")) from None
    _remove(fresh)
    need_room(fresh.parent, (folder / DATABASE,))
    try:
        copy_file(folder / DATABASE, fresh)
    except OSError as error:
        raise StorageFailed(f"{folder / DATABASE} can't be copied: {error}") from error
    if digest(fresh) != expected:  # of the copy: so what was read is what was proved
        _remove(fresh)
        raise StorageFailed(f"{folder / DATABASE} is not what the manifest says: it was changed or damaged")
    verify(fresh)
    return made


async def _hold_all(
    settings: Settings, path: Path, made: str, now: datetime
) -> tuple[int, tuple[DeliveryRow, ...], int]:
    """Hold what is pending in the database at `path`; how many, the first of them, and how many messages it holds."""
    keyring = Keyring.load(settings.data, settings)
    store = await open_store(path, keyring, lambda: now)
    try:
        await try_keys(store, keyring)
        await store.recover(now)
        why = f"it was pending in the backup of {made[:19]}Z that was restored: it may have been sent since"
        held = await store.hold(Selection(), now, why)
        await store.save_setting(RESTORED, str(micros(now)))
        await store.record("restored", detail=f"{held} held")
        rows = await store.deliveries(DeliveryFilter(states=(DeliveryState.HELD,), limit=LISTED))
    finally:
        await store.close()
    facts = await asyncio.to_thread(verify, path)
    return held, tuple(rows), facts.messages


async def try_keys(store: Store, keyring: Keyring) -> None:
    """What no key opens is found now, not at the first start.

    Raises:
        InvalidInput: a key is missing.
    """
    await store.accounts()
    for application in await store.applications():
        if application.credential and not keyring.knows(application.credential):
            fault = f"the key under which the password of application {application.name} was made is missing"
            raise InvalidInput(Fault("keys", fault, "put back the keys file that this data folder was used with"))


def _take_place(fresh: Path, target: Path, now: datetime) -> str:
    """Give `fresh` the name `target`; under which name a database that had it lies then. There is one at any moment."""
    aside = f"{target}.{now.strftime('%Y%m%dT%H%M%S.%fZ')}"
    found = _is_there(target)
    if target.exists():
        settle(target)
    for suffix in ("-wal", "-shm"):  # of a damaged or lost one: a log must not lie beside a database not its own
        if Path(f"{target}{suffix}").exists():
            os.rename(f"{target}{suffix}", f"{aside}{suffix}")
    if target.exists():
        give_name(target, Path(aside))
        sync(target.parent)
    os.replace(fresh, target)
    sync(target.parent)
    return aside if found else ""


def _is_there(database: Path) -> bool:
    """Whether there is a database, or the log of one, which SQLite would write into any other of that name."""
    return database.exists() or Path(f"{database}-wal").exists()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
