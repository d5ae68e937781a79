"""What accounts may say and this release can't do yet: one list, from which an entry goes when it can.

Such a field is kept, shown and checked like any other. But an account that uses it sends nothing, and its mail waits:
mail sent in another way than the account says would be worse than mail that is late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..model.account import Account
from .fields import ACCOUNT_FIELDS, DEFAULTS

#: Every value but the default is one that can't be done; a tuple names the only ones that can't.
_ANY: tuple[object, ...] = ()

#: Fields by name, and which of their values can't be done. Fields that count only under one of these need no entry.
UNBUILT: Mapping[str, tuple[object, ...]] = {
    "owner": _ANY,
    "charset": _ANY,
    "template_cache": _ANY,
    "fail_if_template_not_found": _ANY,
}


def unbuilt_fields(account: Account) -> tuple[str, ...]:
    """The fields of `account` that ask for what can't be done."""
    return tuple(_asked(account))


def _asked(account: Account) -> Iterator[str]:
    for name, values in UNBUILT.items():
        value = ACCOUNT_FIELDS[name].of(account)
        if value in values or (not values and value != DEFAULTS[name]):
            yield name


def refusal(account: Account) -> tuple[str, str] | None:
    """Why `account` sends nothing in this release, and what to do about it; None if it may send."""
    names = unbuilt_fields(account)
    if not names:
        return None
    shown = ", ".join(names)
    reason = f"this release keeps but cannot obey yet: {shown}"
    return reason, f"take it back to its default (postroom accounts edit {account.name} --reset {names[0]}), or wait"
