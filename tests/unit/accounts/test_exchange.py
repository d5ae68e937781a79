"""Files of accounts: what is written reads back the same, secrets are sealed, and a bad file changes nothing."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.accounts import exchange, toml_text
from postroom.accounts.definition import parse_account
from postroom.accounts.sealing import PassphraseSeal
from postroom.accounts.service import AccountService, settled
from postroom.errors import InvalidInput, StateConflict
from postroom.model.account import Account
from tests.unit.accounts.strategies import FIELDS, NAMES, SECRETS, Fields

PASSPHRASE = "correct horse battery"


def _list(named: dict[str, Fields]) -> list[Account]:
    """Accounts of these fields, in this order, with the two that they may name."""
    every = {name: fields for name, fields in named.items() if name.lower() not in ("spare", "other")}
    every |= {"Spare": {"kind": "direct"}, "other": {"kind": "direct"}}
    made = [parse_account({"name": name} | fields) for name, fields in every.items()]
    return [replace(account, id=place + 1, position=place) for place, account in enumerate(made)]


def _seal() -> PassphraseSeal:
    """A seal that costs little."""
    return PassphraseSeal(PASSPHRASE, b"0123456789abcdef", {"n": 2, "r": 8, "p": 1})


UNIQUE = st.dictionaries(NAMES, FIELDS, max_size=3).filter(lambda named: len({n.lower() for n in named}) == len(named))


@given(UNIQUE)
def test_an_export_with_secrets_gives_the_same_accounts_anywhere(named: dict[str, Fields]) -> None:
    before = _list(named)
    text = exchange.write(before, _seal())
    entries = exchange.parse(text, PASSPHRASE)
    plan = exchange.plan(entries, [], settled)
    assert plan.order == tuple(account.name for account in before)
    assert [replace(one, id=0, position=0) for one in before] == list(plan.accounts)
    again = exchange.plan(entries, before, settled)
    assert (again.accounts, {change.action for change in again.changes}) == ((), {"unchanged"})


@given(UNIQUE)
def test_an_export_without_secrets_changes_nothing_where_they_are(named: dict[str, Fields]) -> None:
    before = _list(named)
    plan = exchange.plan(exchange.parse(exchange.write(before, None), ""), before, settled)
    assert plan.accounts == ()
    assert plan.order == tuple(account.name for account in before)


@given(st.text(), SECRETS)
def test_texts_read_back(text: str, secret: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    entries = {"a": text, "b": f"x\n{text}\n\"'\\", "c": [secret, text], "d": True, "e": -7}
    assert tomllib.loads(toml_text.table(entries)) == entries


@given(SECRETS, NAMES)
def test_a_block_opens_only_at_its_place(secret: str, name: str) -> None:
    seal = _seal()
    block = seal.seal(secret, name, "password")
    assert seal.open(block, name.upper(), "password") == secret
    changed = block[:12] + ("A" if block[12] != "A" else "B") + block[13:]
    for place in ((block, name + "x", "password"), (block, name, "pop_password"), (changed, name, "password")):
        with pytest.raises(ValueError, match="does not open"):
            seal.open(*place)


def test_the_same_secret_looks_different_each_time() -> None:
    seal = _seal()
    assert seal.seal("x", "relay", "password") != seal.seal("x", "relay", "password")


RELAY = {"name": "relay", "host": "a.example", "username": "ann", "password": "marked-secret"}


async def test_secrets_go_along_only_when_asked_for_and_sealed(accounts: AccountService) -> None:
    await accounts.add(RELAY)
    plain = await accounts.export()
    sealed = await accounts.export(PASSPHRASE)
    assert "marked" not in plain + sealed
    assert "# set and not exported: password" in plain
    assert tomllib.loads(sealed)["sealing"] | {"salt": ""} == {"kdf": "scrypt", "n": 32768, "r": 8, "p": 3, "salt": ""}
    assert tomllib.loads(sealed)["accounts"][0]["secrets"]["password"].startswith("sealed:1:")
    with pytest.raises(InvalidInput, match="passphrase: is 5 characters long .write 12"):
        await accounts.export("short")


async def test_an_import_on_another_gateway(accounts: AccountService) -> None:
    await accounts.add(RELAY)
    await accounts.add({"name": "box", "kind": "sandbox"})
    sealed, plain = await accounts.export(PASSPHRASE), await accounts.export()
    await accounts.remove("relay")
    for passphrase, fault in (("", "there is none"), ("something else", "is another one, or the file was changed")):
        with pytest.raises(InvalidInput, match=f"passphrase: {fault}"):
            await accounts.import_(sealed, passphrase)
    with pytest.raises(InvalidInput, match=r"relay\.password: there is none for the user name"):
        await accounts.import_(plain)
    assert [account.name for account in accounts.snapshot()] == ["box"]
    seen: list[int] = []
    accounts.on_change.append(lambda: seen.append(1))
    await accounts.import_(sealed, PASSPHRASE, dry_run=True)
    assert (len(accounts.snapshot()), seen) == (1, [])
    await accounts.import_(sealed, PASSPHRASE)
    assert [account.name for account in accounts.snapshot()] == ["relay", "box"]
    assert accounts.get("relay").password == "marked-secret"
    assert seen == [1]
    await accounts.import_(sealed, PASSPHRASE)
    assert (accounts.get("relay").revision, seen) == (1, [1]), "nothing to do, nothing done"


async def test_a_file_says_all_of_an_account_but_its_secrets(accounts: AccountService) -> None:
    await accounts.add(RELAY | {"port": 25, "description": "old"})
    text = "[[accounts]]\nname = 'Relay'\nhost = 'b.example'\nusername = 'ann'\n"
    plan = await accounts.import_(text)
    (change,) = plan.changes
    assert change.action == "changed"
    assert {name: (old, new) for name, old, new in change.fields} == {
        "name": ("relay", "Relay"),
        "description": ("old", ""),
        "host": ("a.example", "b.example"),
        "port": (25, 587),
    }
    account = accounts.get("relay")
    assert (account.name, account.port, account.password, account.id) == ("Relay", 587, "marked-secret", 1)
    await accounts.import_("[[accounts]]\nname = 'Relay'\nhost = 'b.example'\n")
    assert accounts.get("relay").password == ""


async def test_a_secret_may_be_written_in_clear_by_hand(accounts: AccountService) -> None:
    await accounts.import_("[[accounts]]\nname = 'relay'\nhost = 'a'\nusername = 'ann'\npassword = 'sealed:1:x'\n")
    assert accounts.get("relay").password == "sealed:1:x"


@pytest.mark.parametrize(
    ("text", "field", "mend"),
    [
        ("[[accounts]\n", "file", "mend that line"),
        ("", "accounts", "[[accounts]]"),
        ("accounts = 3\n", "accounts", "[[accounts]]"),
        ("format = 2\n[[accounts]]\nname = 'a'\nhost = 'a'\n", "format", "format 1"),
        ("formt = 1\n[[accounts]]\nname = 'a'\nhost = 'a'\n", "formt", "did you mean format?"),
        ("[[accounts]]\nhost = 'a'\n", "accounts[1].name", "its name"),
        ("[[accounts]]\nname = 'a'\nhost = 'a'\n[[accounts]]\nname = 'A'\n", "A.name", "one of the two"),
        ("[[accounts]]\nname = 'a'\nhst = 'a'\n", "a.hst", "did you mean host"),
        ("[[accounts]]\nname = 'a'\nhost = 'a'\ncommand_timeout = 60\n", "a.command_timeout", "60s"),
        ("[[accounts]]\nname = 'a'\nhost = 'a'\nport = 1999-01-01\n", "a.port", "a number"),
        ("[[accounts]]\nname = 'a'\nhost = 'a'\n[accounts.secrets]\npassword = 'x'\n", "sealing", "exported"),
        ("[[accounts]]\nname = 'a'\nhost = 'a'\nfallback_accounts = 'b'\n", "a.fallback_accounts", "accounts list"),
        ("[[accounts]]\nname = 'box'\nhost = 'a'\n", "box.kind", "another account"),
    ],
)
async def test_a_bad_file_changes_nothing(accounts: AccountService, text: str, field: str, mend: str) -> None:
    await accounts.add({"name": "box", "kind": "sandbox"})
    good = "[[accounts]]\nname = 'good'\nhost = 'a.example'\n" if "[[accounts]]" in text else ""
    with pytest.raises(InvalidInput) as refused:
        await accounts.import_(text + good)
    assert [one.field for one in refused.value.faults] == [field]
    assert mend in refused.value.faults[0].mend
    assert [account.name for account in accounts.snapshot()] == ["box"]


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"kdf": "md5"}, "sealing.kdf"),
        ({"n": 3}, "sealing.n"),
        ({"n": 1 << 20, "r": 16}, "sealing.n"),
        ({"n": 1 << 30}, "sealing.n"),
        ({"p": True}, "sealing.p"),
        ({"salt": "!"}, "sealing.salt"),
        ({"salt": ""}, "sealing.salt"),
        ({"colour": "red"}, "sealing.colour"),
    ],
)
def test_costs_that_a_file_may_not_ask_for(header: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PassphraseSeal.of(_seal().header() | header, PASSPHRASE)
    assert refused.value.faults[0].field == field


async def test_accounts_of_a_file_stand_together_in_its_order(accounts: AccountService) -> None:
    for name in ("a", "b", "c", "d"):
        await accounts.add({"name": name, "host": "x.example"})
    await accounts.add({"name": "box", "kind": "sandbox"})

    async def after(*names: str) -> str:
        await accounts.import_("".join(f"[[accounts]]\nname = '{name}'\nhost = 'x.example'\n" for name in names))
        return " ".join(account.name for account in accounts.snapshot())

    assert await after("new") == "a b c d new box"
    assert await after("d", "b") == "a d b c new box"
    assert await after("new", "first", "a") == "new first a d b c box"


async def test_a_name_that_rights_hang_on_keeps_its_spelling(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "host": "a.example"})
    accounts.named_by = lambda name: ("application erp",)
    with pytest.raises(StateConflict, match="application erp"):
        await accounts.import_("[[accounts]]\nname = 'RELAY'\nhost = 'a.example'\n")


async def test_two_accounts_may_fall_back_to_each_other_in_one_file(accounts: AccountService) -> None:
    text = "".join(
        f"[[accounts]]\nname = '{name}'\nhost = 'x.example'\nfallback_accounts = ['{other}']\n"
        for name, other in (("one", "TWO"), ("two", "one"))
    )
    await accounts.import_(text)
    assert [account.fallback_accounts for account in accounts.snapshot()] == [("two",), ("one",)]
