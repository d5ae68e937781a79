"""Accounts made of fields as people write them, and shown again (SPEC section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Fault, InvalidInput
from ..model import fields as read
from ..model.account import Account, AccountKind, Authentication, Fallback, PopSecurity
from . import governed
from .faults import faults_together
from .fields import ACCOUNT_FIELDS, DEFAULTS
from .risks import risks
from .unbuilt import unbuilt_fields

#: Ports that go with the encryption of the POP3 login.
POP_PORTS = {PopSecurity.NONE: 110, PopSecurity.STLS: 110, PopSecurity.TLS: 995}


def parse_account(fields: Mapping[str, object], current: Account | None = None) -> Account:
    """`current` with `fields` changed, or a new account (id 0) of them; a null takes a field back to its default.

    What goes without saying is filled in: a user name alone means a password login, accounts to fall back to mean that
    fallback, and the port of POP3 follows its encryption. What a choice leaves without a use is forgotten.

    Raises:
        InvalidInput: a fault for every field that is unknown, bad, missing, or at odds with another.
    """
    values = read.parse_fields(fields, ACCOUNT_FIELDS, "account", DEFAULTS)
    if current is None:
        if "name" not in values:
            raise InvalidInput(Fault("name", "there is none", "give the account a name"))
        current = Account(id=0, name=values["name"], kind=values.get("kind", AccountKind.SMTP))
    elif values.get("kind", current.kind) is not current.kind:
        raise InvalidInput(Fault("kind", f"is {current.kind.value} and stays so", "add another account"))
    account = read.changed(current, ACCOUNT_FIELDS, _implied(values, current) | values)
    account, faults = governed.apply(account, values)
    faults += faults_together(account)
    if faults:
        raise InvalidInput(faults)
    return account


def _implied(values: Mapping[str, Any], current: Account) -> dict[str, Any]:
    implied: dict[str, Any] = {}
    if "authentication" not in values and "username" in values:
        if values["username"] and current.authentication is Authentication.NONE:
            implied["authentication"] = Authentication.PASSWORD
        elif not values["username"] and current.authentication is Authentication.PASSWORD:
            implied["authentication"] = Authentication.NONE
    if "fallback" not in values and values.get("fallback_accounts"):
        implied["fallback"] = Fallback.ACCOUNTS
    security = values.get("pop_security", current.pop.security)
    if "pop_port" not in values and current.pop.port == POP_PORTS[current.pop.security]:
        implied["pop_port"] = POP_PORTS[security]
    return implied


def show_account(account: Account) -> dict[str, object]:
    """The account's fields as JSON shows them; `secrets` says of each secret only whether it is set.

    `not_built` names the fields that this release keeps and can't obey yet: the account does not send while it uses
    them. `warnings` say what it was allowed that is not safe.
    """
    shown: dict[str, object] = {"id": account.id, "position": account.position, "revision": account.revision}
    secrets = {}
    for spec in ACCOUNT_FIELDS.values():
        if spec.secret:
            secrets[spec.name] = "set" if spec.of(account) else "not set"
        else:
            shown[spec.name] = spec.show(spec.of(account))
    warnings = [risk.what for risk in risks(account)]
    return shown | {"secrets": secrets, "not_built": list(unbuilt_fields(account)), "warnings": warnings}
