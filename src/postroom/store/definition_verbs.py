"""The verbs of `DefinitionStore`: accounts, applications and settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..errors import Fault, InvalidInput
from ..model.account import Account
from ..model.application import Application
from . import definitions
from .keyring import Keyring
from .readers import Reader
from .writer import Transaction


class DefinitionVerbs:
    """The part of a store that keeps definitions: `read` runs work with a reader, `alone` gives work to the writer."""

    def __init__(
        self,
        read: Callable[[Callable[[Reader], Any]], Awaitable[Any]],
        alone: Callable[[Callable[[Transaction], Any]], asyncio.Future[Any]],
        keyring: Keyring | None,
        now: Callable[[], datetime],
    ) -> None:
        self._read = read
        self._alone = alone
        self._keyring = keyring
        self._now = now

    async def accounts(self) -> Sequence[Account]:
        """See `DefinitionStore.accounts`."""
        found: Sequence[Account] = await self._read(lambda reader: definitions.read_accounts(reader, self._keyring))
        return found

    async def applications(self) -> Sequence[Application]:
        """See `DefinitionStore.applications`."""
        found: Sequence[Application] = await self._read(definitions.read_applications)
        return found

    async def settings(self) -> dict[str, str]:
        """See `DefinitionStore.settings`."""
        found: dict[str, str] = await self._read(definitions.read_settings)
        return found

    def save_account(self, account: Account) -> asyncio.Future[Account]:
        """See `DefinitionStore.save_account`."""
        return self._alone(definitions.save_account(account, self._keyring, self._now()))

    def save_accounts(self, given: Sequence[Account], order: Sequence[str], *own: Application) -> asyncio.Future[None]:
        """See `DefinitionStore.save_accounts`."""
        return self._alone(definitions.save_accounts(given, order, own, self._keyring, self._now()))

    def remove_account(self, account_id: int) -> asyncio.Future[None]:
        """See `DefinitionStore.remove_account`."""
        return self._alone(definitions.remove_account(account_id, self._now()))

    def reseal(self) -> asyncio.Future[int]:
        """See `DefinitionStore.reseal`."""
        if self._keyring is None:
            raise InvalidInput(Fault("keys", "there are none", "open the store with a keyring"))
        return self._alone(definitions.reseal(self._keyring))

    def save_application(self, application: Application) -> asyncio.Future[Application]:
        """See `DefinitionStore.save_application`."""
        return self._alone(definitions.save_application(application, self._now()))

    def save_setting(self, name: str, value: str | None) -> asyncio.Future[None]:
        """See `DefinitionStore.save_setting`."""
        return self._alone(definitions.save_setting(name, value))

    def save_settings(self, values: Mapping[str, str | None], told: Sequence[str]) -> asyncio.Future[None]:
        """See `DefinitionStore.save_settings`."""
        return self._alone(definitions.save_settings(values, told, self._now()))
