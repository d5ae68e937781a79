"""The fields of an application: how each is written, read and shown."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..errors import Fault, InvalidInput
from ..model import fields as read
from ..model.application import ALL_ACCOUNTS, SANDBOXES, Application
from ..model.fields import FieldFault, FieldSpec
from ..policy.patterns import parse_patterns

#: The name of an account in its own spelling, or None when there is no such account.
AccountName = Callable[[str], str | None]

_NETWORK_MEND = "write an address or a CIDR network, as in 10.1.2.3 or 10.1.0.0/16"


def _networks(value: object) -> tuple[str, ...]:
    networks = []
    for entry in read.texts(value):
        try:
            networks.append(str(ipaddress.ip_network(entry)))
        except ValueError:
            raise FieldFault(f"{entry!r} is not a network", _near_network(entry)) from None
    return tuple(dict.fromkeys(networks))


def _near_network(entry: str) -> str:
    try:
        return f"did you mean {ipaddress.ip_network(entry, strict=False)}?"
    except ValueError:
        return _NETWORK_MEND


def _senders(value: object) -> tuple[str, ...]:
    return parse_patterns(read.texts(value), "senders")


_SPECS = (
    FieldSpec("name", read.name, "unique without regard to case; the user name that it logs in with"),
    FieldSpec("description", read.line(), "shown in lists"),
    FieldSpec("enabled", read.switch, "off: it may not submit", "yes, no"),
    FieldSpec("passwordless", read.switch, "its networks may submit without logging in", "yes, no"),
    FieldSpec("networks", _networks, "where it may come from; empty: anywhere, logged in", "addresses, networks"),
    FieldSpec("senders", _senders, "whom it may send as; none until named", "patterns"),
    FieldSpec("accounts", read.texts, "what it may use: names, * (all) or kind:sandbox (every sandbox)", "names"),
)

#: Every field that may be set, in the order in which it is shown.
APPLICATION_FIELDS: dict[str, FieldSpec] = {spec.name: spec for spec in _SPECS}


def parse_application(
    fields: Mapping[str, object], current: Application | None = None, account_name: AccountName = lambda name: name
) -> Application:
    """`current` with `fields` changed, or a new application (id 0) of them.

    Raises:
        InvalidInput: a fault for every field that is unknown, bad or missing.
    """
    values = read.parse_fields(fields, APPLICATION_FIELDS, "application")
    if "accounts" in values:
        values["accounts"] = _accounts(values["accounts"], account_name)
    if current is None:
        if "name" not in values:
            raise InvalidInput(Fault("name", "there is none", "give the application a name"))
        application = Application(id=0, **values)
    else:
        application = replace(current, **values)
    if application.passwordless:
        _refuse_open(application)
    return application


def _accounts(names: tuple[str, ...], account_name: AccountName) -> tuple[str, ...]:
    found = []
    for name in names:
        if name in (ALL_ACCOUNTS, SANDBOXES):
            found.append(name)
            continue
        spelled = account_name(name)
        if spelled is None:
            mend = f"`postroom accounts list` shows them; or write {ALL_ACCOUNTS} or {SANDBOXES}"
            raise InvalidInput(Fault("accounts", f"there is no account {name!r}", mend))
        found.append(spelled)
    return tuple(dict.fromkeys(found))


def _refuse_open(application: Application) -> None:
    if not application.networks:
        mend = "name the networks from which it may submit, as in 127.0.0.0/8"
        raise InvalidInput(Fault("networks", "a passwordless application needs some", mend))
    for network in application.networks:
        if ipaddress.ip_network(network).prefixlen == 0:
            fault = f"{network} would let everybody submit without a password"
            raise InvalidInput(Fault("networks", fault, "name the networks that you mean"))


def show_application(application: Application) -> dict[str, object]:
    """The application's fields as JSON shows them; `has_password` says whether it can log in."""
    shown: dict[str, object] = {"id": application.id, "revision": application.revision}
    for spec in _SPECS:
        shown[spec.name] = read.show_value(getattr(application, spec.name))
    return shown | {"has_password": bool(application.credential)}
