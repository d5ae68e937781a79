"""A gateway whose account sends by Microsoft Graph: what people see of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.account import Cloud
from postroom.model.circuit import Health
from postroom.model.content import Content
from postroom.model.envelope import Envelope
from postroom.model.queue import MessageId
from postroom.model.submission import Door, Submission
from postroom.net import graph
from postroom.store import MessageView
from tests.graph_peer import GraphPeer, error
from tests.graph_senders import GivenTokens
from tests.smarthost import Smarthost


@pytest.fixture
async def peer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GraphPeer]:
    """Graph, where the account looks for it."""
    async with GraphPeer() as found:
        monkeypatch.setitem(graph.ROOTS, Cloud.GLOBAL, found.url)
        yield found


@pytest.fixture
async def gateway(tmp_path: Path, peer: GraphPeer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """A gateway with one account; delivering."""
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test", smtp={"listeners": []}))
    monkeypatch.setattr(gateway._transports, "_tokens", GivenTokens())
    await gateway.accounts.add({
        "name": "m365", "preset": "microsoft-graph", "mailbox": "box@x.test", "oauth_flow": "client-credentials",
        "oauth_tenant": "x.test", "oauth_client_id": "app-1", "oauth_client_secret": "s",
    })  # fmt: skip
    await gateway.applications.add({"name": "erp", "senders": "*"})
    await gateway.start()
    yield gateway
    await gateway.stop()


async def submit(gateway: Gateway, *recipients: str, sender: str = "box@x.test", to: str = "b@y.test") -> MessageId:
    """A message of an application; its view once nothing is left to send."""
    head = f"From: {sender}\r\nTo: {to}\r\nSubject: hi\r\n\r\n".encode()
    accepted = await gateway.submit(
        Submission(
            door=Door.SMTP,
            application=gateway.applications.get("erp"),
            received=datetime.now(UTC),
            peer="127.0.0.1",
            envelope=Envelope(sender, recipients or ("b@y.test",)),
            content=Content(head, b"hello\r\n"),
        )
    )
    return accepted.id


async def shown(gateway: Gateway, message: MessageId) -> MessageView:
    """What is known of a message."""
    view = await gateway.store.message(message)
    assert view is not None
    return view


async def test_mail_goes_and_what_was_taken_out_is_told(gateway: Gateway, peer: GraphPeer) -> None:
    message = await submit(gateway, "b@y.test", "c@y.test", to="b@y.test, other@y.test")
    assert await gateway.wait_drained()
    assert [item.recipients for item in peer.sent] == [["b@y.test", "c@y.test"]]
    view = await shown(gateway, message)
    assert [row.state for row in view.deliveries] == ["delivered"] * 2
    assert [(one.outcome, one.remote_host, one.reply) for one in view.attempts] == [
        ("delivered", "127.0.0.1", "202")
    ] * 2
    (why, _) = await gateway.answers.why(message)
    assert why.advice == "taken out of its header, since Graph would have sent to them: other@y.test"


async def test_the_account_sleeps_for_as_long_as_graph_says(gateway: Gateway, peer: GraphPeer) -> None:
    peer.fail("sendMail", error(429, "ApplicationThrottled", "slow down", Retry_After="1800"))
    message = await submit(gateway)
    while gateway.answers.circuit(gateway.accounts.get("m365")).health is not Health.SLEEPING:
        await asyncio.sleep(0)
    while [row.state for row in (await shown(gateway, message)).deliveries] != ["deferred"]:
        await asyncio.sleep(0)
    (why,) = await gateway.answers.why(message)
    assert "429 ApplicationThrottled: slow down" in why.reason
    assert why.until is not None
    assert 1700 < (why.until - datetime.now(UTC)).total_seconds() <= 1800
    view = await shown(gateway, message)
    assert [row.tries for row in view.deliveries] == [0], "no try is used up"


async def test_a_sender_that_is_denied_goes_by_the_next_account(gateway: Gateway, peer: GraphPeer) -> None:
    relay = Smarthost()
    await relay.start()
    await gateway.accounts.add({"name": "relay", "host": "127.0.0.1", "port": relay.port, "security": "none"})
    message = await submit(gateway, sender="shared@x.test")
    assert await gateway.wait_drained()
    assert [taken.reverse_path for taken in relay.taken] == ["shared@x.test"]
    first, second = (await shown(gateway, message)).attempts
    assert "ErrorSendAsDenied" in first.reply
    assert 'Add-RecipientPermission "shared@x.test" -Trustee "box@x.test" -AccessRights SendAs' in first.advice
    assert (second.account, second.outcome) == ("relay", "delivered")
    await relay.stop()


async def test_a_draft_leaves_as_its_mailbox_and_explain_says_so(gateway: Gateway, peer: GraphPeer) -> None:
    peer.mailboxes.add("drafts@x.test")
    await gateway.accounts.edit("m365", {"draft_only": True, "draft_mailbox": "drafts@x.test"})
    message = await submit(gateway)
    assert await gateway.wait_drained()
    (item,) = peer.drafts.values()
    assert (item.mailbox, item.content["from"]) == ("drafts@x.test", "drafts@x.test")
    assert [row.state for row in (await shown(gateway, message)).deliveries] == ["captured"]
    (explained,) = gateway.answers.explain_route("erp", "box@x.test", ["b@y.test"], ["From: box@x.test"], "")
    assert ("From", "drafts@x.test") in [(change.field, change.after) for change in explained.rewrites]
