"""The ordered list of accounts, on the real store."""

from __future__ import annotations

import pytest

from postroom.accounts.service import AccountService
from postroom.errors import InvalidInput, NotFound, StateConflict


def _order(accounts: AccountService) -> list[str]:
    assert [account.position for account in accounts.snapshot()] == list(range(len(accounts.snapshot())))
    return [account.name for account in accounts.snapshot()]


async def test_real_accounts_go_above_every_sandbox(accounts: AccountService) -> None:
    await accounts.add({"name": "box", "kind": "sandbox"})
    await accounts.add({"name": "first", "host": "a.example"})
    await accounts.add({"name": "box2", "kind": "sandbox"})
    await accounts.add({"name": "second", "host": "b.example"})
    assert _order(accounts) == ["first", "second", "box", "box2"]


async def test_the_password_is_kept(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "host": "a.example", "username": "ann", "password": "marked"})
    await accounts.load()
    assert accounts.get("RELAY").password == "marked"


async def test_names_are_unique_without_regard_to_case(accounts: AccountService) -> None:
    await accounts.add({"name": "Relay", "host": "a.example"})
    with pytest.raises(InvalidInput, match="'Relay' is taken"):
        await accounts.add({"name": "rELAY", "host": "b.example"})
    await accounts.add({"name": "other", "host": "b.example"})
    with pytest.raises(InvalidInput, match="taken"):
        await accounts.edit("other", {"name": "relay"})
    assert (await accounts.edit("relay", {"name": "RELAY"})).name == "RELAY"


async def test_edit_changes_the_revision_and_tells(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "host": "a.example"})
    seen: list[str] = []
    accounts.on_change.append(lambda: seen.append(accounts.get("relay").host))
    before = accounts.get("relay").revision
    await accounts.edit("relay", {"host": "b.example"})
    assert accounts.get("relay").revision > before
    assert seen == ["b.example"]
    with pytest.raises(InvalidInput):
        await accounts.edit("relay", {"host": "not a host"})
    assert accounts.get("relay").host == "b.example"
    with pytest.raises(InvalidInput, match="stays so"):
        await accounts.edit("relay", {"kind": "sandbox"})


async def test_move_and_remove(accounts: AccountService) -> None:
    for name in ("a", "b", "c"):
        await accounts.add({"name": name, "host": "a.example"})
    await accounts.move("c", 0)
    assert _order(accounts) == ["c", "a", "b"]
    await accounts.move("c", 99)
    assert _order(accounts) == ["a", "b", "c"]
    await accounts.remove("B")
    assert _order(accounts) == ["a", "c"]
    with pytest.raises(NotFound, match="accounts are a, c"):
        accounts.get("b")


async def test_an_account_that_an_application_names_keeps_its_name(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "host": "a.example"})
    accounts.named_by = lambda name: ("local",) if name == "relay" else ()
    with pytest.raises(StateConflict, match="local"):
        await accounts.remove("relay")
    with pytest.raises(StateConflict, match="local"):
        await accounts.edit("relay", {"name": "other"})
    assert (await accounts.edit("relay", {"port": 25})).port == 25


async def test_a_local_address_must_be_of_this_machine(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "host": "a.example", "local_address": "127.0.0.1"})
    with pytest.raises(InvalidInput, match="local_address: 192.0.2.77 is not an address of this machine"):
        await accounts.edit("relay", {"local_address": "192.0.2.77"})
    assert accounts.get("relay").local_address == "127.0.0.1"


async def test_accounts_fall_back_to_accounts_that_are_there(accounts: AccountService) -> None:
    await accounts.add({"name": "Spare", "host": "a.example"})
    with pytest.raises(InvalidInput, match="fallback_accounts: there is no account 'other'"):
        await accounts.add({"name": "relay", "host": "a.example", "fallback_accounts": "spare, other"})
    relay = await accounts.add({"name": "relay", "host": "a.example", "fallback_accounts": "spare"})
    assert relay.fallback_accounts == ("Spare",)
    with pytest.raises(StateConflict, match="account relay, which falls back to it"):
        await accounts.remove("spare")
    with pytest.raises(StateConflict, match="account relay, which falls back to it"):
        await accounts.edit("spare", {"name": "reserve"})
    await accounts.edit("relay", {"fallback": "next-match"})
    await accounts.remove("spare")
