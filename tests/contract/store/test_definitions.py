"""Accounts, applications and settings as they come back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from postroom.errors import InvalidInput, NotFound, StateConflict
from postroom.model.account import (
    Account,
    AccountKind,
    AddressFamily,
    Authentication,
    Cloud,
    Dkim,
    Fallback,
    Graph,
    GraphRecipients,
    Mechanism,
    OAuth,
    OAuthFlow,
    OAuthProvider,
    PopLogin,
    PopSecurity,
    Proxy,
    ProxyType,
    Retry,
    Security,
    Sender,
    TemplateUse,
    Verification,
)
from postroom.model.application import Application, HeaderDoor, RepeatGuard
from postroom.model.limits import Day, Limits, WhenLimited
from postroom.model.queue import DeliveryState, LaneId
from postroom.store import EventFilter, Selection, schema
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
    mx_port=2526,
    owner="ann",
    preset="gmail",
    preset_region="eu",
    charset="iso-8859-1",
    local_address="127.0.0.1",
    address_family=AddressFamily.IPV4,
    dynamic=True,
    authentication=Authentication.PASSWORD,
    mechanism=Mechanism.LOGIN,
    tls_versions=("1.3",),
    fingerprints=("00" * 32,),
    server_name="sni.example.org",
    client_certificate="-----BEGIN CERTIFICATE-----\n",
    client_key="client key",
    proxy=Proxy(
        type=ProxyType.SOCKS5, host="proxy.example", port=9, use_credentials=True, username="u", password="proxy pass",
        domain="D",
    ),
    pop=PopLogin(
        host="pop.example", port=995, security=PopSecurity.TLS, username="u", password="pop pass", apop=False,
        interval=timedelta(milliseconds=7), validity=timedelta(minutes=9),
    ),
    oauth=OAuth(
        provider=OAuthProvider.CUSTOM, flow=OAuthFlow.DEVICE_CODE, cloud=Cloud.CHINA, tenant="t", client_id="c",
        client_secret="client secret", certificate="cert", certificate_key="certificate key",
        service_account="service account", refresh_token="refresh token", authorize_url="https://a.example",
        device_url="https://d.example", token_url="https://t.example", scopes=("a", "b"),
        secret_expires="2030-01-01", issuer="https://i.example",
    ),
    sender=Sender(
        full_name="n", address="a@x.test", reply_address="r@x.test", fixed="f@x.test", fixed_name="F",
        keep_original_as_reply=True, private_keeps_sender=True,
    ),
    dkim=Dkim(domain="x.test", selector="s", rsa_key="rsa key", ed25519_selector="e", ed25519_key="ed25519 key"),
    templates=TemplateUse(cache=0, fail_if_not_found=False),
    sender_patterns=("*@x.test",),
    recipient_patterns=("*",),
    fallback=Fallback.ACCOUNTS,
    fallback_accounts=("other",),
    fall_back_after=timedelta(minutes=3),
    retry=Retry(schedule="1m", window=timedelta(days=1), give_up=timedelta(days=3)),
    limits=Limits(
        send_interval=timedelta(seconds=1), messages_per_second=1, messages_per_minute=2, messages_per_hour=3,
        messages_per_day=4, recipients_per_day=5, day=Day.CALENDAR, day_zone="Europe/Berlin",
    ),
    when_limited=WhenLimited.OVERFLOW,
    quota_group="g",
    graph=Graph(
        mailbox="m@x.test", recipients=GraphRecipients.REFUSE, draft_from=1, draft_only=True, draft_mailbox="d@x.test"
    ),
)  # fmt: skip

#: Every secret of the example, as none of them may lie in the file.
SECRETS = (
    "client key", "proxy pass", "pop pass", "client secret", "certificate key", "service account", "refresh token",
    "rsa key", "ed25519 key",
)  # fmt: skip


def _defaults(record: Any, place: str = "") -> Iterator[str]:
    """The fields of a record, and of the groups in it, that stand at their default."""
    for f in fields(record):
        value = getattr(record, f.name)
        if is_dataclass(value):
            yield from _defaults(value, f"{place}{f.name}.")
        elif f.default == value:
            yield f"{place}{f.name}"


async def test_every_field_of_an_account_comes_back(store: Database, open_again: Opener) -> None:
    assert list(_defaults(FULL)) == ["position", "revision"], "the example must differ from every default"
    saved = await store.save_account(FULL)
    assert saved == replace(FULL, id=1)
    assert await store.accounts() == [saved]
    await store.close()
    assert await (await open_again()).accounts() == [saved]


@pytest.mark.sqlite
async def test_a_password_lies_sealed_in_the_file(store: Database, tmp_path: Path) -> None:
    await store.save_account(FULL)
    await store.close()
    stored = (tmp_path / "postroom.db").read_bytes()
    assert b"smtp.office.example" in stored
    assert b"sealed:" in stored
    for clear in (FULL.password.encode(), b"pa$$w", rb"pa$$w\u00f6rd", *(secret.encode() for secret in SECRETS)):
        assert clear not in stored


async def test_without_a_keyring_no_password_is_stored(tmp_path: Path, hour: Hour) -> None:
    store = await open_store(tmp_path / "no.db", None, hour.now)
    with pytest.raises(InvalidInput, match="password"):
        store.save_account(FULL)
    await store.save_account(Account(id=0, name="open", kind=AccountKind.SMTP))
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


async def test_accounts_of_the_first_release_still_log_in(store: Database) -> None:
    """What it stored had no `authentication`: a user name meant a password. Fields that came later have defaults."""
    saved = await store.save_account(replace(FULL, authentication=Authentication.NONE))
    anonymous = await store.save_account(Account(id=0, name="anonymous", kind=AccountKind.SMTP, position=1))
    early = {"host": "smtp.example.org", "port": 587, "command_timeout": 61.0, "security": "tls"}

    table = schema.account

    def work(connection: Connection) -> None:
        for number, username in ((saved.id, "me"), (anonymous.id, "")):
            definition = json.dumps(early | {"username": username})
            connection.execute(update(table).where(table.c.id == number).values(definition=definition))

    await store.write(work)
    first, second = await store.accounts()
    assert (first.authentication, first.username, first.password) == (Authentication.PASSWORD, "me", FULL.password)
    assert (second.authentication, second.host) == (Authentication.NONE, "smtp.example.org")
    assert (first.proxy.type, first.limits, first.command_timeout) == (ProxyType.NONE, Limits(), timedelta(seconds=61))


async def test_several_accounts_are_saved_all_or_none(store: Database) -> None:
    first = await store.save_account(Account(id=0, name="first", kind=AccountKind.SANDBOX))
    await store.save_account(Account(id=0, name="last", kind=AccountKind.SANDBOX, position=1))
    new = Account(id=0, name="new", kind=AccountKind.SANDBOX)
    with pytest.raises(NotFound):
        await store.save_accounts([replace(first, description="changed"), new, replace(first, id=77, name="x")], [])
    assert [(a.name, a.description) for a in await store.accounts()] == [("first", ""), ("last", "")]
    await store.save_accounts([replace(first, description="changed"), new], ["last", "NEW", "first"])
    found = await store.accounts()
    assert [(a.name, a.position, a.revision) for a in found] == [("last", 0, 1), ("new", 1, 1), ("first", 2, 2)]
    assert found[2].description == "changed"


async def test_applications_are_saved_with_their_accounts_or_not_at_all(store: Database) -> None:
    new = Account(id=0, name="new", kind=AccountKind.SANDBOX)
    erp = Application(id=0, name="erp", accounts=("new",), credential=b"hashed")
    with pytest.raises(InvalidInput, match="taken"):
        await store.save_accounts([new], ["new"], erp, replace(erp, name="ERP"))
    assert (list(await store.accounts()), list(await store.applications())) == ([], [])
    await store.save_accounts([new], ["new"], erp)
    assert [(one.name, one.accounts) for one in await store.applications()] == [("erp", ("new",))]


async def test_a_name_is_taken_without_regard_to_case(store: Database) -> None:
    saved = await store.save_account(FULL)
    with pytest.raises(InvalidInput, match="taken"):
        await store.save_account(replace(FULL, name="OFFICE-365"))
    assert (await store.save_account(replace(saved, name="office-365"))).name == "office-365"


@pytest.mark.parametrize("state", [DeliveryState.QUEUED, DeliveryState.SENDING, *DeliveryState])
async def test_an_account_goes_only_when_nothing_waits_for_it(store: Database, state: DeliveryState) -> None:
    saved = await store.save_account(FULL)
    token = await begin(store)
    message = make_message(lane=LaneId(saved.id))
    if state in (DeliveryState.QUEUED, DeliveryState.SENDING):
        await store.enqueue(message)
        if state is DeliveryState.SENDING:
            await store.claim(claim_of(message, token, lane=LaneId(saved.id)))
    else:
        await sent(store, token, message, result_of(0, state, NOON if state is DeliveryState.DEFERRED else None))
    if state.is_final:
        await store.remove_account(saved.id)
        assert await store.accounts() == []
        return
    with pytest.raises(StateConflict):
        await store.remove_account(saved.id)
    if state is not DeliveryState.SENDING:
        await store.cancel(Selection(), NOON)
        await store.remove_account(saved.id)


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
        owner="ann",
        address="shop@example.org",
        urgent=True,
        header_doors=(HeaderDoor.TAG, HeaderDoor.SEND_AT),
        dynamic=True,
        may_connect_to=("10.0.0.0/8", "*.example.org"),
        apply_suppressions=True,
        limits=Limits(messages_per_hour=5),
        repeat_guard=RepeatGuard(count=3, within=timedelta(minutes=1)),
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


async def test_settings_are_saved_together_with_what_is_told_of_them(store: Database) -> None:
    await store.save_setting("retention", "30d")
    await store.save_settings({"retention": None, "give_up": "3d"}, ["retention: 30d -> 5d", "give_up: 2d -> 3d"])
    assert await store.settings() == {"give_up": "3d"}
    events = [(event.kind, event.detail) for event in (await store.events(EventFilter())).events]
    assert events == [("settings.changed", "retention: 30d -> 5d"), ("settings.changed", "give_up: 2d -> 3d")]
