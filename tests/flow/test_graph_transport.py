"""Sending by Microsoft Graph: every documented answer, against a peer made from the documentation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from postroom.model.account import GraphRecipients
from postroom.model.outcome import Bounced, Deferred, Delivered, NotSent, Remedy, Scope, Unknown
from postroom.net.stream import ConnectFailed
from postroom.transports import AccountUnavailable
from postroom.transports.budget import ConnectionBudget
from postroom.transports.graph import Places
from tests.flow.conftest import FakeClock
from tests.graph_peer import GraphPeer, error
from tests.graph_senders import HEAD, MAILBOX, GivenTokens, account, send, sent, to_each, transaction, transport
from tests.web_server import HANG_UP, answer


@pytest.fixture
async def peer() -> AsyncIterator[GraphPeer]:
    """Graph."""
    async with GraphPeer() as found:
        yield found


# Envelope and header


async def test_the_message_arrives_as_it_is_and_who_it_is_for_is_read_from_its_header(peer: GraphPeer) -> None:
    outcome = await sent(peer)
    assert isinstance(outcome, Delivered)
    assert outcome.reply is not None
    assert (outcome.reply.text, outcome.reply.command, outcome.remote_host) == ("202", "POST sendMail", "127.0.0.1")
    (item,) = peer.sent
    assert item.mime == HEAD + b"hello\r\n"
    assert item.recipients == ["b@y.test"]
    assert (item.content["subject"], item.content.get_content()) == ("hi", "hello\r\n")


async def test_all_recipients_go_in_one_request_and_hidden_ones_in_bcc(peer: GraphPeer) -> None:
    outcomes = await to_each(peer, transaction("b@y.test", "c@y.test", "d@z.test"))
    assert [type(outcome) for outcome in outcomes] == [Delivered] * 3
    assert peer.asked == ["POST sendMail"]
    (item,) = peer.sent
    assert item.content["to"] == "b@y.test"
    assert item.content["bcc"] == "c@y.test, d@z.test"


async def test_others_that_the_header_names_are_taken_out_and_that_is_told(peer: GraphPeer) -> None:
    head = HEAD.replace(b"To: b@y.test", b"To: b@y.test, not@y.test\r\nCc: nobody@y.test")
    outcome = await sent(peer, transaction(head=head))
    assert peer.sent[0].recipients == ["b@y.test"]
    assert outcome.note == "taken out of its header, since Graph would have sent to them: not@y.test, nobody@y.test"


async def test_or_the_message_is_refused(peer: GraphPeer) -> None:
    head = HEAD.replace(b"To: b@y.test", b"To: b@y.test, not@y.test\r\nCc: a@x.test <c@x.test>")
    outcome = await sent(peer, transaction(head=head), recipients=GraphRecipients.REFUSE)
    assert isinstance(outcome, Bounced)
    assert "not@y.test, all of Cc" in outcome.reason
    assert "set graph_recipients to trim" in outcome.advice
    assert peer.asked == []
    assert isinstance(await sent(peer, recipients=GraphRecipients.REFUSE), Delivered)


async def test_an_address_that_no_header_can_hold_bounces_alone(peer: GraphPeer) -> None:
    outcomes = await to_each(peer, transaction("b@y.test", "c" * 320 + "@y.test"))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Bounced]
    assert peer.sent[0].recipients == ["b@y.test"]


# Answers


@pytest.mark.parametrize(
    ("status", "code", "kind", "scope", "remedy", "advice"),
    [
        (400, "ErrorMimeContentInvalid", Bounced, Scope.MESSAGE, None, "mend the program"),
        (400, "ErrorInvalidRecipients", Bounced, Scope.MESSAGE, None, "correct the address"),
        (400, "ErrorExceededMaxRecipientLimit", Bounced, Scope.MESSAGE, None, "-RecipientLimits"),
        (400, "ErrorMessageSizeExceeded", Bounced, Scope.MESSAGE, None, "Set-Mailbox box@x.test -MaxSendSize"),
        (400, "ErrorSomethingNew", Deferred, Scope.MESSAGE, Remedy.SLEEP, ""),
        (403, "ErrorAccessDenied", Deferred, Scope.ACCOUNT, Remedy.STOP, "Mail.Send"),
        (403, "ErrorMessageSubmissionBlocked", Deferred, Scope.ACCOUNT, Remedy.STOP, "restricted entities"),
        (403, "ErrorSomethingNew", Deferred, Scope.ACCOUNT, Remedy.SLEEP, ""),
        (403, "ErrorQuotaExceeded", Deferred, Scope.ACCOUNT, Remedy.STOP, "make room in box@x.test"),
        (404, "MailboxNotEnabledForRESTAPI", Deferred, Scope.ACCOUNT, Remedy.STOP, "box@x.test: it must be a mailbox"),
        (404, "ErrorItemNotFound", Deferred, Scope.MESSAGE, Remedy.SLEEP, ""),
        (413, "", Bounced, Scope.MESSAGE, None, "lower the account's graph_draft_from"),
        (429, "ErrorExceededMessageLimit", Deferred, Scope.ACCOUNT, Remedy.SLEEP, "limit of recipients"),
        (429, "ApplicationThrottled", Deferred, Scope.ACCOUNT, Remedy.SLEEP, "wait"),
        (500, "ErrorInternalServerError", Deferred, Scope.MESSAGE, Remedy.SLEEP, ""),
        (503, "serviceNotAvailable", Deferred, Scope.ACCOUNT, Remedy.SLEEP, "wait"),
    ],
)
async def test_what_each_refusal_means(
    peer: GraphPeer, status: int, code: str, kind: type, scope: Scope, remedy: Remedy | None, advice: str
) -> None:
    peer.fail("sendMail", error(status, code, "as it says"))
    outcome = await sent(peer)
    assert type(outcome) is kind
    assert isinstance(outcome, Bounced | Deferred)
    assert (outcome.scope, outcome.remedy if isinstance(outcome, Deferred) else None) == (scope, remedy)
    assert advice in outcome.advice
    assert outcome.reason == " ".join(part for part in (str(status), f"{code}: as it says" if code else "as it says"))
    assert outcome.transcript.splitlines() == [
        f">>> POST sendMail ({len(peer.requests[0].body)} octets)", f"<<< {outcome.reason} (request r-1)",
    ]  # fmt: skip
    assert peer.asked == ["POST sendMail"], "asked once"


@pytest.mark.parametrize(
    ("value", "wait"),
    [("30", 30), ("7200", 3600), (format_datetime(datetime(2026, 1, 1, 0, 5, tzinfo=UTC), usegmt=True), 300),
     (format_datetime(datetime(2027, 1, 1, tzinfo=UTC), usegmt=True), 3600), ("soon", None), ("", None),
     ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None)],
)  # fmt: skip
@pytest.mark.parametrize("status", [429, 503])
async def test_the_account_sleeps_for_as_long_as_graph_says_but_an_hour_at_most(
    peer: GraphPeer, status: int, value: str, wait: int | None
) -> None:
    peer.fail("sendMail", error(status, "TooManyRequests", "Please retry after", Retry_After=value))
    graph = transport(peer, clock=FakeClock())
    (outcome,) = await send(graph, transaction())
    assert isinstance(outcome, Deferred)
    assert outcome.scope is Scope.ACCOUNT
    assert outcome.retry_after == (None if wait is None else timedelta(seconds=wait))
    await graph.close()


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_a_success_that_sends_nothing_is_not_believed(peer: GraphPeer, status: int) -> None:
    peer.fail("sendMail", answer(b"", status))
    outcome = await sent(peer)
    assert isinstance(outcome, Unknown)
    assert f"answered {status} where 202" in outcome.reason


@pytest.mark.parametrize("status", [502, 504])
async def test_what_a_server_in_between_says_is_no_refusal(peer: GraphPeer, status: int) -> None:
    peer.fail("sendMail", answer(b"<html><title>Gateway Timeout</title>", status, Content_Type="text/html"))
    outcome = await sent(peer)
    assert isinstance(outcome, Unknown)
    assert f"{status} Gateway Timeout" in outcome.reason


@pytest.mark.parametrize(
    "said", [HANG_UP, b"HTTP/1.1 202 Acc", b"\x16\x03rubbish\r\n\r\n"], ids=["nothing", "cut", "rubbish"]
)
async def test_no_answer_to_a_message_that_was_handed_over_is_unknown(peer: GraphPeer, said: bytes) -> None:
    peer.fail("sendMail", said if said == HANG_UP else said + b"\r\nConnection: close", done=True)
    outcome = await sent(peer)
    assert isinstance(outcome, Unknown)
    assert outcome.status == "4.4.2"
    assert len(peer.sent) == 1


async def test_an_answer_that_does_not_come_in_time_is_unknown(peer: GraphPeer) -> None:
    peer.be_silent("sendMail")
    short = {"connect_timeout": timedelta(seconds=1), "end_of_data_timeout": timedelta(milliseconds=1)}
    outcome = await sent(peer, changes=short)
    assert isinstance(outcome, Unknown)


async def test_where_no_connection_is_had_the_account_sleeps_and_no_message_is_to_blame() -> None:
    async with GraphPeer() as gone:
        graph = transport(gone)
    (outcome,) = await send(graph, transaction())
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.status) == (Scope.ACCOUNT, "4.4.1")
    assert "no connection to 127.0.0.1" in outcome.reason
    await graph.close()


# Tokens


async def test_a_refused_token_is_renewed_once(peer: GraphPeer) -> None:
    tokens = GivenTokens(["stale", "token-1"])
    graph = transport(peer, tokens=tokens)
    assert isinstance((await send(graph, transaction()))[0], Delivered)
    assert tokens.asked[-1] == "stale"
    assert peer.asked == ["POST sendMail"] * 2
    assert len(peer.sent) == 1
    await graph.close()


async def test_a_token_that_graph_repeats_is_told_to_nobody(peer: GraphPeer) -> None:
    peer.fail("sendMail", error(400, "Error token-1", "no such user: Bearer token-1"))
    outcome = await sent(peer)
    assert isinstance(outcome, Deferred)
    assert outcome.reason == "400 Error [hidden]: no such user: Bearer [hidden]"
    assert "token-1" not in repr(outcome)
    peer.fail("sendMail", answer(b"<html><title>bad token-1</title>", 400, Content_Type="text/html"))
    assert "token-1" not in repr(await sent(peer))


async def test_a_new_token_that_is_refused_too_stops_the_account(peer: GraphPeer) -> None:
    peer.tokens.clear()
    graph = transport(peer, tokens=GivenTokens(["stale", "token-1"]))
    (outcome,) = await send(graph, transaction())
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.remedy) == (Scope.ACCOUNT, Remedy.STOP)
    assert peer.asked == ["POST sendMail"] * 2
    assert "Bearer" not in outcome.transcript
    await graph.close()


async def test_without_a_token_nothing_is_claimed(peer: GraphPeer) -> None:
    graph = transport(peer, tokens=GivenTokens(failure=ConnectFailed("token", "network", "no connection to login")))
    for _ in range(5):  # more often than there are places
        with pytest.raises(AccountUnavailable, match="no connection to login"):
            await graph.reserve()
    await graph.close()


# From


async def test_a_sender_that_the_mailbox_may_not_be_is_explained_with_the_grant_to_make(peer: GraphPeer) -> None:
    message = transaction(head=HEAD.replace(b"box@x.test", b"shared@x.test"))
    outcome = await sent(peer, message)
    assert isinstance(outcome, Bounced)
    assert outcome.scope is Scope.SENDER
    assert 'Add-RecipientPermission "shared@x.test" -Trustee "box@x.test" -AccessRights SendAs' in outcome.advice
    peer.send_as.add((MAILBOX, "shared@x.test"))
    assert isinstance(await sent(peer, message), Delivered)


async def test_no_command_to_paste_is_made_of_an_address_that_would_be_one(peer: GraphPeer) -> None:
    head = HEAD.replace(b"box@x.test", b'"$(calc)"@x.test')
    outcome = await sent(peer, transaction(head=head))
    assert isinstance(outcome, Bounced)
    assert "calc" not in outcome.advice
    assert '"the address in From"' in outcome.advice


# Slots


async def test_a_mailbox_is_asked_four_things_at_a_time_whichever_accounts_send_by_it(peer: GraphPeer) -> None:
    peer.gate.clear()
    places = Places()
    graphs = [transport(peer, account({"max_connections": 50}), places=places) for _ in range(2)]
    sending = [asyncio.ensure_future(send(graphs[n % 2], transaction(f"{n}@y.test"))) for n in range(40)]
    while peer.at_once < 4:
        await asyncio.sleep(0)
    peer.gate.set()
    outcomes = await asyncio.gather(*sending)
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    assert peer.most_at_once == 4
    assert len(peer.sent) == 40
    for graph in graphs:
        await graph.close()


async def test_a_slot_is_free_again_when_its_outcome_is_durable(peer: GraphPeer) -> None:
    graph = transport(peer, account({"max_connections": 1}))
    slot = await graph.reserve()
    await slot.deliver(transaction())
    waiting = asyncio.ensure_future(graph.reserve())
    slot.settle()
    await asyncio.sleep(0)
    assert not waiting.done()
    slot.durable()
    (await waiting).cancel()
    await graph.close()


async def test_connections_count_among_those_of_the_node_and_are_given_back(peer: GraphPeer) -> None:
    budget = ConnectionBudget(2)
    clock = FakeClock()
    graph = transport(peer, budget=budget, clock=clock)
    outcomes = await asyncio.gather(*[send(graph, transaction(f"{n}@y.test")) for n in range(12)])
    assert {type(outcome) for (outcome,) in outcomes} == {Delivered}
    assert peer.most_at_once <= 2

    class Other:
        def grow(self) -> bool:
            """See `Growing`."""
            return False

    assert not budget.take(Other()), "kept warm for a while"
    clock.advance(timedelta(seconds=31))
    assert budget.take(Other())
    assert isinstance((await send(graph, transaction()))[0], Delivered)
    await graph.close()


async def test_what_has_not_begun_when_the_gateway_stops_was_not_sent_and_what_has_is_unknown(peer: GraphPeer) -> None:
    peer.gate.clear()
    graph = transport(peer, budget=ConnectionBudget(1))
    slots = [await graph.reserve() for _ in range(2)]
    told = [slot.deliver(transaction()) for slot in slots]
    while not peer.at_once:
        await asyncio.sleep(0)
    await graph.close(timedelta(0))
    assert [type((await one)[0]) for one in told] == [Unknown, NotSent]


async def test_nothing_is_asked_where_it_may_not_begin_any_more(peer: GraphPeer) -> None:
    assert isinstance(await sent(peer, transaction(may_begin=lambda: False)), NotSent)
    assert peer.asked == []


# Unknown outcomes


async def test_a_message_in_doubt_is_looked_for_in_sent_items_first(peer: GraphPeer) -> None:
    peer.lose("sendMail")
    assert isinstance(await sent(peer), Unknown)
    outcome = await sent(peer, transaction(in_doubt=True))
    assert isinstance(outcome, Delivered)
    assert outcome.reply is not None
    assert "it lies in Sent Items" in outcome.reply.text
    assert len(peer.sent) == 1
    peer.fail("sendMail", HANG_UP)
    other = HEAD.replace(b"<1@", b"<it's@")
    assert isinstance(await sent(peer, transaction(head=other)), Unknown)
    assert isinstance(await sent(peer, transaction(head=other, in_doubt=True)), Delivered)
    assert len(peer.sent) == 2, "it had not arrived"


async def test_what_went_to_others_under_the_same_message_id_settles_nothing(peer: GraphPeer) -> None:
    """Such as before a part of it came from another account: it must not be lost for that."""
    assert isinstance(await sent(peer), Delivered)
    outcomes = await to_each(peer, transaction("b@y.test", "c@y.test", in_doubt=True))
    assert [type(outcome) for outcome in outcomes] == [Delivered] * 2
    assert [item.recipients for item in peer.sent] == [["b@y.test"], ["c@y.test"]]


@pytest.mark.parametrize("listed", [None, 5, [None], [{"emailAddress": None}], [{"emailAddress": {"address": 5}}]])
async def test_recipients_that_cannot_be_read_settle_nothing(peer: GraphPeer, listed: Any) -> None:
    peer.fail("sentitems", answer({"value": [{"id": "1", "toRecipients": listed}, None]}))
    assert isinstance(await sent(peer, transaction(in_doubt=True)), Delivered)
    assert len(peer.sent) == 1


async def test_where_sent_items_may_not_be_read_it_is_sent_as_any_unknown_is(peer: GraphPeer) -> None:
    peer.may_read = False
    assert isinstance(await sent(peer, transaction(in_doubt=True)), Delivered)
    assert peer.asked == ["GET mailFolders/sentitems/messages", "POST sendMail"]


async def test_nothing_is_sent_while_graph_asks_to_wait_with_looking(peer: GraphPeer) -> None:
    peer.fail("sentitems", error(429, "ApplicationThrottled", "later", Retry_After="60"))
    outcome = await sent(peer, transaction(in_doubt=True))
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.retry_after) == (Scope.ACCOUNT, timedelta(minutes=1))
    assert peer.sent == []
