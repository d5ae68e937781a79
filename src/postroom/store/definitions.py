"""Accounts, applications and settings: definitions as JSON beside the columns that rules ask for; secrets sealed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from sqlalchemy import Row, Table, delete, insert, select, update

from ..crashing import reach
from ..errors import Fault, InvalidInput, NotFound, StateConflict
from ..model.account import Account, AccountKind, Authentication
from ..model.application import Application
from . import circuits, own_connections, tokens
from .definition_events import tell, tell_account, tell_application
from .keyring import Keyring
from .readers import Reader
from .schema import ASIDE_SQL, SENDING_SQL, WAITING_SQL, account, application, event, micros, setting
from .writer import Transaction

T = TypeVar("T", Account, Application)


#: Fields that have a column of their own. Those marked as secret are sealed.
_ACCOUNT_APART = frozenset({"id", "name", "kind", "position", "revision", "enabled"})
_APPLICATION_APART = frozenset({"id", "name", "revision", "credential"})
#: What is not compared: where a record stands, and what is never shown.
_PLACE = frozenset({"id", "position", "revision", "credential"})


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


def save_account(given: Account, keyring: Keyring | None, now: datetime) -> Callable[[Transaction], Account]:
    """Work for the writer: see `DefinitionStore.save_account`. Positions count from 0; one past the end is the end."""
    sealed = _seal(given, keyring)

    def work(transaction: Transaction) -> Account:
        stood = _place(transaction, given.id)
        saved = _save(transaction, given, sealed, keyring, now)
        place = _renumber(transaction, saved.id, given.position)
        _tell_moved(transaction, saved.name, stood, place, now)
        return replace(saved, position=place)

    return work


def save_accounts(
    given: Sequence[Account],
    order: Sequence[str],
    applications: Sequence[Application],
    keyring: Keyring | None,
    now: datetime,
) -> Callable[[Transaction], None]:
    """Work for the writer: see `DefinitionStore.save_accounts`."""
    sealed = [_seal(one, keyring) for one in given]
    places = {name.lower(): place for place, name in enumerate(order)}

    def work(transaction: Transaction) -> None:
        for one, secrets in zip(given, sealed, strict=True):
            _save(transaction, one, secrets, keyring, now)
        columns = select(account.c.id, account.c.name, account.c.name_key, account.c.position)
        rows = transaction.core.execute(columns.order_by(account.c.position)).all()
        ordered = sorted(rows, key=lambda row: places.get(row.name_key, len(places)))
        _number(transaction, [row.id for row in ordered])
        new = {one.name for one in given if not one.id}
        for place, row in enumerate(ordered):
            _tell_moved(transaction, row.name, None if row.name in new else row.position, place, now)
        for each in applications:
            save_application(each, now)(transaction)

    return work


def _save(transaction: Transaction, given: Account, sealed: bytes, keyring: Keyring | None, now: datetime) -> Account:
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
    before = transaction.core.execute(select(account).where(account.c.id == number)).first()
    _put(transaction, account, number, row, is_new=not given.id)
    circuits.follow(transaction, number, now)
    was = None if before is None else _comparable(_account(before, keyring), _PLACE)
    tell_account(transaction, given.name, was, _comparable(given, _PLACE), now)
    return replace(given, id=number, revision=revision)


def _place(transaction: Transaction, account_id: int) -> int | None:
    return transaction.core.execute(select(account.c.position).where(account.c.id == account_id)).scalar()


def _tell_moved(transaction: Transaction, name: str, stood: int | None, place: int, now: datetime) -> None:
    if stood is not None and stood != place:
        tell(transaction, "account.moved", now, name, f"from place {stood} to {place}")


def _comparable(given: Account | Application, apart: frozenset[str]) -> dict[str, Any]:
    """The fields and secrets by which a change is seen; only names of them are told."""
    return {name: value for name, value in _plain(given).items() if name not in apart} | dict(_secrets(given))


def reseal(keyring: Keyring) -> Callable[[Transaction], int]:
    """Work for the writer: see `DefinitionStore.reseal`."""

    def work(transaction: Transaction) -> int:
        sealed = transaction.core.execute(select(account.c.id, account.c.sealed).where(account.c.sealed != b"")).all()
        for row in sealed:
            fresh = keyring.seal(keyring.open(row.sealed))
            transaction.core.execute(update(account).where(account.c.id == row.id).values(sealed=fresh))
        own_connections.reseal(transaction, lambda old: keyring.seal(keyring.open(old)))
        tokens.reseal(transaction, keyring)
        reach("D8-keys")
        return len(sealed)

    return work


def remove_account(account_id: int, now: datetime) -> Callable[[Transaction], None]:
    """Work for the writer: see `DefinitionStore.remove_account`."""

    def work(transaction: Transaction) -> None:
        for where in (WAITING_SQL, SENDING_SQL, f"{ASIDE_SQL} AND state = 'held'"):
            sql = f"SELECT 1 FROM delivery WHERE {where} AND lane = ? LIMIT 1"
            if transaction.raw.execute(sql, (account_id,)).fetchall():
                raise StateConflict("deliveries wait for this account: let them go, or cancel them, first")
        name = transaction.core.execute(select(account.c.name).where(account.c.id == account_id)).scalar()
        if name is None:
            raise NotFound(Fault("account", "there is no such account"))
        circuits.forget(transaction, account_id)
        tokens.forget(transaction, account_id)
        transaction.core.execute(delete(account).where(account.c.id == account_id))
        _renumber(transaction, 0, 0)
        tell(transaction, "account.removed", now, name)

    return work


def _renumber(transaction: Transaction, number: int, position: int) -> int:
    """Put account `number` at `position` and count the others around it; where it stands then."""
    rows = transaction.core.execute(select(account.c.id).order_by(account.c.position, account.c.id))
    order = [row.id for row in rows]
    if number in order:
        order.remove(number)
        order.insert(min(max(position, 0), len(order)), number)
    _number(transaction, order)
    return order.index(number) if number in order else 0


def _number(transaction: Transaction, order: Sequence[int]) -> None:
    for place, identity in enumerate(order):
        transaction.core.execute(update(account).where(account.c.id == identity).values(position=place))


def _seal(given: Account, keyring: Keyring | None) -> bytes:
    secrets = dict(_secrets(given))
    if not secrets:
        return b""
    if keyring is None:
        names = ", ".join(secrets)
        raise InvalidInput(Fault(names, "there is no key to seal it with", "open the store with a keyring"))
    return keyring.seal(json.dumps(secrets).encode())


def _secrets(given: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The secrets of a record and of the groups in it, by their places (`proxy.password`)."""
    for f in fields(given):
        value = getattr(given, f.name)
        if is_dataclass(value):
            yield from _secrets(value, f"{place}{f.name}.")
        elif f.metadata.get("secret") and value:
            yield f"{place}{f.name}", value


def _account(row: Row[Any], keyring: Keyring | None) -> Account:
    stored = _of_any_release(json.loads(row.definition))
    secrets = json.loads(keyring.open(row.sealed)) if row.sealed and keyring is not None else {}
    for place, secret in secrets.items():
        group, _, name = place.rpartition(".")
        (stored.setdefault(group, {}) if group else stored)[name] = secret
    return Account(
        id=row.id,
        name=row.name,
        kind=AccountKind(row.kind),
        position=row.position,
        revision=row.revision,
        enabled=bool(row.enabled),
        **_read(Account, stored, _ACCOUNT_APART),
    )


def _of_any_release(stored: dict[str, Any]) -> dict[str, Any]:
    """The fields as they are now: where there was no `authentication` yet, a user name meant a password."""
    if stored.get("username") and "authentication" not in stored:
        stored["authentication"] = Authentication.PASSWORD.value
    return stored


# --- applications ---


def read_applications(reader: Reader) -> list[Application]:
    """See `DefinitionStore.applications`."""
    rows = reader.core.execute(select(application).order_by(application.c.name_key))
    return [_application(row) for row in rows]


def _application(row: Row[Any]) -> Application:
    return Application(
        id=row.id,
        name=row.name,
        revision=row.revision,
        credential=row.credential,
        **_read(Application, json.loads(row.definition), _APPLICATION_APART),
    )


def save_application(given: Application, now: datetime) -> Callable[[Transaction], Application]:
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
        before = transaction.core.execute(select(application).where(application.c.id == number)).first()
        _put(transaction, application, number, row, is_new=not given.id)
        was = None if before is None else _comparable(_application(before), _PLACE) | {"password": before.credential}
        becomes = _comparable(given, _PLACE) | {"password": given.credential}
        tell_application(transaction, given.name, was, becomes, now)
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


def save_settings(
    values: Mapping[str, str | None], told: Sequence[str], now: datetime
) -> Callable[[Transaction], None]:
    """Work for the writer: see `DefinitionStore.save_settings`."""

    def work(transaction: Transaction) -> None:
        for name, value in values.items():
            save_setting(name, value)(transaction)
        for text in told:
            row = {"at": micros(now), "kind": "settings.changed", "account": "", "detail": text}
            transaction.core.execute(insert(event).values(**row))

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
    """The fields without a column, as JSON: durations in seconds, groups of fields as objects, no secrets."""
    values = {name: value for name, value in _plain(given).items() if name not in apart}
    return json.dumps(values, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if not f.metadata.get("secret")}
    return value


def _read(kind: type[Any], stored: dict[str, Any], apart: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The stored fields in the types of the class; what this version does not know is left out."""
    hints = get_type_hints(kind)
    return {
        f.name: _typed(hints[f.name], stored[f.name]) for f in fields(kind) if f.name not in apart and f.name in stored
    }


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(hint, UnionType):
        hint = next(one for one in get_args(hint) if one is not NoneType)
        return None if value is None else _typed(hint, value)
    if hint is timedelta:
        return timedelta(seconds=value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if isinstance(hint, type) and is_dataclass(hint):
        return hint(**_read(hint, value))
    if isinstance(value, list):
        return tuple(_typed(get_args(hint)[0], one) for one in value)
    return value
