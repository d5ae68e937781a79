"""The suppression list of one gateway: once a change is answered it is durable, and applies to the next message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..errors import Fault, InvalidInput, NotFound
from ..model.suppression import Suppression, SuppressionSource, SuppressionStore
from .entries import parse_entry, parse_key

#: Entries of one import at most, and faults that it tells of.
MOST_IMPORTED = 10_000
MOST_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Given:
    """An entry as somebody wrote it."""

    entry: str
    reason: str = ""
    expires: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """How many entries an import brought, and how many of them were not on the list."""

    entries: int
    new: int


class SuppressionService:
    """The list, over the store."""

    def __init__(self, store: SuppressionStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def add(self, given: Given) -> Suppression:
        """Put an entry on the list, in the place of the one that is there.

        Raises:
            InvalidInput: a field can't be read.
        """
        entry = parse_entry(given.entry, given.reason, given.expires, SuppressionSource.BY_HAND, self._now())
        await self._store.save([entry], f"{entry.key}: {entry.reason}")
        return entry

    async def import_(self, given: Sequence[Given]) -> Imported:
        """Put all of them on the list, or none; of two for the same recipient the later one counts.

        Raises:
            InvalidInput: some can't be read; the first faults, each with the place of its entry.
        """
        if not given:
            raise InvalidInput(Fault("entries", "there are none", "give at least one"))
        if len(given) > MOST_IMPORTED:
            raise InvalidInput(Fault("entries", f"are {len(given)}", f"give at most {MOST_IMPORTED} at a time"))
        entries = await asyncio.to_thread(_read, given, self._now())  # so many would hold up the loop
        by_key = {entry.key: entry for entry in entries}
        new = await self._store.save(tuple(by_key.values()), f"{len(by_key)} entries by an import")
        return Imported(len(by_key), new)

    async def get(self, text: str) -> Suppression:
        """The entry of that address or domain.

        Raises:
            NotFound: there is none.
        """
        found = await self._store.get(parse_key(text))
        if found is None:
            raise _not_there(text)
        return found

    async def remove(self, text: str) -> None:
        """Take an entry off the list.

        Raises:
            NotFound: it is not on it.
        """
        if not await self._store.remove(parse_key(text)):
            raise _not_there(text)

    async def page(self, prefix: str = "", after: str = "", limit: int = 50) -> Sequence[Suppression]:
        """Entries that begin with `prefix`, behind the key `after`, in order."""
        return await self._store.page(prefix.strip().lower(), after, limit)

    def holds(self, entry: Suppression) -> bool:
        """Whether it applies now."""
        return entry.holds(self._now())


def _read(given: Sequence[Given], now: datetime) -> list[Suppression]:
    entries: list[Suppression] = []
    faults: list[Fault] = []
    for number, one in enumerate(given):
        try:
            within = f"entries.{number}."
            entries.append(parse_entry(one.entry, one.reason, one.expires, SuppressionSource.IMPORT, now, within))
        except InvalidInput as error:
            faults += error.faults
            if len(faults) >= MOST_FAULTS:
                break
    if faults:
        raise InvalidInput(faults)
    return entries


def _not_there(text: str) -> NotFound:
    mend = "`postroom suppressions list` lists what is; an entry for a domain goes by the domain's name"
    return NotFound(Fault("entry", f"{text} is not on the suppression list", mend))
