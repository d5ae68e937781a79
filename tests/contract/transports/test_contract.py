"""What every transport promises (DESIGN section 7), held against each implementation."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from postroom.model.account import Account, AccountKind, Security
from postroom.model.content import StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Captured, Delivered, Outcome
from postroom.net.graph import AT_ONCE
from postroom.net.system_clock import SystemClock
from postroom.policy.mail_exchange import MailExchanger
from postroom.policy.mta_sts import StsPolicy
from postroom.transports import Slot, Transaction, Transport, TransportClosed
from postroom.transports.budget import ConnectionBudget
from postroom.transports.direct import DirectTransport
from postroom.transports.mail_route import MailRoutes
from postroom.transports.sandbox import CAPACITY, SandboxTransport
from postroom.transports.smtp import SmtpTransport
from tests.graph_peer import GraphPeer
from tests.graph_senders import transport as graph_transport
from tests.smarthost import Smarthost

STAGED = StagedBody(content_id=b"0" * 16, chunks=3, size_bytes=9, sha256=b"")  # type: ignore[arg-type]


async def chunks(body: StagedBody) -> AsyncIterator[bytes]:
    """The chunks of `STAGED`."""
    for chunk in (b".a\r", b"\n.b", b"\r\n"):
        yield chunk


def transaction(*recipients: str, body: bytes | StagedBody = b"hello\r\n") -> Transaction:
    """A small message."""
    head = b"Subject: hi\r\n\r\n"
    return Transaction(Envelope("a@x.test", recipients or ("b@y.test",)), head, body, len(head) + 9)


@dataclass
class Subject:
    """A transport under test, what its success is called, and how many slots it has."""

    transport: Transport
    success: type[Outcome]
    slots: int
    smarthost: Smarthost = field(default_factory=Smarthost)
    peer: GraphPeer = field(default_factory=GraphPeer)

    @property
    def taken(self) -> list[tuple[list[str], bytes]]:
        """What the other side has: recipients and content."""
        of_graph = [(item.recipients, item.mime) for item in self.peer.sent]
        return of_graph or [(taken.recipients, taken.content) for taken in self.smarthost.taken]


class OneDomain:
    """The DNS and the policies of y.test, whose mail a smarthost takes."""

    async def mail_exchangers(self, domain: str) -> tuple[MailExchanger, ...]:
        """See `Names`."""
        assert domain == "y.test"
        return (MailExchanger(10, "mx.y.test"),)

    async def addresses(self, host: str, *, ipv4: bool = True, ipv6: bool = True) -> tuple[str, ...]:
        """See `Names`."""
        assert host == "mx.y.test"
        return ("127.0.0.1",)

    async def policy(self, domain: str) -> StsPolicy | None:
        """See `Policies`."""
        return None


@pytest.fixture(params=["sandbox", "smtp", "direct", "graph"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each transport in turn."""
    if request.param == "sandbox":
        yield Subject(SandboxTransport("box"), Captured, CAPACITY)
        return
    if request.param == "graph":
        async with GraphPeer() as peer:
            graph = graph_transport(peer, chunks=chunks)
            yield Subject(graph, Delivered, AT_ONCE, peer=peer)
            await graph.close()
        return
    smarthost = Smarthost()
    await smarthost.start()
    if request.param == "direct":
        account = Account(id=1, name="mx", kind=AccountKind.DIRECT, mx_port=smarthost.port)
        routes = MailRoutes(OneDomain(), OneDomain(), random.random, own_names=(), port=smarthost.port)
        direct = DirectTransport(
            account, clock=SystemClock(), budget=ConnectionBudget(10), helo_name="c.test", chunks=chunks, routes=routes
        )
        yield Subject(direct, Delivered, account.max_connections, smarthost)
        await direct.close()
        await smarthost.stop()
        return
    account = Account(
        id=1, name="relay", kind=AccountKind.SMTP, host="127.0.0.1", port=smarthost.port, security=Security.NONE
    )
    transport = SmtpTransport(
        account, clock=SystemClock(), budget=ConnectionBudget(10), helo_name="c.test", chunks=chunks
    )
    yield Subject(transport, Delivered, account.max_connections * 3, smarthost)
    await transport.close()
    await smarthost.stop()


def end(slot: Slot) -> None:
    """The outcomes went to the store and are durable."""
    slot.settle()
    slot.durable()


async def test_there_is_one_outcome_per_recipient_in_order_and_it_names_the_other_side(subject: Subject) -> None:
    slot = await subject.transport.reserve()
    outcomes = await slot.deliver(transaction("b@y.test", "c@y.test", "d@y.test"))
    end(slot)
    assert [type(outcome) for outcome in outcomes] == [subject.success] * 3
    assert all(outcome.remote_host and outcome.reply and outcome.reply.is_positive for outcome in outcomes)


async def test_a_slot_given_back_is_there_for_the_next(subject: Subject) -> None:
    slots = [await subject.transport.reserve() for _ in range(subject.slots)]
    waiting = asyncio.ensure_future(subject.transport.reserve())
    await asyncio.sleep(0)
    assert not waiting.done()
    slots[0].cancel()
    slot = await waiting
    assert isinstance((await slot.deliver(transaction()))[0], subject.success)
    end(slot)
    for other in slots[1:]:
        other.cancel()


async def test_a_settled_slot_is_there_for_the_next(subject: Subject) -> None:
    for _ in range(subject.slots * 2):
        slot = await subject.transport.reserve()
        await slot.deliver(transaction())
        end(slot)


async def test_slots_deliver_at_the_same_time(subject: Subject) -> None:
    async def one(n: int) -> Outcome:
        slot = await subject.transport.reserve()
        (outcome,) = await slot.deliver(transaction(f"{n}@y.test"))
        end(slot)
        return outcome

    outcomes = await asyncio.gather(*(one(n) for n in range(100)))
    assert {type(outcome) for outcome in outcomes} == {subject.success}
    if subject.success is Delivered:
        assert sorted(recipients[0] for recipients, _ in subject.taken) == sorted(f"{n}@y.test" for n in range(100))


async def test_a_staged_body_goes_like_any_other(subject: Subject) -> None:
    slot = await subject.transport.reserve()
    (outcome,) = await slot.deliver(transaction(body=STAGED))
    end(slot)
    assert isinstance(outcome, subject.success)
    if subject.success is Delivered:
        assert subject.taken[0][1].endswith(b"\r\n\r\n.a\r\n.b\r\n")


async def test_closing_twice_is_safe_and_nothing_is_reserved_after_it(subject: Subject) -> None:
    (await subject.transport.reserve()).cancel()
    await subject.transport.close()
    await subject.transport.close()
    if subject.success is Delivered:
        with pytest.raises(TransportClosed):
            await subject.transport.reserve()


@dataclass
class Watched:
    """What a watch was told."""

    told: list[str] = field(default_factory=list)

    def answered(self) -> None:
        """See `Watch`."""
        self.told.append("answered")

    def was_begun(self) -> None:
        """See `Watch`."""
        self.told.append("begun")


async def test_who_counts_is_told_that_a_transaction_has_begun_before_its_outcome(subject: Subject) -> None:
    watched = Watched()
    slot = await subject.transport.reserve()
    told_before: list[str] = []
    sent = slot.deliver(dataclasses.replace(transaction(), watch=watched))
    sent.add_done_callback(lambda _: told_before.extend(watched.told))
    await sent
    end(slot)
    assert told_before[0] == "answered"
