"""The ordered list of accounts: an immutable snapshot for readers, one change at a time behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Fault, InvalidInput, NotFound, StateConflict
from ..model.account import Account, AccountKind, KeyKind
from ..net.local_address import is_own
from ..policy.routing import RoutingTable
from ..store import DefinitionStore
from . import exchange
from .definition import parse_account, show_account
from .dkim import NO_KEYS, PublishedKey, new_keys, published_keys
from .filling import with_preset
from .presets import find, presets, show_preset
from .sealing import PassphraseSeal

if TYPE_CHECKING:
    from .proposal import Names, Proposals


class AccountService:
    """Accounts of one gateway. Reading is at once, from the snapshot; changes are awaited.

    `on_change` is called after each change, when the snapshot is new already. `named_by` tells what names an account
    (applications, a setting), so that a name that rights hang on is not given away. `names` is the DNS, for `propose`;
    `refresh_token` tells the one that counts now, for `export`.
    """

    def __init__(self, store: DefinitionStore) -> None:
        self._store = store
        self.named_by: Callable[[str], Sequence[str]] = lambda name: ()
        self.names: Callable[[], Names] | None = None
        self.refresh_token: Callable[[Account], Awaitable[str]] | None = None
        self.one_change = asyncio.Lock()
        self.on_change: list[Callable[[], None]] = []
        self._accounts: tuple[Account, ...] = ()
        self._routes = RoutingTable(())

    async def load(self) -> None:
        """Read the list from the store."""
        self._accounts = tuple(await self._store.accounts())
        self._routes = RoutingTable(self._accounts)

    def snapshot(self) -> tuple[Account, ...]:
        """All accounts, the topmost first."""
        return self._accounts

    def routes(self) -> RoutingTable:
        """The same accounts, made for the question which one takes a message."""
        return self._routes

    def get(self, name: str) -> Account:
        """The account called `name`, without regard to case.

        Raises:
            NotFound: there is none.
        """
        wanted = name.lower()
        for account in self._accounts:
            if account.name.lower() == wanted:
                return account
        raise NotFound(Fault("account", f"there is none called {name!r}", _known(self._accounts)))

    def by_id(self, account_id: int) -> Account | None:
        """The account of that number, as it is saved."""
        return next((account for account in self._accounts if account.id == account_id), None)

    def spelling(self, name: str) -> str | None:
        """The name of an account as it is written, or None when there is no such account."""
        return next((account.name for account in self._accounts if account.name.lower() == name.lower()), None)

    def presets(self) -> list[dict[str, object]]:
        """Every preset as doors show it."""
        return [show_preset(preset) for preset in presets()]

    def preset(self, name: str) -> dict[str, object]:
        """One preset as doors show it. Raises NotFound."""
        try:
            return show_preset(find(name))
        except InvalidInput as error:
            raise NotFound(error.faults) from None

    async def propose(self, address: str) -> Proposals:
        """What accounts could send for a mailbox. Raises as `proposal.propose`."""
        from .proposal import propose  # here: with the DNS, which few need

        assert self.names is not None
        return await propose(address, self.names())

    def show(self, account: Account) -> dict[str, object]:
        """The account's fields as doors show them, without secrets."""
        return show_account(account)

    def parse_new(self, fields: Mapping[str, object]) -> Account:
        """The account that `add` would make of `fields`.

        Raises:
            InvalidInput: a field is bad, or the name is taken.
        """
        account = parse_account(with_preset(fields))
        self._refuse_taken(account.name)
        account = settled(account, [one.name for one in self._accounts])
        return replace(account, position=self._place_of_new(account.kind))

    def parse_all(self, given: Sequence[Mapping[str, object]]) -> tuple[list[Account], list[str]]:
        """The accounts that `add` would make of each, one after the other, and the order of all accounts then.

        Raises:
            InvalidInput: a fault for every field that is bad, by account and field.
        """
        made: list[Account] = []
        faults: list[Fault] = []
        for fields in given:
            try:
                account = self.parse_new(fields)
                if any(one.name.lower() == account.name.lower() for one in made):
                    raise InvalidInput(Fault("name", "stands twice", "give each account a name of its own"))
                made.append(account)
            except InvalidInput as error:
                faults += [Fault(f"{fields.get('name', '')}.{one.field}", one.fault, one.mend) for one in error.faults]
        if faults:
            raise InvalidInput(faults)
        there = [account.name for account in self._accounts]
        real = [account.name for account in made if account.kind is not AccountKind.SANDBOX]
        boxes = [account.name for account in made if account.kind is AccountKind.SANDBOX]
        place = self._place_of_new(AccountKind.SMTP)
        return made, [*there[:place], *real, *there[place:], *boxes]

    async def add(self, fields: Mapping[str, object]) -> Account:
        """Add an account: a real one below the last real one and above every sandbox, a sandbox at the end.

        Raises:
            InvalidInput: a field is bad, or the name is taken.
        """
        async with self.one_change:
            added = await self._store.save_account(self.parse_new(fields))
            await self.changed()
            return self._by_id(added.id)

    async def edit(self, name: str, fields: Mapping[str, object]) -> Account:
        """Change the fields given.

        Raises:
            NotFound: there is no such account.
            InvalidInput: a field is bad, or the new name is taken.
            StateConflict: a new name, while something names the account.
        """
        async with self.one_change:
            current = self.get(name)
            changed = parse_account(with_preset(fields, current), current)
            if changed.name.lower() != current.name.lower():
                self._refuse_taken(changed.name)
            if changed.name != current.name:
                self._refuse_named(current.name, "renamed")
            changed = settled(changed, [one.name for one in self._accounts])
            saved = await self._store.save_account(changed)
            await self.changed()
            return self._by_id(saved.id)

    def trial(self, fields: Mapping[str, object], name: str = "") -> Account:
        """The account that `edit` would make of the one called `name`, or `add` of `fields` alone; it is not kept.

        Stored secrets stay with it wherever it would connect then: only an administrator, who may read them out by an
        export, may ask for it.

        Raises:
            NotFound: there is no such account.
            InvalidInput: a field is bad.
        """
        current = self.get(name) if name else None
        given = fields if current is not None else {"name": "unsaved", **fields}
        account = parse_account(with_preset(given, current), current)
        return settled(account, [one.name for one in self._accounts])

    async def make_dkim_keys(self, name: str, domain: str, selector: str, kind: KeyKind) -> Account:
        """Give the account new keys; its mail is signed with them from the next transaction on.

        Raises:
            NotFound: there is no such account.
            InvalidInput: domain or selector is bad, or the selector is that of the present keys.
        """
        fields = await asyncio.to_thread(new_keys, self.get(name), domain, selector, kind)
        return await self.edit(name, fields)

    async def remove_dkim_keys(self, name: str) -> Account:
        """Forget the account's keys: its mail is no longer signed here. Raises NotFound."""
        return await self.edit(name, NO_KEYS)

    def published_keys(self, name: str) -> tuple[PublishedKey, ...]:
        """The account's keys as they are to be published. Raises NotFound."""
        return published_keys(self.get(name))

    async def remove(self, name: str) -> None:
        """Remove an account for which nothing waits.

        Raises:
            NotFound: there is no such account.
            StateConflict: deliveries wait for it, or something names it.
        """
        async with self.one_change:
            account = self.get(name)
            self._refuse_named(account.name, "removed")
            await self._store.remove_account(account.id)
            await self.changed()

    async def move(self, name: str, position: int) -> Account:
        """Move an account to `position` in the list (0 is the top; past the end is the end).

        Raises:
            NotFound: there is no such account.
        """
        async with self.one_change:
            account = self.get(name)
            last = len(self._accounts) - 1
            saved = await self._store.save_account(replace(account, position=max(0, min(position, last))))
            await self.changed()
            return self._by_id(saved.id)

    async def export(self, passphrase: str | None = None) -> str:
        """The list as TOML; with a passphrase also the secrets, sealed under it.

        Raises:
            InvalidInput: the passphrase is too short.
        """
        seal = None if passphrase is None else await asyncio.to_thread(PassphraseSeal.new, passphrase)
        if seal is None:
            return exchange.write(self._accounts, seal)
        return exchange.write([await self._with_tokens(account) for account in self._accounts], seal)

    async def _with_tokens(self, account: Account) -> Account:
        if self.refresh_token is None:
            return account
        return replace(account, oauth=replace(account.oauth, refresh_token=await self.refresh_token(account)))

    async def import_(self, text: str, passphrase: str = "", *, dry_run: bool = False) -> exchange.Plan:
        """Make the accounts of a file as it says, all or none; what that changes. With `dry_run` it only says so.

        Raises:
            InvalidInput: the file or a field in it is bad; nothing was changed.
            StateConflict: a name is spelt anew while something names the account.
        """
        entries = await asyncio.to_thread(exchange.parse, text, passphrase)
        async with self.one_change:
            found = exchange.plan(entries, self._accounts, settled)
            for account in found.accounts:
                current = self.spelling(account.name)
                if current is not None and current != account.name:
                    self._refuse_named(current, "renamed")
            is_new = found.accounts or found.order != tuple(account.name for account in self._accounts)
            if is_new and not dry_run:
                await self._store.save_accounts(found.accounts, found.order)
                await self.changed()
            return found

    async def changed(self) -> None:
        """What is stored has changed: read it again, and tell."""
        await self.load()
        for callback in tuple(self.on_change):
            callback()

    def _by_id(self, account_id: int) -> Account:
        return next(account for account in self._accounts if account.id == account_id)

    def _refuse_taken(self, name: str) -> None:
        for account in self._accounts:
            if account.name.lower() == name.lower():
                raise InvalidInput(Fault("name", f"{account.name!r} is taken", "choose another name"))

    def _refuse_named(self, name: str, change: str) -> None:
        others = [one.name for one in self._accounts if name in one.fallback_accounts]
        named_by = [*self.named_by(name), *(f"account {other}, which falls back to it" for other in others)]
        if named_by:
            raise StateConflict(f"account {name!r} can't be {change} while it is named by: {', '.join(named_by)}")

    def _place_of_new(self, kind: AccountKind) -> int:
        if kind is AccountKind.SANDBOX:
            return len(self._accounts)
        real = [at for at, account in enumerate(self._accounts) if account.kind is not AccountKind.SANDBOX]
        first_sandbox = next(
            (at for at, account in enumerate(self._accounts) if account.kind is AccountKind.SANDBOX),
            len(self._accounts),
        )
        # A person may have moved a sandbox up on purpose; below it means below the last real one all the same.
        return real[-1] + 1 if real else first_sandbox


def settled(account: Account, names: Sequence[str]) -> Account:
    """`account` as it stands among accounts of these names, on this machine: those it falls back to as they are spelt.

    Raises:
        InvalidInput: one of them is not there, or its local address is not this machine's.
    """
    spelling = {name.lower(): name for name in names}
    faults = []
    for name in account.fallback_accounts:
        if name.lower() not in spelling:
            faults.append(Fault("fallback_accounts", f"there is no account {name!r}", "`postroom accounts list`"))
    if account.local_address and not is_own(account.local_address):
        fault = f"{account.local_address} is not an address of this machine"
        faults.append(Fault("local_address", fault, "`ip address` lists them; empty: any"))
    if faults:
        raise InvalidInput(faults)
    return replace(account, fallback_accounts=tuple(spelling[name.lower()] for name in account.fallback_accounts))


def _known(accounts: Sequence[Account]) -> str:
    return (
        f"accounts are {', '.join(account.name for account in accounts)}"
        if accounts
        else "`postroom accounts add` adds one"
    )
