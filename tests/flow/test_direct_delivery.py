"""Direct delivery: which host gets a message, what a failure of a destination means, and that it is nobody else's."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from bench.traffic import free_port
from postroom.model.account import Account, AccountKind
from postroom.model.content import StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Bounced, Deferred, Delivered, NotSent, Outcome, Scope, Unknown
from postroom.net.dns import Dns
from postroom.policy.mta_sts import Mode, StsPolicy
from postroom.transports import Slot, Transaction
from postroom.transports.budget import ConnectionBudget
from postroom.transports.direct import DirectTransport
from postroom.transports.mail_route import MX_PORT, MailRoutes
from tests.flow.conftest import FakeClock
from tests.name_server import SERVFAIL, NameServer
from tests.smarthost import Behaviour, Smarthost


def chunks(body: StagedBody) -> AsyncIterator[bytes]:
    """Nothing is staged here."""
    raise AssertionError(body)


def to(*recipients: str) -> Transaction:
    """A small message."""
    head = b"Subject: hi\r\n\r\n"
    return Transaction(Envelope("a@x.test", recipients), head, b"hello\r\n", len(head) + 7)


@dataclass
class World:
    """Domains and their hosts on loopback, and an account that delivers to them."""

    names: NameServer
    port: int
    clock: FakeClock = field(default_factory=FakeClock)
    hosts: dict[str, Smarthost] = field(default_factory=dict)
    policies: dict[str, StsPolicy] = field(default_factory=dict)
    transports: list[DirectTransport] = field(default_factory=list)

    async def policy(self, domain: str) -> StsPolicy | None:
        """See `Policies`."""
        return self.policies.get(domain)

    async def host(self, name: str, address: str, **behaviour: Any) -> Smarthost:
        """A host that takes mail."""
        self.names.zone[f"{name} A"] = [address]
        host = self.hosts[name] = Smarthost(Behaviour(**behaviour), address, self.port)
        await host.start()
        return host

    def account(self, **fields: Any) -> DirectTransport:
        """A transport of an account with these fields."""
        routes = {"own_names": fields.pop("own_names", ()), "port": fields.pop("loop_port", self.port)}
        budget = fields.pop("budget", None) or ConnectionBudget(100)
        made = Account(id=1, name="mx", kind=AccountKind.DIRECT, mx_port=self.port, **fields)
        dns = Dns(self.clock, [("127.0.0.1", self.names.port)])
        transport = DirectTransport(
            made, clock=self.clock, budget=budget, helo_name="c.test", chunks=chunks,
            routes=MailRoutes(dns, self, random.Random(1).random, family=made.address_family, **routes),
        )  # fmt: skip
        self.transports.append(transport)
        return transport


def end(slot: Slot) -> None:
    """The outcomes are durable."""
    slot.settle()
    slot.durable()


async def sent(transport: DirectTransport, *recipients: str) -> Sequence[Outcome]:
    """The outcomes of one message."""
    slot = await transport.reserve()
    outcomes = await slot.deliver(to(*recipients))
    end(slot)
    return outcomes


@pytest.fixture
def names() -> Iterator[NameServer]:
    """y.test with two MX of different preference."""
    with NameServer({"y.test MX": ["20 second.y.test.", "10 first.y.test."]}) as server:
        yield server


@pytest.fixture
async def world(names: NameServer) -> AsyncIterator[World]:
    """No host is up yet."""
    made = World(names, free_port())
    yield made
    for transport in made.transports:
        await transport.close()
    for host in made.hosts.values():
        await host.stop()


async def test_the_preferred_host_gets_it(world: World) -> None:
    first, second = await world.host("first.y.test", "127.0.0.2"), await world.host("second.y.test", "127.0.0.3")
    (outcome,) = await sent(world.account(), "b@Y.test")
    assert isinstance(outcome, Delivered)
    assert outcome.remote_host == "first.y.test"
    assert [one.recipients for one in first.taken] == [["b@Y.test"]]
    assert second.connections == 0


async def test_nothing_is_written_where_it_may_not_begin_any_more_once_it_is_connected(world: World) -> None:
    first = await world.host("first.y.test", "127.0.0.2")
    transport = world.account()
    allowed = True

    async def outcome_of(*recipients: str) -> Outcome:
        slot = await transport.reserve()
        (outcome,) = await slot.deliver(dataclasses.replace(to(*recipients), may_begin=lambda: allowed))
        end(slot)
        return outcome

    allowed = False
    assert isinstance(await outcome_of("b@y.test"), NotSent)  # it had to connect
    assert isinstance(await outcome_of("b@y.test"), NotSent)  # it was connected
    assert (first.connections, first.taken) == (1, [])
    allowed = True
    assert isinstance(await outcome_of("b@y.test"), Delivered)
    assert (first.connections, len(first.taken)) == (1, 1)


async def test_a_domain_without_mx_takes_mail_at_its_own_address(world: World) -> None:
    host = await world.host("plain.test", "127.0.0.2")
    (outcome,) = await sent(world.account(), "b@plain.test")
    assert isinstance(outcome, Delivered)
    assert len(host.taken) == 1


async def test_an_address_literal_is_no_name(world: World) -> None:
    host = await world.host("unasked.test", "127.0.0.2")
    (outcome,) = await sent(world.account(), "b@[127.0.0.2]")
    assert isinstance(outcome, Delivered)
    assert len(host.taken) == 1
    assert not world.names.asked


@pytest.mark.parametrize(
    "behaviour",
    [
        {"replies": {"GREETING": "421 4.3.2 too busy"}},
        {"replies": {"GREETING": "554 5.7.1 go away"}},
        {"replies": {"EHLO": "421 4.7.0 not now"}},
        {"close_after": "EHLO"},
        {"silent_at": "EHLO"},
    ],
    ids=["busy", "refusing", "later", "closing", "silent"],
)
async def test_the_next_host_is_tried_while_nothing_was_sent(world: World, behaviour: dict[str, Any]) -> None:
    first = await world.host("first.y.test", "127.0.0.2", **behaviour)
    second = await world.host("second.y.test", "127.0.0.3")
    (outcome,) = await sent(world.account(command_timeout=timedelta(milliseconds=300)), "b@y.test")
    assert isinstance(outcome, Delivered)
    assert outcome.remote_host == "second.y.test"
    assert first.connections >= 1
    assert len(second.taken) == 1


async def test_a_host_that_is_down_is_passed_over(world: World) -> None:
    world.names.zone["first.y.test A"] = ["127.0.0.2"]  # nothing listens there
    second = await world.host("second.y.test", "127.0.0.3")
    assert isinstance((await sent(world.account(), "b@y.test"))[0], Delivered)
    assert len(second.taken) == 1


async def test_content_without_an_answer_is_unknown_and_no_other_host_gets_it(world: World) -> None:
    await world.host("first.y.test", "127.0.0.2", close_after="CONTENT")
    second = await world.host("second.y.test", "127.0.0.3")
    (outcome,) = await sent(world.account(), "b@y.test")
    assert isinstance(outcome, Unknown)
    assert second.connections == 0


@pytest.mark.parametrize(
    ("zone", "recipient", "kind", "status"),
    [
        ({}, "b@nowhere.test", Bounced, "5.1.2"),
        ({"null.test MX": ["0 ."]}, "b@null.test", Bounced, "5.1.10"),
        ({"bare.test TXT": ['"x"']}, "b@bare.test", Bounced, "5.4.4"),
        ({"dangling.test MX": ["10 gone.dangling.test."]}, "b@dangling.test", Bounced, "5.4.4"),
        ({"broken.test MX": [SERVFAIL]}, "b@broken.test", Deferred, "4.4.3"),
        ({"half.test MX": ["10 mx.half.test."], "mx.half.test A": [SERVFAIL], "mx.half.test AAAA": [SERVFAIL]},
         "b@half.test", Deferred, "4.4.3"),
        ({"down.test MX": ["10 mx.down.test."], "mx.down.test A": ["127.0.0.9"]}, "b@down.test", Deferred, "4.4.1"),
        ({"us.test MX": ["10 us.y.test."]}, "b@us.test", Bounced, "5.4.6"),
        ({}, "b@[127.0.0.300]", Bounced, "5.1.3"),
    ],
    ids=["no domain", "null mx", "no address", "no host", "servfail", "no answer", "down", "ourselves", "literal"],
)  # fmt: skip
async def test_what_the_dns_says_is_about_the_message_never_the_account(
    world: World, zone: dict[str, list[str]], recipient: str, kind: type[Outcome], status: str
) -> None:
    world.names.zone |= zone
    (outcome,) = await sent(world.account(own_names={"us.y.test"}), recipient)
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Bounced | Deferred)
    assert (outcome.status, outcome.scope) == (status, Scope.MESSAGE)
    assert outcome.reason


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "0.0.0.0"])
async def test_at_the_port_of_all_mx_this_machine_is_never_an_mx(world: World, address: str) -> None:
    """A domain of others must not lead to what listens on loopback, nor mail round in a circle."""
    world.names.zone |= {"evil.test MX": ["10 mx.evil.test."], "mx.evil.test A": [address]}
    (outcome,) = await sent(world.account(loop_port=MX_PORT), "b@evil.test")
    assert isinstance(outcome, Bounced)
    assert outcome.status == "5.4.6"


async def test_a_backup_mx_waits_while_nobody_says_where_the_first_one_is(world: World) -> None:
    world.names.zone |= {
        "b.test MX": ["10 first.b.test.", "20 here.b.test."],
        "first.b.test A": [SERVFAIL], "first.b.test AAAA": [SERVFAIL],
        "here.b.test A": ["127.0.0.1"],
    }  # fmt: skip
    (outcome,) = await sent(world.account(loop_port=MX_PORT), "b@b.test")
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.4.3"


async def test_a_fault_of_ours_before_anything_was_written_is_a_try_that_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Dns, domain: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Dns, "mail_exchangers", broken)
    (outcome,) = await sent(world.account(), "b@y.test")
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.3.0"


async def test_a_backup_mx_tries_only_the_hosts_before_it(world: World) -> None:
    world.names.zone["first.y.test A"] = ["127.0.0.2"]  # down
    (outcome,) = await sent(world.account(own_names={"second.y.test"}), "b@y.test")
    assert isinstance(outcome, Deferred)
    assert "first.y.test" in outcome.reason


@pytest.mark.parametrize(
    ("verb", "reply", "kind"),
    [
        ("MAIL", "421 4.7.0 too much mail from you", Deferred),
        ("MAIL", "550 5.7.1 your address is on a list", Deferred),
        ("RCPT", "450 4.2.1 the mailbox is busy", Deferred),
        ("RCPT", "550 5.1.1 no such user", Bounced),
        ("RCPT", "554 5.7.1 relay access denied", Bounced),
        ("CONTENT", "554 5.7.1 looks like spam", Bounced),
        ("CONTENT", "452 4.3.1 no room", Deferred),
    ],
)
async def test_no_reply_of_a_host_is_about_the_account(
    world: World, verb: str, reply: str, kind: type[Outcome]
) -> None:
    await world.host("first.y.test", "127.0.0.2", replies={verb: reply})
    await world.host("second.y.test", "127.0.0.3", replies={verb: reply})
    (outcome,) = await sent(world.account(), "b@y.test")
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Bounced | Deferred)
    assert outcome.scope is not Scope.ACCOUNT
    assert outcome.status[0] == ("5" if kind is Bounced else "4")


async def test_a_destination_that_was_not_reached_is_left_alone_for_a_while(world: World) -> None:
    transport = world.account(connect_retry=timedelta(seconds=30))
    await world.host("other.test", "127.0.0.4")
    world.names.zone["first.y.test A"] = ["127.0.0.2"]
    (outcome,) = await sent(transport, "b@y.test")
    assert isinstance(outcome, Deferred)
    first = await world.host("first.y.test", "127.0.0.2")  # it is up again
    (outcome,) = await sent(transport, "b@y.test")
    assert isinstance(outcome, Deferred)
    assert "not again for 30 s" in outcome.reason
    assert isinstance((await sent(transport, "b@other.test"))[0], Delivered)
    world.clock._move(31)
    assert isinstance((await sent(transport, "b@y.test"))[0], Delivered)
    assert first.connections == 1


async def test_a_connection_is_kept_warm_for_its_domain(world: World) -> None:
    first, other = await world.host("first.y.test", "127.0.0.2"), await world.host("other.test", "127.0.0.4")
    transport = world.account(messages_per_connection=3)
    for n in range(4):
        await sent(transport, f"{n}@y.test")
        await sent(transport, f"{n}@other.test")
    assert [one.connection for one in first.taken] == [1, 1, 1, 2]
    assert [one.connection for one in other.taken] == [1, 1, 1, 2]


async def test_a_connection_takes_no_content_while_two_outcomes_wait_for_their_commit(world: World) -> None:
    """DESIGN section 3: what a crash can send twice is bounded."""
    first = await world.host("first.y.test", "127.0.0.2")
    transport = world.account()
    slots = []
    for n in range(3):
        slots.append(await transport.reserve())
        await slots[-1].deliver(to(f"{n}@y.test"))
        slots[-1].settle()
    assert [one.connection for one in first.taken] == [1, 1, 2]
    for slot in slots:
        slot.durable()
    await sent(transport, "3@y.test")
    assert first.connections == 2


async def test_an_idle_connection_ends_in_time(world: World) -> None:
    first = await world.host("first.y.test", "127.0.0.2")
    transport = world.account(idle_timeout=timedelta(seconds=30))
    await sent(transport, "b@y.test")
    world.clock.advance(timedelta(seconds=31))
    await transport.close()
    assert first.commands[-1] == "QUIT"
    assert first.connections == 1


async def test_a_warm_connection_that_the_host_has_ended_costs_nobody_a_try(world: World) -> None:
    first = await world.host("first.y.test", "127.0.0.2", messages_per_connection=1)
    transport = world.account()
    for n in range(5):
        (outcome,) = await sent(transport, f"{n}@y.test")
        while isinstance(outcome, NotSent):
            (outcome,) = await sent(transport, f"{n}@y.test")
        assert isinstance(outcome, Delivered)
    assert [one.recipients for one in first.taken] == [[f"{n}@y.test"] for n in range(5)]


@pytest.mark.parametrize("in_all", [2, 100])
async def test_no_more_connections_than_allowed_are_open_whatever_is_kept_warm(world: World, in_all: int) -> None:
    hosts = [await world.host(f"d{n}.test", f"127.0.1.{n + 1}") for n in range(6)]
    budget = ConnectionBudget(in_all)
    transport = world.account(max_connections=2, budget=budget)
    for round in range(2):
        for n in range(6):
            assert isinstance((await sent(transport, f"{round}@d{n}.test"))[0], Delivered)
            assert len(transport._lines) <= 2
            assert budget._free == in_all - len(transport._lines)
    assert [host.connections for host in hosts] == [2] * 6


async def test_the_budget_of_the_node_is_shared_and_given_back(world: World) -> None:
    hosts = [await world.host(f"d{n}.test", f"127.0.1.{n + 1}") for n in range(4)]
    budget = ConnectionBudget(1)
    one, two = world.account(budget=budget), world.account(budget=budget)
    outcomes = await asyncio.gather(
        *(sent(transport, f"{n}@d{n}.test") for n, transport in enumerate([one, one, one, one])),
    )
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    await one.close()
    assert isinstance((await sent(two, "5@d0.test"))[0], Delivered)
    assert sum(host.connections for host in hosts) == 5


async def test_closing_ends_what_is_under_way_with_its_outcome(world: World) -> None:
    first = await world.host("first.y.test", "127.0.0.2")
    first.gate.clear()
    world.names.zone["hanging.test MX"] = ["10 mx.hanging.test."]
    await world.host("mx.hanging.test", "127.0.0.5", silent_at="EHLO")
    transport = world.account()
    slots = [await transport.reserve(), await transport.reserve()]
    written, hanging = slots[0].deliver(to("b@y.test")), slots[1].deliver(to("b@hanging.test"))
    while "DATA" not in first.commands or "mx.hanging.test" not in world.hosts:
        await asyncio.sleep(0)
    while not world.hosts["mx.hanging.test"].commands:
        await asyncio.sleep(0)
    await transport.close(timedelta(milliseconds=100))
    assert [type(outcome) for outcome in await hanging] == [NotSent]
    assert [type(outcome) for outcome in await written] == [Unknown]
    first.gate.set()
    for slot in slots:
        end(slot)


async def test_mail_leaves_from_the_local_address(world: World) -> None:
    seen: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername")[0])
        writer.write(b"554 no\r\n")
        writer.close()

    world.names.zone["first.y.test A"] = ["127.0.0.2"]
    server = await asyncio.start_server(note, "127.0.0.2", world.port)
    await sent(world.account(local_address="127.0.0.77"), "b@y.test")
    server.close()
    await server.wait_closed()
    assert seen == ["127.0.0.77"]


async def test_a_local_address_that_is_gone_is_the_accounts_own_failure(world: World) -> None:
    await world.host("first.y.test", "127.0.0.2")
    (outcome,) = await sent(world.account(local_address="192.0.2.77"), "b@y.test")
    assert isinstance(outcome, Deferred)
    assert outcome.scope is Scope.ACCOUNT
    assert "192.0.2.77" in outcome.reason
    assert "local_address" in outcome.advice


ENFORCED = StsPolicy(Mode.ENFORCE, timedelta(days=1), ("first.y.test",))


async def test_a_policy_that_is_enforced_lets_nothing_go_in_clear(world: World) -> None:
    first, second = await world.host("first.y.test", "127.0.0.2"), await world.host("second.y.test", "127.0.0.3")
    world.policies["y.test"] = ENFORCED
    (outcome,) = await sent(world.account(), "b@y.test")
    assert isinstance(outcome, Deferred)
    assert (outcome.status, outcome.scope) == ("4.7.5", Scope.MESSAGE)
    assert "MTA-STS" in outcome.reason
    assert (len(first.taken), second.connections) == (0, 0), "the second host is not in the policy"


async def test_a_policy_that_names_none_of_the_hosts_defers(world: World) -> None:
    first = await world.host("first.y.test", "127.0.0.2")
    world.policies["y.test"] = dataclasses.replace(ENFORCED, mx=("elsewhere.test",))
    (outcome,) = await sent(world.account(), "b@y.test")
    assert isinstance(outcome, Deferred)
    assert "none of its MX" in outcome.reason
    assert first.connections == 0


@pytest.mark.parametrize("mode", [Mode.TESTING, Mode.NONE])
async def test_a_policy_that_is_only_tested_stops_nothing(world: World, mode: Mode) -> None:
    first = await world.host("first.y.test", "127.0.0.2")
    world.policies["y.test"] = StsPolicy(mode, timedelta(days=1), ("elsewhere.test",))
    assert isinstance((await sent(world.account(), "b@y.test"))[0], Delivered)
    assert len(first.taken) == 1


async def test_a_warm_connection_in_clear_does_not_serve_once_a_policy_is_enforced(world: World) -> None:
    first = await world.host("first.y.test", "127.0.0.2")
    transport = world.account()
    await sent(transport, "b@y.test")
    world.policies["y.test"] = ENFORCED
    assert isinstance((await sent(transport, "c@y.test"))[0], Deferred)
    assert [one.recipients for one in first.taken] == [["b@y.test"]]


async def test_where_tls_is_broken_and_not_demanded_the_next_try_goes_without(world: World) -> None:
    world.names.zone["y.test MX"] = ["10 first.y.test."]
    first = await world.host(
        "first.y.test", "127.0.0.2", offers=("STARTTLS",), replies={"STARTTLS": "220 ready for what?"}
    )
    transport = world.account(connect_retry=timedelta(seconds=1), command_timeout=timedelta(milliseconds=300))
    (outcome,) = await sent(transport, "b@y.test")
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.7.5"
    world.clock._move(2)
    assert isinstance((await sent(transport, "b@y.test"))[0], Delivered)
    assert len(first.taken) == 1


async def test_recipients_that_a_host_does_not_take_together_go_with_the_next_transaction(world: World) -> None:
    first = await world.host(
        "first.y.test", "127.0.0.2",
        replies={"RCPT": ["250 ok", "452 4.5.3 too many recipients", "250 ok"]},
    )  # fmt: skip
    transport = world.account()
    outcomes = await sent(transport, "b@y.test", "c@y.test")
    assert [type(outcome) for outcome in outcomes] == [Delivered, NotSent]
    assert isinstance((await sent(transport, "c@y.test"))[0], Delivered)
    assert [one.recipients for one in first.taken] == [["b@y.test"], ["c@y.test"]]


async def test_a_slot_waits_for_another_and_no_longer(world: World) -> None:
    transport = world.account(max_connections=2)
    slots = [await transport.reserve() for _ in range(2)]
    waiting = asyncio.ensure_future(transport.reserve())
    await asyncio.sleep(0)
    assert not waiting.done()
    transport.limit_connections(1)
    slots[0].cancel()
    await asyncio.sleep(0)
    assert not waiting.done(), "it is limited to one by now"
    slots[1].cancel()
    (await waiting).cancel()
    transport.limit_connections(None)
    assert [type(slot) for slot in [await transport.reserve(), await transport.reserve()]]
