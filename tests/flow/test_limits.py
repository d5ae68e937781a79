"""Limits of accounts: what waits, until when, and that nothing is forgotten or counted twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from postroom.model.account import Account
from postroom.model.limits import Limits
from postroom.model.outcome import Deferred, NotSent, Outcome, Scope
from postroom.model.queue import LaneId
from postroom.transports import Transaction

from .conftest import Room, relay


def _use(room: Room, *accounts: Account) -> None:
    room.accounts[:] = accounts
    room.scheduler.follow(room.accounts)


def _limited(number: int = 1, *, revision: int = 2, quota_group: str = "", **limits: Any) -> Account:
    return relay(number, revision=revision, quota_group=quota_group, limits=Limits(**limits))


def _sent(room: Room, number: int = 1) -> list[str]:
    return [sent.envelope.recipients[0] for sent in room.transports[f"relay{number}"].sent]


async def _settled(room: Room, many: int) -> None:
    """So many are delivered, and nothing is under way."""

    async def is_so() -> bool:
        counts: Counter[str] = Counter()
        for (_, state), count in (await room.store.counts()).items():
            counts[state.value] += count
        return counts["delivered"] == many and not counts["sending"]

    await room.store.until(is_so)


async def test_mail_over_the_limit_waits_and_goes_on_by_itself(room: Room) -> None:
    _use(room, _limited(messages_per_minute=3))
    for n in range(7):
        await room.submit(f"{n}@y.test")
    await _settled(room, 3)
    lane = room.scheduler.lane(LaneId(1))
    assert lane is not None and lane.limit is not None
    assert lane.limit.reached == "its limit of 3 messages a minute"
    assert 60 <= (lane.limit.wait_seconds() or 0) < 60.1
    room.clock.advance(timedelta(seconds=61))
    await _settled(room, 6)
    room.clock.advance(timedelta(seconds=61))
    await _settled(room, 7)
    assert _sent(room) == [f"{n}@y.test" for n in range(7)]


async def test_between_two_starts_the_interval_is_kept(room: Room) -> None:
    _use(room, _limited(send_interval=timedelta(seconds=10)))
    for n in range(3):
        await room.submit(f"{n}@y.test")
    await _settled(room, 1)
    room.clock.advance(timedelta(seconds=9))
    assert len(_sent(room)) == 1
    room.clock.advance(timedelta(seconds=1))
    await _settled(room, 2)
    room.clock.advance(timedelta(seconds=10))
    await _settled(room, 3)


async def test_recipients_over_the_limit_of_the_day_go_on_the_next(room: Room) -> None:
    _use(room, _limited(recipients_per_day=4))
    message = await room.submit(*[f"{n}@y.test" for n in range(6)])
    await room.until(message, *["delivered"] * 4, "queued", "queued")
    room.clock.advance(timedelta(days=1, minutes=2))
    await room.until(message, *["delivered"] * 6)
    assert [len(sent.envelope.recipients) for sent in room.transports["relay1"].sent] == [4, 2]


async def test_accounts_of_one_group_share_what_they_sent(room: Room) -> None:
    first, second = (_limited(n, quota_group="Ses", messages_per_hour=3) for n in (1, 2))
    second = relay(2, quota_group="ses", limits=second.limits, recipient_patterns=("*@two.test",))
    _use(room, second, first)
    for n in range(2):
        await room.submit(f"{n}@one.test")
    await _settled(room, 2)
    for n in range(3):
        await room.submit(f"{n}@two.test")
    await _settled(room, 3)
    assert (_sent(room, 1), len(_sent(room, 2))) == (["0@one.test", "1@one.test"], 1)
    room.clock.advance(timedelta(hours=1, seconds=5))
    await _settled(room, 5)


async def test_what_was_never_begun_does_not_count(room: Room) -> None:
    _use(room, _limited(messages_per_minute=1))
    room.transports["relay1"].answers.extend([NotSent(), NotSent()])
    message = await room.submit()
    await room.until(message, "delivered")
    assert len(_sent(room)) == 3


async def test_what_was_begun_and_not_sent_counts(room: Room) -> None:
    async def begun(transaction: Transaction) -> Sequence[Outcome]:
        assert transaction.watch is not None
        transaction.watch.was_begun()
        return [NotSent()]

    _use(room, _limited(messages_per_minute=1))
    room.transports["relay1"].answers.append(begun)
    message = await room.submit()

    async def is_given_back() -> bool:
        return len(_sent(room)) == 1 and await room.states(message) == ["queued"]

    await room.store.until(is_given_back)
    assert len(await room.store.usage()) == 2
    room.clock.advance(timedelta(seconds=61))
    await room.until(message, "delivered")


async def test_a_refusal_counts_as_a_send(room: Room) -> None:
    _use(room, _limited(messages_per_minute=1))

    async def refuse(transaction: Transaction) -> Sequence[Outcome]:
        assert transaction.watch is not None
        transaction.watch.answered()
        return [Deferred(status="4.2.0", reason="later", scope=Scope.MESSAGE)]

    room.transports["relay1"].answers.append(refuse)
    await room.until(await room.submit(), "deferred")
    await room.submit("next@y.test")
    assert _sent(room) == ["b@y.test"]


async def test_a_restart_allows_no_more_whatever_the_clock_says(room: Room) -> None:
    _use(room, _limited(messages_per_hour=2))
    for n in range(4):
        await room.submit(f"{n}@y.test")
    await _settled(room, 2)
    await room.scheduler.stop()
    room.clock.time -= timedelta(minutes=30)
    await room.scheduler.start(room.accounts, paused=False, hold_pending=False)
    last = await room.submit("4@y.test")
    assert await room.states(last) == ["queued"]
    lane = room.scheduler.lane(LaneId(1))
    assert lane is not None and lane.limit is not None
    assert lane.limit.reached
    room.clock.advance(timedelta(hours=1, seconds=4))
    await _settled(room, 4)


async def test_an_account_that_loses_its_limit_sends_on(room: Room) -> None:
    _use(room, _limited(messages_per_day=1))
    await room.submit("0@y.test")
    await room.submit("1@y.test")
    await _settled(room, 1)
    _use(room, relay(1, revision=3))
    await _settled(room, 2)


async def test_mail_for_an_account_without_limits_goes_beside_one_that_waits(room: Room) -> None:
    _use(room, _limited(messages_per_day=1), relay(2, recipient_patterns=("*@two.test",)))
    room.accounts.reverse()
    room.scheduler.follow(room.accounts)
    for n in range(3):
        await room.submit(f"{n}@one.test")
        await room.submit(f"{n}@two.test")
    await _settled(room, 4)
    assert len(_sent(room, 2)) == 3
