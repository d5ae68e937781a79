"""Fallback: which failure, at which stage, may switch account; that nothing is sent twice; and the way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from postroom.model.account import Account, AccountKind, Fallback
from postroom.model.limits import Limits, WhenLimited
from postroom.model.outcome import Bounced, Deferred, Outcome, Remedy, Scope, Unknown
from postroom.model.queue import MessageId
from postroom.model.reply import Reply
from postroom.transports import AccountUnavailable, Transaction

from .conftest import Room, relay

DOWN = Deferred(status="4.4.1", reason="connection refused", scope=Scope.ACCOUNT, remedy=Remedy.SLEEP)
LOCKED = Deferred(status="5.7.8", reason="wrong password", scope=Scope.ACCOUNT, remedy=Remedy.STOP)
NOT_YOU = Bounced(
    status="5.7.1",
    reason="sender not allowed",
    scope=Scope.SENDER,
    reply=Reply(550, ("5.7.1 not you",), "5.7.1", "MAIL"),
)
MINUTES = timedelta(minutes=1)


def _use(room: Room, *accounts: Account) -> None:
    room.accounts[:] = accounts
    room.scheduler.follow(room.accounts)


def _down(room: Room, number: int = 1, failure: Deferred = DOWN, times: int = 50) -> None:
    room.transports[f"relay{number}"].answers.extend([AccountUnavailable(failure)] * times)


def _sent(room: Room, number: int) -> int:
    return len(room.transports[f"relay{number}"].sent)


async def _accounts(room: Room, message: MessageId) -> list[int]:
    return [row.lane for row in await room.rows(message)]


async def _until_asleep(room: Room) -> MessageId:
    message = await room.submit()
    await room.until_event("account.asleep")
    return message


async def _switch_off(room: Room) -> None:
    """The first account is off for longer than its fallback waits, and what shall move has moved."""
    first = dataclasses.replace(room.accounts[0], revision=room.accounts[0].revision + 1, enabled=False)
    _use(room, first, *room.accounts[1:])
    room.clock.advance(10 * MINUTES)
    await room.scheduler.diverter.turn()


async def test_after_the_time_the_next_match_takes_what_waits_and_what_comes(room: Room) -> None:
    _use(room, relay(1), relay(2))
    _down(room)
    first = await _until_asleep(room)
    room.clock.advance(timedelta(seconds=119))
    assert await room.states(first) != ["delivered"]
    assert _sent(room, 2) == 0
    room.clock.advance(timedelta(seconds=2))
    await room.until(first, "delivered")
    assert await _accounts(room, first) == [2]
    later = await room.submit("c@y.test")
    await room.until(later, "delivered")
    assert (_sent(room, 1), _sent(room, 2)) == (0, 2)
    assert "relay1" in await room.until_event("rerouted")
    assert "connection refused" in await room.until_event("account.fell_back")


async def test_mail_returns_when_the_account_is_well(room: Room) -> None:
    _use(room, relay(1, fall_back_after=timedelta(0)), relay(2, fall_back_after=timedelta(0)))
    _down(room, times=1)
    _down(room, 2)
    waits = await _until_asleep(room)
    await room.until_event("account.asleep")
    # The second is down as well: nobody can take it, and it stays where it belongs.
    room.clock.advance(MINUTES)
    await room.until(waits, "delivered")
    assert await _accounts(room, waits) == [1]


async def test_what_waits_elsewhere_comes_home_after_a_success(room: Room) -> None:
    _use(room, relay(1, fall_back_after=timedelta(0)), relay(2, limits=Limits(messages_per_day=1)))
    _down(room, times=1)
    first = await _until_asleep(room)
    await room.until(first, "delivered")
    second = await room.submit("c@y.test")

    async def is_away() -> bool:
        return await _accounts(room, second) == [2]

    # The second account has reached its limit, so nobody takes it: the first tries again when it wakes.
    assert not await is_away()
    room.clock.advance(MINUTES)
    await room.until(second, "delivered")
    assert await _accounts(room, second) == [1]


async def test_an_account_that_is_off_falls_back_and_what_is_left_comes_home_when_it_is_on(room: Room) -> None:
    _use(room, relay(1), relay(2))
    _use(room, relay(1, revision=2, enabled=False), relay(2))
    room.transports["relay2"].capacity = 0
    waits = await room.submit()
    room.clock.advance(3 * MINUTES)

    async def is_at(lane: int) -> bool:
        return await _accounts(room, waits) == [lane]

    await room.store.until(lambda: is_at(2))
    _use(room, relay(1, revision=3), relay(2))
    await room.store.until(lambda: is_at(1))
    await room.until(waits, "delivered")
    assert (_sent(room, 1), _sent(room, 2)) == (1, 0)
    assert await room.until_event("account.came_home") == "1"


async def test_an_account_that_needs_attention_falls_back(room: Room) -> None:
    _use(room, relay(1), relay(2))
    _down(room, failure=LOCKED)
    message = await room.submit()
    await room.until_event("account.needs_attention")
    room.clock.advance(3 * MINUTES)
    await room.until(message, "delivered")
    assert await _accounts(room, message) == [2]


@pytest.mark.parametrize(
    "fields",
    [
        {"fallback": Fallback.NONE},
        {"fallback": Fallback.ACCOUNTS, "fallback_accounts": ("gone",)},
    ],
)
async def test_without_fallback_mail_waits(room: Room, fields: dict[str, Any]) -> None:
    _use(room, relay(1, **fields), relay(2))
    _down(room)
    message = await _until_asleep(room)
    await _switch_off(room)
    assert await _accounts(room, message) == [1]
    assert _sent(room, 2) == 0


async def test_a_list_of_accounts_is_taken_in_its_order(room: Room) -> None:
    first = relay(1, fallback=Fallback.ACCOUNTS, fallback_accounts=("Relay4", "relay2"))
    _use(room, first, relay(2), relay(3), relay(4))
    _down(room)
    message = await _until_asleep(room)
    room.clock.advance(3 * MINUTES)
    await room.until(message, "delivered")
    assert await _accounts(room, message) == [4]


async def test_a_sandbox_never_takes_over(room: Room) -> None:
    _use(room, relay(1), Account(id=2, name="relay2", kind=AccountKind.SANDBOX), relay(3))
    _down(room)
    message = await _until_asleep(room)
    room.clock.advance(3 * MINUTES)
    await room.until(message, "delivered")
    assert await _accounts(room, message) == [3]


async def test_who_named_the_account_waits_for_it(room: Room) -> None:
    _use(room, relay(1), relay(2))
    _down(room)
    message = await room.submit(account="relay1")
    await room.until_event("account.asleep")
    await _switch_off(room)
    assert await _accounts(room, message) == [1]


async def test_only_accounts_that_match_and_are_granted_take_over(room: Room) -> None:
    only = dataclasses.replace(room.application, accounts=("relay1", "relay3"))
    room.application = only
    _use(room, relay(1), relay(2), relay(3, recipient_patterns=("*@y.test",)))
    _down(room)
    ours, other = await room.submit("b@y.test", application=only), await room.submit("b@z.test", application=only)
    await room.until_event("account.asleep")
    room.clock.advance(3 * MINUTES)
    await room.until(ours, "delivered")
    assert (await _accounts(room, ours), await _accounts(room, other)) == ([3], [1])


async def test_what_a_relay_may_have_stays_with_it(room: Room) -> None:
    """End of data written and no reply: the same account, later."""
    _use(room, relay(1), relay(2))
    room.transports["relay1"].answers.append(Unknown(status="4.4.2", reason="no reply"))
    message = await room.submit()
    await room.until(message, "deferred")
    _down(room)
    await _switch_off(room)
    assert await _accounts(room, message) == [1]


async def test_what_a_crash_left_in_doubt_stays(room: Room) -> None:
    _use(room, relay(1), relay(2))

    async def never(transaction: Transaction) -> Sequence[Outcome]:
        raise RuntimeError("a fault of ours")

    room.transports["relay1"].answers.append(never)
    message = await room.submit()
    await room.until(message, "sending")
    await room.scheduler.stop()
    _down(room)
    await room.scheduler.start(room.accounts, paused=False, hold_pending=False)
    await room.until_event("account.asleep")
    await _switch_off(room)
    assert await _accounts(room, message) == [1]
    assert (await room.rows(message))[0].may_be_sent_twice


async def test_a_sender_that_the_account_refuses_goes_by_the_next_at_once(room: Room) -> None:
    _use(room, relay(1), relay(2))
    room.transports["relay1"].answers.append(NOT_YOU)
    message = await room.submit("b@y.test", "c@y.test")
    await room.until(message, "delivered", "delivered")
    assert await _accounts(room, message) == [2, 2]
    assert room.scheduler.circuit(room.accounts[0].id).may_send  # type: ignore[arg-type]
    assert "refuses this sender" in await room.until_event("rerouted")


async def test_a_sender_whom_nobody_else_takes_bounces(room: Room) -> None:
    _use(room, relay(1))
    room.transports["relay1"].answers.append(NOT_YOU)
    await room.until(await room.submit(), "bounced")
    _use(room, relay(1, revision=2, fallback=Fallback.NONE), relay(2))
    room.transports["relay1"].answers.append(NOT_YOU)
    await room.until(await room.submit(), "bounced")


async def test_a_sender_that_each_account_refuses_bounces_at_the_last(room: Room) -> None:
    _use(room, relay(1), relay(2), relay(3))
    for number in (1, 2, 3):
        room.transports[f"relay{number}"].answers.append(NOT_YOU)
    message = await room.submit()
    await room.until(message, "bounced")
    assert [_sent(room, number) for number in (1, 2, 3)] == [1, 1, 1]


async def test_a_refusal_of_the_message_never_switches(room: Room) -> None:
    _use(room, relay(1), relay(2))
    room.transports["relay1"].answers.append(Bounced(status="5.1.1", reason="no such user", scope=Scope.MESSAGE))
    await room.until(await room.submit(), "bounced")
    assert _sent(room, 2) == 0


async def test_over_the_limit_the_next_match_takes_it_and_no_more_than_that(room: Room) -> None:
    first = relay(1, limits=Limits(messages_per_hour=2), when_limited=WhenLimited.OVERFLOW)
    _use(room, first, relay(2))
    messages = [await room.submit(f"{n}@y.test") for n in range(5)]
    for message in messages:
        await room.until(message, "delivered")
    assert (_sent(room, 1), _sent(room, 2)) == (2, 3)
    room.clock.advance(timedelta(hours=1, seconds=5))
    await room.until(await room.submit(), "delivered")
    assert _sent(room, 1) == 3


async def test_each_message_arrives_once_while_accounts_come_and_go(room: Room) -> None:
    _use(room, relay(1, fall_back_after=timedelta(0)), relay(2, fall_back_after=timedelta(0)), relay(3))
    messages = []
    for n in range(40):
        number = 1 + n % 2
        if n % 5 == 0:
            room.transports[f"relay{number}"].answers.append(DOWN)  # said to MAIL
        messages.append(await room.submit(f"{n}@y.test"))
        room.clock.advance(timedelta(seconds=17))
    while any([await room.states(message) != ["delivered"] for message in messages]):
        room.clock.advance(timedelta(seconds=10))
    for message in messages:
        view = await room.store.message(message)
        assert [attempt.outcome for attempt in view.attempts].count("delivered") == 1
