"""The fields of an account: how each is written, read and shown (SPEC section 2)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from datetime import timedelta

from ..errors import Fault, InvalidInput
from ..model import fields as read
from ..model.account import Account, AccountKind, Security, Verification
from ..model.fields import FieldFault, FieldSpec

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")
_HOST_MEND = "write a DNS name or an IP address, as in smtp.example.org"
_LONGEST = timedelta(days=1)
_SHORTEST = timedelta(milliseconds=100)
_NEVER_SSL = "SSL 2 and 3 are broken and are not spoken here"


def _host(value: object) -> str:
    text = read.line(253)(value).rstrip(".")
    if "://" in text or "/" in text or "@" in text:
        raise FieldFault(f"{text!r} is not a host name", _HOST_MEND)
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    head, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        raise FieldFault(f"{text!r} holds a port", f"write {head} and give {port} as the port")
    if not text.isascii():
        text = _to_ascii(text)
    labels = text.split(".")
    if not text or not all(map(_LABEL.match, labels)) or labels[-1].isdigit():
        raise FieldFault(f"{text!r} is not a host name", _HOST_MEND)
    return text.lower()


def _to_ascii(text: str) -> str:
    import idna  # here: its tables are large and seldom needed

    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise FieldFault(f"{text!r} is not a host name", _HOST_MEND) from None


def _host_or_empty(value: object) -> str:
    return "" if value == "" else _host(value)


def _helo_name(value: object) -> str:
    text = read.line(255)(value)
    if text.startswith("["):
        inner = text.strip("[]").removeprefix("IPv6:")
        try:
            address = ipaddress.ip_address(inner)
        except ValueError:
            raise FieldFault(f"{text!r} is not an address literal", "write [192.0.2.1] or [IPv6:2001:db8::1]") from None
        return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
    return _host_or_empty(text)


def _certificates(value: object) -> str:
    if not isinstance(value, str):
        raise FieldFault("is not text", "give certificates as PEM")
    if value.strip():
        from cryptography import x509  # here: heavy, and seldom needed

        try:
            x509.load_pem_x509_certificates(value.encode("utf-8"))
        except ValueError:
            raise FieldFault("holds no certificate that can be read", "give certificates as PEM") from None
    return value.strip()


_SPECS = (
    FieldSpec("name", read.name, "unique without regard to case: 1-64 letters, digits, -, _, ."),
    FieldSpec("kind", read.choice(AccountKind), "smtp (a relay) or sandbox (captures, sends nothing)", "smtp, sandbox"),
    FieldSpec("description", read.line(), "shown in lists"),
    FieldSpec("enabled", read.switch, "off: what waits for the account goes on waiting", "yes, no"),
    FieldSpec("host", _host_or_empty, "DNS name or IP address of the relay"),
    FieldSpec("port", read.number(1, 65535), "TCP port of the relay", "number"),
    FieldSpec(
        "security",
        read.choice(Security, {"ssl": Security.TLS}, {"sslv2": _NEVER_SSL, "sslv3": _NEVER_SSL}),
        "encryption; auto: TLS on 465, else STARTTLS if offered, required once a password would be sent",
        ", ".join(Security),
    ),
    FieldSpec("verification", read.choice(Verification), "check of the relay's certificate", ", ".join(Verification)),
    FieldSpec("ca_bundle", _certificates, "certificates (PEM) trusted for this account beside the system's", "PEM"),
    FieldSpec("username", read.line(), "name to log in with; empty: no login"),
    FieldSpec("password", read.secret, "password to log in with; never shown", secret=True),
    FieldSpec("allow_clear_password", read.switch, "send the password even without encryption", "yes, no"),
    FieldSpec("helo_name", _helo_name, "name in EHLO; empty: this machine's"),
    FieldSpec(
        "connect_timeout", read.duration(_SHORTEST, _LONGEST), "for resolution, TCP and TLS together", "duration"
    ),
    FieldSpec("command_timeout", read.duration(_SHORTEST, _LONGEST), "longest wait for a reply", "duration"),
    FieldSpec(
        "end_of_data_timeout",
        read.duration(_SHORTEST, _LONGEST),
        "longest wait for the reply to the content",
        "duration",
    ),
    FieldSpec("connect_retry", read.duration(_SHORTEST, _LONGEST), "wait after a first failed connect", "duration"),
    FieldSpec(
        "reconnect_interval", read.duration(timedelta(0), _LONGEST), "wait after an unexpected close", "duration"
    ),
    FieldSpec("max_connections", read.number(1, 1000), "most connections at a time", "number"),
    FieldSpec("messages_per_connection", read.number(1, 1_000_000), "messages before reconnecting", "number"),
    FieldSpec("recipients_per_transaction", read.number(1, 100_000), "most recipients in one transaction", "number"),
    FieldSpec("idle_timeout", read.duration(timedelta(0), _LONGEST), "how long an idle connection is kept", "duration"),
)

#: Every field that may be set, in the order in which it is shown.
ACCOUNT_FIELDS: dict[str, FieldSpec] = {spec.name: spec for spec in _SPECS}

#: The default of each field that has one.
DEFAULTS: dict[str, object] = {
    entry.name: entry.default for entry in dataclass_fields(Account) if entry.name in ACCOUNT_FIELDS
}


def parse_account(fields: Mapping[str, object], current: Account | None = None) -> Account:
    """`current` with `fields` changed, or a new account (id 0) of them.

    Raises:
        InvalidInput: a fault for every field that is unknown, bad or missing.
    """
    values = read.parse_fields(fields, ACCOUNT_FIELDS, "account")
    if current is None:
        if "name" not in values:
            raise InvalidInput(Fault("name", "there is none", "give the account a name"))
        values.setdefault("kind", AccountKind.SMTP)
        account = Account(id=0, **values)
    else:
        account = replace(current, **values)
    faults = list(_faults_together(account))
    if faults:
        raise InvalidInput(faults)
    return account


def _faults_together(account: Account) -> list[Fault]:
    faults = []
    if account.kind is AccountKind.SMTP and not account.host:
        faults.append(Fault("host", "there is none", _HOST_MEND))
    if account.username and not account.password:
        faults.append(Fault("password", "there is none for the user name", "give it, or leave username empty"))
    if account.password and not account.username:
        faults.append(Fault("username", "there is none for the password", "give it, or leave password empty"))
    return faults


def show_account(account: Account) -> dict[str, object]:
    """The account's fields as JSON shows them: secrets are left out, `has_password` says whether there is one."""
    shown: dict[str, object] = {"id": account.id, "position": account.position, "revision": account.revision}
    for spec in _SPECS:
        if not spec.secret:
            shown[spec.name] = read.show_value(getattr(account, spec.name))
    return shown | {"has_password": bool(account.password)}
