"""What mail may ask for in its header: by right of its application, and never seen outside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postroom.errors import InvalidInput, Refused
from postroom.model.application import HeaderDoor
from postroom.model.queue import PriorityClass
from postroom.model.submission import Door

from .conftest import Room, relay

ALL = (HeaderDoor.ACCOUNT, HeaderDoor.TAG, HeaderDoor.PRIORITY)


def _head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("From: a@x.test", *lines, "")).encode()


def _may(room: Room, *doors: HeaderDoor, urgent: bool = False) -> None:
    room.application = replace(room.application, header_doors=doors, urgent=urgent)


async def test_fields_are_obeyed_by_right_and_taken_out(room: Room) -> None:
    room.accounts[:] = [relay(1), relay(2)]
    room.scheduler.follow(room.accounts)
    _may(room, *ALL)
    head = _head("X-Postroom-Account: Relay2", "X-Postroom-Tag: =?utf-8?q?invoice?=", "x-postroom-priority: Bulk")
    message = await room.submit(head=head)
    await room.until(message, "delivered")
    view = await room.store.message(message)
    assert (view.tag, view.priority, view.deliveries[0].lane) == ("invoice", PriorityClass.BULK, 2)
    (sent,) = room.transports["relay2"].sent
    assert b"x-postroom" not in sent.head.lower()


async def test_without_the_right_they_are_only_taken_out(room: Room) -> None:
    _may(room, HeaderDoor.TAG)
    head = _head("X-Postroom-Account: nowhere", "X-Postroom-Priority: urgent", "X-Postroom-Tag: t")
    message = await room.submit(head=head)
    await room.until(message, "delivered")
    view = await room.store.message(message)
    assert (view.tag, view.priority) == ("t", PriorityClass.NORMAL)
    assert b"X-Postroom" not in room.transports["relay1"].sent[0].head


async def test_other_doors_have_parameters_for_it(room: Room) -> None:
    _may(room, *ALL)
    submission = replace(room.submission(head=_head("X-Postroom-Priority: bulk")), door=Door.REST)
    accepted = await room.intake.submit(submission)
    view = await room.store.message(accepted.id)
    assert view.priority is PriorityClass.NORMAL


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("X-Postroom-Priority: high",), "X-Postroom-Priority: 'high' is no class (write urgent, normal or bulk)"),
        (("X-Postroom-Tag: a", "X-Postroom-Tag: b"), "X-Postroom-Tag: there are several"),
        (("X-Postroom-Tag:",), "X-Postroom-Tag: it is empty"),
        (("X-Postroom-Tag: " + "x" * 101,), "tag: is 101 characters long"),
    ],
)
async def test_what_can_not_be_is_refused(room: Room, lines: tuple[str, ...], fault: str) -> None:
    _may(room, *ALL)
    with pytest.raises(InvalidInput) as refused:
        await room.submit(head=_head(*lines))
    assert str(refused.value).startswith(fault)


async def test_an_account_that_the_application_may_not_use_is_refused(room: Room) -> None:
    _may(room, *ALL)
    room.application = replace(room.application, accounts=("relay9",))
    with pytest.raises(Refused, match="has no account 'relay1' that it may use"):
        await room.submit(head=_head("X-Postroom-Account: relay1"))


async def test_urgent_is_a_right_of_its_own(room: Room) -> None:
    _may(room, *ALL)
    head = _head("X-Postroom-Priority: urgent")
    with pytest.raises(Refused, match="'erp' may not send urgent mail: postroom applications edit erp --urgent"):
        await room.submit(head=head)
    with pytest.raises(Refused, match="may not send urgent mail"):
        await room.submit(priority=PriorityClass.URGENT)
    _may(room, *ALL, urgent=True)
    message = await room.submit(head=head)
    view = await room.store.message(message)
    assert view.priority is PriorityClass.URGENT
