"""A message's own connection: what it may override, and the account as it is for that message (SPEC section 2.1).

Whoever overrides where the connection leads (host, port, security or proxy) gets none of the account's stored secrets:
they are dropped before anything of the message is put in their place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..errors import Fault, InvalidInput
from ..model import fields as read
from ..model.account import (
    Account,
    AccountKind,
    Authentication,
    Dkim,
    Mechanism,
    OAuth,
    PopLogin,
    Proxy,
    ProxyType,
)
from ..model.connection import OwnConnection
from .definition import parse_account
from .fields import ACCOUNT_FIELDS, DEFAULTS

#: The field of a message that holds it; faults name what is in it as `connection.host`.
FIELD = "connection"


def _with_prefix(prefix: str) -> tuple[str, ...]:
    return tuple(name for name in ACCOUNT_FIELDS if name.startswith(prefix))


_PROXY, _POP = _with_prefix("proxy_"), _with_prefix("pop_")

#: What decides where the connection leads, and what can be read on the way there.
LEADING = frozenset({"host", "port", "security", *_PROXY})

#: A login is overridden as a whole.
LOGIN = frozenset({"authentication", "mechanism", "username", "password", "allow_clear_password", *_POP})

#: Every field of an account that a message may override.
OVERRIDABLE: frozenset[str] = LEADING | LOGIN | {
    "helo_name", "local_address", "connect_timeout", "command_timeout", "end_of_data_timeout",
}  # fmt: skip

_SPECS = {name: spec for name, spec in ACCOUNT_FIELDS.items() if name in OVERRIDABLE}

_AS_THE_ACCOUNT = "leave it out: it is as the account says"
_WHY_NOT = {
    "is how far the account trusts a server, which no message can change": (
        "verification", "tls_versions", "ca_bundle", "fingerprints", "server_name",
    ),
    "belongs to the account, and goes to no other host": (
        "client_certificate", "client_key", *_with_prefix("oauth_"),
    ),
}  # fmt: skip


def parse_connection(given: object) -> OwnConnection:
    """The connection that a message brings, as doors receive it: fields of the account by their names.

    Raises:
        InvalidInput: a fault for every field that is unknown, can't be overridden, or has a bad value.
    """
    mend = 'write its fields, as in {"host": "smtp.example.org", "port": 587}'
    if not isinstance(given, Mapping):
        raise InvalidInput(Fault(FIELD, "is not an object", mend))
    if not given:
        raise InvalidInput(Fault(FIELD, "overrides nothing", f"{mend}, or leave it out"))
    faults = list(_not_overridable(given))
    fields: dict[str, object] = {}
    try:
        values = read.parse_fields(
            {str(name): value for name, value in given.items() if name in _SPECS}, _SPECS, "account", DEFAULTS
        )
    except InvalidInput as error:
        faults += error.faults
    else:
        fields = {name: _SPECS[name].show(value) for name, value in values.items()}
        if values.get("authentication") is Authentication.OAUTH2:
            mend = "give a user name and password, or leave host, port, security, proxy and login as they are"
            faults.append(Fault("authentication", "oauth2 is a consent that the account has, and no message", mend))
    if faults:
        raise InvalidInput(_placed(faults))
    return OwnConnection(fields)


def _not_overridable(given: Mapping[object, object]) -> Iterator[Fault]:
    for name in map(str, given):
        if name in _SPECS:
            continue
        if name in ACCOUNT_FIELDS:
            why = next((why for why, names in _WHY_NOT.items() if name in names), "is none that a message may override")
            yield Fault(name, why, _AS_THE_ACCOUNT)
        else:
            near = difflib.get_close_matches(name, _SPECS, n=3)
            mend = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(_SPECS)}"
            yield Fault(name, "is no field of a connection", mend)


def _placed(faults: list[Fault]) -> list[Fault]:
    return [Fault(f"{FIELD}.{fault.field}", fault.fault, fault.mend) for fault in faults]


def overridden(account: Account, connection: OwnConnection) -> Account:
    """`account` as it is for the message that brings `connection`, and for no other.

    Raises:
        InvalidInput: the two do not go together; faults are named as in `parse_connection`.
    """
    given = connection.fields
    account = replace(account, dkim=Dkim(), preset="", preset_region="")  # which are about content and limits
    if given.keys() & (LEADING | LOGIN):
        account = _without_login(account)
    if given.keys() & (LEADING | set(_POP)):
        account = replace(account, client_certificate="", client_key="")
    if given.keys() & LEADING:
        proxy = replace(account.proxy, use_credentials=False, username="", password="", domain="")
        account = replace(account, proxy=proxy)
    if given.keys() & set(_PROXY):
        account = replace(account, proxy=Proxy())
    if "host" in given:
        account = replace(account, server_name="")  # the certificate must be that of the host itself
    try:
        return parse_account(given, account)
    except InvalidInput as error:
        raise InvalidInput(_placed(list(error.faults))) from None


def _without_login(account: Account) -> Account:
    return replace(
        account, authentication=Authentication.NONE, mechanism=Mechanism.AUTO, username="", password="",
        allow_clear_password=False, oauth=OAuth(), pop=PopLogin(),
    )  # fmt: skip


def keeps_login(connection: OwnConnection) -> bool:
    """Whether the message logs in as its account does, and there."""
    return not connection.fields.keys() & (LEADING | LOGIN)


def brings_secret(connection: OwnConnection) -> bool:
    """Whether the message brings a password to log in with."""
    return any(_SPECS[name].secret and value for name, value in connection.fields.items() if name in LOGIN)


def shown(connection: OwnConnection) -> dict[str, object]:
    """What people may see of it; `secrets` names those that it brings."""
    fields = {name: value for name, value in connection.fields.items() if not _SPECS[name].secret}
    secrets = sorted(name for name, value in connection.fields.items() if _SPECS[name].secret and value)
    return fields | ({"secrets": secrets} if secrets else {})


#: A place on the network: host and port.
Place = tuple[str, int]


def places(account: Account) -> dict[str, Place]:
    """Where connections of `account` lead, by the field that names the host."""
    found = {"host": (account.host, account.port)}
    if account.proxy.type is not ProxyType.NONE:
        found["proxy_host"] = (account.proxy.host, account.proxy.port)
    if account.authentication is Authentication.POP:
        found["pop_host"] = (account.pop_host, account.pop.port)
    return found


def takes(account: Account) -> bool:
    """Whether mail that brings a connection of its own may go by `account`."""
    return account.dynamic and account.kind is AccountKind.SMTP
