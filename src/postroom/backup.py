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
from .store import DeliveryFilter, DeliveryRow, Selection
from .store.backup import CopyFacts, copy, copy_file, digest, sync, verify
from .store.database import open_store

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
    return await asyncio.to_thread(_backup, settings, folder, with_keys, now)


def _backup(settings: Settings, folder: Path, with_keys: bool, now: datetime) -> Backup:
    keys = settings.data / KEYS_FILE
    if with_keys and not keys.is_file():
        raise InvalidInput(Fault("with_keys", f"there is no {keys}", "the keys come from elsewhere: keep them there"))
    try:
        folder.mkdir(mode=0o700, parents=True)
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
    """Last, so that a folder with a manifest is a whole backup."""
    manifest = {
        "postroom": __version__,
        "made": now.isoformat(),
        "revision": facts.revision,
        "sha256": facts.sha256,
        "messages": facts.messages,
        "deliveries": facts.deliveries,
    }
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    path.chmod(0o600)
    sync(path)
    sync(folder)


async def restore(settings: Settings, folder: Path, *, replace: bool, now: datetime) -> Restored:
    """Put the backup in `folder` into the data folder of `settings`, whose lock the caller holds.

    The restored database takes its name only when everything pending in it is held: a restore that is cut off leaves
    the folder as it was. With `replace`, a database that is there is set aside under another name.

    Raises:
        InvalidInput: no whole backup, a database is there, or the keys that opened it are missing.
        StorageFailed: the backup is damaged.
    """
    target = settings.database_path
    if target.exists() and not replace:
        fault = f"{settings.data} holds a database already"
        raise InvalidInput(Fault("data", fault, "name another folder with --data, or set it aside with --replace"))
    fresh = target.with_name(f"{DATABASE}.restoring")
    await asyncio.to_thread(_bring, folder, fresh)
    had_keys = (settings.data / KEYS_FILE).exists()
    try:
        if (folder / KEYS_FILE).is_file() and not had_keys:
            copy_file(folder / KEYS_FILE, settings.data / KEYS_FILE)
        held, first, messages = await _hold_all(settings, fresh, now)
    except BaseException:
        _remove(fresh)
        if not had_keys:
            (settings.data / KEYS_FILE).unlink(missing_ok=True)
        raise
    set_aside = _set_aside(target, now) if target.exists() else ""
    os.replace(fresh, target)
    sync(target.parent)
    if (folder / CONFIGURATION).is_file() and not (settings.data / CONFIGURATION).exists():
        copy_file(folder / CONFIGURATION, settings.data / CONFIGURATION)
    return Restored(messages, held, first, set_aside)


def _bring(folder: Path, fresh: Path) -> None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        expected = str(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = f"{folder} is no whole backup: {error}"
        raise InvalidInput(Fault("folder", fault, "name a folder that `postroom backup` made")) from None
    if digest(folder / DATABASE) != expected:
        raise StorageFailed(f"{folder / DATABASE} is not what the manifest says: it was changed or damaged")
    _remove(fresh)
    copy_file(folder / DATABASE, fresh)
    verify(fresh)


async def _hold_all(settings: Settings, path: Path, now: datetime) -> tuple[int, tuple[DeliveryRow, ...], int]:
    """Hold what is pending in the database at `path`; how many, the first of them, and how many messages it holds."""
    keyring = Keyring.load(settings.data, settings)
    store = await open_store(path, keyring, lambda: now)
    try:
        await store.accounts()  # what no key opens is found now, not at the first start
        await store.recover(now)
        held = await store.hold(Selection(), now)
        await store.record("restored", detail=f"{held} held")
        rows = await store.deliveries(DeliveryFilter(states=(DeliveryState.HELD,), limit=LISTED))
    finally:
        await store.close()
    facts = await asyncio.to_thread(verify, path)
    return held, tuple(rows), facts.messages


def _set_aside(target: Path, now: datetime) -> str:
    name = target.with_name(f"{DATABASE}.{now.strftime('%Y%m%dT%H%M%SZ')}")
    for suffix in ("-wal", "-shm", ""):  # the log belongs to its database
        found = Path(f"{target}{suffix}")
        if found.exists():
            os.rename(found, f"{name}{suffix}")
    return str(name)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
