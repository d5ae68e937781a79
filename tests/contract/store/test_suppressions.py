"""The suppression list: looked up in the transaction of a message, filled by people and by outcomes, page by key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from postroom.model.queue import DeliveryResult, DeliveryState, FencingToken, NewMessage, RepeatCheck
from postroom.model.suppression import Suppression, SuppressionSource
from postroom.policy.suppressions import keys_of
from postroom.store import EventFilter, MessageView, Selection
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import (
    LANE,
    NOON,
    Hour,
    attempt_of,
    begin,
    claim_of,
    make_message,
    result_of,
)

DAY = timedelta(days=1)


def entry(key: str, reason: str = "asked to be left out", expires: datetime | None = None) -> Suppression:
    return Suppression(key=key, reason=reason, source=SuppressionSource.BY_HAND, created=NOON, expires=expires)


def checked(*recipients: str, at: datetime = NOON) -> NewMessage:
    message = make_message(*recipients, at=at)
    return replace(message, suppressible=tuple(keys_of(delivery.recipient) for delivery in message.deliveries))


async def viewed(store: Database, message: NewMessage) -> MessageView:
    view = await store.message(message.id)
    assert view is not None
    return view


async def test_who_is_on_the_list_ends_bounced_with_the_message_and_the_others_go_on(store: Database) -> None:
    token = await begin(store)
    await store.suppressions.save([entry("ann@y.test", "left"), entry("gone.test", "closed")], "2 entries")
    message = checked("b@y.test", "Ann@Y.test", "x@gone.test", "x@sub.gone.test")
    assert (await store.enqueue(message)).ended == (1, 2)
    view = await viewed(store, message)
    assert [(row.state.value, row.status, row.reply) for row in view.deliveries] == [
        ("queued", "", ""),
        ("bounced", "5.7.1", "ann@y.test is on the suppression list: left"),
        ("bounced", "5.7.1", "gone.test is on the suppression list: closed"),
        ("queued", "", ""),
    ]
    assert [row.ended for row in view.deliveries] == [None, NOON, NOON, None]
    assert [row.due for row in view.deliveries] == [NOON, None, None, NOON]
    assert view.attempts == ()
    assert [(event.kind, event.n, event.detail) for event in view.events] == [
        ("accepted", None, ""),
        ("bounced", 1, "5.7.1 ann@y.test is on the suppression list: left"),
        ("bounced", 2, "5.7.1 gone.test is on the suppression list: closed"),
    ]
    counts = await store.counts()
    assert (counts[LANE, DeliveryState.QUEUED], counts[LANE, DeliveryState.BOUNCED]) == (2, 2)
    assert await store.claim(claim_of(message, token)) == (0, 3), "the others alone"
    assert await store.noticed(NOON + DAY) == [], "nobody is told"
    assert await store.cancel(Selection(message_id=message.id, n=1), NOON) == 0, "it has ended"


async def test_a_message_that_does_not_ask_goes_to_everybody(store: Database) -> None:
    await store.suppressions.save([entry("b@example.net")], "b@example.net")
    assert (await store.enqueue(make_message())).ended == ()


async def test_what_was_acknowledged_applies_to_the_next_message_and_to_no_other(
    store: Database, open_again: Opener
) -> None:
    before, after, later = (checked("ann@y.test") for _ in range(3))
    first, saved, second = (
        store.enqueue(before), store.suppressions.save([entry("ann@y.test")], ""), store.enqueue(after),
    )  # fmt: skip
    assert ((await first).ended, await saved, (await second).ended) == ((), 1, (0,))
    await store.close()
    store = await open_again()
    assert (await store.enqueue(checked("ann@y.test"))).ended == (0,), "after a restart too"
    assert await store.suppressions.remove("ann@y.test")
    assert (await store.enqueue(later)).ended == ()
    assert not await store.suppressions.remove("ann@y.test"), "it is gone"


async def test_an_entry_holds_until_it_expires_and_the_domain_of_one_that_has_expired_still_counts(
    store: Database,
) -> None:
    until = NOON + DAY
    await store.suppressions.save([entry("ann@y.test", "for a day", until), entry("bob@z.test", "too", until)], "")
    assert (await store.enqueue(checked("ann@y.test", at=until - timedelta(seconds=1)))).ended == (0,)
    assert (await store.enqueue(checked("ann@y.test", at=until))).ended == ()
    await store.suppressions.save([entry("z.test", "the whole domain")], "")
    message = checked("bob@z.test", at=until)
    await store.enqueue(message)
    assert (await viewed(store, message)).deliveries[0].reply == "z.test is on the suppression list: the whole domain"


async def test_many_messages_of_one_commit_are_told_apart(store: Database) -> None:
    await store.suppressions.save([entry(f"r{n}@y.test", f"number {n}") for n in range(0, 200, 2)], "")
    messages = [checked(f"R{n}@y.test", f"r{n + 1}@y.test") for n in range(100)]

    async def told(message: NewMessage) -> tuple[int, ...]:
        return (await store.enqueue(message)).ended

    found = await asyncio.gather(*[told(message) for message in messages])
    assert found == [(0,) if n % 2 == 0 else (1,) for n in range(100)]
    reply = (await viewed(store, messages[40])).deliveries[0].reply
    assert reply == "r40@y.test is on the suppression list: number 40"


async def test_who_is_suppressed_is_neither_counted_nor_held_by_the_repeat_guard(store: Database) -> None:
    await store.suppressions.save([entry("ann@y.test")], "")
    check = RepeatCheck((b"1" * 16,), 2, 5, 5, 105, "too often")
    for _ in range(3):
        message = replace(checked("ann@y.test"), repeats=check)
        await store.enqueue(message)
        assert (await viewed(store, message)).deliveries[0].state is DeliveryState.BOUNCED
    other = replace(checked("bob@y.test"), repeats=check)
    assert (await store.enqueue(other)).ended == (), "the first that counts"
    assert (await store.counts())[LANE, DeliveryState.BOUNCED] == 3


async def test_an_entry_takes_the_place_of_the_one_before_and_says_whether_it_is_new(
    store: Database, hour: Hour
) -> None:
    assert await store.suppressions.save([entry("a@x.test"), entry("b@x.test", expires=NOON + DAY)], "two") == 2
    assert await store.suppressions.save([entry("a@x.test", "other words"), entry("c@x.test")], "two more") == 1
    found = await store.suppressions.get("a@x.test")
    assert found == entry("a@x.test", "other words")
    hour.at += 2 * DAY
    assert await store.suppressions.save([entry("b@x.test")], "one that had expired") == 1
    assert await store.suppressions.get("nobody@x.test") is None
    await store.suppressions.remove("a@x.test")
    page = await store.events(EventFilter(kinds=("suppression",)))
    assert [(event.kind, event.detail, event.message_id) for event in page.events] == [
        ("suppression.added", "two", None),
        ("suppression.added", "two more", None),
        ("suppression.added", "one that had expired", None),
        ("suppression.removed", "a@x.test", None),
    ]


async def test_the_list_is_read_page_by_page_and_by_its_beginning(store: Database) -> None:
    keys = [f"{name}@x.test" for name in ("a-b", "a.b", "ab", "a_b", "é", "zoë")] + ["x.test", "xa.test"]
    await store.suppressions.save([entry(key) for key in keys], "")
    found: list[str] = []
    while page := await store.suppressions.page("", found[-1] if found else "", 3):
        found += [one.key for one in page]
    assert found == sorted(keys), "in the order of their code points, on every database"
    assert [one.key for one in await store.suppressions.page("a", "", 10)] == sorted(keys)[:4]
    assert [one.key for one in await store.suppressions.page("x", "x.test", 10)] == ["xa.test"]
    assert await store.suppressions.page("%", "", 10) == []


async def test_what_expired_long_ago_is_forgotten_in_small_steps(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.store.suppressions.STEP", 2)
    old = [entry(f"r{n}@x.test", expires=NOON + n * DAY) for n in range(5)]
    await store.suppressions.save([*old, entry("always@x.test")], "")
    assert await store.suppressions.forget(NOON + 3 * DAY) == 2
    assert await store.suppressions.forget(NOON + 3 * DAY) == 1
    assert await store.suppressions.forget(NOON + 3 * DAY) == 0
    kept = [one.key for one in await store.suppressions.page("", "", 10)]
    assert kept == ["always@x.test", "r3@x.test", "r4@x.test"]


def bounced(n: int, key: str, at: datetime = NOON, **more: object) -> DeliveryResult:
    one = Suppression(
        key=key, reason="550 5.1.1 no such user", source=SuppressionSource.HARD_BOUNCE, created=at, expires=at + DAY,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return result_of(n, DeliveryState.BOUNCED, suppression=one)


async def test_a_hard_bounce_puts_its_recipient_on_the_list_with_the_outcome(store: Database) -> None:
    token = await begin(store)
    message = make_message("gone@y.test", "b@y.test")
    await store.enqueue(message)
    await store.claim(claim_of(message, token))
    void = FencingToken(token - 1)
    await store.complete(attempt_of(message, void, bounced(0, "gone@y.test")))
    assert await store.suppressions.get("gone@y.test") is None, "the outcome was not taken"
    await store.complete(
        attempt_of(
            message, token, bounced(0, "gone@y.test", message_id=message.id), result_of(1, DeliveryState.DELIVERED)
        )
    )
    found = await store.suppressions.get("gone@y.test")
    assert found is not None
    assert (found.source, found.reason, found.expires, found.message_id) == (
        "hard-bounce", "550 5.1.1 no such user", NOON + DAY, message.id,
    )  # fmt: skip
    assert (await store.enqueue(checked("Gone@y.test", "b@y.test"))).ended == (0,)
    (event,) = (await store.events(EventFilter(kinds=("suppression.added",)))).events
    assert (event.detail, event.account, event.message_id) == (
        "gone@y.test: 550 5.1.1 no such user", "relay", message.id,
    )  # fmt: skip


async def test_bounces_that_repeat_move_the_expiry_and_leave_what_a_person_said(store: Database) -> None:
    token = await begin(store)
    until = NOON + timedelta(hours=1)
    await store.suppressions.save([entry("hand@y.test", "left"), entry("late@y.test", "for an hour", until)], "")
    keys = ("gone@y.test", "hand@y.test", "late@y.test")
    for at in (NOON, until):
        messages = [make_message(*keys, at=at) for _ in range(3)]
        for message in messages:
            await store.enqueue(message)
        await asyncio.gather(*[awaited(store.claim(claim_of(message, token))) for message in messages])
        results = [bounced(n, key, at) for n, key in enumerate(keys)]
        await asyncio.gather(
            *[awaited(store.complete(attempt_of(message, token, *results, at=at))) for message in messages]
        )
    found = {one.key: (one.source.value, one.expires) for one in await store.suppressions.page("", "", 10)}
    assert found == {
        "gone@y.test": ("hard-bounce", until + DAY),
        "hand@y.test": ("by-hand", None),
        "late@y.test": ("hard-bounce", until + DAY),
    }
    added = (await store.events(EventFilter(kinds=("suppression.added",)))).events[1:]
    assert [event.detail.partition(":")[0] for event in added] == ["gone@y.test", "late@y.test"], "each once"


async def awaited(result: Awaitable[object]) -> object:
    return await result
