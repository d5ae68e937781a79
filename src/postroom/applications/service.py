"""Applications: who is asking, decided from a snapshot in memory; one change at a time behind it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..errors import Fault, InvalidInput, NotFound, Unauthenticated
from ..model.application import Application
from ..policy.postmaster import named_by
from ..secrets import Keyring, generate_password, is_chosen
from ..store import DefinitionStore
from .fields import AccountName, parse_application, show_application
from .unbuilt import refusal

#: Shortest password of its own that a new application may bring.
SHORTEST_PASSWORD = 8

#: Peers remembered by `identify`; when they are more, all are forgotten and found again.
_REMEMBERED_PEERS = 4096

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ApplicationService:
    """Applications of one gateway. Reading is at once, from a snapshot; changes are awaited.

    `on_change` is called after each change. `account_name` spells the name of an account, or says (None) that there is
    no such account.
    """

    def __init__(self, store: DefinitionStore, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self.account_name: AccountName = lambda name: name
        self.forced_postmaster: Callable[[], str] = lambda: ""
        self.one_change = asyncio.Lock()
        self._passwordless: list[tuple[_Network, Application]] = []
        self._networks: dict[int, tuple[_Network, ...]] = {}
        self._peers: dict[str, Application | None] = {}
        self._nobody = keyring.hash_credential(generate_password())
        self._nobody_chosen = b""  # made with the first application whose password a person chose
        self.on_change: list[Callable[[], None]] = []
        self._applications: tuple[Application, ...] = ()
        self.refused: dict[int, str] = {}  # by id: why mail of the application can't be taken in this release

    async def load(self) -> None:
        """Read the applications from the store."""
        self._take(tuple(await self._store.applications()))

    def _take(self, applications: tuple[Application, ...]) -> None:
        self._applications = applications
        if not self._nobody_chosen and any(is_chosen(one.credential) for one in applications):
            self._nobody_chosen = self._keyring.hash_chosen(generate_password())
        self.refused.clear()
        self.refused.update({one.id: reason for one in applications if (reason := refusal(one))})
        self._networks = {
            application.id: tuple(map(ipaddress.ip_network, application.networks)) for application in applications
        }
        passwordless = [
            (network, application)
            for application in applications
            if application.passwordless and application.enabled
            for network in self._networks[application.id]
        ]
        # The narrowest network wins.
        self._passwordless = sorted(passwordless, key=lambda entry: -entry[0].prefixlen)
        self._peers = {}

    def snapshot(self) -> tuple[Application, ...]:
        """All applications by name."""
        return self._applications

    def find(self, name: str) -> Application | None:
        """The application called `name`, without regard to case, if there is one."""
        wanted = name.lower()
        return next((application for application in self._applications if application.name.lower() == wanted), None)

    def by_id(self, number: int) -> Application | None:
        """The application with that number, if it is still there."""
        return next((application for application in self._applications if application.id == number), None)

    def get(self, name: str) -> Application:
        """The application called `name`, without regard to case.

        Raises:
            NotFound: there is none.
        """
        found = self.find(name)
        if found is not None:
            return found
        known = ", ".join(application.name for application in self._applications)
        mend = f"applications are {known}" if known else "`postroom applications add` adds one"
        raise NotFound(Fault("application", f"there is none called {name!r}", mend))

    def show(self, application: Application) -> dict[str, object]:
        """The application's fields as doors show them, without its credential."""
        return show_application(application)

    def naming(self, account: str) -> tuple[str, ...]:
        """The applications that name this account among those they may use."""
        wanted = account.lower()
        return tuple(
            application.name
            for application in self._applications
            if any(name.lower() == wanted for name in application.accounts)
        )

    def identify(self, peer_ip: str) -> Application | None:
        """The passwordless application of the narrowest network that holds `peer_ip`, or None."""
        try:
            return self._peers[peer_ip]
        except KeyError:
            pass
        address = _address(peer_ip)
        found = None
        if address is not None:
            found = next((application for network, application in self._passwordless if address in network), None)
        if len(self._peers) >= _REMEMBERED_PEERS:
            self._peers.clear()
        self._peers[peer_ip] = found
        return found

    def authenticate(self, login: str, password: str, peer_ip: str) -> Application:
        """The application that `login` names, if `password` is its own and it may come from `peer_ip`.

        Raises:
            Unauthenticated: it is not, for whatever reason; strangers are told no more.
        """
        wanted = login.lower()
        application = next((one for one in self._applications if one.name.lower() == wanted), None)
        # Hash for unknown names too, and as slowly as for any, so that time tells nothing.
        credential = application.credential if application and application.credential else self._nobody
        is_right = self._keyring.verify_credential(password, credential)
        if not is_right and self._nobody_chosen and not is_chosen(credential):
            self._keyring.verify_credential(password, self._nobody_chosen)
        if application is None or not is_right or not application.enabled or not application.credential:
            raise Unauthenticated
        networks = self._networks[application.id]
        if networks:
            address = _address(peer_ip)
            if address is None or not any(address in network for network in networks):
                raise Unauthenticated
        return application

    def parse_edit(self, name: str, fields: Mapping[str, object]) -> Application:
        """The application that `edit` would make.

        Raises:
            NotFound: there is no such application.
            InvalidInput: a field is bad.
        """
        current = self.get(name)
        changed = parse_application(fields, current, self.account_name)
        if changed.name.lower() != current.name.lower():
            self._refuse_taken(changed.name)
        self._refuse_shared_networks(changed)
        self._refuse_postmaster(changed)
        return changed

    async def add(self, fields: Mapping[str, object]) -> tuple[Application, str]:
        """Add an application; with it its generated password ("" for a passwordless one), shown this once.

        Raises:
            InvalidInput: a field is bad, or the name is taken.
        """
        async with self.one_change:
            application, password = self.prepared(fields, "", self.account_name)
            saved = await self._store.save_application(application)
            await self.changed()
            return self.get(saved.name), password

    def prepared(
        self, fields: Mapping[str, object], password: str, account_name: AccountName
    ) -> tuple[Application, str]:
        """The application that `add` would save, and its generated password; "" where `password` is to be its own, or
        it is passwordless.

        Raises:
            InvalidInput: a field or the password is bad, or the name is taken.
        """
        application = parse_application(fields, None, account_name)
        self._refuse_taken(application.name)
        self._refuse_shared_networks(application)
        self._refuse_postmaster(application)
        if password:
            return replace(application, credential=self._chosen(application, password)), ""
        made = "" if application.passwordless else generate_password()
        return replace(application, credential=self._keyring.hash_credential(made) if made else b""), made

    def prepare_all(
        self, given: Sequence[Mapping[str, object]], account_name: AccountName
    ) -> tuple[list[Application], dict[str, str]]:
        """What `prepared` makes of each, and the generated passwords by name; `password` in the fields is their own.

        Raises:
            InvalidInput: a fault for every field that is bad, by application and field.
        """
        made: list[Application] = []
        passwords: dict[str, str] = {}
        faults: list[Fault] = []
        for fields in given:
            own = fields.get("password", "")
            others = {name: value for name, value in fields.items() if name != "password"}
            try:
                if not isinstance(own, str):
                    raise InvalidInput(Fault("password", "is not text", "write text"))
                application, password = self.prepared(others, own, account_name)
                if any(one.name.lower() == application.name.lower() for one in made):
                    raise InvalidInput(Fault("name", "stands twice", "give each application a name of its own"))
            except InvalidInput as error:
                faults += [Fault(f"{fields.get('name', '')}.{one.field}", one.fault, one.mend) for one in error.faults]
                continue
            made.append(application)
            if password:
                passwords[application.name] = password
        if faults:
            raise InvalidInput(faults)
        return made, passwords

    def _chosen(self, application: Application, password: str) -> bytes:
        if application.passwordless:
            raise InvalidInput(Fault("password", "has no use in a passwordless application", "leave one of them out"))
        if not SHORTEST_PASSWORD <= len(password) <= 1024:
            fault = f"is {len(password)} characters long"
            raise InvalidInput(Fault("password", fault, f"give one of {SHORTEST_PASSWORD} to 1024, or none"))
        return self._keyring.hash_chosen(password)

    async def edit(self, name: str, fields: Mapping[str, object]) -> Application:
        """Change the fields given.

        Raises:
            NotFound: there is no such application.
            InvalidInput: a field is bad, or the new name is taken.
        """
        async with self.one_change:
            saved = await self._store.save_application(self.parse_edit(name, fields))
            await self.changed()
            return self.get(saved.name)

    async def rotate(self, name: str) -> str:
        """Give the application a new generated password; the old one ends at once.

        Raises:
            NotFound: there is no such application.
        """
        async with self.one_change:
            password = generate_password()
            application = replace(self.get(name), credential=self._keyring.hash_credential(password))
            await self._store.save_application(application)
            await self.changed()
            return password

    async def changed(self) -> None:
        """What is stored has changed: read it again, and tell."""
        await self.load()
        for callback in tuple(self.on_change):
            callback()

    def _refuse_taken(self, name: str) -> None:
        for application in self._applications:
            if application.name.lower() == name.lower():
                raise InvalidInput(Fault("name", f"{application.name!r} is taken", "choose another name"))

    def _refuse_postmaster(self, application: Application) -> None:
        postmaster = self.forced_postmaster()
        if named_by(postmaster, [application]):
            field = "address" if application.address.lower() == postmaster.lower() else "senders"
            fault = f"{postmaster} is the postmaster, who is forced as everybody's sender"
            raise InvalidInput(Fault(field, fault, "name another, or set force_postmaster to false"))

    def _refuse_shared_networks(self, application: Application) -> None:
        if not application.passwordless:
            return
        for other in self._applications:
            shared = set(other.networks) & set(application.networks)
            if other.id != application.id and other.passwordless and shared:
                fault = f"{min(shared)} is the network of passwordless application {other.name!r} already"
                raise InvalidInput(Fault("networks", fault, "name a narrower network, or use a password"))


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
