"""What relays do to transactions, and what becomes of each recipient; and what a connection may have under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postroom.gateway import SystemClock
from postroom.model.account import Account, AccountKind, Authentication, Security
from postroom.model.content import StagedBody
from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.outcome import Bounced, Deferred, Delivered, Failure, NotSent, Outcome, Remedy, Scope, Unknown
from postroom.transports import AccountUnavailable, Transaction, TransportClosed
from postroom.transports.budget import ConnectionBudget
from postroom.transports.pool import STALLED_SECONDS
from postroom.transports.smtp import SmtpTransport
from tests.smarthost import Behaviour, Smarthost

Start = Callable[..., Awaitable[tuple[SmtpTransport, Smarthost]]]


async def no_chunks(_: StagedBody) -> AsyncIterator[bytes]:
    """No message here is staged."""
    for chunk in list[bytes]():
        yield chunk


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`start(behaviour, **account)` gives a transport and the smarthost that it sends to."""
    made: list[tuple[SmtpTransport, Smarthost]] = []

    async def make(
        behaviour: Behaviour, *, clock: SystemClock | None = None, **fields: Any
    ) -> tuple[SmtpTransport, Smarthost]:
        smarthost = Smarthost(behaviour)
        await smarthost.start()
        defaults: dict[str, Any] = {"max_connections": 1, "reconnect_interval": timedelta(milliseconds=1)}
        account = Account(
            id=1, name="relay", kind=AccountKind.SMTP, host="127.0.0.1", port=smarthost.port, security=Security.NONE,
            **(defaults | fields),
        )  # fmt: skip
        transport = SmtpTransport(
            account, clock=clock or SystemClock(), budget=ConnectionBudget(10), helo_name="c.test", chunks=no_chunks
        )
        made.append((transport, smarthost))
        return transport, smarthost

    yield make
    for transport, smarthost in made:
        smarthost.gate.set()
        await transport.close()
        await smarthost.stop()


def mail(number: int = 0, *recipients: str) -> Transaction:
    """Message `number`, from its own sender."""
    body = b"message %d\r\n" % number
    return Transaction(
        Envelope(f"s{number}@x.test", recipients or ("b@y.test",)), b"S: 1\r\n\r\n", body, 20 + len(body)
    )


async def send(transport: SmtpTransport, transaction: Transaction) -> list[Outcome]:
    """One transaction from slot to commit."""
    slot = await transport.reserve()
    outcomes = list(await slot.deliver(transaction))
    slot.settle()
    slot.durable()
    return outcomes


async def test_each_recipient_has_its_own_outcome(start: Start) -> None:
    replies = {
        "RCPT TO:<no@y.test>": "550 5.1.1 no such user",
        "RCPT TO:<later@y.test>": "450 4.2.0 greylisted",
    }
    transport, smarthost = await start(Behaviour(replies=replies))
    ok, no, later = await send(transport, mail(0, "yes@y.test", "no@y.test", "later@y.test"))
    assert isinstance(ok, Delivered)
    assert isinstance(no, Bounced)
    assert (no.status, no.reply and no.reply.command) == ("5.1.1", "RCPT")
    assert isinstance(later, Deferred)
    assert (later.scope, later.status) == (Scope.MESSAGE, "4.2.0")
    assert smarthost.taken[0].recipients == ["yes@y.test"]


async def test_refused_content_is_not_delivered_to_anyone(start: Start) -> None:
    transport, smarthost = await start(Behaviour(replies={"CONTENT": "554 5.7.1 spam"}))
    outcomes = await send(transport, mail(0, "a@y.test", "b@y.test"))
    assert [type(outcome) for outcome in outcomes] == [Bounced, Bounced]
    assert smarthost.taken == []


class HastyClock(SystemClock):
    """Every patience is over at once."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return super().monotonic() * 1000


async def test_what_a_shutdown_interrupts_before_its_content_is_no_try(start: Start) -> None:
    transport, _ = await start(Behaviour(silent_at="MAIL"), clock=HastyClock())
    slot = await transport.reserve()
    delivering = slot.deliver(mail())
    await transport.close()
    (outcome,) = await delivering
    assert isinstance(outcome, NotSent)


async def test_a_lost_reply_to_the_content_is_unknown(start: Start) -> None:
    transport, _ = await start(Behaviour(close_after="CONTENT", closes=1))
    (outcome,) = await send(transport, mail())
    assert isinstance(outcome, Unknown)


async def test_a_connection_that_ends_at_the_envelope_is_a_try_and_sends_nothing(start: Start) -> None:
    transport, smarthost = await start(Behaviour(close_after="MAIL", closes=1))
    (outcome,) = await send(transport, mail())
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.status) == (Scope.MESSAGE, "4.4.2")
    (outcome,) = await send(transport, mail())
    assert isinstance(outcome, Delivered)
    assert len(smarthost.taken) == 1


@pytest.mark.parametrize("refused", ["RCPT", "MAIL", "CONTENT"])
@pytest.mark.parametrize("pipelining", [True, False])
async def test_the_message_after_a_refused_one_goes_once_and_under_its_own_sender(
    start: Start, refused: str, pipelining: bool
) -> None:
    replies = {refused: ["550 5.1.1 no", "250 2.0.0 ok"]}
    transport, smarthost = await start(Behaviour(replies=replies, pipelining=pipelining))
    outcomes = await asyncio.gather(*(send(transport, mail(n)) for n in range(5)))
    assert not isinstance(outcomes[0][0], Delivered)
    assert [type(outcome) for (outcome,) in outcomes[1:]] == [Delivered] * 4
    assert [(m.reverse_path, m.content) for m in smarthost.taken] == [
        (f"s{n}@x.test", b"S: 1\r\n\r\nmessage %d\r\n" % n) for n in range(1, 5)
    ]
    assert smarthost.connections == 1


async def test_a_relay_that_closes_after_each_message_gets_each_once(start: Start) -> None:
    transport, smarthost = await start(Behaviour(messages_per_connection=1))
    waiting = {n: mail(n) for n in range(6)}
    while waiting:
        outcomes = await asyncio.gather(*(send(transport, transaction) for transaction in waiting.values()))
        assert not [o for (o,) in outcomes if not isinstance(o, Delivered | NotSent)]
        waiting = {n: t for (n, t), (o,) in zip(list(waiting.items()), outcomes, strict=True) if isinstance(o, NotSent)}
    assert sorted(m.content for m in smarthost.taken) == sorted(mail(n).head + mail(n).body for n in range(6))  # type: ignore[operator]


async def test_while_two_outcomes_wait_for_their_commit_no_content_is_written(start: Start) -> None:
    transport, smarthost = await start(Behaviour())
    slots = [await transport.reserve() for _ in range(3)]
    delivering = [slot.deliver(mail(n)) for n, slot in enumerate(slots)]
    for one in delivering[:2]:
        await one
    for slot in slots[:2]:
        slot.settle()
    extra = await transport.reserve()
    (await transport.reserve()).cancel()
    last = extra.deliver(mail(3))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(smarthost.taken) == 2
    slots[0].durable()
    await delivering[2]
    assert len(smarthost.taken) == 3
    slots[1].durable()
    slots[2].settle()
    slots[2].durable()
    await last
    extra.settle()
    extra.durable()


class SettableClock(SystemClock):
    """A clock that the test sets forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        """See `Clock`."""
        return super().monotonic() + self.ahead


@pytest.mark.parametrize(
    ("seconds", "allowed", "opened"), [(0.0, 2, 1), (STALLED_SECONDS, 2, 2), (STALLED_SECONDS, 1, 1)]
)
async def test_nothing_queues_behind_a_reply_that_does_not_come_while_another_connection_may_be_opened(
    start: Start, seconds: float, allowed: int, opened: int
) -> None:
    clock = SettableClock()
    transport, smarthost = await start(Behaviour(), clock=clock, max_connections=allowed)
    smarthost.gate.clear()
    first = (await transport.reserve()).deliver(mail(0))
    clock.ahead = seconds
    slot = await transport.reserve()
    assert smarthost.connections == opened
    second = slot.deliver(mail(1))
    smarthost.gate.set()
    assert [type(outcome) for one in (first, second) for outcome in await one] == [Delivered, Delivered]


async def test_a_connection_carries_no_more_messages_than_the_account_allows(start: Start) -> None:
    transport, smarthost = await start(Behaviour(), messages_per_connection=3)
    outcomes = await asyncio.gather(*(send(transport, mail(n)) for n in range(10)))
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    per_connection = [sum(m.connection == c for m in smarthost.taken) for c in range(1, smarthost.connections + 1)]
    assert per_connection == [3, 3, 3, 1]


async def test_connections_are_reused(start: Start) -> None:
    transport, smarthost = await start(Behaviour(), max_connections=4)
    for n in range(10):
        await send(transport, mail(n))
    assert smarthost.connections == 1


@pytest.mark.parametrize(
    ("behaviour", "remedy", "said"),
    [
        (Behaviour(replies={"GREETING": "421 4.3.2 busy"}), Remedy.SLEEP, "421 4.3.2 busy"),
        (Behaviour(replies={"GREETING": "554 no service"}), Remedy.SLEEP, "554"),
        (Behaviour(replies={"EHLO": "421 4.3.2 not now"}), Remedy.SLEEP, "421"),
        (Behaviour(replies=dict.fromkeys(("EHLO", "HELO"), "504 Helo command rejected")), Remedy.STOP, "Helo"),
        (Behaviour(close_after="EHLO"), Remedy.SLEEP, "ehlo"),
    ],
)
async def test_a_relay_that_does_not_greet_well_is_the_accounts_trouble(
    start: Start, behaviour: Behaviour, remedy: Remedy, said: str
) -> None:
    transport, _ = await start(behaviour)
    with pytest.raises(AccountUnavailable, match=said) as unavailable:
        await transport.reserve()
    assert unavailable.value.failure.remedy is remedy
    assert unavailable.value.failure.scope is Scope.ACCOUNT


async def test_a_relay_that_keeps_closing_is_the_accounts_trouble(start: Start) -> None:
    transport, _ = await start(Behaviour(close_after="MAIL"))
    with pytest.raises(AccountUnavailable, match="closes the connection"):
        for n in range(10):
            await send(transport, mail(n))


async def test_whoever_waits_for_a_slot_when_the_transport_closes_is_told(start: Start) -> None:
    transport, _ = await start(Behaviour())
    slots = [await transport.reserve() for _ in range(3)]
    waiting = asyncio.ensure_future(transport.reserve())
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(transport.close())
    with pytest.raises(TransportClosed):
        await waiting
    for slot in slots:
        slot.cancel()
    await closing


# What the relay offers --------------------------------------------------------------------------------------------


async def test_a_recipient_that_needs_smtputf8_bounces_where_it_is_not_offered_and_the_others_go(start: Start) -> None:
    transport, smarthost = await start(Behaviour())
    no, yes, also = await send(transport, mail(0, "ä@y.test", "b@y.test", "c@y.test"))
    assert isinstance(no, Bounced)
    assert (no.status, no.reply, "recipient" in no.reason, "SMTPUTF8" in no.advice) == ("5.6.7", None, True, True)
    assert isinstance(yes, Delivered) and isinstance(also, Delivered)
    assert [taken.recipients for taken in smarthost.taken] == [["b@y.test", "c@y.test"]]


@pytest.mark.parametrize(
    ("envelope", "status", "what"),
    [
        (Envelope("ß@x.test", ("b@y.test", "ä@y.test")), "5.6.7", "sender"),
        (Envelope("s@x.test", ("b@y.test", "c@y.test"), smtputf8=True), "5.6.9", "header"),
        (Envelope("s@x.test", ("ä@y.test", "ö@y.test")), "5.6.7", "recipient"),
    ],
)
async def test_what_needs_smtputf8_as_a_whole_bounces_without_a_word_and_the_next_message_goes(
    start: Start, envelope: Envelope, status: str, what: str
) -> None:
    transport, smarthost = await start(Behaviour())
    slots = [await transport.reserve() for _ in range(2)]
    refused, following = [
        slot.deliver(t) for slot, t in zip(slots, (replace(mail(), envelope=envelope), mail(1)), strict=True)
    ]
    for outcome in await refused:
        assert isinstance(outcome, Bounced)
        assert (outcome.status, what in outcome.reason) == (status, True)
    assert isinstance((await following)[0], Delivered)
    for slot in slots:
        slot.settle()
        slot.durable()
    assert [command for command in smarthost.commands if command.startswith(("MAIL", "RSET"))] == [
        "MAIL FROM:<s1@x.test> SIZE=19"
    ]


async def test_smtputf8_and_notification_requests_reach_a_relay_that_offers_them(start: Start) -> None:
    transport, smarthost = await start(Behaviour(offers=("SMTPUTF8", "8BITMIME", "DSN")))
    dsn = DsnRequest("FULL", "id", ("NEVER",), ("rfc822;b@y.test",))
    envelope = Envelope("s@x.test", ("ä@y.test",), eight_bit=True, dsn=dsn)
    (outcome,) = await send(transport, replace(mail(), envelope=envelope))
    assert isinstance(outcome, Delivered)
    assert smarthost.commands[1:3] == [
        "MAIL FROM:<s@x.test> BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=id",
        "RCPT TO:<ä@y.test> NOTIFY=NEVER ORCPT=rfc822;b@y.test",
    ]
    assert smarthost.taken[0].recipients == ["ä@y.test"]


async def test_recipients_beyond_the_relays_limit_are_not_sent_and_nobody_is_to_blame(start: Start) -> None:
    transport, smarthost = await start(Behaviour(offers=("LIMITS RCPTMAX=2",)))
    outcomes = await send(transport, mail(0, *(f"{n}@y.test" for n in range(4))))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, NotSent, NotSent]
    assert isinstance(outcomes[3], NotSent) and "in one transaction" in outcomes[3].reason
    assert smarthost.taken[0].recipients == ["0@y.test", "1@y.test"]


async def test_a_connection_carries_no_more_messages_than_the_relay_says(start: Start) -> None:
    transport, smarthost = await start(Behaviour(offers=("LIMITS MAILMAX=3",)), messages_per_connection=5)
    outcomes = await asyncio.gather(*(send(transport, mail(n)) for n in range(7)))
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    per_connection = [sum(m.connection == c for m in smarthost.taken) for c in range(1, smarthost.connections + 1)]
    assert per_connection == [3, 3, 1]


async def test_an_account_that_allows_fewer_messages_than_the_relay_keeps_to_its_own_limit(start: Start) -> None:
    transport, smarthost = await start(Behaviour(offers=("LIMITS MAILMAX=30",)), messages_per_connection=2)
    await asyncio.gather(*(send(transport, mail(n)) for n in range(4)))
    assert smarthost.connections == 2


# Envelope ahead ---------------------------------------------------------------------------------------------------


async def test_421_to_the_envelope_ahead_leaves_its_message_unsent_and_it_goes_on_a_new_connection(
    start: Start,
) -> None:
    replies = {"MAIL": ["250 2.1.0 ok", "421 4.7.0 enough for this connection", "250 2.1.0 ok"]}
    transport, smarthost = await start(Behaviour(replies=replies))
    (first,), (second,) = await asyncio.gather(send(transport, mail(0)), send(transport, mail(1)))
    assert isinstance(first, Delivered) and isinstance(second, NotSent)
    (again,) = await send(transport, mail(1))
    assert isinstance(again, Delivered)
    assert [(m.reverse_path, m.connection) for m in smarthost.taken] == [("s0@x.test", 1), ("s1@x.test", 2)]


@pytest.mark.parametrize("pipelining", [True, False])
async def test_some_recipients_refused_in_one_message_and_others_in_the_next_are_kept_apart(
    start: Start, pipelining: bool
) -> None:
    replies = {"RCPT TO:<a@y.test>": "550 5.1.1 no", "RCPT TO:<d@y.test>": "450 4.2.0 later"}
    transport, smarthost = await start(Behaviour(replies=replies, pipelining=pipelining))
    both = await asyncio.gather(
        send(transport, mail(0, "a@y.test", "b@y.test")), send(transport, mail(1, "c@y.test", "d@y.test"))
    )
    assert [[type(outcome) for outcome in outcomes] for outcomes in both] == [
        [Bounced, Delivered],
        [Delivered, Deferred],
    ]
    assert [(m.reverse_path, m.recipients) for m in smarthost.taken] == [
        ("s0@x.test", ["b@y.test"]),
        ("s1@x.test", ["c@y.test"]),
    ]


async def test_a_relay_that_breaks_the_protocol_on_a_message_uses_up_a_try_of_it(start: Start) -> None:
    transport, _ = await start(Behaviour(replies={"RCPT": ["354 what?", "250 2.1.5 ok"]}))
    (outcome,) = await send(transport, mail())
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.status) == (Scope.MESSAGE, "4.4.2")
    assert isinstance((await send(transport, mail()))[0], Delivered)


# Transcripts ------------------------------------------------------------------------------------------------------


async def test_a_failure_keeps_what_was_said_and_a_success_does_not(start: Start) -> None:
    transport, _ = await start(Behaviour(replies={"RCPT TO:<no@y.test>": "550 5.1.1 no such user"}))
    yes, no = await send(transport, mail(0, "yes@y.test", "no@y.test"))
    assert isinstance(no, Failure) and not isinstance(yes, Failure)
    lines = no.transcript.split("\n")
    assert lines[:2] == ["S: 220 smarthost.test ESMTP", "C: EHLO c.test"]
    assert lines[-11:] == [
        "C: MAIL FROM:<s0@x.test> SIZE=19", "S: 250 2.0.0 ok", "C: RCPT TO:<yes@y.test>", "S: 250 2.0.0 ok",
        "C: RCPT TO:<no@y.test>", "S: 550 5.1.1 no such user", "C: DATA", "S: 354 go on",
        "C: [19 octets of content]", "C: .", "S: 250 2.0.0 ok",
    ]  # fmt: skip
    assert "message 0" not in no.transcript


async def test_a_broken_transaction_says_in_its_transcript_how_it_broke(start: Start) -> None:
    transport, _ = await start(Behaviour(close_after="CONTENT", closes=1))
    (outcome,) = await send(transport, mail())
    assert isinstance(outcome, Unknown)
    assert outcome.transcript.split("\n")[-2:] == ["C: .", "-- the server closed the connection"]


async def test_an_account_that_cannot_log_in_tells_what_was_said_but_not_the_password(start: Start) -> None:
    behaviour = Behaviour(offers=("AUTH PLAIN",), replies={"AUTH": "535 5.7.8 what is AGVycABodW50ZXIyIQ==? hunter2!?"})
    transport, _ = await start(
        behaviour,
        authentication=Authentication.PASSWORD,
        username="erp",
        password="hunter2!",
        allow_clear_password=True,
    )
    with pytest.raises(AccountUnavailable) as unavailable:
        await transport.reserve()
    failure = unavailable.value.failure
    assert failure.transcript.split("\n")[-3:-1] == [
        "C: AUTH PLAIN [hidden]",
        "S: 535 5.7.8 what is [hidden]? [hidden]?",
    ]
    assert all("hunter2!" not in text and "AGVycAB" not in text for text in (failure.reason, failure.transcript))


TOO_MANY = ["452 4.5.3 Too many recipients", "452 4.5.3 Too many recipients", "250 2.1.5 ok"]


async def test_recipients_over_the_relays_limit_are_nobodys_failure_and_the_limit_is_kept_to(start: Start) -> None:
    replies = {"RCPT TO:<c@y.test>": TOO_MANY, "RCPT TO:<d@y.test>": TOO_MANY}
    transport, smarthost = await start(Behaviour(replies=replies))
    outcomes = await send(transport, mail(0, "a@y.test", "b@y.test", "c@y.test", "d@y.test"))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, NotSent, NotSent]
    outcomes = await send(transport, mail(1, "c@y.test", "d@y.test", "e@y.test"))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, NotSent]
    assert [message.recipients for message in smarthost.taken] == [["a@y.test", "b@y.test"], ["c@y.test", "d@y.test"]]
    assert "RCPT TO:<e@y.test>" not in smarthost.commands


async def test_one_recipient_that_is_too_many_is_tried_again_later(start: Start) -> None:
    transport, _ = await start(Behaviour(replies={"RCPT": "452 4.5.3 Too many recipients"}))
    (outcome,) = await send(transport, mail())
    assert isinstance(outcome, Deferred)
    assert outcome.scope is Scope.MESSAGE


async def test_content_refused_for_too_many_recipients_goes_in_halves(start: Start) -> None:
    refusal = "550 5.5.3 RESOLVER.ADR.RecipLimit; too many recipients"
    transport, smarthost = await start(Behaviour(replies={"CONTENT": [refusal, "250 2.0.0 ok"]}))
    outcomes = await send(transport, mail(0, *(f"{n}@y.test" for n in range(4))))
    assert [type(outcome) for outcome in outcomes] == [NotSent] * 4
    outcomes = await send(transport, mail(0, *(f"{n}@y.test" for n in range(4))))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, NotSent, NotSent]
    assert len(smarthost.taken) == 1


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
async def test_parameters_that_the_relay_refuses_are_left_out_from_then_on(start: Start, verb: str) -> None:
    replies = {verb: ["501 5.5.4 Syntax error in parameters or arguments (invalid parameter)", "250 2.1.0 ok"]}
    offers = ("8BITMIME", "SIZE 50000000", "DSN", "ENHANCEDSTATUSCODES")
    transport, smarthost = await start(Behaviour(replies=replies, offers=offers))
    asking = mail()
    envelope = replace(asking.envelope, dsn=DsnRequest("FULL", "", ("NEVER",), ("",)))
    asking = replace(asking, envelope=envelope)
    (outcome,) = await send(transport, asking)
    assert isinstance(outcome, NotSent)
    (outcome,) = await send(transport, asking)
    assert isinstance(outcome, Delivered)
    assert {"MAIL FROM:<s0@x.test>", "RCPT TO:<b@y.test>"} <= set(smarthost.commands)


async def test_what_is_refused_without_parameters_too_is_no_matter_of_parameters(start: Start) -> None:
    transport, _ = await start(Behaviour(replies={"MAIL": "501 5.5.4 bad argument"}))
    assert isinstance((await send(transport, mail()))[0], NotSent)
    (outcome,) = await send(transport, mail())
    assert isinstance(outcome, Deferred)
    assert outcome.scope is Scope.ACCOUNT


async def test_a_relay_that_takes_fewer_connections_is_sent_over_those(start: Start) -> None:
    greetings = ["220 ok ESMTP", "421 Too many concurrent SMTP connections"]
    transport, smarthost = await start(Behaviour(replies={"GREETING": greetings}), max_connections=4)
    complained: asyncio.Future[Deferred] = asyncio.get_running_loop().create_future()
    transport.listen(complained.set_result)
    slots = [await transport.reserve() for _ in range(3)]
    assert (await complained).remedy is Remedy.FEWER
    transport.limit_connections(1)
    waiting = asyncio.ensure_future(transport.reserve())
    slots[0].cancel()
    (await waiting).cancel()
    for slot in slots[1:]:
        slot.cancel()
    assert smarthost.connections == 2
