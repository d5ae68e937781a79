"""Accounts, applications and settings: definitions as JSON beside the columns that rules ask for; secrets sealed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from enum import Enum
from typing import Any, Protocol, TypeVar, get_type_hints

from sqlalchemy import Row, Table, delete, insert, select, update

from ..crashing import reach
from ..errors import Fault, InvalidInput, NotFound, StateConflict
from ..model.account import Account, AccountKind
from ..model.application import Application
from .readers import Reader
from .schema import ASIDE_SQL, SENDING_SQL, WAITING_SQL, account, application, setting
from .writer import Transaction

T = TypeVar("T", Account, Application)


class Keyring(Protocol):
    """Seals what must not be readable on disk."""

    def seal(self, secret: bytes) -> bytes:
        """`secret` encrypted and authenticated."""

    def open(self, sealed: bytes) -> bytes:
        """What was sealed."""


#: Fields that have a column of their own, or are sealed.
_ACCOUNT_APART = frozenset({"id", "name", "kind", "position", "revision", "enabled", "password"})
_APPLICATION_APART = frozenset({"id", "name", "revision", "credential"})


def next_number(transaction: Transaction, name: str) -> int:
    """The next number of a sequence; none is ever given twice."""
    row = transaction.raw.execute(
        "INSERT INTO sequence (name, last) VALUES (?, 1)"
        " ON CONFLICT (name) DO UPDATE SET last = sequence.last + 1 RETURNING last",
        (name,),
    ).fetchall()
    return int(row[0][0])


# --- accounts ---


def read_accounts(reader: Reader, keyring: Keyring | None) -> list[Account]:
    """See `DefinitionStore.accounts`; without a keyring passwords are empty."""
    rows = reader.core.execute(select(account).order_by(account.c.position))
    return [_account(row, keyring) for row in rows]


def save_account(given: Account, keyring: Keyring | None) -> Callable[[Transaction], Account]:
    """Work for the writer: see `DefinitionStore.save_account`. Positions count from 0; one past the end is the end."""
    sealed = _seal(given, keyring)

    def work(transaction: Transaction) -> Account:
        _refuse_taken(transaction, account, given)
        number, revision = _numbers(transaction, account, given)
        row = {
            "name": given.name,
            "name_key": given.name.lower(),
            "position": given.position,
            "kind": given.kind.value,
            "enabled": int(given.enabled),
            "revision": revision,
            "definition": _define(given, _ACCOUNT_APART),
            "sealed": sealed,
        }
        _put(transaction, account, number, row, is_new=not given.id)
        position = _renumber(transaction, number, given.position)
        return replace(given, id=number, revision=revision, position=position)

    return work


def reseal(keyring: Keyring) -> Callable[[Transaction], int]:
    """Work for the writer: see `DefinitionStore.reseal`."""

    def work(transaction: Transaction) -> int:
        sealed = transaction.core.execute(select(account.c.id, account.c.sealed).where(account.c.sealed != b"")).all()
        for row in sealed:
            fresh = keyring.seal(keyring.open(row.sealed))
            transaction.core.execute(update(account).where(account.c.id == row.id).values(sealed=fresh))
        reach("D8-keys")
        return len(sealed)

    return work


def remove_account(account_id: int) -> Callable[[Transaction], None]:
    """Work for the writer: see `DefinitionStore.remove_account`."""

    def work(transaction: Transaction) -> None:
        for where in (WAITING_SQL, SENDING_SQL, f"{ASIDE_SQL} AND state = 'held'"):
            sql = f"SELECT 1 FROM delivery WHERE {where} AND lane = ? LIMIT 1"
            if transaction.raw.execute(sql, (account_id,)).fetchall():
                raise StateConflict("deliveries wait for this account: let them go, or cancel them, first")
        gone = transaction.core.execute(delete(account).where(account.c.id == account_id))
        if not gone.rowcount:
            raise NotFound(Fault("account", "there is no such account"))
        _renumber(transaction, 0, 0)

    return work


def _renumber(transaction: Transaction, number: int, position: int) -> int:
    """Put account `number` at `position` and count the others around it; where it stands then."""
    rows = transaction.core.execute(select(account.c.id).order_by(account.c.position, account.c.id))
    order = [row.id for row in rows]
    if number in order:
        order.remove(number)
        order.insert(min(max(position, 0), len(order)), number)
    for place, identity in enumerate(order):
        transaction.core.execute(update(account).where(account.c.id == identity).values(position=place))
    return order.index(number) if number in order else 0


def _seal(given: Account, keyring: Keyring | None) -> bytes:
    if not given.password:
        return b""
    if keyring is None:
        raise InvalidInput(Fault("password", "there is no key to seal it with", "open the store with a keyring"))
    return keyring.seal(json.dumps({"password": given.password}).encode())


def _account(row: Row[Any], keyring: Keyring | None) -> Account:
    secrets = json.loads(keyring.open(row.sealed)) if row.sealed and keyring is not None else {}
    return Account(
        id=row.id,
        name=row.name,
        kind=AccountKind(row.kind),
        position=row.position,
        revision=row.revision,
        enabled=bool(row.enabled),
        **_read(Account, row.definition, _ACCOUNT_APART),
        **secrets,
    )


# --- applications ---


def read_applications(reader: Reader) -> list[Application]:
    """See `DefinitionStore.applications`."""
    rows = reader.core.execute(select(application).order_by(application.c.name_key))
    return [
        Application(
            id=row.id,
            name=row.name,
            revision=row.revision,
            credential=row.credential,
            **_read(Application, row.definition, _APPLICATION_APART),
        )
        for row in rows
    ]


def save_application(given: Application) -> Callable[[Transaction], Application]:
    """Work for the writer: see `DefinitionStore.save_application`."""

    def work(transaction: Transaction) -> Application:
        _refuse_taken(transaction, application, given)
        number, revision = _numbers(transaction, application, given)
        row = {
            "name": given.name,
            "name_key": given.name.lower(),
            "revision": revision,
            "definition": _define(given, _APPLICATION_APART),
            "credential": given.credential,
        }
        _put(transaction, application, number, row, is_new=not given.id)
        return replace(given, id=number, revision=revision)

    return work


# --- settings ---


def read_settings(reader: Reader) -> dict[str, str]:
    """See `DefinitionStore.settings`."""
    return {row.name: row.value for row in reader.core.execute(select(setting))}


def save_setting(name: str, value: str | None) -> Callable[[Transaction], None]:
    """Work for the writer: see `DefinitionStore.save_setting`."""

    def work(transaction: Transaction) -> None:
        transaction.core.execute(delete(setting).where(setting.c.name == name))
        if value is not None:
            transaction.core.execute(insert(setting).values(name=name, value=value))

    return work


# --- what both share ---


def _refuse_taken(transaction: Transaction, table: Table, given: Account | Application) -> None:
    same = select(table.c.id).where(table.c.name_key == given.name.lower(), table.c.id != given.id)
    if transaction.core.execute(same).first() is not None:
        raise InvalidInput(Fault("name", f"{given.name!r} is taken", "choose another"))


def _numbers(transaction: Transaction, table: Table, given: Account | Application) -> tuple[int, int]:
    """The id and revision under which the row is stored."""
    if not given.id:
        return next_number(transaction, table.name), 1
    stored = transaction.core.execute(select(table.c.revision).where(table.c.id == given.id)).first()
    if stored is None:
        raise NotFound(Fault(table.name, f"there is no {table.name} {given.name!r}"))
    return given.id, stored.revision + 1


def _put(transaction: Transaction, table: Table, number: int, row: dict[str, Any], *, is_new: bool) -> None:
    if is_new:
        transaction.core.execute(insert(table).values(id=number, **row))
    else:
        transaction.core.execute(update(table).where(table.c.id == number).values(**row))


def _define(given: Account | Application, apart: frozenset[str]) -> str:
    """The fields without a column, as JSON: durations in seconds."""
    values = {f.name: getattr(given, f.name) for f in fields(given) if f.name not in apart}
    return json.dumps(values, default=_plain, sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} cannot be stored in a definition")


def _read(kind: type[T], definition: str, apart: frozenset[str]) -> dict[str, Any]:
    """The stored fields in the types of the class; what this version does not know is left out."""
    stored = json.loads(definition)
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for f in fields(kind):
        if f.name in apart or f.name not in stored:
            continue
        values[f.name] = _typed(hints[f.name], stored[f.name])
    return values


def _typed(hint: Any, value: Any) -> Any:
    if hint is timedelta:
        return timedelta(seconds=value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if isinstance(value, list):
        return tuple(value)
    return value
