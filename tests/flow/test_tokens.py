"""Accounts log in by tokens: had once for all connections, kept safe, and never lost to a server that misbehaves."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.config import Settings
from postroom.diagnosis.trial import Wanted
from postroom.errors import StorageFull
from postroom.gateway import Gateway
from postroom.model.account import Account, OAuthFlow
from postroom.model.queue import MessageId
from postroom.net.stream import ConnectFailed
from postroom.net.system_clock import SystemClock
from postroom.oauth.answers import HttpAnswer
from postroom.oauth.requests import Form
from postroom.oauth.service import TokenService
from tests.flow.gateways import delivering, hello
from tests.smarthost import Behaviour, Smarthost
from tests.tls_relay import pem, served
from tests.token_desk import Misbehaviour, TokenDesk, xoauth2
from tests.web_server import HANG_UP, Asked, answer

AUTHORITY = trustme.CA()
OFFERS = ("AUTH XOAUTH2 PLAIN", "ENHANCEDSTATUSCODES")
ROBOT = {"oauth_flow": "client-credentials", "oauth_client_secret": "s3cret"}
PERSON = {"oauth_flow": "authorization-code", "oauth_refresh_token": "r1"}


@pytest.fixture
async def desk() -> AsyncIterator[TokenDesk]:
    """Where tokens come from."""
    async with TokenDesk() as desk:
        yield desk


@pytest.fixture
async def relay() -> AsyncIterator[Smarthost]:
    """One that speaks TLS, and knows the tokens a1 to a9."""
    context = served(AUTHORITY.issue_cert("localhost"))
    knows = {xoauth2(f"a{n}"): "235 2.7.0 welcome" for n in range(1, 10)}
    relay = Smarthost(Behaviour(offers=OFFERS, replies=knows | {"AUTH": "535 5.7.8 no"}), context=context)
    await relay.start()
    yield relay
    await relay.stop()


async def opened(folder: Path) -> Gateway:
    """A gateway that delivers."""
    gateway = await Gateway.open(Settings.load(folder, hostname="gateway.example.test", smtp={"listeners": []}))
    await gateway.start()
    return gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """One whose account is the test's."""
    async with delivering(tmp_path) as gateway:
        yield gateway


async def account(gateway: Gateway, desk: TokenDesk, relay: Smarthost, **fields: Any) -> None:
    """Add the account."""
    way = {"name": "relay", "host": "localhost", "port": relay.port, "security": "tls", "ca_bundle": pem(AUTHORITY)}
    own = desk.account(connect_retry="100ms", **fields)
    await gateway.accounts.add(way | own)


async def health(gateway: Gateway, wanted: str) -> Any:
    """How the account is, once it is that; pytest's limit is the patience."""
    while True:
        found = gateway.answers.circuit(gateway.accounts.get("relay"))
        if found.health.value == wanted:
            return found
        await asyncio.sleep(0)


async def submitted(gateway: Gateway, count: int = 1) -> list[MessageId]:
    """So many messages for the relay."""
    return [(await gateway.submit(hello(gateway))).id for _ in range(count)]


def everything_in(folder: Path) -> bytes:
    """What the files of a folder hold."""
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def logins(relay: Smarthost) -> list[str]:
    """The AUTH commands so far."""
    return [command for command in relay.commands if command.startswith("AUTH")]


async def test_one_request_gives_the_token_of_all_connections(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost
) -> None:
    await account(gateway, desk, relay, **ROBOT)
    relay.gate.clear()
    await submitted(gateway, 12)
    while len(logins(relay)) < 4:
        await asyncio.sleep(0)
    relay.gate.set()
    assert await gateway.wait_drained()
    assert len(relay.taken) == 12 and set(logins(relay)) == {xoauth2("a1")}
    [asked] = desk.asked
    assert asked.form == {"grant_type": "client_credentials", "scope": "mail"}
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"client:s3cret").decode()


async def test_a_rotated_refresh_token_is_the_next_one_and_outlives_a_restart(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost, tmp_path: Path
) -> None:
    await account(gateway, desk, relay, **PERSON)
    relay.behaviour.replies = {xoauth2("a2"): "235 2.7.0 welcome", "AUTH": "535 5.7.8 no"}
    await submitted(gateway)
    assert await gateway.wait_drained()
    assert [asked.form["refresh_token"] for asked in desk.asked] == ["r1", "r2"]
    await gateway.stop()
    assert not any(secret in everything_in(tmp_path) for secret in (b'"a2"', b'"r3"', b"s3cret"))
    again = await opened(tmp_path)
    await again.rotate_keys()
    await submitted(again)
    assert await again.wait_drained()
    assert len(desk.asked) == 2 and logins(relay)[-1] == xoauth2("a2")
    exported = await again.accounts.export("correct horse battery")
    assert "oauth_refresh_token" in exported and "r3" not in exported
    await again.stop()


@pytest.mark.parametrize(
    "misbehaviour",
    [
        lambda asked: HANG_UP,
        lambda asked: answer(b"<html>Sign in to this network</html>"),
        lambda asked: answer(b'{"access_token":"a9","refresh_to'),
        lambda asked: answer(b'{"access_token"', Content_Length="4000", Connection="close"),
        lambda asked: answer({"error": "invalid_grant"}, 500),
        lambda asked: answer(b"<html>bad gateway</html>", 502),
        lambda asked: answer(b"", 302, Location="https://elsewhere.test/"),
        lambda asked: answer({"error": "temporarily_unavailable"}, 400),
        lambda asked: answer(b"x" * 300_000),
    ],
)
async def test_no_bad_answer_loses_the_consent(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost, misbehaviour: Misbehaviour
) -> None:
    desk.misbehaviours = [misbehaviour]
    await account(gateway, desk, relay, **PERSON)
    [message] = await submitted(gateway)
    assert await gateway.wait_drained()
    assert [asked.form["refresh_token"] for asked in desk.asked] == ["r1", "r1"]
    view = await gateway.store.message(message)
    assert view is not None and [row.tries for row in view.deliveries] == [1]


@pytest.mark.parametrize(
    "fields", [ROBOT, PERSON | {"oauth_client_secret": "s3cret", "oauth_refresh_token": "refresh-1"}]
)
async def test_what_the_server_repeats_of_secrets_is_told_to_nobody(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost, tmp_path: Path, fields: dict[str, Any]
) -> None:
    def repeats(asked: Asked) -> bytes:
        sent = asked.headers.get("authorization", "") + asked.form.get("refresh_token", "")
        return answer({"error": "invalid_client", "error_description": f"client:s3cret as {sent} is wrong"}, 401)

    desk.misbehaviours = [repeats]
    await account(gateway, desk, relay, **fields)
    await submitted(gateway)
    circuit = await health(gateway, "needs attention")
    assert "invalid_client: client:[hidden] as Basic [hidden]" in circuit.reason
    assert not any(secret in everything_in(tmp_path) for secret in (b"s3cret", b"refresh-1", b"Y2xpZW50OnMzY3JldA"))


async def test_how_long_the_server_wants_to_be_left_alone_is_heard(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost
) -> None:
    desk.misbehaviours = [lambda asked: answer({"error": "slow"}, 429, Retry_After="7200")]
    await account(gateway, desk, relay, **ROBOT)
    await submitted(gateway)
    circuit = await health(gateway, "sleeping")
    assert (circuit.until - circuit.since).total_seconds() == 7200
    assert circuit.reason.endswith("token: 429 slow (Retry-After: 7200)")


async def test_a_dead_consent_stops_the_account_and_a_new_one_lets_the_mail_go(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost
) -> None:
    desk.refresh_token = "another"
    await account(gateway, desk, relay, **PERSON)
    [message] = await submitted(gateway)
    circuit = await health(gateway, "needs attention")
    assert "invalid_grant: grant request is invalid" in circuit.reason
    assert circuit.advice == "authorize the account again: postroom accounts authorize NAME"
    stands = await gateway.consents.of(gateway.accounts.get("relay"))
    assert stands is not None
    assert (stands.state, stands.why) == ("refused", "invalid_grant: grant request is invalid")
    assert not relay.commands
    link = await gateway.consents.begin_on_loopback(gateway.accounts.get("relay"), 9)
    await gateway.consents.complete(gateway.accounts.get("relay"), {"state": link.state, "code": "c"})
    assert await gateway.wait_drained()
    view = await gateway.store.message(message)
    assert view is not None and [row.state.value for row in view.deliveries] == ["delivered"]


async def test_nobody_has_consented_yet(gateway: Gateway, desk: TokenDesk, relay: Smarthost) -> None:
    await account(gateway, desk, relay)
    await submitted(gateway)
    circuit = await health(gateway, "needs attention")
    assert "nobody has authorized this account yet" in circuit.reason and "accounts authorize" in circuit.advice
    assert not relay.commands and not desk.asked


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_token_that_stays_refused_is_renewed_once(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost, hangs_up: bool
) -> None:
    relay.behaviour.replies = {"AUTH": "535 5.7.8 no"}
    if hangs_up:
        relay.behaviour.close_after, relay.behaviour.closes = xoauth2("a2"), 1
    await account(gateway, desk, relay, max_connections=1, **ROBOT)
    await submitted(gateway)
    circuit = await health(gateway, "needs attention")
    assert "auth: 535 5.7.8 no" in circuit.reason and "then authorize the account again" in circuit.advice
    assert logins(relay) == [xoauth2("a1"), xoauth2("a2")]
    assert len(desk.asked) == 2


async def test_no_token_goes_over_a_connection_in_clear(gateway: Gateway, desk: TokenDesk) -> None:
    relay = Smarthost(Behaviour(offers=OFFERS, replies={"STARTTLS": "502 5.5.1 no"}))
    await relay.start()
    await account(gateway, desk, relay, **ROBOT)
    await gateway.accounts.edit("relay", {"security": "auto"})
    await submitted(gateway)
    circuit = await health(gateway, "needs attention")
    assert "a token goes over no such connection" in circuit.reason
    assert not logins(relay)
    await relay.stop()


async def test_what_cannot_be_stored_is_used_by_nobody_and_kept_until_it_can(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failures = gateway.store.tokens.save, [StorageFull("no room")]

    def saved(grant: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return save(grant, **options)

    monkeypatch.setattr(gateway.store.tokens, "save", saved)
    await account(gateway, desk, relay, **PERSON)
    await submitted(gateway)
    assert await gateway.wait_drained()
    assert len(desk.asked) == 1 and logins(relay) == [xoauth2("a1")]
    grant = await gateway.store.tokens.grant(gateway.accounts.get("relay").id)
    assert grant is not None and grant.refresh_token == "r2"


async def test_two_processes_on_one_store_ask_once(gateway: Gateway, desk: TokenDesk, relay: Smarthost) -> None:
    await account(gateway, desk, relay, **PERSON)
    ours, theirs = (TokenService(gateway.store.tokens, SystemClock()) for _ in range(2))
    found = gateway.accounts.get("relay")
    given = await asyncio.gather(ours.token(found), theirs.token(found), ours.token(found))
    assert set(given) == {"a1"}
    assert len(desk.asked) == 1


async def test_a_token_near_its_end_serves_while_the_endpoint_is_down(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost
) -> None:
    desk.lifetime = 290  # less than 5 minutes: it is refreshed when a fifth of that is left
    await account(gateway, desk, relay, **PERSON)
    found, tokens = gateway.accounts.get("relay"), gateway.tokens
    assert await tokens.token(found) == await tokens.token(found) == "a1"
    desk.lifetime = 50
    assert await tokens.token(found, "a1") == "a2"
    desk.misbehaviours = [lambda asked: HANG_UP]
    assert await tokens.token(found) == "a2"


async def test_an_account_is_tested_with_its_tokens_and_what_is_not_saved_stores_none(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost
) -> None:
    await account(gateway, desk, relay, **PERSON)
    saved = gateway.accounts.get("relay")
    result = await gateway.trials.run(saved, Wanted())
    assert {stage.name: stage.outcome.value for stage in result.stages}["token"] == "passed", result.stages
    assert logins(relay) == [xoauth2("a1")]
    other = replace(saved, username="bob@x.test")
    result = await gateway.trials.run(other, Wanted())
    [failed] = [stage for stage in result.stages if stage.outcome.value == "failed"]
    assert failed.name == "token" and "save it first" in failed.detail
    robot = replace(saved, id=0, oauth=replace(saved.oauth, flow=OAuthFlow.CLIENT_CREDENTIALS, refresh_token=""))
    assert (await gateway.trials.run(robot, Wanted())).stages and len(desk.asked) == 2
    assert [grant.account_id for grant in await gateway.store.tokens.grants()] == [saved.id]


# Accounts that go meanwhile


@pytest.mark.parametrize("fields", [ROBOT, PERSON])
async def test_of_an_account_that_is_removed_within_a_refresh_nothing_is_left(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost, fields: dict[str, Any]
) -> None:
    await account(gateway, desk, relay, **fields)
    robot, post = gateway.accounts.get("relay"), gateway.tokens.post

    async def post_meanwhile(account: Account, form: Form) -> HttpAnswer:
        if gateway.accounts.snapshot():
            await gateway.accounts.remove("relay")
        return await post(account, form)

    gateway.tokens.post = post_meanwhile
    with pytest.raises(ConnectFailed, match="it was removed"):
        await gateway.tokens.token(robot)
    assert list(await gateway.store.tokens.grants()) == [] and len(desk.asked) == 1
