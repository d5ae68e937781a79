"""POP-before-SMTP: the login comes before SMTP and once for all, lapses, is made again where the relay denies it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.account import Account, AccountKind, Authentication, PopLogin, Security
from postroom.model.content import StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Deferred, Delivered, NotSent, Outcome, Remedy
from postroom.transports import AccountUnavailable, Transaction, TransportClosed
from postroom.transports.budget import ConnectionBudget
from postroom.transports.smtp import SmtpTransport
from tests.flow.conftest import FakeClock
from tests.flow.gateways import hello
from tests.pop3_server import Pop3Behaviour, Pop3Server
from tests.smarthost import Smarthost

DENIED = "554 5.7.1 <b@y.test>: Relay access denied"


async def no_chunks(_: StagedBody) -> AsyncIterator[bytes]:
    """No message here is staged."""
    for chunk in list[bytes]():
        yield chunk


@dataclass
class Way:
    """A transport with the POP3 server and the relay that it uses; each login opens the relay for its clients."""

    transport: SmtpTransport
    pop: Pop3Server
    relay: Smarthost
    clock: FakeClock

    def shut(self) -> None:
        """The relay takes mail for its own domain alone, until the next login."""
        self.relay.behaviour.replies = {"RCPT TO:<a@relay.test>": "250 2.1.5 ok", "RCPT": DENIED}

    def open(self) -> None:
        """The relay takes all."""
        self.relay.behaviour.replies = {}

    async def send(self, *recipients: str) -> list[Outcome]:
        """One transaction from slot to commit."""
        slot = await self.transport.reserve()
        content = b"S: 1\r\n\r\n"
        envelope = Envelope("s@x.test", recipients or ("b@y.test",))
        outcomes = list(await slot.deliver(Transaction(envelope, content, b"hi\r\n", len(content) + 4)))
        slot.settle()
        slot.durable()
        return outcomes

    async def failure(self) -> Deferred:
        """Why no slot can be had."""
        with pytest.raises(AccountUnavailable) as unavailable:
            await self.transport.reserve()
        return unavailable.value.failure


Make = Callable[..., Awaitable[Way]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """`make(pop_behaviour, **pop_fields)` gives a way; without an interval, unless it is named."""
    async with AsyncExitStack() as running:

        async def start(behaviour: Pop3Behaviour | None = None, connections: int = 1, **fields: Any) -> Way:
            clock = FakeClock()
            pop = await running.enter_async_context(Pop3Server(behaviour))
            relay = Smarthost()
            await relay.start()
            running.push_async_callback(relay.stop)
            login = PopLogin(
                host="127.0.0.1", port=pop.port, username="ann", password="tanstaaf",
                **({"interval": timedelta(0)} | fields),
            )  # fmt: skip
            account = Account(
                id=1, name="isp", kind=AccountKind.SMTP, host="127.0.0.1", port=relay.port, security=Security.NONE,
                authentication=Authentication.POP, pop=login, max_connections=connections,
            )  # fmt: skip
            budget = ConnectionBudget(10)
            transport = SmtpTransport(account, clock=clock, budget=budget, helo_name="c.test", chunks=no_chunks)
            running.push_async_callback(transport.close)
            way = Way(transport, pop, relay, clock)
            way.shut()
            pop.logged_in = way.open
            return way

        yield start


async def until_waiting(clock: FakeClock, seconds: float) -> None:
    """Until somebody waits so long on the clock; pytest's limit is the patience."""
    while not any(abs(one - seconds) < 1e-6 for one in clock.waiting):
        await asyncio.sleep(0)


async def test_the_login_comes_before_smtp_and_is_polite(make: Make) -> None:
    way = await make()
    relay_at_login: list[int] = []

    def logged_in() -> None:
        relay_at_login.append(way.relay.connections)
        way.open()

    way.pop.logged_in = logged_in
    assert isinstance((await way.send())[0], Delivered)
    assert relay_at_login == [0]
    assert way.pop.commands == [f"APOP ann {way.pop.digest('tanstaaf')}", "QUIT"]
    assert not any(command.startswith("AUTH") for command in way.relay.commands)


async def test_the_interval_runs_from_the_start_of_the_login(make: Make) -> None:
    way = await make(interval=timedelta(milliseconds=5))
    way.pop.gate.clear()
    sending = asyncio.ensure_future(way.send())
    await way.pop.asked.wait()
    way.clock.advance(timedelta(milliseconds=2))  # the login takes so long
    way.pop.gate.set()
    await until_waiting(way.clock, 0.003)
    assert way.relay.connections == 0
    way.clock.advance(timedelta(milliseconds=3))
    assert isinstance((await sending)[0], Delivered)


async def test_a_login_serves_for_its_validity_and_for_all_connections(make: Make) -> None:
    way = await make(connections=3, validity=timedelta(minutes=10))
    slots = await asyncio.gather(*(way.transport.reserve() for _ in range(9)))
    assert (way.pop.logins, way.relay.connections) == (1, 3)
    for slot in slots:
        slot.cancel()
    way.clock.advance(timedelta(minutes=10) - timedelta(milliseconds=1))
    await way.send()
    assert way.pop.logins == 1
    way.clock.advance(timedelta(milliseconds=1))
    await asyncio.gather(*(way.send(f"{n}@y.test") for n in range(6)))
    assert way.pop.logins == 2


async def test_nothing_is_logged_in_for_before_there_is_mail(make: Make) -> None:
    way = await make()
    way.clock.advance(timedelta(hours=1))
    assert way.pop.commands == []


async def test_who_is_denied_goes_again_after_one_more_login_and_nobody_else_does(make: Make) -> None:
    way = await make()
    way.pop.logged_in = lambda: None if way.pop.logins == 1 else way.open()
    own, other, more = await way.send("a@relay.test", "b@y.test", "c@y.test")
    assert isinstance(own, Delivered)
    assert isinstance(other, NotSent) and isinstance(more, NotSent)
    assert other.reason == f"{DENIED}: it goes again after another POP3 login"
    assert [type(outcome) for outcome in await way.send("b@y.test", "c@y.test")] == [Delivered, Delivered]
    assert way.pop.logins == 2
    assert [taken.recipients for taken in way.relay.taken] == [["a@relay.test"], ["b@y.test", "c@y.test"]]
    assert [taken.connection for taken in way.relay.taken] == [1, 2], "a relay may look only when it is connected to"


@pytest.mark.parametrize("refused", ["MAIL", "RCPT"])
async def test_denied_again_it_is_as_the_rules_say(make: Make, refused: str) -> None:
    way = await make()
    way.relay.behaviour.replies = {refused: DENIED}
    way.pop.logged_in = lambda: None
    assert isinstance((await way.send())[0], NotSent)
    (denied,) = await way.send()
    assert isinstance(denied, Deferred)
    assert denied.remedy is Remedy.STOP
    assert "POP-before-SMTP with a shorter validity" in denied.advice
    assert way.pop.logins == 2
    way.clock.advance(timedelta(minutes=1))
    assert isinstance((await way.send())[0], NotSent), "a person has woken the account: it may try anew"
    way.open()
    assert isinstance((await way.send())[0], Delivered)
    assert way.pop.logins == 3


async def test_who_is_denied_for_good_causes_no_login_for_each_message(make: Make) -> None:
    way = await make(validity=timedelta(hours=9))
    way.pop.logged_in = lambda: None

    async def denied(count: int) -> list[int]:
        """After each of so many other messages, how many logins there were."""
        made = []
        for n in range(count):
            recipient = f"{len(way.relay.commands)}.{n}@y.test"
            while isinstance((await way.send(recipient))[0], NotSent):
                pass
            made.append(way.pop.logins)
        return made

    assert isinstance((await way.send("first@y.test"))[0], NotSent)
    assert isinstance((await way.send("first@y.test"))[0], Deferred)
    connections = way.relay.connections
    assert await denied(9) == [2] * 9
    assert way.relay.connections == connections, "the connection that works is kept"
    way.clock.advance(timedelta(minutes=1))
    assert isinstance((await way.send("late@y.test"))[0], NotSent)
    assert isinstance((await way.send("late@y.test"))[0], Deferred)
    way.clock.advance(timedelta(minutes=1))
    assert await denied(3) == [3] * 3, "the second time it takes longer"
    way.clock.advance(timedelta(minutes=1))
    way.pop.logged_in = way.open
    assert isinstance((await way.send("last@y.test"))[0], NotSent)
    assert isinstance((await way.send("last@y.test"))[0], Delivered)
    way.shut()
    assert isinstance((await way.send("shut@y.test"))[0], NotSent), "logins help again"
    assert isinstance((await way.send("shut@y.test"))[0], Delivered)
    assert way.pop.logins == 5


async def test_a_window_that_closes_again_and_again_is_opened_each_time(make: Make) -> None:
    way = await make(validity=timedelta(hours=1))
    for lapse in range(1, 5):
        assert isinstance((await way.send())[0], Delivered)
        assert way.pop.logins == lapse
        way.shut()
        assert isinstance((await way.send())[0], NotSent)
    assert len(way.relay.taken) == 4


async def test_many_that_are_denied_at_once_cause_one_login(make: Make) -> None:
    way = await make(connections=3)
    way.pop.logged_in = lambda: None if way.pop.logins == 1 else way.open()
    recipients = [f"{n}@y.test" for n in range(9)]
    slots = await asyncio.gather(*(way.transport.reserve() for _ in recipients))
    mails = [Transaction(Envelope("s@x.test", (one,)), b"S: 1\r\n\r\n", b"hi\r\n", 13) for one in recipients]
    outcomes = await asyncio.gather(*(slot.deliver(mail) for slot, mail in zip(slots, mails, strict=True)))
    assert {type(outcome) for (outcome,) in outcomes} == {NotSent}
    for slot in slots:
        slot.settle()
        slot.durable()
    assert {type(one) for (one,) in await asyncio.gather(*map(way.send, recipients))} == {Delivered}
    assert way.pop.logins == 2
    assert sorted(taken.recipients[0] for taken in way.relay.taken) == recipients


async def test_a_refusal_that_is_not_about_the_login_is_left_alone(make: Make) -> None:
    way = await make()
    way.pop.logged_in = lambda: None
    way.relay.behaviour.replies = {"RCPT": "550 5.1.1 no such user"}
    (outcome,) = await way.send()
    assert not isinstance(outcome, NotSent)
    assert way.pop.logins == 1


async def test_a_relay_that_shuts_its_door_gets_another_login_before_the_next_try(make: Make) -> None:
    way = await make()
    way.relay.behaviour.replies = {"GREETING": "554 5.7.1 no service for 127.0.0.1"}
    way.pop.logged_in = lambda: None if way.pop.logins == 1 else way.open()
    assert "no service for" in (await way.failure()).reason
    assert isinstance((await way.send())[0], Delivered)
    assert way.pop.logins == 2


async def test_a_transport_that_is_closed_while_it_logs_in_says_so(make: Make) -> None:
    way = await make()
    way.pop.gate.clear()
    reserving = asyncio.ensure_future(way.transport.reserve())
    await way.pop.asked.wait()
    await way.transport.close()
    with pytest.raises(TransportClosed):
        await reserving
    with pytest.raises(TransportClosed):
        await way.transport.reserve()


def says(**replies: str) -> Pop3Behaviour:
    """A server that answers so."""
    return Pop3Behaviour(replies)


CLEAR = "the password does not go in clear"


@pytest.mark.parametrize(
    ("behaviour", "reason", "advice", "remedy"),
    [
        (says(GREETING="+OK ready"), f"no timestamp for APOP, and {CLEAR}", "switch APOP off and encrypt", Remedy.STOP),
        (says(GREETING="+OK <\x01@x>"), f"a timestamp that APOP must not use, and {CLEAR}", "switch APOP off",
         Remedy.STOP),
        (says(APOP="-ERR permission denied"), "refused the POP3 login: -ERR permission denied", "check pop_username",
         Remedy.STOP),
        (says(APOP="-ERR [AUTH] no"), "-ERR [AUTH] no", "check pop_username", Remedy.STOP),
        (says(APOP="-ERR [AUTH] it is tanstaaf, not that"), "-ERR [AUTH] it is [hidden], not that", "check",
         Remedy.STOP),
        (says(APOP="-ERR [SYS/TEMP] later"), "-ERR [SYS/TEMP] later", "wait", Remedy.SLEEP),
        (says(APOP="-ERR [in-use] later"), "-ERR [IN-USE] later", "wait", Remedy.SLEEP),
        (says(APOP="-ERR [LOGIN-DELAY] too soon"), "-ERR [LOGIN-DELAY] too soon", "raise pop_validity", Remedy.SLEEP),
        (says(APOP="-ERR [SYS/PERM] broken"), "-ERR [SYS/PERM] broken", "ask the server's operator", Remedy.STOP),
        (says(APOP="-ERR unable to lock maildrop"), "-ERR unable to lock maildrop", "wait", Remedy.SLEEP),
        (says(GREETING="-ERR [SYS/TEMP] full"), "does not take us: -ERR [SYS/TEMP] full", "wait", Remedy.SLEEP),
        (says(GREETING="220 mail.test ESMTP"), "not a POP3 reply: '220 mail.test ESMTP'", "check pop_host",
         Remedy.SLEEP),
        (says(APOP=""), "127.0.0.1 closed the connection", "check that the server runs", Remedy.SLEEP),
    ],
)  # fmt: skip
async def test_a_login_that_fails_sends_nothing(
    make: Make, behaviour: Pop3Behaviour, reason: str, advice: str, remedy: Remedy
) -> None:
    way = await make(behaviour)
    failure = await way.failure()
    assert failure.reason.startswith("pop: ") and reason in failure.reason
    assert failure.remedy is remedy
    assert advice in failure.advice
    assert "tanstaaf" not in failure.transcript and way.pop.digest("tanstaaf") not in failure.transcript
    assert not any(command.startswith(("USER", "PASS")) for command in way.pop.commands)
    assert way.relay.connections == 0
    assert (await way.failure()).reason == failure.reason, "each try is a login of its own"


async def test_what_was_said_is_kept_without_the_secret(make: Make) -> None:
    way = await make(says(APOP="-ERR [AUTH] no"))
    digest = way.pop.digest("tanstaaf")
    transcript = (await way.failure()).transcript
    assert transcript.splitlines() == [
        "S: +OK pop.test ready <1896.697170952@pop.test>", "C: APOP ann [hidden]", "S: -ERR [AUTH] no",
        "-- 127.0.0.1 refused the POP3 login: -ERR [AUTH] no",
    ]  # fmt: skip
    assert way.pop.commands[:1] == [f"APOP ann {digest}"]


async def test_a_server_that_is_down_puts_the_account_to_sleep(make: Make) -> None:
    way = await make()
    await way.pop.__aexit__()
    failure = await way.failure()
    assert failure.remedy is Remedy.SLEEP
    assert "pop_host and pop_port" in failure.advice


async def test_an_edited_account_logs_in_anew_and_mail_that_waited_goes(tmp_path: Path) -> None:
    relay = Smarthost()
    await relay.start()
    async with Pop3Server(Pop3Behaviour({"APOP": ["-ERR [AUTH] no", "+OK"]})) as pop:
        gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test", smtp={"listeners": []}))
        fields = {"name": "isp", "host": "127.0.0.1", "port": relay.port, "security": "none", "pop_port": pop.port}
        fields |= {"authentication": "pop-before-smtp", "pop_username": "ann", "pop_password": "wrong"}
        await gateway.accounts.add(fields)
        await gateway.applications.add({"name": "erp", "senders": "*"})
        await gateway.start()
        message = (await gateway.submit(hello(gateway))).id
        while gateway.accounts.get("isp") and not pop.commands:
            await asyncio.sleep(0)
        await gateway.accounts.edit("isp", {"pop_password": "tanstaaf"})
        assert await gateway.wait_drained()
        assert [taken.recipients for taken in relay.taken] == [["b@y.test"]]
        view = await gateway.store.message(message)
        assert view is not None and [(row.state.value, row.tries) for row in view.deliveries] == [("delivered", 1)]
        await gateway.accounts.edit("isp", {"helo_name": "edited.test"})
        await gateway.submit(hello(gateway))
        assert await gateway.wait_drained()
        assert pop.logins == 2
        await gateway.stop()
    await relay.stop()
