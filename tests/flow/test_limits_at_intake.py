"""Limits that count at intake, of applications and of accounts that refuse: what is refused, until when, and whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postroom.errors import LimitReached, Refused, StorageFailed
from postroom.model.content import ContentId, StagedBody
from postroom.model.limits import Limits, WhenLimited
from postroom.policy.routing import RoutingTable
from postroom.queue.admission import Admission
from postroom.queue.intake import Intake
from postroom.queue.limiter import Limiter

from .conftest import Room, digest, relay


def _limit(room: Room, **limits: Any) -> None:
    room.application = replace(room.application, limits=Limits(**limits))


def _refusing(room: Room, *, number: int = 1, **fields: Any) -> None:
    limits = Limits(**{name: fields.pop(name) for name in list(fields) if name in Limits.__dataclass_fields__})
    account = relay(number, revision=2, limits=limits, when_limited=WhenLimited.REFUSE, **fields)
    room.accounts[:] = [one for one in room.accounts if one.id != number] + [account]
    _follow(room)


def _follow(room: Room) -> None:
    room.scheduler.follow(room.accounts)
    room.admission.follow()


async def _start_anew(room: Room) -> None:
    """Whatever was only in memory is gone."""
    limiter = Limiter(room.store, room.clock)
    await limiter.load()
    room.admission = Admission(limiter, lambda: room.applications, lambda: room.accounts, digest)
    room.admission.follow()
    room.intake = Intake(
        room.store, room.clock, lambda: RoutingTable(room.accounts), lambda due: None, "mx.test",
        admission=room.admission,
    )  # fmt: skip


async def _refused(room: Room, *recipients: str, **fields: Any) -> LimitReached:
    with pytest.raises(LimitReached) as refused:
        await room.submit(*recipients, **fields)
    return refused.value


async def test_an_application_that_has_reached_its_limit_is_told_until_when(room: Room) -> None:
    _limit(room, messages_per_minute=2)
    for _ in range(2):
        await room.submit()
        room.clock.advance(timedelta(seconds=10))
    error = await _refused(room)
    assert error.retry_after == timedelta(seconds=41)  # the oldest of a thousand buckets counts whole
    assert str(error) == (
        "application 'erp' has reached its limit of 2 messages a minute; room again at 2026-01-01T00:01:01+00:00"
    )
    room.clock.advance(timedelta(seconds=41))
    await room.submit()
    await _refused(room)


async def test_what_was_taken_counts_after_a_restart_and_with_a_clock_that_was_set_back(room: Room) -> None:
    _limit(room, messages_per_hour=3)
    for _ in range(2):
        await room.submit()
    room.clock.time -= timedelta(days=2)
    await _start_anew(room)
    await room.submit()
    await _start_anew(room)
    assert "its limit of 3 messages an hour" in str(await _refused(room))


async def test_a_message_with_more_recipients_than_are_left_is_refused_whole(room: Room) -> None:
    _limit(room, recipients_per_day=5)
    await room.submit("1@y.test", "2@y.test", "3@y.test")
    error = await _refused(room, *[f"{n}@y.test" for n in range(3)])
    assert "5 recipients a day, with room for 2 of the 3 recipients; room again at" in str(error)
    await room.submit("1@y.test", "2@y.test")
    with pytest.raises(Refused, match="6 recipients in one message are over its limit of 5 recipients a day") as never:
        await room.submit(*[f"{n}@y.test" for n in range(6)])
    assert (never.value.reply_code, never.value.status) == (550, "5.5.3")


async def test_a_message_that_comes_too_soon_after_another_is_refused(room: Room) -> None:
    _limit(room, send_interval=timedelta(seconds=5))
    await room.submit()
    assert "has reached its send interval; room again at" in str(await _refused(room))
    room.clock.advance(timedelta(seconds=5))
    await room.submit()


async def test_what_could_not_be_kept_counts_nothing(room: Room) -> None:
    _limit(room, messages_per_hour=1)
    with pytest.raises(StorageFailed):
        await room.submit(body=StagedBody(ContentId(bytes(16)), 1, 3, bytes(32)))
    await room.submit()
    await _refused(room)


async def test_one_application_does_not_use_up_what_another_may(room: Room) -> None:
    other = replace(room.application, id=2, name="shop", limits=Limits(messages_per_hour=1))
    room.applications.append(other)
    _limit(room, messages_per_hour=1)
    await room.submit()
    await room.submit(application=other)
    await _refused(room)
    await _refused(room, application=other)


async def test_what_a_person_sends_again_is_not_the_applications(room: Room) -> None:
    _limit(room, messages_per_hour=1)
    first = await room.submit()
    await room.submit(resubmits=first)
    await _refused(room)


async def test_an_account_that_refuses_takes_no_more_than_it_may_send(room: Room) -> None:
    _refusing(room, messages_per_minute=2)
    first = [await room.submit() for _ in range(2)]
    error = await _refused(room)
    assert str(error).startswith("account 'relay1' has reached its limit of 2 messages a minute; room again at 2026-")
    for message in first:
        await room.until(message, "delivered")
    room.clock.advance(timedelta(seconds=61))
    await room.until(await room.submit(), "delivered")


async def test_a_message_by_two_accounts_is_refused_whole_and_counts_nowhere(room: Room) -> None:
    _refusing(room, number=2, messages_per_hour=1)
    _refusing(room, recipient_patterns=("*@one.test",), messages_per_hour=2)
    room.accounts.reverse()  # relay1 first
    _follow(room)
    await room.submit("a@two.test")
    assert "account 'relay2'" in str(await _refused(room, "a@one.test", "a@two.test"))
    for _ in range(2):
        await room.submit("a@one.test")
    assert "account 'relay1'" in str(await _refused(room, "a@one.test"))


async def test_what_another_account_of_the_group_takes_counts_for_one_that_refuses(room: Room) -> None:
    limits = Limits(messages_per_hour=2)
    room.accounts[:] = [
        relay(1, revision=2, quota_group="ses", limits=limits, recipient_patterns=("*@one.test",)),
        relay(2, quota_group="ses", limits=limits, when_limited=WhenLimited.REFUSE),
    ]
    _follow(room)
    await room.submit("a@one.test")
    await room.submit("a@two.test")
    assert "account 'relay2'" in str(await _refused(room, "a@two.test"))
    await room.submit("a@one.test")  # which waits


async def test_mail_that_comes_faster_than_the_interval_waits_also_where_the_amount_is_refused(room: Room) -> None:
    _refusing(room, send_interval=timedelta(seconds=10), messages_per_hour=2)
    await room.until(await room.submit(), "delivered")
    waits = await room.submit()
    await _refused(room)
    room.clock.advance(timedelta(seconds=10))
    await room.until(waits, "delivered")
