"""Events of what people change, in its transaction: accounts and applications, their fields by name alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert

from .schema import event, micros
from .writer import Transaction

#: An account or application as it is compared: its name, its fields by name, groups as mappings.
Comparable = Mapping[str, Any]

_ABSENT = object()


def tell(transaction: Transaction, kind: str, now: datetime, account: str = "", detail: str = "") -> None:
    """Keep the event."""
    transaction.core.execute(insert(event).values(at=micros(now), kind=kind, account=account, detail=detail))


def tell_account(
    transaction: Transaction, name: str, before: Comparable | None, after: Comparable, now: datetime
) -> None:
    """Tell what became of an account: `enabled` and its place apart from its other fields."""
    if before is None:
        tell(transaction, "account.added", now, name)
        return
    if before["enabled"] != after["enabled"]:
        tell(transaction, "account.enabled" if after["enabled"] else "account.disabled", now, name)
    others = [field for field in changed(before, after) if field != "enabled"]
    if others:
        tell(transaction, "account.edited", now, name, ", ".join(others))


def tell_application(
    transaction: Transaction, name: str, before: Comparable | None, after: Comparable, now: datetime
) -> None:
    """Tell what became of an application."""
    if before is None:
        tell(transaction, "application.added", now, detail=name)
    elif fields := ", ".join(changed(before, after)):
        tell(transaction, "application.edited", now, detail=f"{name}: {fields}")


def changed(before: Comparable, after: Comparable, within: str = "") -> Iterator[str]:
    """The fields that differ, those of groups as `proxy.host`."""
    for name in sorted({*before, *after}):
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed(old, new, f"{within}{name}.")
        elif old != new:
            yield within + name
