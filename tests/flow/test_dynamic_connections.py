"""A message that brings a connection goes over it and no other, with none of its account's secrets."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.accounts.own_connection import parse_connection
from postroom.accounts.own_connections import OwnConnections
from postroom.config import Settings
from postroom.errors import InvalidInput, Refused, StateConflict
from postroom.gateway import Gateway
from postroom.model.account import Account, AccountKind
from postroom.model.application import Application
from postroom.model.connection import SealedConnection
from postroom.model.queue import MessageId
from postroom.net.stream import Address, ConnectFailed
from postroom.store import MessageView, Selection
from postroom.transports.own_connection import through_proxy
from tests.flow.gateways import hello
from tests.pop3_server import Pop3Server
from tests.smarthost import Behaviour, Smarthost
from tests.tls_relay import pem, served

SECRET = "marked-secret-of-the-account"
OWN = "marked-secret-of-the-message"

#: How the test relays of others are reached: loopback is what the address guard refuses.
LOOPBACK = {"may_connect_to": "127.0.0.0/8"}


@pytest.fixture
async def relay() -> AsyncIterator[Smarthost]:
    """The account's own relay, which asks for a login."""
    host = Smarthost(Behaviour(offers=("AUTH PLAIN",), replies={"AUTH": "235 2.7.0 welcome"}))
    await host.start()
    yield host
    await host.stop()


@pytest.fixture
async def other() -> AsyncIterator[Smarthost]:
    """Where messages lead by themselves."""
    host = Smarthost(Behaviour(offers=("AUTH PLAIN",), replies={"AUTH": "235 2.7.0 welcome"}))
    await host.start()
    yield host
    await host.stop()


@pytest.fixture
async def gateway(tmp_path: Path, relay: Smarthost) -> AsyncIterator[Gateway]:
    """A gateway whose account and application let messages bring a connection."""
    settings = Settings.load(tmp_path, hostname="gateway.example.test", smtp={"listeners": []})
    gateway = await Gateway.open(settings)
    account = {"name": "relay", "host": "127.0.0.1", "port": relay.port, "security": "none", "dynamic": True}
    await gateway.accounts.add(account | {"username": "erp", "password": SECRET, "allow_clear_password": True})
    await gateway.applications.add({"name": "erp", "senders": "*", "dynamic": True} | LOOPBACK)
    await gateway.start()
    yield gateway
    await gateway.stop()


async def send(gateway: Gateway, *recipients: str, **connection: Any) -> MessageId:
    """A message with this connection, or with none."""
    submission = hello(gateway, *recipients)
    if connection:
        submission = dataclasses.replace(submission, connection=gateway.own_connection(connection))
    return (await gateway.submit(submission)).id


async def view_of(gateway: Gateway, message: MessageId) -> MessageView:
    """All that is known of a message."""
    view = await gateway.store.message(message)
    assert view is not None
    return view


async def until(gateway: Gateway, message: MessageId, *states: str) -> MessageView:
    """The message, once its deliveries are in these states; pytest's limit is the patience."""
    while True:
        view = await view_of(gateway, message)
        if [row.state.value for row in view.deliveries] == list(states):
            return view
        await asyncio.sleep(0)


def stored(tmp_path: Path) -> list[tuple[str, bytes]]:
    """What the database holds of connections: what may be seen, and what is sealed."""
    with sqlite3.connect(tmp_path / "postroom.db") as database:
        return database.execute("SELECT shown, sealed FROM connection").fetchall()


def logins(host: Smarthost) -> list[str]:
    """The user names and passwords that a relay was given."""
    told = [line.split()[-1] for line in host.commands if line.startswith("AUTH PLAIN")]
    return [base64.b64decode(one).decode().replace("\0", ":") for one in told]


async def test_it_goes_there_and_nowhere_else_and_no_stored_secret_goes_with_it(
    gateway: Gateway, relay: Smarthost, other: Smarthost
) -> None:
    message = await send(gateway, port=other.port)
    view = await until(gateway, message, "delivered")
    assert (len(other.taken), relay.connections) == (1, 0)
    assert logins(other) == []
    assert view.connection == {"target": f"127.0.0.1:{other.port}", "port": other.port}
    assert [one.detail for one in view.events if one.kind == "own_connection"] == [f"127.0.0.1:{other.port}"]
    assert [one.remote_host for one in view.attempts] == ["127.0.0.1"]
    await until(gateway, await send(gateway), "delivered")
    assert (logins(relay), len(relay.taken)) == ([f":erp:{SECRET}"], 1)


async def test_it_logs_in_as_it_says_and_its_secret_ends_with_it(
    gateway: Gateway, relay: Smarthost, other: Smarthost, tmp_path: Path
) -> None:
    other.gate.clear()
    own = {"username": "guest", "password": OWN, "allow_clear_password": True, "helo_name": "own.example.test"}
    message = await send(gateway, port=other.port, **own)
    while not other.contents:
        await asyncio.sleep(0)
    ((shown, sealed),) = stored(tmp_path)
    assert (OWN in shown, bool(sealed), OWN.encode() in sealed) == (False, True, False)
    assert OWN not in str(await view_of(gateway, message))
    other.gate.set()
    view = await until(gateway, message, "delivered")
    assert view.connection is not None
    assert (view.connection["username"], view.connection["secrets"]) == ("guest", ["password"])
    assert stored(tmp_path) == [(shown, b"")]
    assert logins(other) == [f":guest:{OWN}"]
    assert "EHLO own.example.test" in other.commands


async def test_what_does_not_lead_elsewhere_keeps_the_login_and_a_login_alone_is_replaced_whole(
    gateway: Gateway, relay: Smarthost
) -> None:
    await until(gateway, await send(gateway, helo_name="own.example.test"), "delivered")
    own = {"username": "guest", "password": OWN, "allow_clear_password": True}
    await until(gateway, await send(gateway, **own), "delivered")
    assert logins(relay) == [f":erp:{SECRET}", f":guest:{OWN}"]
    assert relay.commands.count("EHLO own.example.test") == 1


async def test_where_tls_is_demanded_without_being_offered_it_gets_starttls(gateway: Gateway, other: Smarthost) -> None:
    authority = trustme.CA()
    other.behaviour.tls = served(authority.issue_cert("127.0.0.1"))
    other.behaviour.in_clear = {"MAIL": "530 5.7.0 Must issue a STARTTLS command first"}
    await gateway.accounts.edit("relay", {"ca_bundle": pem(authority)})
    view = await until(gateway, await send(gateway, port=other.port, security="auto"), "delivered")
    assert [row.tries for row in view.deliveries] == [1]
    assert (len(other.taken), other.connections, other.encrypted) == (1, 2, {2})
    view = await until(gateway, await send(gateway, port=other.port, security="none"), "deferred")
    assert "Must issue a STARTTLS command first" in view.deliveries[0].reply
    assert (len(other.taken), other.connections) == (1, 3)


@pytest.mark.parametrize("switch", ["account", "application"])
async def test_both_switches_are_needed_when_it_comes(gateway: Gateway, switch: str) -> None:
    if switch == "account":
        await gateway.accounts.edit("relay", {"dynamic": False})
    else:
        await gateway.applications.edit("erp", {"dynamic": False})
    command = {"account": "accounts edit relay --dynamic", "application": "applications edit erp --dynamic"}
    with pytest.raises(Refused, match=command[switch]):
        await send(gateway, port=2525)


@pytest.mark.parametrize("switch", ["account", "application"])
async def test_both_switches_are_needed_when_it_is_sent(
    gateway: Gateway, relay: Smarthost, other: Smarthost, switch: str
) -> None:
    await gateway.configuration.change({"sending_enabled": False})
    message = await send(gateway, port=other.port)
    if switch == "account":
        await gateway.accounts.edit("relay", {"dynamic": False})
    else:
        await gateway.applications.edit("erp", {"dynamic": False})
    await gateway.configuration.change({"sending_enabled": True})
    view = await until(gateway, message, "deferred")
    assert "a connection of its own" in view.deliveries[0].reply
    assert (other.connections, relay.connections) == (0, 0)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"verification": "off"}, "connection.verification", "no message can change"),
    ({"client_key": "x"}, "connection.client_key", "goes to no other host"),
    ({"host": "a b"}, "connection.host", "not a host name"),
    ({"hots": "x.test"}, "connection.hots", "did you mean host"),
    ({"authentication": "oauth2"}, "connection.authentication", "oauth2"),
    ({"username": "x"}, "connection.password", "there is none"),
    ({"host": "127.0.0.2"}, "connection.host", "a loopback address"),
    ({"host": "[::ffff:10.0.0.1]"}, "connection.host", "a private address"),
    ({"host": "LOCALHOST"}, "connection.host", "a loopback address"),
    ({"host": "169.254.169.254"}, "connection.host", "a link-local address"),
]


async def test_what_can_be_told_at_once_is_refused_with_its_field(gateway: Gateway) -> None:
    await gateway.applications.edit("erp", {"may_connect_to": None})
    for connection, field, words in REFUSED:
        with pytest.raises(InvalidInput) as refused:
            await send(gateway, **connection)
        assert field in [fault.field for fault in refused.value.faults]
        assert words in str(refused.value)


Resolves = Callable[[str, int], Awaitable[Sequence[Address]]]


def answers(*rounds: str) -> tuple[Resolves, list[str]]:
    """A DNS that says another address each time it is asked; and what it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[Address]:
        asked.append(host)
        address = rounds[min(len(asked), len(rounds)) - 1]
        return [(socket.AF_INET, (address, port))]

    return resolve, asked


async def with_names(gateway: Gateway, resolve: Resolves) -> None:
    """Let the names of connections that messages bring be resolved so."""
    gateway._transports.resolver = resolve
    gateway.scheduler.renew_transports()


async def test_a_name_that_leads_inside_is_not_connected_to(gateway: Gateway, other: Smarthost) -> None:
    await gateway.applications.edit("erp", {"may_connect_to": None})
    resolve, asked = answers("127.0.0.1")
    await with_names(gateway, resolve)
    message = await send(gateway, host="rebinding.example.com", port=other.port)
    view = await until(gateway, message, "deferred")
    assert "which the address guard does not let pass" in view.deliveries[0].reply
    assert "127.0.0.1" not in view.deliveries[0].reply
    assert (other.connections, asked) == (0, ["rebinding.example.com"])


async def test_what_was_checked_is_what_is_connected_to(gateway: Gateway, other: Smarthost) -> None:
    """The second answer would lead elsewhere; nobody asks for it."""
    resolve, asked = answers("127.0.0.1", "127.0.0.9")
    await with_names(gateway, resolve)
    message = await send(gateway, host="rebinding.example.com", port=other.port)
    await until(gateway, message, "delivered")
    assert (asked, len(other.taken)) == (["rebinding.example.com"], 1)


async def test_a_name_that_the_application_may_connect_to_may_lead_inside(gateway: Gateway, other: Smarthost) -> None:
    await gateway.applications.edit("erp", {"may_connect_to": "*.inside.example"})
    resolve, _ = answers("127.0.0.1")
    await with_names(gateway, resolve)
    await until(gateway, await send(gateway, host="mail.inside.example", port=other.port), "delivered")
    assert len(other.taken) == 1


@pytest.mark.parametrize(
    ("behaviour", "connection", "words"),
    [
        ({"replies": {"GREETING": "554 5.7.1 go away"}}, {}, "go away"),
        ({"replies": {"AUTH": "535 5.7.8 no"}, "offers": ("AUTH PLAIN",)},
         {"username": "guest", "password": OWN, "allow_clear_password": True}, "535 5.7.8 no"),
        ({"offers": ()}, {"username": "guest", "password": OWN}, "no authentication method"),
        ({"replies": {"MAIL": "550 5.7.1 who are you"}}, {}, "who are you"),
        ({"offers": ()}, {"security": "starttls"}, "does not offer STARTTLS"),
        ({"close_after": "RCPT"}, {}, "closed"),
    ],
)  # fmt: skip
async def test_a_failure_is_the_messages_own(
    gateway: Gateway, relay: Smarthost, other: Smarthost, behaviour: Any, connection: dict[str, Any], words: str
) -> None:
    other.behaviour = Behaviour(**behaviour)
    message = await send(gateway, port=other.port, **connection)
    view = await until(gateway, message, "deferred")
    (row,) = view.deliveries
    assert words in row.reply
    assert row.tries == 1
    account = gateway.accounts.get("relay")
    assert gateway.answers.circuit(account).may_send
    assert OWN not in str(view)
    await until(gateway, await send(gateway), "delivered")
    assert relay.connections == 1


async def test_a_refused_recipient_bounces_and_is_not_suppressed_for_all(gateway: Gateway, other: Smarthost) -> None:
    await gateway.configuration.change({"suppress_hard_bounces": True})
    other.behaviour = Behaviour(replies={"RCPT TO:<b@y.test>": "550 5.1.1 no such user"})
    message = await send(gateway, "b@y.test", "c@y.test", port=other.port)
    await until(gateway, message, "bounced", "delivered")
    assert not await gateway.store.suppressions.page("", "", 10)


async def test_a_slow_target_holds_up_neither_others_nor_the_accounts_mail(
    gateway: Gateway, relay: Smarthost, other: Smarthost
) -> None:
    third = Smarthost(Behaviour())
    await third.start()
    other.gate.clear()  # it takes contents and does not answer
    slow = [await send(gateway, port=other.port) for _ in range(5)]
    while not other.contents:
        await asyncio.sleep(0)
    for _ in range(3):
        await until(gateway, await send(gateway), "delivered")
        await until(gateway, await send(gateway, port=third.port), "delivered")
    assert other.connections == 1  # of 4 connections, 2 are for such messages and 1 of them for one target
    other.gate.set()
    for message in slow:
        await until(gateway, message, "delivered")
    assert (other.connections, third.connections) == (5, 3)  # each serves one message
    await third.stop()


async def test_with_one_connection_both_kinds_take_turns(gateway: Gateway, relay: Smarthost, other: Smarthost) -> None:
    await gateway.accounts.edit("relay", {"max_connections": 1})
    mixed = [await send(gateway, **({"port": other.port} if n % 2 else {})) for n in range(10)]
    for message in mixed:
        await until(gateway, message, "delivered")
    assert (len(relay.taken), len(other.taken)) == (5, 5)


async def test_it_stays_with_its_account_when_that_can_not_send(
    gateway: Gateway, relay: Smarthost, other: Smarthost
) -> None:
    await gateway.accounts.add({"name": "spare", "host": "127.0.0.1", "port": relay.port, "dynamic": True})
    await gateway.accounts.edit("relay", {"fall_back_after": "0s", "enabled": False})
    plain, own = await send(gateway), await send(gateway, port=other.port)
    await until(gateway, plain, "delivered")  # by the spare account
    assert [row.state.value for row in (await view_of(gateway, own)).deliveries] == ["queued"]
    (why,) = await gateway.answers.why(own)
    assert why.reason == "account relay is off"
    await gateway.accounts.edit("relay", {"enabled": True})
    await until(gateway, own, "delivered")
    assert len(other.taken) == 1


async def test_a_person_moves_it_only_to_an_account_that_takes_it(gateway: Gateway, other: Smarthost) -> None:
    await gateway.accounts.add({"name": "plain", "host": "127.0.0.1"})
    await gateway.accounts.add({"name": "spare", "host": "127.0.0.1", "dynamic": True})
    await gateway.accounts.edit("relay", {"enabled": False})
    message = await send(gateway, port=other.port)
    moved = await gateway.reroute(Selection(message_id=message), "plain", may_duplicate=False)
    assert not moved.moved and "does not take" in str(moved.left)
    assert "brought a connection" in str(
        (await gateway.reroute(Selection(message_id=message), may_duplicate=False)).left
    )
    moved = await gateway.reroute(Selection(message_id=message), "spare", may_duplicate=False)
    assert moved.moved == {"spare": 1}
    await until(gateway, message, "delivered")
    assert len(other.taken) == 1


async def test_what_waited_over_a_restart_goes_over_its_connection_under_new_keys_too(
    gateway: Gateway, other: Smarthost, tmp_path: Path
) -> None:
    await gateway.accounts.edit("relay", {"enabled": False})
    own = {"username": "guest", "password": OWN, "allow_clear_password": True}
    message = await send(gateway, port=other.port, **own)
    ((_, before),) = stored(tmp_path)
    await gateway.rotate_keys()
    ((_, after),) = stored(tmp_path)
    assert before != after
    await gateway.scheduler.stop()
    await gateway.accounts.edit("relay", {"enabled": True})
    await gateway.scheduler.start(gateway.accounts.snapshot(), paused=False, hold_pending=False)
    await until(gateway, message, "delivered")
    assert logins(other) == [f":guest:{OWN}"]


async def test_a_sealed_connection_opens_for_its_own_message_alone(gateway: Gateway, other: Smarthost) -> None:
    await gateway.accounts.edit("relay", {"enabled": False})
    first = await send(gateway, port=other.port, username="guest", password=OWN, allow_clear_password=True)
    second = await send(gateway, port=other.port)
    await gateway.scheduler.stop()

    def swap(core: Any) -> None:
        sql = "UPDATE connection SET sealed = (SELECT sealed FROM connection WHERE message_id = ?) WHERE message_id = ?"
        core.exec_driver_sql(sql, (first, second))

    await gateway.store.write(swap)
    await gateway.accounts.edit("relay", {"enabled": True})
    await gateway.scheduler.start(gateway.accounts.snapshot(), paused=False, hold_pending=False)
    view = await until(gateway, second, "deferred")
    assert "that of another message" in view.deliveries[0].reply


async def test_one_that_ended_is_sent_again_with_its_connection_where_that_had_no_secret(
    gateway: Gateway, other: Smarthost
) -> None:
    other.behaviour = Behaviour(replies={"RCPT": ["550 5.1.1 no", "250 ok"]})
    message = await send(gateway, port=other.port)
    await until(gateway, message, "bounced")
    await until(gateway, (await gateway.resubmit(message)).id, "delivered")
    assert len(other.taken) == 1
    other.behaviour = Behaviour(replies={"RCPT": "550 5.1.1 no", "AUTH": "235 ok"}, offers=("AUTH PLAIN",))
    own = {"username": "guest", "password": OWN, "allow_clear_password": True}
    message = await send(gateway, port=other.port, **own)
    await until(gateway, message, "bounced")
    with pytest.raises(StateConflict, match="whose password ended with it"):
        await gateway.resubmit(message)


async def test_the_archives_copy_goes_the_same_way(tmp_path: Path, other: Smarthost, gateway: Gateway) -> None:
    gateway._intake.archive_bcc = "archive@x.test"
    await until(gateway, await send(gateway, port=other.port), "delivered", "delivered")
    assert sorted(one for taken in other.taken for one in taken.recipients) == ["archive@x.test", "b@y.test"]


async def test_limits_of_the_account_count_it(gateway: Gateway, other: Smarthost) -> None:
    await gateway.accounts.edit("relay", {"messages_per_day": 1})
    await until(gateway, await send(gateway, port=other.port), "delivered")
    waits = await send(gateway, port=other.port)
    (why,) = await gateway.answers.why(waits)
    assert "has reached its limit" in why.reason
    assert len(other.taken) == 1


async def test_a_pop3_login_of_its_own_opens_the_relay_and_is_guarded_too(gateway: Gateway, other: Smarthost) -> None:
    own = {"authentication": "pop-before-smtp", "pop_username": "guest", "pop_password": OWN}
    async with Pop3Server() as pop:
        there = {"port": other.port, "pop_host": "127.0.0.1", "pop_port": pop.port}
        await until(gateway, await send(gateway, **own, **there), "delivered")
        assert (pop.logins, len(other.taken), logins(other)) == (1, 1, [])
        await gateway.applications.edit("erp", {"may_connect_to": None})
        with pytest.raises(InvalidInput, match="connection.pop_host: 127.0.0.1 is a loopback address"):
            await send(gateway, **own, pop_host="127.0.0.1", pop_port=pop.port)


@pytest.mark.parametrize("proxy", ["socks4a", "socks5", "http-connect"])
async def test_a_proxy_that_resolves_names_gets_an_address_that_was_checked(proxy: str) -> None:
    application = Application(id=1, name="erp", dynamic=True, may_connect_to=("*.inside.example",))
    account = Account(id=1, name="relay", kind=AccountKind.SMTP, host="relay.example.com", dynamic=True)
    own = OwnConnections(NoKeys(), lambda number: application)

    async def leads(host: str, *answer: str) -> tuple[str, str]:
        async def resolve(host: str, port: int) -> Sequence[Address]:
            return [(socket.AF_INET6 if ":" in one else socket.AF_INET, (one, port)) for one in answer]

        given = parse_connection({"host": host, "proxy_type": proxy, "proxy_host": "proxy.example.com"})
        whole = json.dumps({"message": b"m".hex(), "fields": dict(given.fields)}).encode()
        opened = own.open(account, SealedConnection(b"m", 1, "", "", whole))
        found = await through_proxy(opened, opened.guard.resolver(resolve, opened.exempt))
        return found.host, found.server_name

    ipv6 = "2001:67c:2e8:22::c100:68b"
    wanted = "8.8.8.8" if proxy == "socks4a" else ipv6
    assert await leads("mail.example.com", ipv6, "8.8.8.8") == (wanted, "mail.example.com")
    assert await leads("mail.inside.example", "10.0.0.1") == ("mail.inside.example", "")
    for host in ("mail.example.com", "10.0.0.1"):
        with pytest.raises(ConnectFailed, match="leads to a private address"):
            await leads(host, "10.0.0.1")


class NoKeys:
    """Seals nothing."""

    def seal(self, secret: bytes) -> bytes:
        """As it is."""
        return secret

    def open(self, sealed: bytes) -> bytes:
        """As it is."""
        return sealed
