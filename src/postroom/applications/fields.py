"""The fields of an application, each declared once: how it is written, read and shown, and what it means."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import timedelta

from ..errors import Fault, InvalidInput
from ..model import fields as read
from ..model.application import ALL_ACCOUNTS, SANDBOXES, Application, HeaderDoor
from ..model.fields import FieldFault, FieldSpec
from ..model.limits import LIMIT_FIELDS, Day
from ..policy.patterns import parse_patterns

#: The name of an account in its own spelling, or None when there is no such account.
AccountName = Callable[[str], str | None]

#: A user name that programs which expect a mailbox are given: an address without what a shell or a header would read.
_ADDRESS_NAME = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,189}\Z")

_NETWORK_MEND = "write an address or a CIDR network, as in 10.1.2.3 or 10.1.0.0/16"
_TARGET_MEND = f"{_NETWORK_MEND}, or a name as in relay.example.org or *.example.org"
_TARGET = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")


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


def _name(value: object) -> str:
    if isinstance(value, str) and "@" in value:
        if not _ADDRESS_NAME.match(value):
            mend = "write it as in robot@example.org, with letters, digits, -, _, + and . alone"
            raise FieldFault(f"{value!r} can't be a name", mend)
        return value
    return read.name(value)


def _senders(value: object) -> tuple[str, ...]:
    return parse_patterns(read.texts(value), "senders")


def _address(value: object) -> str:
    from ..mime.typed import typed_address  # here: loads the tables of idna

    text = read.line(320)(value)
    try:
        return typed_address(text) if text else ""
    except ValueError as error:
        raise FieldFault(str(error), "write it like shop@example.org") from None


def _targets(value: object) -> tuple[str, ...]:
    targets = []
    for entry in read.texts(value):
        try:
            targets.append(str(ipaddress.ip_network(entry)))
        except ValueError:
            name = entry.lower().rstrip(".")
            if not _TARGET.match(name):
                raise FieldFault(f"{entry!r} is neither a network nor a name", _near_target(entry)) from None
            targets.append(name)
    return tuple(dict.fromkeys(targets))


def _near_target(entry: str) -> str:
    near = _near_network(entry)
    return _TARGET_MEND if near == _NETWORK_MEND else near


def _header_doors(value: object) -> tuple[HeaderDoor, ...]:
    entries = [entry.lower().removeprefix("x-postroom-") for entry in read.texts(value)]
    return tuple(map(read.choice(HeaderDoor), dict.fromkeys(entries)))


_SPECS = (
    FieldSpec(
        "name", _name, "unique without regard to case; the user name that it logs in with, also one like a mail address"
    ),
    FieldSpec("description", read.line(), "shown in lists"),
    FieldSpec("enabled", read.switch, "off: it may not submit", "yes, no"),
    FieldSpec("owner", read.name, "system, or the console user whose it is", "name"),
    FieldSpec("address", _address, "its own: sender of composed mail that has none", "address"),
    FieldSpec("passwordless", read.switch, "its networks may submit without logging in", "yes, no"),
    FieldSpec("networks", _networks, "where it may come from; empty: anywhere, logged in", "addresses, networks"),
    FieldSpec("senders", _senders, "whom it may send as; none until named", "patterns"),
    FieldSpec("accounts", read.texts, "what it may use: names, * (all) or kind:sandbox (every sandbox)", "names"),
    FieldSpec("urgent", read.switch, "it may send mail that goes before all other", "yes, no", tab="Rights"),
    FieldSpec(
        "header_doors", _header_doors, "what its mail may ask for by fields X-Postroom-...", "names", tab="Rights"
    ),
    FieldSpec(
        "dynamic", read.switch, "its mail may bring a connection of its own, where the account allows it", "yes, no",
        tab="Rights",
    ),
    FieldSpec(
        "may_connect_to", _targets, "inner networks and names that its connections, webhooks and attachments may reach",
        "networks, names", tab="Rights",
    ),
    FieldSpec(
        "apply_suppressions", read.switch, "recipients on the suppression list are not sent to", "yes, no",
        tab="Rights",
    ),
    *LIMIT_FIELDS,
    FieldSpec(
        "repeat_guard", read.optional(read.number(2, 1_000_000)),
        "hold mail from this number of the same recipient and body on", "number or none", tab="Limits",
        path=("repeat_guard", "count"),
    ),
    FieldSpec(
        "repeat_guard_within", read.duration(timedelta(seconds=1), timedelta(days=1)), "within which they are counted",
        "duration", tab="Limits", path=("repeat_guard", "within"),
    ),
)  # fmt: skip

#: Every field that may be set, in the order in which it is shown.
APPLICATION_FIELDS: dict[str, FieldSpec] = {spec.name: spec for spec in _SPECS}

#: The default of each field that has one.
DEFAULTS: dict[str, object] = read.defaults(_SPECS, Application)


def parse_application(
    fields: Mapping[str, object], current: Application | None = None, account_name: AccountName = lambda name: name
) -> Application:
    """`current` with `fields` changed, or a new application (id 0) of them.

    Raises:
        InvalidInput: a fault for every field that is unknown, bad or missing.
    """
    values = read.parse_fields(fields, APPLICATION_FIELDS, "application", DEFAULTS)
    if "accounts" in values:
        values["accounts"] = _accounts(values["accounts"], account_name)
    if current is None:
        if "name" not in values:
            raise InvalidInput(Fault("name", "there is none", "give the application a name"))
        current = Application(id=0, name=values["name"])
    if values.get("day") is Day.ROLLING:
        values.setdefault("day_zone", DEFAULTS["day_zone"])  # what a choice leaves without a use is forgotten
    application = read.changed(current, APPLICATION_FIELDS, values)
    if application.limits.day_zone != DEFAULTS["day_zone"] and application.limits.day is Day.ROLLING:
        raise InvalidInput(Fault("day_zone", "has no use as things stand", "set day to calendar"))
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
        shown[spec.name] = spec.show(spec.of(application))
    return shown | {"has_password": bool(application.credential)}
