"""Accounts as a TOML file: written in the order of the list, and read back all or none (SPEC section 2)."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import Fault, InvalidInput
from ..model import fields as read
from ..model.account import Account, AccountKind, Authentication
from ..model.fields import unknown_field
from . import toml_text
from .definition import parse_account
from .fields import ACCOUNT_FIELDS, DEFAULTS
from .filling import with_preset
from .sealing import PREFIX, PassphraseSeal

#: The version of the file's form.
FORMAT = 1

#: Longest file that is read.
LONGEST = 16 * 1024 * 1024

_HEAD = """\
# Accounts of Postroom, the topmost first; `postroom accounts import` reads this. A field that is not here stands at its
# default.
"""
_SECRETS = tuple(spec for spec in ACCOUNT_FIELDS.values() if spec.secret)


def write(accounts: Sequence[Account], seal: PassphraseSeal | None) -> str:
    """The file of `accounts`: their fields, and with `seal` also their secrets."""
    parts = [_HEAD, toml_text.table({"format": FORMAT})]
    if seal is not None:
        parts.append("\n[sealing]\n" + toml_text.table(seal.header()))
    for account in accounts:
        parts.append("\n[[accounts]]\n" + toml_text.table(_own_fields(account)))
        secrets = {spec.name: spec.of(account) for spec in _SECRETS if spec.of(account)}
        if secrets and seal is None:
            parts.append(f"# set and not exported: {', '.join(secrets)}\n")
        elif secrets and seal is not None:
            sealed = {name: seal.seal(secret, account.name, name) for name, secret in secrets.items()}
            parts.append("\n[accounts.secrets]\n" + toml_text.table(sealed))
    return "".join(parts)


def _own_fields(account: Account) -> dict[str, object]:
    """What differs from the defaults, and what would be filled in otherwise."""
    always = {"name", "kind"} | ({"pop_port"} if account.authentication is Authentication.POP else set())
    return {
        spec.name: spec.show(spec.of(account))
        for spec in ACCOUNT_FIELDS.values()
        if not spec.secret and (spec.name in always or spec.of(account) != DEFAULTS.get(spec.name))
    }


@dataclass(frozen=True, slots=True)
class Entry:
    """One account of a file: its fields as written, secrets opened."""

    name: str
    fields: Mapping[str, object]


def parse(text: str, passphrase: str) -> list[Entry]:
    """The accounts of a file, in its order; secrets are opened, other fields are not looked at yet.

    Takes some tenths of a second where secrets are sealed: use a thread.

    Raises:
        InvalidInput: it is no TOML, has tables or keys that are not known, or the passphrase does not open it.
    """
    if len(text) > LONGEST:
        raise InvalidInput(Fault("file", f"is {len(text)} characters long", f"at most {LONGEST} are read"))
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(Fault("file", f"is not TOML: {error}", "mend that line")) from None
    faults = [unknown_field(key, _KEYS, "export of accounts") for key in document if key not in _KEYS]
    if document.get("format", FORMAT) != FORMAT:
        mend = f"this release reads format {FORMAT}"
        faults.append(Fault("format", f"{document['format']!r} is not known", mend))
    tables = document.get("accounts", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables) or not tables:
        faults.append(Fault("accounts", "there is none", "write each account under [[accounts]]"))
    if faults:
        raise InvalidInput(faults)
    is_sealed = "sealing" in document or any(one.get("secrets") for one in tables)
    seal = PassphraseSeal.of(document.get("sealing"), passphrase) if is_sealed else None
    return _entries(tables, seal)


_KEYS = ("format", "sealing", "accounts")


def _entries(tables: Sequence[dict[str, Any]], seal: PassphraseSeal | None) -> list[Entry]:
    entries: dict[str, Entry] = {}
    faults: list[Fault] = []
    for number, fields in enumerate(tables, start=1):
        name = fields.get("name")
        if not isinstance(name, str) or not name:
            faults.append(Fault(f"accounts[{number}].name", "there is none", "give each account its name"))
            continue
        if name.lower() in entries:
            faults.append(Fault(f"{name}.name", "stands twice in the file", "take one of the two out"))
        secrets = fields.pop("secrets", {})
        opened, found = _opened(name, secrets, seal)
        faults += found
        faults += [
            Fault(f"{name}.{field}", "stands twice, in clear and sealed", "take one of the two out")
            for field in opened.keys() & fields.keys()
        ]
        entries[name.lower()] = Entry(name, fields | opened)
    if faults:
        raise InvalidInput(faults)
    return list(entries.values())


def _opened(name: str, secrets: object, seal: PassphraseSeal | None) -> tuple[dict[str, str], list[Fault]]:
    if not isinstance(secrets, dict):
        return {}, [Fault(f"{name}.secrets", "is not a table", "write it as [accounts.secrets]")]
    opened, faults = {}, []
    names = [spec.name for spec in _SECRETS]
    for field, block in secrets.items():
        place = f"{name}.secrets.{field}"
        if field not in names:
            fault = unknown_field(field, names, "account's secrets")
            faults.append(Fault(place, fault.fault, fault.mend))
        elif seal is None or not isinstance(block, str) or not block.startswith(PREFIX):
            mend = f"write a secret in clear beside the other fields, as in {field} = '...'"
            faults.append(Fault(place, "is not a sealed secret", mend))
        else:
            try:
                opened[field] = seal.open(block, name, field)
            except ValueError:
                fault_text = "is another one, or the file was changed"
                mend = f"give the one that the file was exported with ({place} does not open)"
                return opened, [Fault("passphrase", fault_text, mend)]
    return opened, faults


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one account: "added", "changed" or "unchanged", and its fields before and after."""

    account: str
    action: str
    fields: tuple[tuple[str, object, object], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import does: the accounts to save, how all accounts stand then, and each change in words."""

    accounts: tuple[Account, ...]
    order: tuple[str, ...]
    changes: tuple[Change, ...]


#: Fits an account into its surroundings, the names of all accounts; raises InvalidInput.
Settle = Callable[[Account, Sequence[str]], Account]


def plan(entries: Sequence[Entry], current: Sequence[Account], settle: Settle) -> Plan:
    """What it takes to have the accounts of a file as the file says, all else left as it is.

    Secrets that the file does not give stay as they are. The accounts of the file stand together in its order, where
    the topmost of them stood, or where new accounts go.

    Raises:
        InvalidInput: a fault for every field that is bad, by account and field.
    """
    known = {account.name.lower(): account for account in current}
    names = {account.name.lower(): account.name for account in current} | {
        entry.name.lower(): entry.name for entry in entries
    }
    made: list[Account] = []
    faults: list[Fault] = []
    for entry in entries:
        try:
            made.append(settle(_made(entry, known.get(entry.name.lower())), list(names.values())))
        except InvalidInput as error:
            faults += [Fault(f"{entry.name}.{one.field}", one.fault, one.mend) for one in error.faults]
    if faults:
        raise InvalidInput(faults)
    changes = [_change(account, known.get(account.name.lower())) for account in made]
    changed = [account for account, change in zip(made, changes, strict=True) if change.action != "unchanged"]
    return Plan(tuple(changed), tuple(_order(made, current)), tuple(changes))


def _made(entry: Entry, current: Account | None) -> Account:
    # What was exported has a host or a kind, and what a preset filled in once may have been changed since.
    by_hand = not {"host", "kind"} & entry.fields.keys()
    fields = with_preset(entry.fields) if by_hand else entry.fields
    if current is None:
        return parse_account(fields)
    # Not from `current`: what the file does not say is at its default, but for secrets.
    base = Account(
        id=current.id, name=current.name, kind=current.kind, position=current.position, revision=current.revision
    )
    kept = {spec.name: spec.of(current) for spec in _SECRETS}
    return parse_account({"kind": AccountKind.SMTP, **fields}, read.changed(base, ACCOUNT_FIELDS, kept))


def _change(account: Account, before: Account | None) -> Change:
    fields: list[tuple[str, object, object]] = []
    for spec in ACCOUNT_FIELDS.values():
        old = spec.of(before) if before is not None else DEFAULTS.get(spec.name, "")
        new = spec.of(account)
        if old == new or (before is None and spec.name == "name"):
            continue
        if spec.secret:
            after = ("replaced" if old else "set") if new else "not set"
            fields.append((spec.name, "set" if old else "not set", after))
        else:
            fields.append((spec.name, spec.show(old), spec.show(new)))
    action = "added" if before is None else "changed" if fields else "unchanged"
    return Change(account.name, action, tuple(fields))


def _order(made: Sequence[Account], current: Sequence[Account]) -> list[str]:
    ours = {account.name.lower() for account in made}
    others = [account for account in current if account.name.lower() not in ours]
    topmost = next((at for at, account in enumerate(current) if account.name.lower() in ours), None)
    if topmost is not None:
        place = sum(account.name.lower() not in ours for account in current[:topmost])
    else:
        place = next((at for at, one in enumerate(others) if one.kind is AccountKind.SANDBOX), len(others))
    return [
        *(account.name for account in others[:place]),
        *(account.name for account in made),
        *(account.name for account in others[place:]),
    ]
