"""Own connections of messages between intake and sending: who may bring one, sealed while it waits, opened to be used.

Every rule is asked twice, when the message is taken and when it is sent: rights and accounts may change in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import Fault, InvalidInput, Refused
from ..model.account import Account, AccountKind
from ..model.application import Application
from ..model.connection import OwnConnection, SealedConnection
from ..model.submission import Submission
from ..net.address_guard import AddressGuard
from .own_connection import FIELD, Place, brings_secret, keeps_login, overridden, places, shown, takes
from .unbuilt import unbuilt_fields


class Keyring(Protocol):
    """Seals what must not be readable on disk."""

    def seal(self, secret: bytes) -> bytes:
        """`secret` encrypted and authenticated."""

    def open(self, sealed: bytes) -> bytes:
        """What was sealed."""


@dataclass(frozen=True, slots=True)
class OpenedConnection:
    """What one message is sent by: its account as overridden, and the guard of the addresses that it leads to, but for
    the places that the account itself names. `keeps_login`: it logs in where the account does, and as it does."""

    account: Account
    guard: AddressGuard
    exempt: Collection[Place]
    keeps_login: bool = False


class NotAllowed(Exception):
    """The message may not use its connection now; `advice` says what would let it."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


class OwnConnections:
    """Seals and opens; `application` finds one by its number."""

    def __init__(self, keyring: Keyring, application: Callable[[int], Application | None]) -> None:
        self._keyring = keyring
        self._application = application

    def seal(self, submission: Submission, message_id: bytes, accounts: Sequence[Account]) -> SealedConnection:
        """The connection of `submission`, to be stored with its message; `accounts` are those of its recipients.

        Raises:
            Refused: a switch is off.
            InvalidInput: it does not go together with an account, or leads where the address guard lets nobody.
        """
        connection, application = submission.connection, submission.application
        assert connection is not None
        target, login_at = "", list[_LoginAt]()
        for account in accounts:
            try:
                opened = _opened(account, application, connection)
            except NotAllowed as refused:
                raise Refused(f"{refused.reason}: {refused.advice}") from None
            if names := unbuilt_fields(opened.account):
                fault = "this release keeps but cannot obey yet"
                raise InvalidInput([Fault(f"{FIELD}.{name}", fault, "leave it out") for name in names])
            _check_literals(opened, application)
            target = target or _target(opened.account)
            login_at.append(_login_at(opened.account))
        whole: dict[str, object] = {"message": message_id.hex(), "fields": dict(connection.fields)}
        if brings_secret(connection):
            whole["login_at"] = login_at
        return SealedConnection(
            message_id=message_id, application_id=application.id, target=target,
            shown=json.dumps(shown(connection)), sealed=self._keyring.seal(json.dumps(whole).encode()),
        )  # fmt: skip

    def open(self, account: Account, sealed: SealedConnection) -> OpenedConnection:
        """What the message is sent by, on `account` as it is now.

        Raises:
            NotAllowed: a switch was turned off since, its secrets can't be opened, or are for another host.
        """
        application = self._application(sealed.application_id)
        if application is None:
            raise NotAllowed("its application is gone, whose right its connection was", "cancel it, and send it anew")
        try:
            connection, login_at = self._unsealed(sealed)
            opened = _opened(account, application, connection)
            names = unbuilt_fields(opened.account)
        except InvalidInput as error:
            raise NotAllowed(f"its connection can't be used on account {account.name}: {error}") from None
        if names:
            raise NotAllowed(f"this release cannot obey yet: {', '.join(names)}")
        if login_at is not None and _login_at(opened.account) not in login_at:
            now = " and ".join(f"{host}:{port}" for host, port in _login_at(opened.account).values())
            reason = f"its password was not given for {now}, where account {account.name!r} leads now"
            raise NotAllowed(reason, "cancel it, and send it anew")
        return opened

    def _unsealed(self, sealed: SealedConnection) -> tuple[OwnConnection, list[_LoginAt] | None]:
        whole = json.loads(self._keyring.open(sealed.sealed))
        if whole["message"] != sealed.message_id.hex():
            raise InvalidInput(Fault(FIELD, "is that of another message", "cancel this one, and send it anew"))
        return OwnConnection(whole["fields"]), whole.get("login_at")


def _opened(account: Account, application: Application, connection: OwnConnection) -> OpenedConnection:
    if not application.dynamic:
        reason = f"mail of application {application.name!r} may not bring a connection of its own"
        raise NotAllowed(reason, f"postroom applications edit {application.name} --dynamic")
    if not takes(account):
        reason = f"account {account.name!r} takes no mail with a connection of its own"
        mend = f"postroom accounts edit {account.name} --dynamic"
        if account.kind is not AccountKind.SMTP:
            mend = "send it by an account of kind smtp that does"
        raise NotAllowed(reason, mend)
    own = overridden(account, connection)
    stood, leads = places(account), places(own)
    kept = {place for role, place in leads.items() if stood.get(role) == place}
    given = {place for role, place in leads.items() if stood.get(role) != place}
    return OpenedConnection(
        own, AddressGuard(application.may_connect_to), frozenset(kept - given), keeps_login(connection)
    )


#: Host and port by the field that names the host, as JSON has them.
_LoginAt = dict[str, list[str | int]]


def _login_at(account: Account) -> _LoginAt:
    """Where the message's password goes: when it is sent, to no other place than when it was taken."""
    return {role: [*place] for role, place in places(account).items() if role != "proxy_host"}


def _check_literals(opened: OpenedConnection, application: Application) -> None:
    """What can be told without the DNS is told to the sender at once."""
    faults = []
    for role, place in places(opened.account).items():
        if place in opened.exempt:
            continue
        if kind := opened.guard.refuses_host(place[0]):
            mend = f"the administrator can let it: postroom applications edit {application.name} --may-connect-to ..."
            faults.append(Fault(f"{FIELD}.{role}", f"{place[0]} is {kind}, which the address guard refuses", mend))
    if faults:
        raise InvalidInput(faults)


def _target(account: Account) -> str:
    host, port = places(account)["host"]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
