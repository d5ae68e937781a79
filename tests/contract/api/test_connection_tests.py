"""Tests of connections over the API: of accounts stored and not, at once and as they go, and what they leave alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from postroom.api import create_app
from postroom.gateway import Gateway
from tests.contract.api.conftest import problem_of
from tests.flow.connection_test.microsoft import microsoft
from tests.flow.connection_test.trying import Server
from tests.flow.smtp_client.talk import Relay
from tests.name_server import NameServer
from tests.web_server import Asked


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A DNS in which there is nothing."""
    with NameServer({}) as running:
        yield running


@pytest.fixture(autouse=True)
async def asked(gateway: Gateway, names: NameServer) -> None:
    """The gateway asks that DNS."""
    await gateway.configuration.change({"dns.servers": names.address})


@pytest.fixture
def server() -> Server:
    """What the relay says."""
    return Server("AUTH PLAIN", "SIZE 1000")


@pytest.fixture
async def relay(server: Server) -> AsyncIterator[Relay]:
    """A relay that takes any login."""
    async with Relay(server) as running:
        yield running


def fields(relay: Relay, **more: Any) -> dict[str, Any]:
    """An account that logs in to it."""
    return {
        "host": "127.0.0.1", "port": relay.port, "security": "none", "username": "erp@x.test", "password": "hunter2",
        "allow_clear_password": True, "enabled": False,
    } | more  # fmt: skip


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    """How each stage went."""
    return {stage["stage"]: stage["outcome"] for stage in result["stages"]}


async def test_a_stored_account_that_is_off_is_tested_and_stays_as_it_is(
    api: httpx2.AsyncClient, gateway: Gateway, relay: Relay, server: Server
) -> None:
    before = (await api.post("/v1/accounts", json=fields(relay, name="relay"))).json()
    answer = await api.post("/v1/accounts/RELAY/test", json={"to": "b@y.test"})
    result = answer.json()
    assert result["account"] == "relay" and result["passed"], result
    told = outcomes(result)
    assert (told["auth"], told["sender"], told["recipient"]) == ("passed", "passed", "passed")
    assert told["spf"] == told["dmarc"] == "warning"
    assert "MAIL FROM:<erp@x.test> SIZE=0" in server.commands
    assert "hunter2" not in answer.text
    assert any("--enabled" in note for note in result["notes"])
    after = (await api.get("/v1/accounts/relay")).json()
    assert after["circuit"]["health"] == "healthy"
    assert {key: value for key, value in after.items() if key in before} == before


async def test_fields_that_are_not_saved_are_tried_with_the_stored_secrets_and_not_kept(
    api: httpx2.AsyncClient, relay: Relay, server: Server
) -> None:
    await api.post("/v1/accounts", json=fields(relay, name="relay", port=1))
    wrong = (await api.post("/v1/accounts/relay/test", json={})).json()
    assert not wrong["passed"]
    right = (await api.post("/v1/accounts/relay/test", json={"fields": {"port": relay.port}})).json()
    assert right["passed"]
    assert any(command.startswith("AUTH PLAIN ") for command in server.commands)
    assert (await api.get("/v1/accounts/relay")).json()["port"] == 1


async def test_a_definition_that_is_not_saved_is_tested_and_not_kept(api: httpx2.AsyncClient, relay: Relay) -> None:
    result = (await api.post("/v1/accounts/test", json={"fields": fields(relay), "to": "b@y.test"})).json()
    assert result["passed"]
    assert [one["name"] for one in (await api.get("/v1/accounts")).json()["accounts"]] == ["sandbox"]


async def test_a_test_can_be_followed_stage_by_stage(api: httpx2.AsyncClient, relay: Relay) -> None:
    body = {"fields": fields(relay), "to": "b@y.test"}
    answer = await api.post("/v1/accounts/test", json=body, headers={"accept": "application/x-ndjson"})
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert [event["stage"] for event in events if event["event"] == "stage"] == list(outcomes(events[-1]))
    assert events[-1]["event"] == "result" and events[-1]["passed"]
    assert {"event": "said", "line": "C: RCPT TO:<b@y.test>"} in events


async def test_a_real_message_is_rewritten_counted_and_goes_under_the_guard(
    api: httpx2.AsyncClient, gateway: Gateway, relay: Relay, server: Server
) -> None:
    more = {"name": "relay", "fixed_sender": "fixed@x.test", "messages_per_hour": 1}
    assert (await api.post("/v1/accounts", json=fields(relay, **more))).status_code == 201
    guard = {"staging_guard.redirect_to": "safe@x.test", "staging_guard.enabled": True}
    await gateway.configuration.change(guard)
    await gateway.start()  # it counts only while it sends
    order = {"to": "b@y.test", "from": "a@x.test", "send": True}
    sent = (await api.post("/v1/accounts/relay/test", json=order)).json()
    (message,) = [stage for stage in sent["stages"] if stage["stage"] == "message"]
    assert (message["outcome"], message["facts"]["recipient"]) == ("passed", "safe@x.test")
    assert server.commands[-4:] == ["MAIL FROM:<fixed@x.test> SIZE=" + server.commands[-4].rpartition("=")[2],
                                    "RCPT TO:<safe@x.test>", "DATA", "QUIT"]  # fmt: skip
    again = (await api.post("/v1/accounts/relay/test", json=order)).json()
    (message,) = [stage for stage in again["stages"] if stage["stage"] == "message"]
    assert message["outcome"] == "skipped" and "limit" in message["detail"]


async def test_no_real_message_leaves_while_sending_is_off(
    api: httpx2.AsyncClient, gateway: Gateway, relay: Relay, server: Server
) -> None:
    await gateway.configuration.change({"sending_enabled": False})
    result = (
        await api.post("/v1/accounts/test", json={"fields": fields(relay), "to": "b@y.test", "send": True})
    ).json()
    assert result["passed"]
    assert outcomes(result)["message"] == "skipped"
    assert "DATA" not in server.commands


async def test_a_direct_account_is_tested_towards_the_hosts_of_the_recipient(
    api: httpx2.AsyncClient, relay: Relay, names: NameServer
) -> None:
    names.zone |= {"y.test MX": ["10 mx.y.test."], "mx.y.test A": ["127.0.0.1"], "null.test MX": ["0 ."]}
    direct = {"kind": "direct", "mx_port": relay.port, "email_address": "a@x.test"}
    result = (await api.post("/v1/accounts/test", json={"fields": direct, "to": "b@y.test"})).json()
    told = outcomes(result)
    assert (told["mx"], told["connect"], told["recipient"]) == ("passed", "passed", "passed"), result
    assert result["stages"][0]["facts"] == {"domain": "y.test", "hosts": ["mx.y.test"], "mta_sts_enforced": False}
    refused = (await api.post("/v1/accounts/test", json={"fields": direct, "to": "b@null.test"})).json()
    assert outcomes(refused)["mx"] == "failed"
    assert refused["stages"][0]["advice"][0]["rule"] == "no-such-domain"
    asked = (await api.post("/v1/accounts/test", json={"fields": direct})).json()
    assert outcomes(asked)["mx"] == "skipped"


async def test_what_cannot_be_tested_is_refused_with_the_field(api: httpx2.AsyncClient, relay: Relay) -> None:
    no_host = await api.post("/v1/accounts/test", json={"fields": {"port": 25}})
    assert "host" in {field for field, _, _ in await problem_of(no_host, 422)}
    body = {"fields": fields(relay), "to": "nobody"}
    bad = await api.post("/v1/accounts/test", json=body)
    assert [field for field, _, _ in await problem_of(bad, 422)] == ["to"]
    followed = await api.post("/v1/accounts/test", json=body, headers={"accept": "application/x-ndjson"})
    assert [field for field, _, _ in await problem_of(followed, 422)] == ["to"]
    unsaid = await api.post("/v1/accounts/test", json={"fields": fields(relay), "send": True})
    assert [field for field, _, _ in await problem_of(unsaid, 422)] == ["to"]
    unknown = await api.post("/v1/accounts/nobody/test", json={})
    assert (await problem_of(unknown, 404))[0][0] == "account"


async def test_an_account_of_graph_that_is_not_saved_is_followed_stage_by_stage(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"oauth_flow": "client-credentials", "oauth_tenant": "x.test", "oauth_client_id": "app-1"}
    given = {"kind": "graph", "mailbox": "box@x.test", "oauth_client_secret": "s3cret-s3cret", **own}
    async with microsoft(monkeypatch) as there:
        there.gives(aud="https://graph.microsoft.com", roles=["Mail.Send", "Mail.ReadWrite"])
        answer = await api.post("/v1/accounts/test", json={"fields": given}, headers={"accept": "application/x-ndjson"})
        assert there.peer.asked == ["GET mailFolders/drafts"]
        token = there.desk.made(1)
    events = [json.loads(line) for line in answer.text.splitlines()]
    stages = [event["stage"] for event in events if event["event"] == "stage"]
    assert stages == [
        "metadata", "token", "claims", "resolve", "connect", "mailbox", "send-as", "spf", "dkim", "dmarc"
    ]  # fmt: skip
    assert events[-1]["event"] == "result" and events[-1]["passed"]
    assert {"event": "said", "line": ">>> GET drafts (0 octets)"} in events
    assert token not in answer.text and "s3cret" not in answer.text


async def test_who_hangs_up_within_a_test_leaves_no_draft(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "kind": "graph", "oauth_flow": "client-credentials", "oauth_tenant": "x.test", "oauth_client_id": "app-1",
        "oauth_client_secret": "s3cret", "draft_only": True, "draft_mailbox": "box@x.test",
    }  # fmt: skip
    body = json.dumps({"fields": given}).encode()
    hung_up, made = asyncio.Event(), [{"type": "http.request", "body": body, "more_body": False}]
    headers = [(b"content-type", b"application/json"), (b"accept", b"application/x-ndjson")]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "path": "/v1/accounts/test", "query_string": b"", "headers": headers, "server": ("localhost", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        if made:
            return made.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    async with microsoft(monkeypatch) as there:
        there.gives(aud="https://graph.microsoft.com", roles=["Mail.Send", "Mail.ReadWrite"])
        done = there.peer._done

        def then_hang_up(asked: Asked) -> bytes:
            if asked.method == "POST":
                hung_up.set()
            return done(asked)

        monkeypatch.setattr(there.peer, "_done", then_hang_up)
        await create_app(gateway)(scope, receive, send)
        while len(there.peer.asked) < 3:
            await asyncio.sleep(0)
        assert there.peer.asked == ["GET mailFolders/drafts", "POST messages", "DELETE messages/ID"]
        while there.peer.drafts:
            await asyncio.sleep(0)
