"""While the staging guard is on, nobody gets mail but those that it lists; one address gets the rest."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from email import message_from_bytes

import pytest

from postroom.model.account import Account, AccountKind
from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.outcome import Bounced, Deferred, NotSent, Outcome, Unknown
from postroom.model.queue import MessageId
from postroom.model.reply import Reply
from postroom.policy.staging import StagingGuard
from postroom.store import EventFilter
from postroom.transports import Transaction

from .conftest import OK, Room, relay

INBOX = "inbox@staging.example"
GUARD = StagingGuard(("*@test.example",), INBOX, "[STAGING]")


def switch(room: Room, guard: StagingGuard | None) -> None:
    """As a change of the setting does."""
    room.scheduler.change_rules(dataclasses.replace(room.rules, guard=guard))


def sent(room: Room, name: str = "relay1") -> list[tuple[str, ...]]:
    """To whom each transaction went."""
    return [one.envelope.recipients for one in room.transports[name].sent]


async def sent_to(room: Room, message: MessageId) -> list[tuple[int, str]]:
    """The recipients of each attempt, as the record has them."""
    return [(attempt.n, attempt.sent_to) for attempt in (await room.store.message(message)).attempts]


async def test_listed_recipients_get_the_message_as_it_is_and_the_rest_one_copy_elsewhere(room: Room) -> None:
    switch(room, GUARD)
    message = await room.submit("b@y.test", "qa@test.example", "c@z.test", "dev@test.example")
    await room.until(message, *["delivered"] * 4)
    by_recipients = {one.envelope.recipients: one for one in room.transports["relay1"].sent}
    assert set(by_recipients) == {("qa@test.example", "dev@test.example"), (INBOX,)}
    stored = await room.store.content(message)
    plain, copy = by_recipients["qa@test.example", "dev@test.example"], by_recipients[INBOX,]
    assert isinstance(plain.body, bytes) and isinstance(copy.body, bytes)
    assert (plain.head + plain.body, copy.body) == (stored, plain.body)
    fields = message_from_bytes(copy.head)
    assert (fields["Subject"], fields["X-Postroom-Original-To"]) == ("[STAGING] hi", "b@y.test, c@z.test")
    assert copy.size_bytes == len(copy.head) + len(copy.body)
    assert [row.recipient for row in await room.rows(message)] == [
        "b@y.test", "qa@test.example", "c@z.test", "dev@test.example",
    ]  # fmt: skip
    assert await sent_to(room, message) == [(0, INBOX), (1, ""), (2, INBOX), (3, "")]
    details = {
        event.n: event.detail for event in (await room.store.message(message)).events if event.kind == "delivered"
    }
    assert [f"redirected to {INBOX}" in details[n] for n in range(4)] == [True, False, True, False]


async def test_what_was_queued_before_is_redirected_too(room: Room) -> None:
    room.scheduler.pause(True)
    messages = [await room.submit("b@y.test", "qa@test.example") for _ in range(3)]
    switch(room, GUARD)
    room.scheduler.pause(False)
    for message in messages:
        await room.until(message, "delivered", "delivered")
    assert sorted(sent(room)) == [(INBOX,)] * 3 + [("qa@test.example",)] * 3


async def test_what_was_claimed_but_not_begun_when_it_was_switched_on_does_not_leave(room: Room) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def connects(transaction: Transaction) -> Sequence[Outcome]:
        begun.set()
        await go_on.wait()
        return [OK if transaction.may_begin() else NotSent()]

    room.transports["relay1"].answers.append(connects)
    message = await room.submit("b@y.test")
    await begun.wait()
    switch(room, GUARD)
    go_on.set()
    await room.until(message, "delivered")
    assert sent(room) == [("b@y.test",), (INBOX,)]
    assert await sent_to(room, message) == [(0, INBOX)]


async def test_nothing_leaves_while_the_claim_is_on_its_way(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = room.store.claim

    def claimed(*arguments: object) -> object:
        made = claim(*arguments)
        switch(room, GUARD)
        return made

    monkeypatch.setattr(room.scheduler._store, "claim", claimed, raising=False)
    message = await room.submit("b@y.test")
    await room.until(message, "delivered")
    assert sent(room) == [(INBOX,)]


async def test_switched_off_mail_goes_to_its_recipients_again(room: Room) -> None:
    switch(room, GUARD)
    room.transports["relay1"].answers.append(Deferred(status="4.2.1", reason="later"))
    message = await room.submit("b@y.test", "c@z.test")
    await room.until(message, "deferred", "deferred")
    switch(room, None)
    room.clock.advance(timedelta(hours=1))
    await room.until(message, "delivered", "delivered")
    assert sent(room) == [(INBOX,), ("b@y.test", "c@z.test")]


async def test_those_who_share_a_copy_share_its_outcome_and_its_next_try(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    chances = iter([0.1, 0.9, 0.3, 0.7] * 10)
    for lane in room.scheduler._lanes.values():
        monkeypatch.setattr(lane, "_random", lambda: next(chances))
    switch(room, GUARD)
    room.transports["relay1"].answers += [Deferred(status="4.2.1", reason="later"), Unknown(status="4.4.2", reason="?")]
    message = await room.submit("b@y.test", "c@z.test", "d@z.test")
    rows = await room.until(message, *["deferred"] * 3)
    assert len({row.due for row in rows}) == 1
    room.clock.advance(timedelta(minutes=10))

    async def tried_twice() -> bool:
        return [row.unknowns for row in await room.rows(message)] == [1, 1, 1]

    await room.store.until(tried_twice)
    assert len({row.due for row in await room.rows(message)}) == 1
    room.clock.advance(timedelta(hours=2))
    await room.until(message, *["delivered"] * 3)
    assert sent(room) == [(INBOX,)] * 3


async def test_a_refusal_of_the_one_address_ends_it_for_all_who_share_the_copy(room: Room) -> None:
    switch(room, GUARD)
    refused = Bounced(status="5.1.1", reason="no such user")

    async def answer(transaction: Transaction) -> Sequence[Outcome]:
        return [refused if transaction.envelope.recipients == (INBOX,) else OK]

    room.transports["relay1"].answers += [answer, answer]
    message = await room.submit("b@y.test", "qa@test.example", "c@z.test")
    await room.until(message, "bounced", "delivered", "bounced")
    assert len(sent(room)) == 2


async def test_what_the_one_address_says_puts_nobody_on_the_suppression_list(room: Room) -> None:
    room.scheduler.change_rules(dataclasses.replace(room.rules, guard=GUARD, suppress_for=timedelta(0)))
    said = Reply(550, ("no such user",), "5.1.1", "RCPT")
    refused = Bounced(status="5.1.1", reason="no such user", reply=said, nobody=True)
    room.transports["relay1"].answers.append(refused)
    message = await room.submit("b@y.test")
    await room.until(message, "bounced")
    assert sent(room) == [(INBOX,)]
    events = (await room.store.events(EventFilter(limit=1000))).events
    assert [event.kind for event in events if "suppress" in event.kind] == []


async def test_they_go_as_one_where_an_account_takes_one_recipient_at_a_time_and_count_once(room: Room) -> None:
    room.accounts[:] = [relay(recipients_per_transaction=1, revision=2)]
    room.scheduler.follow(room.accounts)
    switch(room, GUARD)
    message = await room.submit("b@y.test", "c@z.test", "d@z.test", "qa@test.example", "dev@test.example")
    await room.until(message, *["delivered"] * 5)
    assert sorted(sent(room)) == [("dev@test.example",), (INBOX,), ("qa@test.example",)]


async def test_an_account_that_delivers_directly_goes_to_the_domain_of_the_one_address(room: Room) -> None:
    room.accounts[:] = [Account(id=7, name="mx", kind=AccountKind.DIRECT, max_connections=4)]
    room.scheduler.follow(room.accounts)
    switch(room, GUARD)
    messages = [await room.submit("b@y.test", "qa@test.example", "c@z.test", "x@staging.example") for _ in range(20)]
    for message in messages:
        await room.until(message, *["delivered"] * 4)
    assert sorted(sent(room, "mx")) == [(INBOX,)] * 20 + [("qa@test.example",)] * 20
    switch(room, None)
    message = await room.submit("b@y.test", "c@z.test")
    await room.until(message, "delivered", "delivered")
    assert sorted(sent(room, "mx")[-2:]) == [("b@y.test",), ("c@z.test",)]


async def test_a_sandbox_captures_what_it_was_given(room: Room) -> None:
    room.accounts[:] = [Account(id=7, name="box", kind=AccountKind.SANDBOX)]
    room.scheduler.follow(room.accounts)
    switch(room, GUARD)
    message = await room.submit("b@y.test")
    await room.until(message, "delivered")
    assert sent(room, "box") == [("b@y.test",)]
    assert await sent_to(room, message) == [(0, "")]


async def test_nobody_downstream_reports_on_a_redirected_copy(room: Room) -> None:
    switch(room, GUARD)
    asked = DsnRequest("FULL", "id", ("SUCCESS,FAILURE",), ("rfc822;b@y.test",))
    room.transports["relay1"].answers.append(dataclasses.replace(OK, reports=True))
    message = await room.submit(envelope=Envelope("a@x.test", ("b@y.test",), dsn=asked))
    await room.until(message, "delivered")
    (transaction,) = room.transports["relay1"].sent
    assert transaction.envelope.dsn == DsnRequest("", "", ("NEVER",), ("",))
    assert "the relay has to make it" not in (await room.store.message(message)).attempts[0].advice


async def test_a_copy_that_can_not_be_made_waits_and_reaches_nobody(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> bytes:
        raise ValueError("no")

    switch(room, GUARD)
    monkeypatch.setattr(StagingGuard, "marked", fail)
    message = await room.submit("b@y.test", "c@z.test")
    await room.until(message, "deferred", "deferred")
    assert sent(room) == []
