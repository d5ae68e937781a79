"""Rewriting and signing happen at delivery, for the account that sends, from the stored original."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from postroom.mime.dkim import SigningKey
from postroom.mime.large_body import LargeBody
from postroom.model.content import ContentId, StagedBody
from postroom.model.envelope import Envelope
from postroom.policy.rewriting import FixedSender
from postroom.queue.outgoing import Outgoing
from postroom.store import Selection
from postroom.transports import Transaction
from tests.dkim_judge import BOTH, RSA, verified

from .conftest import Room, relay

ROBOT = FixedSender("robot@example.org")
HEAD = b"From: Ann <a@x.test>\r\nSubject: hi\r\n\r\n"

Sends = Callable[..., None]


@pytest.fixture
def sends_as(room: Room) -> Iterator[Sends]:
    """`sends_as(fixed, keys)` edits an account (`relay1`): so it sends from now on."""
    pool = ThreadPoolExecutor(1)

    def change(fixed: FixedSender | None, keys: Sequence[SigningKey] = (), name: str = "relay1", **more: Any) -> None:
        load = more.pop("load", (lambda: keys) if keys else None)
        room.outgoing[name] = Outgoing(fixed, load, pool=pool, chunks=room.store.chunks, **more)
        room.accounts[:] = [dataclasses.replace(one, revision=one.revision + 1) for one in room.accounts]
        room.scheduler.follow(room.accounts)

    yield change
    pool.shutdown()


async def content_of(room: Room, transaction: Transaction) -> bytes:
    body = transaction.body
    if isinstance(body, StagedBody):
        body = b"".join([chunk async for chunk in room.store.chunks(body)])
    assert transaction.size_bytes == len(transaction.head) + len(body)
    return transaction.head + body


async def test_what_leaves_has_the_fixed_sender_and_what_is_stored_has_not(room: Room, sends_as: Sends) -> None:
    sends_as(ROBOT)
    message = await room.submit(head=HEAD)
    await room.until(message, "delivered")
    (sent,) = room.transports["relay1"].sent
    stored = await room.store.content(message)
    assert sent.envelope.reverse_path == "robot@example.org"
    assert await content_of(room, sent) == stored.replace(b"a@x.test", b"robot@example.org")
    assert b"From: Ann <a@x.test>\r\n" in stored
    assert (await room.store.message(message)).reverse_path == "a@x.test"


async def test_signatures_are_of_what_leaves(room: Room, sends_as: Sends) -> None:
    sends_as(ROBOT, BOTH)
    message = await room.submit(head=HEAD, body=b"a  body \r\n\r\n\r\n")
    await room.until(message, "delivered")
    content = await content_of(room, room.transports["relay1"].sent[0])
    assert content.startswith(b"DKIM-Signature:")
    assert b"From: Ann <robot@example.org>\r\n" in content
    assert verified(content) == [True, True]


@pytest.mark.parametrize("hash_is_stored", [True, False])
async def test_a_staged_body_is_signed_by_its_stored_hash(room: Room, sends_as: Sends, hash_is_stored: bool) -> None:
    sends_as(None, [RSA])
    content_id, large = ContentId(b"c" * 16), LargeBody(HEAD)
    chunks = [b"line  of text \r\n" * 1000, b"\r\n\r\n", b"end\r\n\r\n"]
    for n, chunk in enumerate(chunks):
        large.add(chunk)
        await room.store.stage(content_id, n, chunk)
    body = large.staged(content_id)
    if not hash_is_stored:  # a row from before there were such hashes
        body = dataclasses.replace(body, body_hash=b"")
    message = await room.submit(head=HEAD, body=body)
    await room.until(message, "delivered")
    content = await content_of(room, room.transports["relay1"].sent[0])
    assert content.endswith(b"".join(chunks))
    assert verified(content) == [True]


async def test_mail_with_addresses_beyond_ascii_is_rewritten_and_signed(room: Room, sends_as: Sends) -> None:
    sends_as(FixedSender("rößl@example.org", "Rößl", original_to_reply_to=True), BOTH)
    head = "From: Jörg <jörg@x.test>\r\nSubject: grüße\r\n\r\n".encode()
    submission = room.submission(head=head, body="grüße\r\n".encode())
    envelope = Envelope("jörg@x.test", ("b@y.test",), eight_bit=True, smtputf8=True)
    accepted = await room.intake.submit(dataclasses.replace(submission, envelope=envelope))
    await room.until(accepted.id, "delivered")
    (sent,) = room.transports["relay1"].sent
    assert (sent.envelope.reverse_path, sent.envelope.smtputf8) == ("rößl@example.org", True)
    content = await content_of(room, sent)
    assert "Reply-To: Jörg <jörg@x.test>\r\n".encode() in content
    assert verified(content) == [True, True]


async def test_a_fixed_sender_beyond_ascii_needs_smtputf8(room: Room, sends_as: Sends) -> None:
    sends_as(FixedSender("rößl@example.org"))
    await room.until(await room.submit(head=HEAD), "delivered")
    (sent,) = room.transports["relay1"].sent
    assert (sent.envelope.smtputf8, sent.envelope.eight_bit) == (True, True)


async def test_an_edit_holds_from_the_next_transaction_on(room: Room, sends_as: Sends) -> None:
    sends_as(ROBOT)
    await room.until(await room.submit(head=HEAD), "delivered")
    sends_as(FixedSender("other@example.org"))
    await room.until(await room.submit(head=HEAD), "delivered")
    paths = [sent.envelope.reverse_path for sent in room.transports["relay1"].sent]
    assert paths == ["robot@example.org", "other@example.org"]


async def test_each_account_rewrites_what_was_submitted(room: Room, sends_as: Sends) -> None:
    room.accounts.append(relay(2))
    sends_as(ROBOT)
    await room.until(await room.submit(head=HEAD), "delivered")
    await room.until(await room.submit(head=HEAD, account="relay2"), "delivered")
    (first,), (second,) = room.transports["relay1"].sent, room.transports["relay2"].sent
    assert (first.envelope.reverse_path, second.envelope.reverse_path) == ("robot@example.org", "a@x.test")
    assert (await content_of(room, second)).count(b"From: Ann <a@x.test>") == 1


async def test_a_recipient_cancelled_meanwhile_gets_nothing(room: Room, sends_as: Sends) -> None:
    sends_as(ROBOT, [RSA])
    await room.until(await room.submit(head=HEAD), "delivered")
    room.scheduler.pause(True)
    message = await room.submit("b@y.test", "c@y.test", head=HEAD)
    await room.store.cancel(Selection(message_id=message, n=0), room.clock.now())
    room.scheduler.pause(False)
    await room.until(message, "cancelled", "delivered")
    sent = room.transports["relay1"].sent[-1]
    assert sent.envelope.recipients == ("c@y.test",)
    assert verified(await content_of(room, sent)) == [True]


async def test_a_key_that_can_not_be_read_stops_the_account_and_blames_no_message(room: Room, sends_as: Sends) -> None:
    def broken() -> Sequence[SigningKey]:
        raise ValueError("holds no private key that can be read")

    sends_as(None, load=broken)
    message = await room.submit(head=HEAD)
    reason = await room.until_event("account.needs_attention")
    assert "DKIM key can't be used: it holds no private key" in reason
    (row,) = await room.until(message, "deferred")
    assert row.tries == 0
    assert room.transports["relay1"].sent == []
    assert room.transports["relay1"].in_use == 0
    sends_as(None, [RSA])
    await room.until(message, "delivered")


async def test_a_fault_of_ours_defers_the_message_alone(room: Room, sends_as: Sends) -> None:
    faults = [RuntimeError("odd")]

    def keys() -> Sequence[SigningKey]:
        if faults:
            raise faults.pop()
        return [RSA]

    sends_as(None, load=keys)
    message = await room.submit(head=HEAD)
    (row,) = await room.until(message, "deferred")
    assert row.reply == "it could not be rewritten or signed: odd"
    assert room.transports["relay1"].in_use == 0
    await room.until(await room.submit(head=HEAD), "delivered")


async def test_what_the_relay_replaces_is_not_signed(room: Room, sends_as: Sends) -> None:
    sends_as(None, [RSA], replaced={b"date", b"message-id"})
    await room.until(await room.submit(head=HEAD), "delivered")
    content = await content_of(room, room.transports["relay1"].sent[0])
    assert verified(content.replace(b"\r\nMessage-ID: <", b"\r\nMessage-ID: <x")) == [True]
