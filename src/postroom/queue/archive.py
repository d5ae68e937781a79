"""The archive: every accepted message as a file, written in the background (SPEC section 3, docs/archive.md).

The job walks over the events `accepted`, whose order is that of their commits, and stores how far it has come after
what it wrote is on the disk. A message has one name, so that one which is written again after a crash stays one file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from ..config.folder import sync_folder
from ..errors import GatewayError
from ..model.clock import Clock
from ..model.ids import message_id_text
from ..model.queue import MessageId
from ..store import EventFilter, MessageView, Store
from .maintenance import sleep

_log = structlog.get_logger()

#: How often new messages are looked for, and how long is waited after a failure.
INTERVAL = timedelta(seconds=5)
AFTER_A_FAILURE = timedelta(seconds=10)

#: Messages between two notes of how far it has come.
STEP = 100

#: What was accepted so long before the events were read is surely among them.
SETTLED = timedelta(minutes=1)

#: Before all mail.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)

#: Where the store keeps how far it has come; no setting has this name.
CURSOR = "archive_cursor"


class Archive:
    """Writes while `folder` names one. `keep` stores the text that the next start is given as `kept`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        folder: Callable[[], str],
        keep: Callable[[str], asyncio.Future[None]],
        kept: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._folder = folder
        self._keep = keep
        self._cursor = int(kept) if kept else None
        self._complete_until = NEVER
        self._failure = ""

    def bound(self, ended_before: datetime) -> datetime:
        """What ended before this time may be removed at `ended_before`: nothing that is not archived yet."""
        return min(ended_before, self._complete_until) if self._folder() else ended_before

    async def begin(self) -> None:
        """The gateway starts: where it is on for the first time, what comes from now on is archived."""
        if self._folder() and self._cursor is None:
            await self._go_on_from(await self._switched_on())

    async def run(self) -> None:
        """Archive until cancelled; what fails is tried again and told once."""
        while True:
            is_more, pause = False, INTERVAL
            try:
                is_more = await self.step()
            except (GatewayError, OSError) as error:
                self._complete_until = NEVER
                pause = AFTER_A_FAILURE
                await self._tell(str(error))
            if not is_more:
                await sleep(self._clock, pause)

    async def step(self) -> bool:
        """Archive some of what was accepted; whether there may be more.

        Raises:
            OSError: a file could not be written.
            GatewayError: the store failed.
        """
        folder = self._folder()
        if not folder:
            self._complete_until = NEVER
            if self._cursor is not None:
                self._cursor = None
                await self._keep("")
            return False
        if self._cursor is None:
            await self._go_on_from(await self._switched_on())
        now = self._clock.now()
        page = await self._store.events(EventFilter(after=self._cursor, kinds=("accepted",), limit=STEP))
        for event in page.events:
            if event.message_id is not None:
                await self._archive(Path(folder), event.message_id)
        if page.cursor != self._cursor:
            await self._go_on_from(page.cursor)
        if page.at_end:
            self._complete_until = now - SETTLED
            await self._tell("")
        return not page.at_end

    async def _switched_on(self) -> int:
        """The event of the change that switched it on, which is before everything that it shall take."""
        page = await self._store.events(EventFilter(kinds=("settings.changed",), limit=100))
        changes = [event for event in page.events if event.detail.startswith("archive.folder: ")]
        if changes and changes[-1].detail.startswith('archive.folder: "" ->'):
            return changes[-1].id
        return await self._store.last_event()  # the file or the environment switched it on, at this start

    async def _go_on_from(self, cursor: int) -> None:
        await self._keep(str(cursor))
        self._cursor = cursor

    async def _archive(self, folder: Path, message_id: MessageId) -> None:
        view, content = await self._store.message(message_id), await self._store.content(message_id)
        if view is None or content is None:
            _log.error("not_archived", message=message_id_text(message_id), reason="its content was removed before")
            return
        await asyncio.to_thread(write, folder, view, content)

    async def _tell(self, failure: str) -> None:
        """Once when it begins to fail, and once when it works again."""
        if bool(failure) == bool(self._failure):
            return
        self._failure = failure
        kind = "archive.failed" if failure else "archive.recovered"
        (_log.error if failure else _log.warning)(kind.replace(".", "_"), reason=failure)
        with contextlib.suppress(GatewayError):
            await self._store.record(kind, detail=failure)


def write(folder: Path, view: MessageView, content: bytes) -> None:
    """The message and its envelope as files, on the disk when this returns.

    Raises:
        OSError: they could not be written; under their names there is nothing half written.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: make it, or mount it")
    day = folder
    for part in f"{view.accepted.astimezone(UTC):%Y %m %d}".split():
        day /= part
        with contextlib.suppress(FileExistsError):
            day.mkdir(mode=0o700)
            sync_folder(day.parent)
    name = message_id_text(view.id)
    _replace(day, f"{name}.json", (json.dumps(_envelope(view), ensure_ascii=False, indent=1) + "\n").encode())
    _replace(day, f"{name}.eml", content)
    sync_folder(day)


def _envelope(view: MessageView) -> dict[str, object]:
    return {
        "id": message_id_text(view.id),
        "accepted": view.accepted.astimezone(UTC).isoformat(),
        "door": view.door,
        "application": view.application,
        "reverse_path": view.reverse_path,
        "recipients": [delivery.recipient for delivery in view.deliveries],
    }


def _replace(folder: Path, name: str, content: bytes) -> None:
    unfinished = folder / f".{name}.new"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / name)
