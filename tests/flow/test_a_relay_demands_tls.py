"""A relay that demands TLS of a transaction in clear gets STARTTLS once, offered or not, where the account allows it;
and whom it refused goes again at once, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.account import Account, AccountKind, Security
from postroom.model.content import StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Deferred, Delivered, NotSent, Outcome, Remedy
from postroom.net.dns import Dns
from postroom.net.system_clock import SystemClock
from postroom.transports import AccountUnavailable, Transaction
from postroom.transports.budget import ConnectionBudget
from postroom.transports.direct import DirectTransport
from postroom.transports.mail_route import MailRoutes
from postroom.transports.smtp import SmtpTransport
from tests.flow.conftest import FakeClock
from tests.flow.gateways import hello
from tests.smarthost import Behaviour, Smarthost
from tests.tls_relay import pem, served

MUST = "530 5.7.0 Must issue a STARTTLS command first"
ALLOWING = [Security.AUTO, Security.STARTTLS_IF_OFFERED]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Of the relay's certificate."""
    return trustme.CA()


async def no_chunks(_: StagedBody) -> AsyncIterator[bytes]:
    """No message here is staged."""
    for chunk in list[bytes]():
        yield chunk


class Policies:
    """MTA-STS: nobody has any."""

    async def policy(self, domain: str) -> None:
        """See `mail_route.Policies`."""


class Way:
    """A relay, and a transport to it."""

    def __init__(self, relay: Smarthost, account: Account) -> None:
        self.relay = relay
        self.transport = SmtpTransport(
            account, clock=SystemClock(), budget=ConnectionBudget(10), helo_name="c.test", chunks=no_chunks
        )

    async def send(self, *recipients: str) -> list[Outcome]:
        """One transaction from slot to commit."""
        slot = await self.transport.reserve()
        envelope = Envelope("s@x.test", recipients or ("b@y.test",))
        outcomes = list(await slot.deliver(Transaction(envelope, b"S: 1\r\n\r\n", b"hi\r\n", 12)))
        slot.settle()
        slot.durable()
        return outcomes

    def said(self, verb: str) -> int:
        """How often."""
        return sum(command.split(" ")[0] == verb for command in self.relay.commands)


Make = Callable[..., Awaitable[Way]]


@pytest.fixture
async def make(authority: trustme.CA) -> AsyncIterator[Make]:
    """`make(security, **behaviour)` gives a way to a relay that has TLS and offers it only where told to."""
    async with AsyncExitStack() as running:

        async def start(security: Security, connections: int = 1, **behaviour: Any) -> Way:
            fields: dict[str, Any] = {"tls": served(authority.issue_cert("127.0.0.1")), "in_clear": {"MAIL": MUST}}
            relay = Smarthost(Behaviour(**(fields | behaviour)))
            await relay.start()
            running.push_async_callback(relay.stop)
            account = Account(
                id=1, name="relay", kind=AccountKind.SMTP, host="127.0.0.1", port=relay.port, security=security,
                ca_bundle=pem(authority), max_connections=connections, connect_retry=timedelta(milliseconds=1),
            )  # fmt: skip
            way = Way(relay, account)
            running.push_async_callback(way.transport.close)
            return way

        yield start


@pytest.mark.parametrize("security", ALLOWING)
@pytest.mark.parametrize("demand", [MUST, "538 5.7.11 Encryption required"])
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("pipelining", [True, False])
async def test_not_offered_and_taken(make: Make, security: Security, demand: str, at: str, pipelining: bool) -> None:
    way = await make(security, in_clear={at: demand}, pipelining=pipelining)
    refused = await way.send("b@y.test", "c@y.test")
    assert {type(outcome) for outcome in refused} == {NotSent}
    assert f"{demand}: it goes again after STARTTLS" in str(refused[0])
    assert {type(outcome) for outcome in await way.send("b@y.test", "c@y.test")} == {Delivered}
    assert isinstance((await way.send())[0], Delivered)
    assert [taken.connection for taken in way.relay.taken] == [2, 2]
    assert (way.relay.encrypted, way.relay.connections, way.said("STARTTLS")) == ({2}, 2, 1)


async def test_only_those_who_were_refused_go_again(make: Make) -> None:
    way = await make(Security.AUTO, in_clear={"RCPT TO:<b@y.test>": MUST})
    own, other = await way.send("a@relay.test", "b@y.test")
    assert isinstance(own, Delivered) and isinstance(other, NotSent)
    assert isinstance((await way.send())[0], Delivered)
    taken = [(taken.recipients, taken.connection in way.relay.encrypted) for taken in way.relay.taken]
    assert taken == [(["a@relay.test"], False), (["b@y.test"], True)]


@pytest.mark.parametrize("security", ALLOWING)
async def test_offered_and_not_to_be_had_the_first_time(make: Make, security: Security) -> None:
    way = await make(security, offers=("STARTTLS",), replies={"STARTTLS": ["454 4.7.0 not now", "220 go"]})
    assert isinstance((await way.send())[0], NotSent)
    assert isinstance((await way.send())[0], Delivered)
    assert way.relay.encrypted == {2}


@pytest.mark.parametrize("refusal", ["454 4.7.0 TLS not available", "502 5.5.1 not implemented"])
async def test_refused_it_is_as_the_rule_says(make: Make, refusal: str) -> None:
    way = await make(Security.AUTO, replies={"STARTTLS": refusal})
    assert isinstance((await way.send())[0], NotSent)
    (outcome,) = await way.send()
    assert isinstance(outcome, Deferred) and outcome.remedy is Remedy.STOP
    assert "set security to starttls; where the relay refuses that, to tls" in outcome.advice
    assert refusal in outcome.transcript
    assert (way.relay.connections, way.said("STARTTLS"), way.relay.taken) == (2, 1, [])


async def test_demanded_again_behind_tls_there_is_no_end_of_it(make: Make) -> None:
    way = await make(Security.AUTO, replies={"MAIL": MUST})
    assert isinstance((await way.send())[0], NotSent)
    for _ in range(3):
        (outcome,) = await way.send()
        assert isinstance(outcome, Deferred) and outcome.remedy is Remedy.STOP
    assert (way.relay.connections, way.said("STARTTLS"), way.relay.encrypted) == (2, 1, {2})


async def test_an_account_that_wants_no_encryption_is_told(make: Make) -> None:
    way = await make(Security.NONE)
    (outcome,) = await way.send()
    assert isinstance(outcome, Deferred) and outcome.remedy is Remedy.STOP
    assert outcome.advice.startswith("set security to starttls")
    assert (way.relay.connections, way.said("STARTTLS")) == (1, 0)


@pytest.mark.parametrize("security", ALLOWING)
async def test_a_certificate_that_fails_gets_no_mail(make: Make, security: Security) -> None:
    way = await make(security, tls=served(trustme.CA().issue_cert("127.0.0.1")))
    assert isinstance((await way.send())[0], NotSent)
    for _ in range(2):
        with pytest.raises(AccountUnavailable) as unavailable:
            await way.send()
        assert unavailable.value.failure.status == "4.7.5"
        assert unavailable.value.failure.remedy is Remedy.STOP
    assert (way.said("MAIL"), way.said("STARTTLS"), way.relay.taken) == (1, 2, [])


async def test_many_that_are_refused_at_once_all_go_over_tls(make: Make) -> None:
    way = await make(Security.AUTO, connections=3)
    recipients = [f"{n}@y.test" for n in range(9)]
    slots = await asyncio.gather(*(way.transport.reserve() for _ in recipients))
    mails = [Transaction(Envelope("s@x.test", (one,)), b"S: 1\r\n\r\n", b"hi\r\n", 12) for one in recipients]
    outcomes = await asyncio.gather(*(slot.deliver(mail) for slot, mail in zip(slots, mails, strict=True)))
    assert {type(outcome) for (outcome,) in outcomes} == {NotSent}
    for slot in slots:
        slot.settle()
        slot.durable()
    assert {type(one) for (one,) in await asyncio.gather(*map(way.send, recipients))} == {Delivered}
    assert sorted(taken.recipients[0] for taken in way.relay.taken) == recipients
    assert {taken.connection for taken in way.relay.taken} <= way.relay.encrypted


async def test_hosts_of_direct_delivery_get_it_too(authority: trustme.CA) -> None:
    host = Smarthost(Behaviour(tls=served(authority.issue_cert("host.test")), in_clear={"MAIL": MUST}))
    await host.start()
    clock, account = FakeClock(), Account(id=1, name="mx", kind=AccountKind.DIRECT, mx_port=host.port)
    routes = MailRoutes(Dns(clock), Policies(), lambda: 0.5, own_names=(), port=host.port)
    transport = DirectTransport(
        account, clock=clock, budget=ConnectionBudget(10), helo_name="c.test", chunks=no_chunks, routes=routes
    )
    found: list[Outcome] = []
    for _ in range(3):
        slot = await transport.reserve()
        mail = Transaction(Envelope("s@x.test", ("b@[127.0.0.1]",)), b"S: 1\r\n\r\n", b"hi\r\n", 12)
        found += await slot.deliver(mail)
        slot.settle()
        slot.durable()
    assert [type(outcome) for outcome in found] == [NotSent, Delivered, Delivered]
    assert (host.connections, host.encrypted, len(host.taken)) == (2, {2}, 2)
    await transport.close()
    await host.stop()


async def test_a_message_is_delivered_by_its_first_try(tmp_path: Path, authority: trustme.CA) -> None:
    relay = Smarthost(Behaviour(tls=served(authority.issue_cert("127.0.0.1")), in_clear={"MAIL": MUST}))
    await relay.start()
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.test", smtp={"listeners": []}))
    fields = {"name": "relay", "host": "127.0.0.1", "port": relay.port, "ca_bundle": pem(authority)}
    await gateway.accounts.add(fields)
    await gateway.applications.add({"name": "erp", "senders": "*"})
    await gateway.start()
    message = (await gateway.submit(hello(gateway, "b@y.test", "c@y.test"))).id
    assert await gateway.wait_drained()
    view = await gateway.store.message(message)
    assert view is not None
    assert [(row.state.value, row.tries) for row in view.deliveries] == [("delivered", 1)] * 2
    assert [taken.recipients for taken in relay.taken] == [["b@y.test", "c@y.test"]]
    await gateway.accounts.edit("relay", {"security": "none"})
    await gateway.submit(hello(gateway))
    while gateway.scheduler.circuit(gateway.accounts.get("relay").id).may_send:  # type: ignore[arg-type]
        await asyncio.sleep(0)
    assert len(relay.taken) == 1
    await gateway.stop()
    await relay.stop()
