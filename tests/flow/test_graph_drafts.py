"""Large messages and drafts by Microsoft Graph, against a peer made from the documentation."""

from __future__ import annotations

import asyncio
import email.policy
from collections.abc import AsyncIterator
from datetime import timedelta
from email.message import EmailMessage
from functools import cache
from typing import Any

import pytest

from postroom.mime.head import split
from postroom.model.content import StagedBody
from postroom.model.outcome import Bounced, Captured, Deferred, Delivered, NotSent, Outcome, Remedy, Scope, Unknown
from postroom.net.graph import RANGE_BYTES
from postroom.transports import AccountUnavailable
from tests.graph_peer import GraphPeer, Item, error
from tests.graph_senders import HEAD, MAILBOX, account, send, sent, transaction, transport
from tests.web_server import HANG_UP, answer


@pytest.fixture
async def peer() -> AsyncIterator[GraphPeer]:
    """Graph."""
    async with GraphPeer() as found:
        yield found


# Large messages


@cache
def large(*sizes: int) -> bytes:
    """A message with files."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["To"], message["Cc"] = "Box <box@x.test>", "b@y.test, not@y.test", "c@y.test"
    message["Message-ID"], message["Subject"], message["X-Job"] = "<1@x.test>", "Grüße", "7"
    message.set_content("plain\n")
    message.add_alternative("<p>Grüße</p>\n", subtype="html")
    for number, size in enumerate(sizes or (10, 3_100_000, 3_400_000)):
        content = bytes([number + 1]) * size
        message.add_attachment(content, "application", "pdf", filename=f"Nº {number}.pdf")
    return message.as_bytes()


CHUNK = 256 * 1024


def staged(content: bytes) -> tuple[bytes, StagedBody, Any]:
    """Head, and body in the store, with what reads it."""
    head, body = split(content)

    async def chunks(_: StagedBody) -> AsyncIterator[bytes]:
        for at in range(0, len(body), CHUNK):
            await asyncio.sleep(0)
            yield body[at : at + CHUNK]

    return head, StagedBody(b"0" * 16, -(-len(body) // CHUNK), len(body), b""), chunks  # type: ignore[arg-type]


async def sent_large(
    peer: GraphPeer, content: bytes, *recipients: str, in_doubt: bool = False, **fields: Any
) -> Outcome:
    """The outcome of a message whose body is staged."""
    head, body, chunks = staged(content)
    graph = transport(peer, account(**fields), chunks=chunks)
    outcomes = await send(graph, transaction(*recipients, head=head, body=body, in_doubt=in_doubt))
    await graph.close()
    return outcomes[0]


async def test_a_large_message_goes_as_a_draft_whose_files_follow_in_ranges(peer: GraphPeer) -> None:
    outcome = await sent_large(peer, large(), "b@y.test", "hidden@y.test")
    assert isinstance(outcome, Delivered)
    assert "not@y.test, c@y.test" in outcome.note
    (item,) = peer.sent
    assert item.recipients == ["b@y.test", "hidden@y.test"]
    assert item.message["internetMessageId"] == "<1@x.test>"
    assert item.message["subject"] == "Grüße"
    assert item.message["internetMessageHeaders"] == [{"name": "X-Job", "value": "7"}]
    assert item.message["body"] == {"contentType": "html", "content": "<p>Grüße</p>\r\n"}
    assert [(file["name"], file["contentType"]) for file in item.files] == [
        ("Nº 0.pdf", "application/pdf"), ("Nº 1.pdf", "application/pdf"), ("Nº 2.pdf", "application/pdf"),
    ]  # fmt: skip
    assert [file["content"] for file in item.files] == [b"\1" * 10, b"\2" * 3_100_000, b"\3" * 3_400_000]
    assert peer.drafts == {}
    assert peer.uploads == {}
    ranges = [asked.headers["content-range"] for asked in peer.requests if asked.method == "PUT"]
    assert ranges == [
        "bytes 0-3099999/3100000", "bytes 0-3276799/3400000", "bytes 3276800-3399999/3400000",
    ]  # fmt: skip
    assert RANGE_BYTES % (320 * 1024) == 0
    assert max(len(asked.body) for asked in peer.requests) < 4 * 1024 * 1024


@pytest.mark.parametrize(("size", "path"), [(1_400_000, "sendMail"), (1_600_000, "messages/ID/send")])
async def test_from_two_mebibytes_on_a_message_goes_as_a_draft(peer: GraphPeer, size: int, path: str) -> None:
    assert isinstance(await sent_large(peer, large(size), "b@y.test"), Delivered)
    assert peer.asked[-1] == f"POST {path}"


async def test_the_size_is_a_setting_of_the_account(peer: GraphPeer) -> None:
    assert isinstance(await sent(peer, draft_from=0), Delivered)
    assert peer.asked == ["POST messages", "POST messages/ID/send"]
    assert peer.sent[0].message["body"] == {"contentType": "text", "content": "hello\r\n"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"content-type": b'multipart/signed; protocol="application/pkcs7-signature"; micalg=sha256'}, "signed"),
        ({"content-type": b"application/pkcs7-mime; smime-type=enveloped-data"}, "encrypted"),
        ({"content-type": b"text/calendar; method=REQUEST"}, "invitation"),
        ({"list-id": b"<l.x.test>"}, "no place for: List-Id"),
    ],
)
async def test_what_a_draft_cannot_keep_is_refused_with_advice_not_altered(
    peer: GraphPeer, changes: dict[str, bytes], why: str
) -> None:
    extra = b"".join(name.title().encode() + b": " + value + b"; boundary=b\r\n" for name, value in changes.items())
    message = transaction(
        head=HEAD.replace(b"Subject", extra + b"Subject"), body=b"--b\r\n\r\n" + b"x" * 2_100_000 + b"\r\n--b--\r\n"
    )
    outcome = await sent(peer, message)
    assert isinstance(outcome, Bounced)
    assert (outcome.status, outcome.scope) == ("5.6.3", Scope.MESSAGE)
    assert why in outcome.reason
    assert "graph_draft_from" in outcome.advice
    assert peer.asked == [], "nothing was begun"
    assert isinstance(await sent(peer, message, draft_from=3 * 1024 * 1024), Delivered), "as the advice says"
    assert peer.sent[0].mime == message.head + message.body  # type: ignore[operator]


@pytest.mark.parametrize(
    ("pattern", "status"),
    [("/attachments", 403), ("createUploadSession", 500), ("PUT", 413), ("PUT", 503), ("/send", 403), ("/send", 500)],
)
async def test_a_draft_that_fails_is_taken_back_and_nothing_is_sent(peer: GraphPeer, pattern: str, status: int) -> None:
    peer.fail(pattern, error(status, "", "no"))
    outcome = await sent_large(peer, large(10, 3_300_000), "b@y.test")
    assert isinstance(outcome, Bounced | Deferred)
    assert (peer.drafts, peer.sent, peer.uploads) == ({}, [], {})


async def test_a_range_whose_answer_is_lost_is_not_sent_twice(peer: GraphPeer) -> None:
    peer.lose("PUT")
    assert isinstance(await sent_large(peer, large(3_400_000), "b@y.test"), Delivered)
    assert [file["content"] for file in peer.sent[0].files] == [b"\1" * 3_400_000]
    assert "GET /upload/ID" in peer.asked


async def test_of_a_last_range_whose_answer_is_lost_nothing_is_known_and_the_draft_is_made_anew(
    peer: GraphPeer,
) -> None:
    peer.fail("PUT", HANG_UP)
    peer.lose("PUT")
    assert isinstance(await sent_large(peer, large(3_100_000), "b@y.test"), Deferred)
    assert (peer.drafts, peer.sent, peer.uploads) == ({}, [], {})


async def test_a_range_that_did_not_arrive_is_sent_again(peer: GraphPeer) -> None:
    peer.fail("PUT", HANG_UP)
    assert isinstance(await sent_large(peer, large(10, 3_300_000), "b@y.test"), Delivered)
    assert [file["content"] for file in peer.sent[0].files][1] == b"\2" * 3_300_000


async def test_an_upload_that_breaks_off_again_and_again_is_given_up(peer: GraphPeer) -> None:
    for _ in range(3):
        peer.fail("PUT", HANG_UP)
    outcome = await sent_large(peer, large(10, 3_300_000), "b@y.test")
    assert isinstance(outcome, Deferred)
    assert outcome.scope is Scope.MESSAGE
    assert (peer.drafts, peer.sent, peer.uploads) == ({}, [], {})


async def test_an_upload_that_leads_nowhere_leaves_no_draft(peer: GraphPeer) -> None:
    peer.fail("createUploadSession", answer({"uploadUrl": "http://elsewhere.test/upload"}, 201))
    outcome = await sent_large(peer, large(10, 3_300_000), "b@y.test")
    assert isinstance(outcome, Deferred) and "elsewhere.test is not encrypted" in outcome.reason
    assert peer.drafts == {} and peer.sent == []


async def test_no_answer_before_the_draft_is_sent_is_a_try_and_no_doubt(peer: GraphPeer) -> None:
    peer.lose("/attachments")
    outcome = await sent_large(peer, large(10, 2_500_000), "b@y.test")
    assert isinstance(outcome, Deferred)
    assert (peer.drafts, peer.sent) == ({}, [])


async def test_a_draft_whose_sending_is_in_doubt_is_found_again(peer: GraphPeer) -> None:
    peer.lose("/send")
    assert isinstance(await sent_large(peer, large(10, 3_300_000), "b@y.test"), Unknown)
    outcome = await sent_large(peer, large(10, 3_300_000), "b@y.test", in_doubt=True)
    assert isinstance(outcome, Delivered)
    assert len(peer.sent) == 1


async def test_a_draft_that_a_stopped_gateway_left_goes_before_the_next_one_is_made(peer: GraphPeer) -> None:
    """As after a crash between making the draft and sending it."""
    peer.fail("/send", HANG_UP)
    assert isinstance(await sent_large(peer, large(10, 3_300_000), "b@y.test"), Unknown)
    assert len(peer.drafts) == 1
    own = Item("mine", MAILBOX, {"internetMessageId": "<1@x.test>", "toRecipients": []})
    peer.drafts["mine"] = own
    assert isinstance(await sent_large(peer, large(10, 3_300_000), "b@y.test", in_doubt=True), Delivered)
    assert len(peer.sent) == 1
    assert peer.drafts == {"mine": own}, "a draft to others is somebody else's"


async def test_a_draft_is_taken_back_when_the_gateway_stops_within_it(peer: GraphPeer) -> None:
    peer.be_silent("createUploadSession")
    head, body, chunks = staged(large(10, 3_300_000))
    graph = transport(peer, chunks=chunks)
    slot = await graph.reserve()
    told = slot.deliver(transaction(head=head, body=body))
    while "POST messages/ID/attachments/createUploadSession" not in peer.asked:
        await asyncio.sleep(0)
    await graph.close(timedelta(0))
    assert isinstance((await told)[0], NotSent)
    assert peer.drafts == {}


# Drafts only


async def test_draft_only_leaves_a_draft_in_the_draft_mailbox_and_sends_nothing(peer: GraphPeer) -> None:
    peer.mailboxes.add("drafts@x.test")
    outcome = await sent(peer, draft_only=True, draft_mailbox="drafts@x.test")
    assert isinstance(outcome, Captured)
    assert outcome.reply is not None
    assert "a draft lies in the Drafts of drafts@x.test; nothing was sent" in outcome.reply.text
    (item,) = peer.drafts.values()
    assert (item.mailbox, item.mime, peer.sent) == (
        "drafts@x.test",
        HEAD.replace(b"box@", b"drafts@") + b"hello\r\n",
        [],
    )


async def test_a_large_draft_has_its_files(peer: GraphPeer) -> None:
    assert isinstance(await sent_large(peer, large(), "b@y.test", draft_only=True, draft_mailbox=MAILBOX), Captured)
    (item,) = peer.drafts.values()
    assert len(item.files) == 3
    assert peer.sent == []


async def test_the_draft_mailbox_is_the_postmasters_where_none_is_named(peer: GraphPeer) -> None:
    peer.mailboxes.add("post@x.test")
    graph = transport(peer, account(draft_only=True), postmaster="post@x.test")
    assert isinstance((await send(graph, transaction()))[0], Captured)
    await graph.close()
    graph = transport(peer, account(draft_only=True))
    with pytest.raises(AccountUnavailable, match="neither a draft mailbox nor a postmaster"):
        await graph.reserve()


async def test_a_draft_mailbox_that_does_not_exist_stops_the_account(peer: GraphPeer) -> None:
    outcome = await sent(peer, draft_only=True, draft_mailbox="none@x.test")
    assert isinstance(outcome, Deferred)
    assert outcome.remedy is Remedy.STOP
    assert "none@x.test: it must be a mailbox" in outcome.advice


async def test_a_draft_in_doubt_is_not_made_twice(peer: GraphPeer) -> None:
    peer.lose("POST /v1.0/users/box@x.test/messages")
    outcome = await sent(peer, draft_only=True, draft_mailbox=MAILBOX)
    assert isinstance(outcome, Deferred)
    again = await sent(peer, transaction(in_doubt=True), draft_only=True, draft_mailbox=MAILBOX)
    assert isinstance(again, Captured)
    assert len(peer.drafts) == 1
