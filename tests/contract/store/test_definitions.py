"""Accounts, applications and settings as they come back, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest

from postroom.errors import InvalidInput, NotFound, StateConflict
from postroom.model.account import Account, AccountKind, Security, Verification
from postroom.model.application import Application
from postroom.model.queue import DeliveryState, LaneId
from postroom.store import Selection
from postroom.store.database import Database, open_store
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import NOON, Hour, begin, claim_of, make_message, result_of, sent

FULL = Account(
    id=0,
    name="Office-365",
    kind=AccountKind.SMTP,
    description="für alle",
    enabled=False,
    host="smtp.office.example",
    port=465,
    security=Security.TLS,
    verification=Verification.OFF,
    ca_bundle="-----BEGIN CERTIFICATE-----\n",
    username="me",
    password="pa$$wörd",
    allow_clear_password=True,
    helo_name="mail.example.org",
    connect_timeout=timedelta(milliseconds=1500),
    command_timeout=timedelta(seconds=61),
    end_of_data_timeout=timedelta(minutes=11),
    connect_retry=timedelta(seconds=31),
    reconnect_interval=timedelta(seconds=6),
    max_connections=5,
    messages_per_connection=101,
    recipients_per_transaction=99,
    idle_timeout=timedelta(seconds=29),
)


async def test_every_field_of_an_account_comes_back(store: Database, open_again: Opener) -> None:
    same = {f.name for f in fields(Account) if f.default == getattr(FULL, f.name)}
    assert same <= {"position", "revision"}, "the example must differ from every default"
    saved = await store.save_account(FULL)
    assert saved == replace(FULL, id=1)
    assert await store.accounts() == [saved]
    await store.close()
    assert await (await open_again()).accounts() == [saved]


async def test_a_password_lies_sealed_in_the_file(store: Database, tmp_path: Path) -> None:
    await store.save_account(FULL)
    await store.close()
    stored = (tmp_path / "postroom.db").read_bytes()
    assert b"smtp.office.example" in stored
    assert b"sealed:" in stored
    for clear in (FULL.password.encode(), b"pa$$w", rb"pa$$w\u00f6rd"):
        assert clear not in stored


async def test_without_a_keyring_no_password_is_stored(tmp_path: Path, hour: Hour) -> None:
    store = await open_store(tmp_path / "no.db", None, hour.now)
    with pytest.raises(InvalidInput, match="password"):
        store.save_account(FULL)
    await store.save_account(replace(FULL, password=""))
    await store.close()


async def test_saving_again_makes_a_new_revision(store: Database) -> None:
    first = await store.save_account(FULL)
    second = await store.save_account(replace(first, host="other.example"))
    assert (second.id, second.revision, second.host) == (first.id, 2, "other.example")
    # The revision that the caller had in hand does not count.
    assert (await store.save_account(first)).revision == 3
    with pytest.raises(NotFound):
        await store.save_account(replace(first, id=77, name="nobody"))


async def test_accounts_stand_where_they_were_put(store: Database) -> None:
    for name, position in (("a", 0), ("b", 1), ("c", 99), ("top", 0)):
        await store.save_account(Account(id=0, name=name, kind=AccountKind.SANDBOX, position=position))
    assert [(a.name, a.position) for a in await store.accounts()] == [("top", 0), ("a", 1), ("b", 2), ("c", 3)]
    (top, *_) = await store.accounts()
    moved = await store.save_account(replace(top, position=2))
    assert moved.position == 2
    assert [(a.name, a.revision) for a in await store.accounts()] == [("a", 1), ("b", 1), ("top", 2), ("c", 1)]
    await store.remove_account(moved.id)
    assert [(a.name, a.position) for a in await store.accounts()] == [("a", 0), ("b", 1), ("c", 2)]


async def test_a_name_is_taken_without_regard_to_case(store: Database) -> None:
    saved = await store.save_account(FULL)
    with pytest.raises(InvalidInput, match="taken"):
        await store.save_account(replace(FULL, name="OFFICE-365"))
    assert (await store.save_account(replace(saved, name="office-365"))).name == "office-365"


@pytest.mark.parametrize("state", [DeliveryState.QUEUED, DeliveryState.SENDING, *DeliveryState])
async def test_an_account_goes_only_when_nothing_waits_for_it(store: Database, state: DeliveryState) -> None:
    account = await store.save_account(FULL)
    token = await begin(store)
    message = make_message(lane=LaneId(account.id))
    if state in (DeliveryState.QUEUED, DeliveryState.SENDING):
        await store.enqueue(message)
        if state is DeliveryState.SENDING:
            await store.claim(claim_of(message, token, lane=LaneId(account.id)))
    else:
        await sent(store, token, message, result_of(0, state, NOON if state is DeliveryState.DEFERRED else None))
    if state.is_final:
        await store.remove_account(account.id)
        assert await store.accounts() == []
        return
    with pytest.raises(StateConflict):
        await store.remove_account(account.id)
    if state is not DeliveryState.SENDING:
        await store.cancel(Selection(), NOON)
        await store.remove_account(account.id)


async def test_a_number_is_never_given_again(store: Database) -> None:
    first = await store.save_account(FULL)
    await store.remove_account(first.id)
    assert (await store.save_account(FULL)).id == first.id + 1
    with pytest.raises(NotFound):
        await store.remove_account(first.id)


async def test_every_field_of_an_application_comes_back(store: Database, open_again: Opener) -> None:
    given = Application(
        id=0,
        name="Shop",
        description="orders",
        enabled=False,
        passwordless=True,
        networks=("192.0.2.0/24", "2001:db8::/32"),
        senders=("*@example.org",),
        accounts=("relay",),
        credential=b"\x00\xff",
    )
    saved = await store.save_application(given)
    other = await store.save_application(Application(id=0, name="archive"))
    assert saved == replace(given, id=1)
    assert await store.applications() == [other, saved]
    with pytest.raises(InvalidInput, match="taken"):
        await store.save_application(replace(given, name="SHOP"))
    changed = await store.save_application(replace(saved, networks=()))
    assert (changed.id, changed.revision) == (saved.id, 2)
    await store.close()
    assert await (await open_again()).applications() == [other, changed]


async def test_settings_are_kept_and_forgotten(store: Database) -> None:
    await store.save_setting("sending_enabled", "off")
    await store.save_setting("retention", "30d")
    await store.save_setting("sending_enabled", "on")
    await store.save_setting("retention", None)
    await store.save_setting("never", None)
    assert await store.settings() == {"sending_enabled": "on"}
