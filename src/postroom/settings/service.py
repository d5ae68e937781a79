"""Settings as they are now: what is stored, under what file and environment say, and changing it."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from ..config import Effect, Origin, SettingDoc, Settings
from ..config.sources import settings_file
from ..errors import Fault, InvalidInput, NotFound
from ..store import DefinitionStore

_log = structlog.get_logger()

#: Settings that name an account.
_OF_ACCOUNTS = ("notifications.account", "alerts.account")

#: Called with the settings before and after a change.
Observer = Callable[[Settings, Settings], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingView:
    """One setting as doors show it; `value` and `default` are JSON, durations and sizes as people write them."""

    name: str
    value: Any
    origin: Origin
    is_locked: bool
    effect: Effect
    form: str
    default: str
    environment: str
    description: str


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload changed, in words, and the settings that wait for the next start."""

    changed: tuple[str, ...]
    waiting: tuple[str, ...]


class SettingsService:
    """The settings of one gateway. Reading is at once; changes are awaited, one at a time.

    `base` is what file and environment say. `account_name` gives an account as it is written, `sender_named_by` whose
    an address is. `on_change` is called after each change, when `current` is new already. `unusable` are stored values
    that no longer fit, by name; they do not count.
    """

    def __init__(self, store: DefinitionStore, base: Settings) -> None:
        self._store = store
        self._base = base
        self._stored: dict[str, Any] = {}
        self._memory: dict[str, str] = {}
        self._one_change = asyncio.Lock()
        self.current = base
        self.unusable: dict[str, Fault] = {}
        self.account_name: Callable[[str], str | None] = lambda name: name
        self.sender_named_by: Callable[[str], Sequence[str]] = lambda address: ()
        self.on_change: list[Observer] = []

    async def load(self) -> None:
        """Read what is stored."""
        known = _documented()
        stored = await self._store.settings()
        self._stored = {name: _read(text) for name, text in stored.items() if name in known}
        self._memory = {name: text for name, text in stored.items() if name not in known}
        self._become_usable()

    @property
    def guard_is_lost(self) -> bool:
        """What is stored for the staging guard does not count: nobody knows to whom mail may leave."""
        return any(name.startswith("staging_guard.") for name in self.unusable)

    @property
    def lets_send(self) -> bool:
        """Whether mail may leave: nothing does without its guard."""
        return self.current.sending_enabled and not self.guard_is_lost

    def memory(self, name: str) -> str:
        """What was kept under a name that is no setting's, as it was at the start; "" if nothing was."""
        return self._memory.get(name, "")

    def snapshot(self) -> tuple[SettingView, ...]:
        """All settings in the order of their declaration."""
        return tuple(map(self._view, _documented().values()))

    def get(self, name: str) -> SettingView:
        """One setting.

        Raises:
            NotFound: there is none of that name.
        """
        return self._view(_find(name))

    async def change(self, values: Mapping[str, object]) -> None:
        """Store values by name, None to go back to the default; all of them or nothing.

        Raises:
            NotFound: a name is no setting.
            InvalidInput: a value does not fit, or a setting can't be changed here.
        """
        async with self._one_change:
            faults = [fault for fault in (self._refusal(_find(name)) for name in values) if fault is not None]
            if faults:
                raise InvalidInput(faults)
            merged: dict[str, Any] = self._stored | dict(values)
            stored = {name: value for name, value in merged.items() if value is not None}
            usable = {name: value for name, value in stored.items() if name not in self.unusable or name in values}
            after = self._base.with_stored(usable)
            self._refuse_unknown_account(after)
            self._refuse_shared_postmaster(after)
            canonical = {name: after.value(name) if name in stored else None for name in values}
            written = {name: None if value is None else json.dumps(value) for name, value in canonical.items()}
            await self._store.save_settings(written, _told(self.current, after))
            self._stored = stored | {name: value for name, value in canonical.items() if value is not None}
            self.unusable = {name: fault for name, fault in self.unusable.items() if name not in values}
            self._become(after)

    def naming(self, account: str) -> tuple[str, ...]:
        """The settings that name an account."""
        named = ((name, self.current.value(name)) for name in _OF_ACCOUNTS)
        return tuple(name for name, value in named if value.lower() == account.lower())

    def _refuse_unknown_account(self, after: Settings) -> None:
        for name in _OF_ACCOUNTS:
            wanted = after.value(name)
            if wanted and wanted != self.current.value(name) and self.account_name(wanted) is None:
                fault, mend = f"there is no account called {wanted!r}", "`postroom accounts list` lists them"
                raise InvalidInput(Fault(name, fault, mend))

    def _refuse_shared_postmaster(self, after: Settings) -> None:
        forced = after.forced_postmaster
        if forced and forced != self.current.forced_postmaster and (names := self.sender_named_by(forced)):
            mend = "give the postmaster an address of its own, or change that"
            raise InvalidInput(Fault("postmaster", f"{forced} can't be forced: it is {', '.join(names)}", mend))

    async def reload(self, base: Settings) -> Reload:
        """File or environment changed: `base` is what they say now. What is of the machine waits for the next start."""
        machine = [name for name, entry in _documented().items() if entry.effect is Effect.OF_THE_MACHINE]
        async with self._one_change:
            before, waiting = self.current, [name for name in machine if base.value(name) != self._base.value(name)]
            self._base = base.keeping(machine, self._base)
            self._become_usable()
            told = _told(before, self.current)
            await self._store.save_settings({}, told)
        return Reload(tuple(told), tuple(waiting))

    def mend(self, name: str) -> str:
        """Where a setting is to be changed that is locked, or has no effect; "" where `change` does it."""
        if name == "sending_enabled" and self.guard_is_lost:
            return "what is stored for the staging guard does not count: see `postroom check`"
        return how_to_unlock(self.current, _find(name))

    def _become_usable(self) -> None:
        """Use what is stored as far as it fits: whoever would mend it needs a gateway that starts."""
        stored, self.unusable = dict(self._stored), {}
        while True:
            try:
                after = self._base.with_stored(stored)
            except InvalidInput as error:
                found = {name: fault for fault in error.faults for name in stored if _concerns(fault, name)}
                found = found or dict.fromkeys(stored, error.faults[0])
                self.unusable |= found
                for name, fault in found.items():
                    _log.error("stored_setting_left_out", setting=name, reason=str(fault))
                stored = {name: value for name, value in stored.items() if name not in found}
            else:
                self._become(after)
                return

    def _become(self, after: Settings) -> None:
        before, self.current = self.current, after
        for observer in tuple(self.on_change):
            observer(before, after)

    def _refusal(self, entry: SettingDoc) -> Fault | None:
        if entry.effect is Effect.OF_THE_MACHINE:
            mend = f"set it in postroom.toml or as {entry.environment}, then start the gateway again"
            return Fault(entry.name, "comes from file or environment only", mend)
        origin = self.current.origin(entry.name)
        mend = how_to_unlock(self.current, entry)
        return Fault(entry.name, f"is locked: its value comes from the {_PLACES[origin]}", mend) if mend else None

    def _view(self, entry: SettingDoc) -> SettingView:
        return SettingView(
            name=entry.name,
            value=self.current.value(entry.name),
            origin=self.current.origin(entry.name),
            is_locked=self._refusal(entry) is not None,
            effect=entry.effect,
            form=entry.form,
            default=entry.default,
            environment=entry.environment,
            description=entry.description,
        )


_PLACES = {Origin.FILE: "file", Origin.ENVIRONMENT: "environment", Origin.GIVEN: "start of the gateway"}


def how_to_unlock(settings: Settings, entry: SettingDoc) -> str:
    """Where a setting is to be changed that can't be changed here; "" where it can."""
    origin = settings.origin(entry.name)
    if origin is Origin.FILE:
        return f"change it in {settings_file(settings.data)} and send the gateway a SIGHUP, or take it out there"
    if origin is Origin.ENVIRONMENT:
        return f"change {entry.environment} where the gateway is started, or take it out there"
    return "change it where the gateway is started" if origin.is_locked else ""


def _documented() -> dict[str, SettingDoc]:
    """The settings by name; an entry of a list is no setting of its own."""
    return {entry.name: entry for entry in Settings.describe() if entry.environment}


def _find(name: str) -> SettingDoc:
    known = _documented()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3)
    mend = f"did you mean {' or '.join(near)}?" if near else "`postroom settings list` lists them all"
    raise NotFound(Fault("name", f"{name!r} is not a setting", mend))


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # judged like any value that does not fit


def _concerns(fault: Fault, name: str) -> bool:
    return f"{fault.field}.".startswith(f"{name}.") or name.startswith(f"{fault.field}.")


def _told(before: Settings, after: Settings) -> list[str]:
    """What changed, a line for each setting."""
    pairs = ((name, before.value(name), after.value(name)) for name in _documented())
    return [f"{name}: {_text(old)} -> {_text(new)}" for name, old, new in pairs if old != new]


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
