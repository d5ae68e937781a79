"""What a relay may do at each stage of a session, and what becomes of each recipient: nothing is lost, nothing goes
twice, the connection is left, and the next message goes on another one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from postroom.model.account import Account, AccountKind, Authentication, Security
from postroom.model.content import StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Bounced, Deferred, Delivered, NotSent, Outcome, Unknown
from postroom.net.system_clock import SystemClock
from postroom.transports import AccountUnavailable, Transaction
from postroom.transports.budget import ConnectionBudget
from postroom.transports.smtp import SmtpTransport
from tests.flow.smtp_client.talk import Line, Relay, Talk
from tests.smarthost import Behaviour, Smarthost

SOON = timedelta(milliseconds=500)
RECIPIENTS = ("a@y.test", "b@y.test", "c@y.test")
FLOOD = b"250-more\r\n" * 400

Attack = Callable[[Line, str], Awaitable[None]]


async def closes(line: Line, stage: str) -> None:
    """Hangs up."""
    line.close()


async def resets(line: Line, stage: str) -> None:
    """Hangs up without a goodbye."""
    line.reset()


async def stalls(line: Line, stage: str) -> None:
    """Says nothing more, and keeps the connection."""
    await line.end()


async def floods(line: Line, stage: str) -> None:
    """A reply without an end; this returns only once the other side has left."""
    await line.flood(FLOOD)


async def drips(line: Line, stage: str) -> None:
    """A reply without an end, octet by octet."""
    await line.drip()


async def lies(line: Line, stage: str) -> None:
    """A reply that is for something else."""
    line.say("250 2.0.0 taken" if stage == "DATA" else "354 go on")
    await line.end()


ATTACKS: tuple[Attack, ...] = (closes, resets, stalls, floods, drips, lies)

#: Before anything of a message was said: the account is to blame.
OPENING = ("greeting", "EHLO", "STARTTLS", "TLS", "AUTH", "user name", "password")
#: Until the content is out: the message goes again. Then nobody knows.
ENVELOPE = ("MAIL", "RCPT of the first", "RCPT of the second", "DATA")
UNKNOWN = ("end of data",)
#: What was answered before stands.
AFTERWARDS = ("RSET", "QUIT", "idle")


def dialogue(stage: str) -> Iterator[tuple[str, str]]:
    """Stages and the good reply to each, as far as `stage` needs them."""
    yield "greeting", "220 relay.test"
    yield "EHLO", f"250-relay.test\r\n250 {'STARTTLS' if stage in ('STARTTLS', 'TLS') else 'AUTH LOGIN'}"
    if stage in ("STARTTLS", "TLS"):
        yield "STARTTLS", "220 go"
        return
    yield from (("AUTH", "334 VXNlcm5hbWU6"), ("user name", "334 UGFzc3dvcmQ6"), ("password", "235 2.7.0 welcome"))
    yield "MAIL", "250 ok"
    rcpt = "550 5.1.1 no such user" if stage == "RSET" else "250 ok"
    yield from ((f"RCPT of the {nth}", rcpt) for nth in ("first", "second", "third"))
    if stage == "RSET":
        return
    yield from (("DATA", "354 go on"), ("end of data", "250 2.0.0 taken"))


def hostile(stage: str, attack: Attack, taken: list[bytes]) -> Callable[[Line], Awaitable[None]]:
    """Good until `stage`; then the attack."""

    async def talk(line: Line) -> None:
        for step, reply in dialogue(stage):
            if step == "end of data":
                content = await line.content()
                if stage in AFTERWARDS:
                    taken.append(content)
            elif step != "greeting":
                await line.line()
            if step == stage:
                break
            line.say(reply)
        if stage in ("RSET", "QUIT"):
            await line.line()
        await attack(line, stage)

    return talk


async def behaves(line: Line, taken: list[bytes]) -> None:
    """A good relay, for one message and the goodbye."""
    for step, reply in dialogue(""):
        if step == "end of data":
            taken.append(await line.content())
        elif step != "greeting":
            await line.line()
        line.say(reply)
    await line.line()
    line.say("221 bye")


async def no_chunks(_: StagedBody) -> AsyncIterator[bytes]:
    """No message here is staged."""
    for chunk in list[bytes]():
        yield chunk


def transport_to(port: int, **fields: Any) -> SmtpTransport:
    """For an account that comes back at once."""
    defaults: dict[str, Any] = {"security": Security.NONE, "max_connections": 1}
    defaults |= dict.fromkeys(("connect_retry", "reconnect_interval"), timedelta(milliseconds=1))
    account = Account(id=1, name="relay", kind=AccountKind.SMTP, host="127.0.0.1", port=port, **(defaults | fields))
    budget = ConnectionBudget(10)
    return SmtpTransport(account, clock=SystemClock(), budget=budget, helo_name="c.test", chunks=no_chunks)


async def send(transport: SmtpTransport, *recipients: str) -> list[Outcome]:
    """One transaction from slot to commit."""
    slot = await transport.reserve()
    body = b"hello\r\n"
    outcomes = list(await slot.deliver(Transaction(Envelope("s@x.test", recipients), b"S: 1\r\n\r\n", body, 15)))
    slot.settle()
    slot.durable()
    return outcomes


async def send_until_had(transport: SmtpTransport) -> list[Outcome]:
    """The next message, once its connection is there: one that is found dead has said nothing of it."""
    while True:
        outcomes = await send(transport, *RECIPIENTS)
        if not all(isinstance(outcome, NotSent) for outcome in outcomes):
            return outcomes


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("stage", [*OPENING, *ENVELOPE, *UNKNOWN, *AFTERWARDS])
async def test_each_recipient_has_its_outcome_and_the_next_message_goes(stage: str, attack: Attack) -> None:
    taken: list[bytes] = []

    async def good(line: Line) -> None:
        await behaves(line, taken)

    talks: Iterator[Talk] = itertools.chain([hostile(stage, attack, taken)], itertools.repeat(good))

    async def talk(line: Line) -> None:
        await next(talks)(line)

    login = {"authentication": Authentication.PASSWORD, "username": "erp", "password": "secret"}
    fields: dict[str, Any] = login | {"allow_clear_password": True, "messages_per_connection": 1}
    if stage == "idle":
        fields["messages_per_connection"] = 100
    if stage in ("STARTTLS", "TLS"):
        fields["security"] = Security.STARTTLS_IF_OFFERED
    if attack in (stalls, drips, lies):  # 354 may be taken for a challenge, behind which nothing comes
        fields |= dict.fromkeys(("connect_timeout", "command_timeout", "end_of_data_timeout"), SOON)
    async with Relay(talk) as relay:
        transport = transport_to(relay.port, **fields)
        if stage in OPENING:
            with pytest.raises(AccountUnavailable) as unavailable:
                await send(transport, *RECIPIENTS)
            assert unavailable.value.failure.reason.startswith(stage.lower() if stage in ("greeting", "EHLO") else "")
            assert "secret" not in unavailable.value.failure.transcript
            assert taken == []
        else:
            expected = Deferred if stage in ENVELOPE else Unknown if stage in UNKNOWN else Delivered
            outcomes = await send(transport, *RECIPIENTS)
            assert {type(one) for one in outcomes} == {Bounced if stage == "RSET" else expected}
            assert len(outcomes) == len(RECIPIENTS)
            assert len(taken) == (expected is Delivered and stage != "RSET")
        before = len(taken)
        outcomes = await send_until_had(transport)
        assert {type(one) for one in outcomes} == {Delivered}
        assert (len(taken) - before, relay.connections) == (1, 2)
        await transport.close()


# A thousand recipients --------------------------------------------------------------------------------------------

THOUSAND = [f"r{n}@y.test" for n in range(1000)]


class Mixed(Mapping[str, str]):
    """Replies to RCPT by the number in the address, and 452 to those that are too many for one transaction."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def __getitem__(self, line: str) -> str:
        if line.startswith("MAIL"):
            self._taken = 0
        if not line.startswith("RCPT TO:<r"):
            raise KeyError(line)
        number = int(line[10:].partition("@")[0])
        if number % 5 in REFUSED:
            return REFUSED[number % 5]
        self._taken += 1
        return "250 2.1.5 ok" if self._taken <= self._most else "452 4.5.3 too many recipients"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


REFUSED = {1: "450 4.2.0 greylisted", 2: "550 5.1.1 no such user"}


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("most", [1000, 130])
async def test_a_thousand_recipients_with_mixed_answers_have_each_their_own(most: int, pipelining: bool) -> None:
    smarthost = Smarthost(Behaviour(replies=Mixed(most), pipelining=pipelining))
    await smarthost.start()
    transport = transport_to(smarthost.port)
    found: dict[str, type[Outcome]] = {}
    waiting = THOUSAND
    while waiting:
        outcomes = dict(zip(waiting, await send(transport, *waiting), strict=True))
        found |= {to: type(outcome) for to, outcome in outcomes.items() if not isinstance(outcome, NotSent)}
        waiting = [to for to, outcome in outcomes.items() if isinstance(outcome, NotSent)]
    kinds = {1: Deferred, 2: Bounced}
    assert found == {to: kinds.get(number % 5, Delivered) for number, to in enumerate(THOUSAND)}
    copies = Counter(to for one in smarthost.taken for to in one.recipients)
    assert copies == {to: 1 for to, kind in found.items() if kind is Delivered}
    assert len(smarthost.taken) == -(-600 // most)
    await transport.close()
    await smarthost.stop()


@pytest.mark.parametrize(
    ("replies", "kind", "contents"),
    [
        ({"DATA": "554 5.5.1 no valid recipients"}, Bounced, 0),  # 250 to each, and then this
        ({"CONTENT": "451 4.3.0 not now"}, Deferred, 1),
        ({"RCPT": "550 5.1.1 no such user", "DATA": "354 go on"}, Bounced, 0),
        ({"RCPT": "450 4.2.0 greylisted", "DATA": "354 go on"}, Deferred, 0),
    ],
)
@pytest.mark.parametrize("pipelining", [True, False])
async def test_lies_to_a_thousand_recipients_deliver_to_none(
    replies: dict[str, str], kind: type[Outcome], contents: int, pipelining: bool
) -> None:
    smarthost = Smarthost(Behaviour(replies=replies, pipelining=pipelining))
    await smarthost.start()
    transport = transport_to(smarthost.port)
    assert {type(outcome) for outcome in await send(transport, *THOUSAND)} == {kind}
    assert smarthost.taken == []
    assert smarthost.contents >= contents
    smarthost.behaviour.replies = {}
    assert {type(outcome) for outcome in await send(transport, *THOUSAND)} == {Delivered}
    assert [len(one.recipients) for one in smarthost.taken] == [1000]
    await transport.close()
    await smarthost.stop()
