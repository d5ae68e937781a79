"""Stages of an account that sends by Graph: connection, mailbox, whose sender it may be, a draft, a message."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postroom.model.account import Cloud, OAuthFlow
from postroom.net import graph
from postroom.policy.classify import failure_rules
from tests.flow.connection_test.microsoft import by_graph, microsoft
from tests.flow.connection_test.trying import Tried
from tests.graph_peer import error
from tests.graph_senders import account
from tests.web_server import HANG_UP, Asked, answer

GRAPH = "https://graph.microsoft.com"
BOTH = ["Mail.Send", "Mail.ReadWrite"]
SEND_ONLY = ["Mail.Send"]


def names(found: Tried) -> list[str]:
    """The stages, in order."""
    return [stage.name for stage in found.result.stages]


def told(found: Tried, name: str) -> tuple[str, str]:
    """How a stage went."""
    stage = found.stage(name)
    return stage.outcome.value, stage.detail


async def test_everything_is_well_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        found = await by_graph()
        assert there.peer.asked == ["GET mailFolders/drafts"]
    assert names(found) == ["metadata", "token", "claims", "resolve", "connect", "mailbox", "send-as"]
    assert found.result.passed and found.rules == []
    assert found.stage("connect").facts["address"] == "127.0.0.1"
    assert found.stage("mailbox").facts["mailbox"] == "box@x.test"
    assert told(found, "send-as") == ("passed", "box@x.test sends as itself")
    assert found.result.transcript[-2:] == [">>> GET drafts (0 octets)", "<<< 200"]


async def test_a_message_goes_by_the_code_that_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        found = await by_graph(send=True)
        [item] = there.peer.sent
    assert item.recipients == ["b@y.test"]
    assert found.stage("message").facts["reply"] == "202"
    assert any(line.startswith(">>> POST sendMail") for line in found.result.transcript)


# What the token names


@pytest.mark.parametrize(
    ("claims", "flow", "outcome", "rules"),
    [
        ({"roles": BOTH}, OAuthFlow.CLIENT_CREDENTIALS, "passed", []),
        ({}, OAuthFlow.CLIENT_CREDENTIALS, "warning", ["token-lacks-mail-send-role", "token-lacks-drafts-role"]),
        ({"roles": SEND_ONLY}, OAuthFlow.CLIENT_CREDENTIALS, "warning", ["token-lacks-drafts-role"]),
    ],
)
async def test_roles_that_the_token_does_not_name_may_be_in_exchange(
    claims: dict[str, Any], flow: OAuthFlow, outcome: str, rules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, **claims)
        found = await by_graph()
    assert found.stage("claims").outcome == outcome
    assert [advice.rule for advice in found.stage("claims").advice] == rules
    assert found.result.passed


# The mailbox


async def test_who_may_only_send_cannot_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=SEND_ONLY)
        there.peer.may_read = False
        found = await by_graph(send=True)
        assert len(there.peer.sent) == 1
    assert told(found, "mailbox") == ("warning", "Graph does not say without sending")
    assert "graph-mailbox-not-known" in found.rules
    assert found.result.passed
    found.print()
    assert "--send --to ADDRESS" in capsys.readouterr().out


@pytest.mark.parametrize("roles", [BOTH, []])
async def test_a_mailbox_that_refuses_who_may_read_or_has_no_right_at_all(
    roles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=roles)
        there.peer.may_read = False
        found = await by_graph()
    assert found.failed == ["mailbox"]
    [advice] = found.stage("mailbox").advice
    assert advice.rule == "graph-access-denied"
    assert "Test-ServicePrincipalAuthorization app-1 -Resource box@x.test" in advice.advice


async def test_a_mailbox_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        found = await by_graph(mailbox="nobody@x.test", send=True)
        assert there.peer.sent == []
    assert found.failed == ["mailbox"]
    assert found.stage("mailbox").advice[0].rule == "graph-no-mailbox"
    assert names(found)[-2:] == ["mailbox", "message"]


async def test_a_token_that_graph_refuses_is_renewed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.peer.tokens = {"a2"}
        found = await by_graph()
    assert found.result.passed
    assert there.desk.given == 2
    assert names(found).count("claims") == 1


# Whose sender it may be


async def test_another_sender_needs_a_grant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        found = await by_graph("shared@x.test")
    assert told(found, "send-as") == ("warning", "whether box@x.test may send as shared@x.test is not known")
    found.print()
    printed = capsys.readouterr().out
    assert 'Add-RecipientPermission "shared@x.test" -Trustee "box@x.test" -AccessRights SendAs' in printed
    assert "run:   postroom accounts edit relay --fixed-sender box@x.test" in printed


# Drafts


def drafting(**changes: Any) -> dict[str, Any]:
    """An account that leaves drafts."""
    return {"draft_only": True, "draft_mailbox": "box@x.test"} | changes


async def test_a_draft_is_made_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        found = await by_graph(**drafting())
        assert there.peer.asked == ["GET mailFolders/drafts", "POST messages", "DELETE messages/ID"]
        assert there.peer.drafts == {} and there.peer.sent == []
    assert told(found, "draft") == ("passed", "one was made in the Drafts of box@x.test, and deleted")
    assert "send-as" not in names(found)
    assert found.result.passed


@pytest.mark.parametrize(
    ("pattern", "said", "detail", "left"),
    [
        ("POST", error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again."),
         "none could be made: 403 ErrorAccessDenied", False),
        ("POST", HANG_UP, "127.0.0.1 does not answer as HTTP asks", True),
        ("DELETE", error(423, "ErrorItemLocked", "no"), "it was made and not deleted: 423 ErrorItemLocked", True),
        ("DELETE", HANG_UP, "it was made, and whether it is gone is not known", True),
    ],
)  # fmt: skip
async def test_a_draft_that_does_not_come_or_does_not_go(
    pattern: str, said: bytes, detail: str, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        there.peer.fail(f"{pattern} /v1.0/users/box@x.test/messages", said)
        found = await by_graph(**drafting())
    assert found.failed == ["draft"]
    assert detail in found.stage("draft").detail
    assert ("graph-draft-left" in found.rules) is left
    if left:
        assert any("Test of the account relay: delete this draft" in one.advice for one in found.stage("draft").advice)


async def test_a_draft_goes_though_nobody_waits_for_the_test_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        testing = asyncio.ensure_future(by_graph(**drafting()))
        done = there.peer._done

        def gone_when_it_is_made(asked: Asked) -> bytes:
            if asked.method == "POST":
                testing.cancel()
            return done(asked)

        monkeypatch.setattr(there.peer, "_done", gone_when_it_is_made)
        with pytest.raises(asyncio.CancelledError):
            await testing
        assert there.peer.asked == ["GET mailFolders/drafts", "POST messages", "DELETE messages/ID"]
        assert there.peer.drafts == {}


async def test_a_draft_mailbox_that_is_not_there_or_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        absent = await by_graph(**drafting(draft_mailbox="nobody@x.test"))
        unnamed = await by_graph(**drafting(draft_mailbox=""))
        assert there.peer.drafts == {}
    assert absent.failed == ["mailbox"] and absent.stage("mailbox").advice[0].rule == "graph-no-mailbox"
    assert unnamed.failed == ["mailbox"] and "draft_mailbox" in unnamed.stage("mailbox").advice[0].advice


async def test_drafts_alone_need_no_right_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=["Mail.ReadWrite"])
        found = await by_graph(**drafting(), send=True)
        [item] = there.peer.drafts.values()
    assert found.result.passed and found.rules == []
    assert item.recipients == ["b@y.test"]
    assert "a draft lies in the Drafts of box@x.test" in found.stage("message").facts["reply"]


# The connection


async def test_graph_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async with microsoft(monkeypatch) as there:
        monkeypatch.setitem(graph.ROOTS, Cloud.GLOBAL, "http://127.0.0.1:1")
        there.gives(aud=GRAPH, roles=BOTH)
        found = await by_graph(send=True)
    assert found.failed == ["connect"] and found.rules == ["web-unreachable"]
    entry = next(one for one in failure_rules() if one.name == "web-unreachable")
    found.print()
    printed = capsys.readouterr().out
    assert entry.cause in printed and entry.advice in printed
    assert found.stage("message").outcome == "skipped"


async def test_graph_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    short = timedelta(seconds=0.3)
    async with microsoft(monkeypatch) as there:
        there.peer.be_silent("mailFolders")
        found = await by_graph(changes={"command_timeout": short, "connect_timeout": short})
    assert found.failed == ["mailbox"] and found.rules == ["web-silent"]


async def test_what_a_message_became_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there:
        there.peer.lose("sendMail")
        found = await by_graph(send=True)
        assert len(there.peer.sent) == 1
    assert found.failed == ["message"] and found.rules == ["message-broke-off"]


async def test_what_servers_repeat_of_secrets_is_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oauth = replace(account().oauth, client_secret="hunter2")
    async with microsoft(monkeypatch) as there:
        there.gives(aud=GRAPH, roles=BOTH)
        token = there.desk.made(1)
        there.peer.fail("mailFolders", error(400, "BadRequest", f"what is Bearer {token}?"))
        by_the_mailbox = await by_graph(changes={"oauth": oauth})
        there.desk.misbehaviours.append(lambda asked: answer({"error": "invalid_client: hunter2"}, 401))
        by_the_desk = await by_graph(changes={"oauth": oauth})
    assert by_the_mailbox.failed == ["mailbox"] and by_the_desk.failed == ["token"]
    for found in (by_the_mailbox, by_the_desk):
        found.print()
    everything = json.dumps([[one.events, one.result.show()] for one in (by_the_mailbox, by_the_desk)])
    everything += capsys.readouterr().out
    assert token not in everything and "hunter2" not in everything
    assert "what is Bearer [hidden]?" in everything
