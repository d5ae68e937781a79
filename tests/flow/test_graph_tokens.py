"""Graph, and the tokens for it, through the account's proxy: mail waits for them, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.account import Cloud
from postroom.model.circuit import Circuit
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.queue import MessageId
from postroom.net import graph
from postroom.net.system_clock import SystemClock
from postroom.oauth import endpoints
from postroom.store import MessageView
from tests.flow.gateways import hello
from tests.microsoft import GRAPH, LOGIN, MAILBOX, TENANT, Microsoft
from tests.token_desk import Misbehaviour
from tests.web_server import HANG_UP, answer

PERSON = {"oauth_flow": "authorization-code", "oauth_client_secret": "", "oauth_refresh_token": "r1"}
SCOPES = "https://graph.microsoft.com/Mail.Send https://graph.microsoft.com/Mail.ReadWrite offline_access"


class Later(SystemClock):
    """The machine's clock, and an hour later."""

    def now(self) -> Any:
        """See `Clock.now`."""
        return super().now() + timedelta(hours=1)


@pytest.fixture
async def microsoft() -> AsyncIterator[Microsoft]:
    """Where tokens come from, and where mail goes."""
    async with Microsoft() as found:
        yield found


async def opened(folder: Path, clock: SystemClock | None = None) -> Gateway:
    """A gateway that delivers."""
    settings = Settings.load(folder, hostname="g.example.test", smtp={"listeners": []})
    gateway = await Gateway.open(settings, clock=clock or SystemClock())
    await gateway.start()
    return gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """One whose account is the test's."""
    gateway = await opened(tmp_path)
    await gateway.applications.add({"name": "erp", "senders": "*"})
    yield gateway
    await gateway.stop()


async def submitted(gateway: Gateway) -> MessageId:
    """A message for the account, from its mailbox."""
    head = f"From: {MAILBOX}\r\nTo: b@y.test\r\nSubject: hi\r\n\r\n".encode()
    own = replace(hello(gateway), envelope=Envelope(MAILBOX, ("b@y.test",)), content=Content(head, b"hello\r\n"))
    return (await gateway.submit(own)).id


async def view_of(gateway: Gateway, message: MessageId) -> MessageView:
    """What is known of it."""
    view = await gateway.store.message(message)
    assert view is not None
    return view


async def health(gateway: Gateway, wanted: str) -> Circuit:
    """How the account is, once it is that; pytest's limit is the patience."""
    while (found := gateway.answers.circuit(gateway.accounts.get("m365"))).health.value != wanted:
        await asyncio.sleep(0)
    return found


async def waits(gateway: Gateway, message: MessageId) -> None:
    """The message is in the queue, and no try of it is used up."""
    while [row.state.value for row in (await view_of(gateway, message)).deliveries] == ["sending"]:
        await asyncio.sleep(0)
    assert [(row.state.value, row.tries) for row in (await view_of(gateway, message)).deliveries] in (
        [("queued", 0)],
        [("deferred", 0)],
    )


def bearers(microsoft: Microsoft) -> list[str]:
    """The tokens that Graph was shown, in order."""
    return [asked.headers["authorization"].removeprefix("Bearer ") for asked in microsoft.graph.requests]


async def consent(gateway: Gateway) -> None:
    """Somebody consents anew."""
    account = gateway.accounts.get("m365")
    link = await gateway.consents.begin_on_loopback(account, 9)
    await gateway.consents.complete(account, {"state": link.state, "code": "c0de"})


async def test_a_token_that_has_expired_is_refreshed_before_it_is_used(
    gateway: Gateway, microsoft: Microsoft, tmp_path: Path
) -> None:
    await gateway.accounts.add(microsoft.account(**PERSON))
    await submitted(gateway)
    assert await gateway.wait_drained()
    await gateway.stop()
    later = await opened(tmp_path, Later())
    microsoft.graph.tokens = {"a2"}
    await submitted(later)
    assert await later.wait_drained()
    assert bearers(microsoft) == ["a1", "a2"] and len(microsoft.graph.sent) == 2
    assert [asked.path for asked in microsoft.desk.asked] == [f"/{TENANT}/oauth2/v2.0/token"] * 2
    assert [(asked.form["refresh_token"], asked.form["scope"]) for asked in microsoft.desk.asked] == [
        ("r1", SCOPES), ("r2", SCOPES),
    ]  # fmt: skip
    assert set(microsoft.proxy.asked) == {f"{LOGIN}:443", f"{GRAPH}:443"}
    assert len(microsoft.proxy.asked) == microsoft.desk.server.connections + microsoft.graph.server.connections
    await later.stop()


async def test_a_token_that_graph_refuses_is_renewed_once_and_the_mail_goes(
    gateway: Gateway, microsoft: Microsoft
) -> None:
    microsoft.graph.tokens = {"a2"}
    await gateway.accounts.add(microsoft.account())
    message = await submitted(gateway)
    assert await gateway.wait_drained()
    assert bearers(microsoft) == ["a1", "a2"] and len(microsoft.desk.asked) == 2
    assert [(row.state.value, row.tries) for row in (await view_of(gateway, message)).deliveries] == [("delivered", 1)]


async def test_where_the_next_token_is_refused_too_the_account_stops_and_the_mail_waits_for_a_consent(
    gateway: Gateway, microsoft: Microsoft
) -> None:
    microsoft.graph.tokens = set()
    await gateway.accounts.add(microsoft.account(max_connections=1, **PERSON))
    message = await submitted(gateway)
    stopped = await health(gateway, "needs attention")
    assert "401 InvalidAuthenticationToken" in stopped.reason and stopped.advice
    assert bearers(microsoft) == ["a1", "a2"] and len(microsoft.desk.asked) == 2
    await waits(gateway, message)
    microsoft.graph.tokens = {"a3"}
    await consent(gateway)
    assert await gateway.wait_drained()
    assert bearers(microsoft)[2:] == ["a3"] and len(microsoft.graph.sent) == 1


async def test_a_dead_consent_stops_the_account_and_the_mail_goes_by_itself_after_a_new_one(
    gateway: Gateway, microsoft: Microsoft
) -> None:
    microsoft.desk.refresh_token = "another"
    await gateway.accounts.add(microsoft.account(**PERSON))
    message = await submitted(gateway)
    stopped = await health(gateway, "needs attention")
    assert "invalid_grant" in stopped.reason
    assert stopped.advice == "authorize the account again: postroom accounts authorize NAME"
    await waits(gateway, message)
    assert not microsoft.graph.requests
    await consent(gateway)
    assert await gateway.wait_drained()
    assert [item.recipients for item in microsoft.graph.sent] == [["b@y.test"]]
    assert (await health(gateway, "healthy")).reason == ""


@pytest.mark.parametrize(
    "misbehaviour",
    [
        lambda asked: HANG_UP,
        lambda asked: answer({"error": "temporarily_unavailable"}, 503),
        lambda asked: answer(b"<html>Sign in to this network</html>", Content_Type="text/html"),
        lambda asked: answer(b'{"access_token"', Content_Length="4000", Connection="close"),
    ],
    ids=["network", "5xx", "html", "cut"],
)
async def test_while_no_tokens_are_to_be_had_mail_waits_and_the_consent_stays(
    gateway: Gateway, microsoft: Microsoft, misbehaviour: Misbehaviour
) -> None:
    microsoft.desk.misbehaviours = [misbehaviour]
    await gateway.accounts.add(microsoft.account(connect_retry="100ms", **PERSON))
    message = await submitted(gateway)
    assert await gateway.wait_drained()
    assert [asked.form["refresh_token"] for asked in microsoft.desk.asked] == ["r1", "r1"]
    assert [row.tries for row in (await view_of(gateway, message)).deliveries] == [1]
    stored = await gateway.store.tokens.grant(gateway.accounts.get("m365").id)
    assert stored is not None and stored.refresh_token == "r2"


async def test_a_proxy_that_fails_leads_nobody_to_microsoft_itself(
    gateway: Gateway, microsoft: Microsoft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would be found without the proxy: they are at localhost."""
    here = {"login": microsoft.desk.server, "graph": microsoft.graph.server}
    monkeypatch.setitem(endpoints.LOGIN, Cloud.GLOBAL, here["login"].url)
    monkeypatch.setitem(graph.ROOTS, Cloud.GLOBAL, here["graph"].url)
    microsoft.proxy.fails = True
    await gateway.accounts.add(microsoft.account())
    message = await submitted(gateway)
    assert "the proxy" in (await health(gateway, "sleeping")).reason
    await waits(gateway, message)
    assert here["login"].connections == here["graph"].connections == 0
    # With a token in hand it is Graph that is not reached.
    microsoft.proxy.ways |= {server.url.removeprefix("https://"): server.port for server in here.values()}
    microsoft.proxy.fails = False
    await gateway.scheduler.wake(gateway.accounts.get("m365"))
    assert await gateway.wait_drained()
    microsoft.proxy.fails = True
    before = here["login"].connections, here["graph"].connections
    await gateway.accounts.edit("m365", {"idle_timeout": "1m"})  # another transport, with connections of its own
    message = await submitted(gateway)
    assert "the proxy" in (await health(gateway, "sleeping")).reason
    await waits(gateway, message)
    assert (here["login"].connections, here["graph"].connections) == before
    assert [item.mailbox for item in microsoft.graph.sent] == [MAILBOX]
