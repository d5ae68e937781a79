"""Each recipient goes through the topmost account that matches: one message may use several."""

from __future__ import annotations

from typing import Any

import pytest

from postroom.errors import Refused
from postroom.model.account import Account
from postroom.model.envelope import DsnRequest, Envelope

from .conftest import Room, relay


async def _lanes(room: Room, *recipients: str, **fields: Any) -> dict[str, int]:
    message = await room.submit(*recipients, **fields)
    await room.until(message, *["delivered"] * len(recipients))
    return {row.recipient: row.lane for row in await room.rows(message)}


def _with(room: Room, *accounts: Account) -> None:
    room.accounts[:] = accounts
    room.scheduler.follow(room.accounts)


async def test_each_recipient_goes_through_the_topmost_match(room: Room) -> None:
    _with(room, relay(1, recipient_patterns=("*@one.test",)), relay(2, recipient_patterns=("vip@two.test",)), relay(3))
    lanes = await _lanes(room, "a@one.test", "vip@two.test", "b@two.test", "c@one.test")
    assert lanes == {"a@one.test": 1, "c@one.test": 1, "vip@two.test": 2, "b@two.test": 3}
    assert [len(room.transports[f"relay{n}"].sent) for n in (1, 2, 3)] == [1, 1, 1]
    assert room.transports["relay1"].sent[0].envelope.recipients == ("a@one.test", "c@one.test")


async def test_the_sender_decides_by_envelope_or_from(room: Room) -> None:
    _with(room, relay(1, sender_patterns=("*@shop.test",)), relay(2))
    assert await _lanes(room, "b@y.test", head=b"From: Shop <sales@shop.test>\r\n\r\n") == {"b@y.test": 1}
    assert await _lanes(room, "b@y.test", head=b"From: a@x.test\r\n\r\n") == {"b@y.test": 2}


async def test_a_recipient_that_no_account_takes_refuses_the_message_whole(room: Room) -> None:
    _with(room, relay(1, recipient_patterns=("*@one.test",)))
    with pytest.raises(Refused, match=r"<b@two\.test>"):
        room.intake.submit(room.submission("a@one.test", "b@two.test"))
    assert await room.store.counts() == {}


async def test_reports_asked_for_go_with_their_own_recipients(room: Room) -> None:
    _with(room, relay(1, recipient_patterns=("*@one.test",)), relay(2))
    asked = DsnRequest.of("HDRS", "id1", ("NEVER", "SUCCESS,FAILURE"), ("", "rfc822;b@two.test"))
    message = await room.submit(envelope=Envelope("a@x.test", ("a@one.test", "b@two.test"), dsn=asked))
    await room.until(message, "delivered", "delivered")
    sent = {n: room.transports[f"relay{n}"].sent[0].envelope.dsn for n in (1, 2)}
    assert sent[1] == DsnRequest.of("HDRS", "id1", ("NEVER",), ("",))
    assert sent[2] == DsnRequest.of("HDRS", "id1", ("SUCCESS,FAILURE",), ("rfc822;b@two.test",))
