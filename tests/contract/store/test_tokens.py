"""What OAuth 2 gave: one claim at a time, versions that only grow, consents that count once; and nothing in clear."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio

from postroom.errors import NotFound
from postroom.model.account import Account, AccountKind
from postroom.model.token import Grant, PendingConsent
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import NOON, Hour

SOON = NOON + timedelta(minutes=1)
OURS, THEIRS = b"o" * 16, b"t" * 16
EMPTY = Grant(account_id=1, binding="b", refresh_token="r1")
FIRST = replace(EMPTY, access_token="a1", refresh_token="r2", expires=SOON, granted=NOON, refreshed=NOON)


async def with_accounts(store: Database) -> Database:
    """`store` with the accounts 1 and 2."""
    given = [Account(id=0, name=name, kind=AccountKind.SANDBOX) for name in ("one", "two")]
    await store.save_accounts(given, ["one", "two"])
    return store


@pytest_asyncio.fixture
async def store(open_again: Opener) -> Database:
    """One with the accounts 1 and 2."""
    return await with_accounts(await open_again())


async def test_an_account_that_was_removed_gets_nothing_any_more(store: Database) -> None:
    tokens = store.tokens
    pending = PendingConsent(state="s1", account_id=1, binding="b", secret="verifier", expires=SOON)
    assert await tokens.claim(EMPTY, OURS, NOON, SOON)
    await store.remove_account(1)
    assert await tokens.save(FIRST) is None
    for late in (
        lambda: tokens.claim(EMPTY, OURS, NOON, SOON), lambda: tokens.save(FIRST, whatever_version=True),
        lambda: tokens.ask(pending, NOON),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await late()
    assert list(await tokens.grants()) == [] and await tokens.asked("s1") is None


async def test_one_at_a_time_may_refresh_what_is_stored_or_not_yet(store: Database) -> None:
    tokens = store.tokens
    assert await tokens.claim(EMPTY, OURS, NOON, SOON)
    assert not await tokens.claim(EMPTY, THEIRS, NOON, SOON)
    saved = await tokens.save(FIRST)
    assert saved == await tokens.grant(1) == replace(FIRST, version=1)
    assert not await tokens.claim(EMPTY, THEIRS, NOON, SOON), "of another version"
    assert await tokens.claim(saved, THEIRS, NOON, SOON), "who has stored it has given his right back"
    await tokens.release(1, OURS)
    assert not await tokens.claim(saved, OURS, NOON, SOON), "nobody gives back another's right"
    await tokens.release(1, THEIRS)
    assert await tokens.claim(saved, OURS, NOON, SOON)


async def test_a_right_ends_with_its_time_and_with_the_process_that_had_it(store: Database) -> None:
    tokens = store.tokens
    assert await tokens.claim(EMPTY, OURS, NOON, SOON)
    assert await tokens.claim(EMPTY, THEIRS, SOON, SOON + timedelta(minutes=1))
    await tokens.release_all()
    assert await tokens.claim(EMPTY, OURS, NOON, SOON)


async def test_what_is_older_than_what_is_stored_is_not_stored(store: Database) -> None:
    tokens = store.tokens
    given = await tokens.save(FIRST, whatever_version=True)
    assert given is not None and given.version == 1
    assert await tokens.claim(given, OURS, NOON, SOON)
    later = await tokens.save(replace(given, refresh_token="r3"))
    assert later is not None and later.version == 2
    assert await tokens.claim(later, OURS, NOON, SOON)
    assert await tokens.save(replace(given, refresh_token="r2b")) is None
    assert await tokens.grant(1) == later
    consented = await tokens.save(replace(EMPTY, refresh_token="r9"), whatever_version=True)
    assert consented == await tokens.grant(1) == replace(EMPTY, refresh_token="r9", version=3)
    assert await tokens.save(replace(later, refresh_token="r4")) is None, "a consent goes before a refresh of before"


async def test_what_was_forgotten_meanwhile_is_not_stored_again(store: Database) -> None:
    tokens = store.tokens
    given = await tokens.save(FIRST, whatever_version=True)
    assert given is not None
    assert await tokens.claim(given, OURS, NOON, SOON)
    await tokens.forget(1)
    assert not await tokens.claim(given, THEIRS, NOON, SOON)
    assert await tokens.save(given) is None
    anew = await tokens.save(replace(EMPTY, refresh_token="r9"), whatever_version=True)
    assert anew is not None and anew.version == given.version
    assert await tokens.save(given) is None and await tokens.grant(1) == anew, "what was given since stays"
    await tokens.forget(1)
    assert await tokens.claim(EMPTY, OURS, NOON, SOON)
    await tokens.forget(1)
    assert await tokens.save(FIRST) is None and list(await tokens.grants()) == []


async def test_a_consent_is_taken_once_and_goes_with_its_time(store: Database) -> None:
    tokens = store.tokens
    pending = PendingConsent(state="s1", account_id=1, binding="b", secret="verifier", redirect_uri="u", expires=SOON)
    await tokens.ask(pending, NOON)
    assert await tokens.asked("s1") == pending and await tokens.asked("s2") is None
    assert sorted(await asyncio.gather(tokens.take("s1"), tokens.take("s1"))) == [False, True]
    await tokens.ask(pending, NOON)
    await tokens.ask(replace(pending, state="s2", expires=SOON + timedelta(minutes=1)), SOON)
    assert await tokens.asked("s1") is None, "it had expired"
    await tokens.forget(1)
    assert await tokens.asked("s2") is None


async def test_it_outlives_the_process_and_every_account_has_its_own(open_again: Opener, hour: Hour) -> None:
    store = await with_accounts(await open_again())
    for account in (1, 2):
        await store.tokens.save(replace(FIRST, account_id=account, refused="why"), whatever_version=True)
    await store.close()
    again = await open_again()
    assert sorted(grant.account_id for grant in await again.tokens.grants()) == [1, 2]
    assert await again.tokens.grant(2) == replace(FIRST, account_id=2, refused="why", version=1)
