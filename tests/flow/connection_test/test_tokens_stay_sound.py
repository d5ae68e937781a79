"""A test asks for tokens anew, through the one service that keeps them: nothing of what is stored is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.config import Settings
from postroom.diagnosis.connection_test import Result
from postroom.gateway import Gateway, Wanted
from postroom.model.account import Account
from postroom.net.graph import AT_ONCE
from tests.flow.connection_test.microsoft import Microsoft, microsoft
from tests.flow.gateways import hello
from tests.name_server import NameServer
from tests.smarthost import Behaviour, Smarthost
from tests.tls_relay import pem, served
from tests.token_desk import TokenDesk, xoauth2
from tests.web_server import Asked, answer

AUTHORITY = trustme.CA()


@pytest.fixture
async def desk() -> AsyncIterator[TokenDesk]:
    """Where tokens come from."""
    async with TokenDesk() as desk:
        yield desk


@pytest.fixture
async def relay() -> AsyncIterator[Smarthost]:
    """One that speaks TLS and takes any login."""
    relay = Smarthost(Behaviour(offers=("AUTH XOAUTH2",)), context=served(AUTHORITY.issue_cert("localhost")))
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that delivers."""
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test", smtp={"listeners": []}))
    with NameServer({}) as names:
        await gateway.configuration.change({"dns.servers": names.address})
        await gateway.start()
        await gateway.applications.add({"name": "erp", "senders": "*"})
        yield gateway
        await gateway.stop()


async def person(gateway: Gateway, desk: TokenDesk, relay: Smarthost) -> Account:
    """An account that somebody has consented to."""
    way = {"name": "relay", "host": "localhost", "port": relay.port, "security": "tls", "ca_bundle": pem(AUTHORITY)}
    own = desk.account(oauth_flow="authorization-code", oauth_refresh_token="r1", oauth_client_secret="right")
    await gateway.accounts.add(way | own)
    return gateway.accounts.get("relay")


def failed(result: Result) -> list[tuple[str, str]]:
    """The stages that failed, each with its first rule."""
    return [(stage.name, stage.advice[0].rule) for stage in result.stages if stage.outcome == "failed"]


async def test_each_test_shows_that_the_consent_can_be_refreshed_and_keeps_what_came(
    gateway: Gateway, desk: TokenDesk, relay: Smarthost
) -> None:
    account = await person(gateway, desk, relay)
    for _ in range(2):
        assert (await gateway.trials.run(account, Wanted())).passed
    assert [asked.form["refresh_token"] for asked in desk.asked] == ["r1", "r2"]
    grant = await gateway.store.tokens.grant(account.id)
    assert grant is not None and (grant.access_token, grant.refresh_token) == ("a2", "r3")
    await gateway.submit(hello(gateway))
    assert await gateway.wait_drained()
    assert len(desk.asked) == 2, "mail goes with the token of the last test"
    assert relay.logins[max(relay.logins)] == xoauth2("a2")


def knows_the_secret(asked: Asked) -> bytes | None:
    """Says no to another one than `right`."""
    right = "Basic Y2xpZW50OnJpZ2h0"  # client:right
    if asked.headers["authorization"] == right:
        return None
    return answer({"error": "invalid_client", "error_description": "wrong secret"}, 401)


class Strict(TokenDesk):
    """Looks at the secret."""

    def _say(self, asked: Asked) -> bytes | None:
        return (knows_the_secret(asked) if asked.method == "POST" else None) or super()._say(asked)


async def test_a_secret_that_is_tried_is_asked_with_and_leaves_the_consent_alone(
    gateway: Gateway, relay: Smarthost
) -> None:
    async with Strict() as desk:
        account = await person(gateway, desk, relay)
        assert (await gateway.trials.run(account, Wanted())).passed
        trial = gateway.accounts.trial({"oauth_client_secret": "mistyped"}, "relay")
        result = await gateway.trials.run(trial, Wanted())
        assert failed(result) == [("token", "client-unknown")]
        assert (await gateway.trials.run(account, Wanted())).passed
        assert "mistyped" not in str(result.show())


async def test_who_waits_for_a_test_that_is_refused_asks_by_itself(gateway: Gateway, relay: Smarthost) -> None:
    async with Strict() as desk:
        account = await person(gateway, desk, relay)
        wrong = replace(account, oauth=replace(account.oauth, client_secret="mistyped"))
        tokens = gateway.tokens
        results = await asyncio.gather(tokens.token(wrong), tokens.token(account), return_exceptions=True)
        assert "wrong secret" in str(results[0]) and results[1] == "a1"


async def test_settings_that_nobody_has_consented_to(gateway: Gateway, desk: TokenDesk, relay: Smarthost) -> None:
    await person(gateway, desk, relay)
    trial = gateway.accounts.trial({"oauth_client_id": "another"}, "relay")
    result = await gateway.trials.run(trial, Wanted())
    assert failed(result) == [("token", "not-authorized")]
    [advice] = [advice for stage in result.stages if stage.name == "token" for advice in stage.advice]
    assert advice.command == ("postroom", "accounts", "authorize", "relay")
    assert desk.asked == []


# Microsoft Graph


@pytest.fixture
async def there(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Microsoft]:
    """Microsoft."""
    async with microsoft(monkeypatch) as found:
        found.gives(aud="https://graph.microsoft.com", roles=["Mail.Send", "Mail.ReadWrite"])
        yield found


GRAPH: dict[str, Any] = {
    "name": "m365", "preset": "microsoft-graph", "mailbox": "box@x.test", "oauth_flow": "client-credentials",
    "oauth_tenant": "x.test", "oauth_client_id": "app-1", "oauth_client_secret": "s3cret",
}  # fmt: skip


async def test_a_real_message_by_graph_counts_for_its_limits(gateway: Gateway, there: Microsoft) -> None:
    await gateway.accounts.add(GRAPH | {"messages_per_day": 1})
    account = gateway.accounts.get("m365")
    for _ in range(2):
        result = await gateway.trials.run(account, Wanted("b@y.test", send=True))
    [item] = there.peer.sent
    assert (item.content["from"], item.recipients) == ("box@x.test", ["b@y.test"])
    [stage] = [stage for stage in result.stages if stage.name == "message"]
    assert stage.detail == "none was sent: the account has reached its limit of 1 messages a day"


async def test_a_test_of_drafts_uses_the_postmaster(gateway: Gateway, there: Microsoft) -> None:
    there.peer.mailboxes.add("postmaster@x.test")
    await gateway.configuration.change({"postmaster": "postmaster@x.test"})
    trial = gateway.accounts.trial(GRAPH | {"draft_only": True})
    result = await gateway.trials.run(trial, Wanted())
    assert result.passed
    [stage] = [stage for stage in result.stages if stage.name == "draft"]
    assert stage.facts["mailbox"] == "postmaster@x.test"
    assert [asked.path for asked in there.peer.requests if asked.method == "POST"] == [
        "/v1.0/users/postmaster@x.test/messages"
    ]


async def test_a_test_is_one_of_the_requests_that_graph_takes_at_a_time(gateway: Gateway, there: Microsoft) -> None:
    """A fifth one would be refused, or have mail refused beside it."""
    await gateway.accounts.add(GRAPH)
    await gateway.applications.edit("erp", {"accounts": ["m365"]})
    there.peer.gate.clear()
    for _ in range(AT_ONCE):
        await gateway.submit(hello(gateway))
    while there.peer.at_once < AT_ONCE:
        await asyncio.sleep(0)
    hurried = gateway.accounts.trial({"command_timeout": "100ms"}, "m365")
    result = await gateway.trials.run(hurried, Wanted())
    assert [stage.name for stage in result.stages if stage.outcome == "skipped"][:1] == ["mailbox"] and result.passed
    testing = asyncio.ensure_future(gateway.trials.run(gateway.accounts.get("m365"), Wanted()))
    await asyncio.sleep(0)
    there.peer.gate.set()
    assert (await testing).passed
    assert there.peer.most_at_once == AT_ONCE
