"""What reports shall tell of: noted with the state that it is about, and gone with the report, or neither."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postroom.errors import StorageFailed
from postroom.model.content import ContentId, StagedBody
from postroom.model.envelope import DsnRequest
from postroom.model.notice import NoticedMessage, NoticeKind
from postroom.model.queue import DeliveryResult, DeliveryState, FencingToken, NewMessage
from postroom.store import DeliveryFilter, Selection, notices
from postroom.store.database import Database, open_store
from tests.contract.store.crashes import copy_as_it_is
from tests.contract.store.examples import (
    BODY,
    HEAD,
    NOON,
    Hour,
    attempt_of,
    begin,
    claim_of,
    claimed,
    make_message,
    result_of,
    sent,
    staged,
    states,
)
from tests.waited_too_long import ends

S = DeliveryState
LATER = NOON + timedelta(seconds=30)


def failed(n: int = 0) -> DeliveryResult:
    return result_of(n, S.BOUNCED, notice="failed", status="5.1.1", reply="550 no", command="RCPT")


def asking(*notify: str, ret: str = "") -> DsnRequest:
    return DsnRequest(ret=ret, notify=notify, orcpt=("",) * len(notify))


def make_report() -> NewMessage:
    return replace(make_message("a@example.org", sender=""), door="notification")


async def noticed(store: Database, before: datetime = LATER) -> list[tuple[NoticeKind, int, DeliveryState]]:
    """Everything that is noted and due."""
    found = await store.noticed(before)
    return [(notice.kind, notice.n, notice.state) for message in found for notice in message.notices]


@asynccontextmanager
async def after_a_crash(store: Database, tmp_path: Path) -> AsyncIterator[Database]:
    """The store that a process finds which starts after this one was killed now."""
    again = await open_store(copy_as_it_is(tmp_path / "postroom.db", tmp_path / "crashed"), None, Hour().now)
    yield again
    await again.close()


async def refused(store: Database, *results: DeliveryResult, **fields: Any) -> NewMessage:
    """A message that was refused."""
    message = make_message(*("b@example.net", "c@example.net")[: len(results) or 1], **fields)
    await sent(store, await begin(store), message, *(results or (failed(),)))
    return message


async def only(store: Database, before: datetime = LATER) -> NoticedMessage:
    (message,) = await store.noticed(before)
    return message


async def test_a_failure_is_noted_with_what_was_said(store: Database) -> None:
    message = await refused(store, dsn=DsnRequest("HDRS", "id", ("FAILURE",), ("rfc822;x",)))
    found = await only(store, NOON)
    assert (found.id, found.door, found.reverse_path, found.ret, found.envid) == (
        message.id, "smtp", "a@example.org", "HDRS", "id",
    )  # fmt: skip
    assert (found.content.head, found.content.body) == (HEAD, b"")
    (notice,) = found.notices
    assert (notice.state, notice.recipient, notice.orcpt) == (S.BOUNCED, "b@example.net", "rfc822;x")
    assert (notice.status, notice.reply, notice.command) == ("5.1.1", "550 no", "RCPT")
    assert (notice.remote_host, notice.last_attempt) == ("relay.example [192.0.2.1]", NOON)


async def test_words_of_postroom_are_not_taken_for_the_relays(store: Database) -> None:
    message = make_message()
    await store.enqueue(message)
    await claimed(store, await begin(store), message, result_of(0, S.DEFERRED, NOON, reply="450 later", command="RCPT"))
    await store.claim(claim_of(message, await begin(store)))
    await begin(store)  # which marks it, in words of its own
    assert await store.expire(ends(NOON + timedelta(1), NOON), NOON) == 1
    (notice,) = (await only(store)).notices
    assert (notice.reply[:19], notice.command) == ("the gateway stopped", "")


@pytest.mark.parametrize("ret", ["FULL", "HDRS", ""])
async def test_the_body_comes_along_only_where_it_is_asked_for(store: Database, ret: str) -> None:
    chunks = [b"x" * 1000, b"y" * 10]
    body = await staged(store, chunks)
    await refused(store, body=body, dsn=asking("", ret=ret))
    await refused(store, dsn=asking("", ret=ret))
    large, small = [found.content.body for found in await store.noticed(LATER)]
    assert small == (BODY if ret == "FULL" else b"")
    if ret == "FULL":
        assert isinstance(large, StagedBody)
        assert [chunk async for chunk in store.chunks(large)] == chunks
    else:
        assert large == b""


async def test_what_is_noted_waits_until_all_have_ended_or_for_its_time(store: Database) -> None:
    message = await refused(store, failed(), result_of(1, S.DEFERRED, NOON))
    assert await noticed(store, NOON - timedelta(microseconds=1)) == []
    assert await noticed(store, NOON) == [("failed", 0, S.BOUNCED)]
    await store.cancel(Selection(message_id=message.id), NOON)
    assert await noticed(store, NOON - timedelta(days=1)) == [("failed", 0, S.BOUNCED)]


async def test_what_was_noted_under_a_clock_that_was_ahead_waits_no_longer(store: Database) -> None:
    message, token = make_message("b@example.net", "c@example.net"), await begin(store)
    await store.enqueue(message)
    await store.claim(claim_of(message, token))
    ends = (failed(), result_of(1, S.DEFERRED, NOON))
    await store.complete(attempt_of(message, token, *ends, at=NOON + timedelta(days=3650)))
    assert await noticed(store, NOON) == [("failed", 0, S.BOUNCED)]


async def test_a_report_is_kept_once(store: Database) -> None:
    message = await refused(store)
    found, report, second = await only(store), make_report(), make_report()
    assert await store.report(found, report, "reported", "failed") is True
    assert await store.report(found, second, "reported", "failed") is False
    assert await states(store, report) == ["queued"]
    assert await store.message(second.id) is None
    assert await noticed(store) == []
    view = await store.message(message.id)
    assert view is not None
    assert [event.kind for event in view.events] == ["accepted", "bounced", "reported"]


async def test_what_is_noted_while_a_report_is_made_waits_for_the_next(store: Database) -> None:
    message = await refused(store, failed(), result_of(1, S.DEFERRED, NOON))
    found = await only(store)
    await claimed_again(store, message, failed(1))
    assert await store.report(found, make_report()) is True
    assert await noticed(store) == [("failed", 1, S.BOUNCED)]


async def claimed_again(store: Database, message: NewMessage, *results: DeliveryResult) -> None:
    token = await begin(store)
    await store.claim(claim_of(message, token, 1))
    await store.complete(attempt_of(message, token, *results))


async def test_a_report_that_cannot_be_kept_leaves_its_notices(store: Database) -> None:
    await refused(store)
    lost = StagedBody(ContentId(bytes(16)), 1, 5, hashlib.sha256(b"other").digest())
    report = replace(make_report(), content=replace(make_report().content, body=lost))
    with pytest.raises(StorageFailed):
        await store.report(await only(store), report)
    assert await noticed(store) == [("failed", 0, S.BOUNCED)]


# A crash ----------------------------------------------------------------------------------------------------------


@pytest.mark.sqlite
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_after_a_crash_there_are_state_and_notice_or_neither(store: Database, tmp_path: Path, turns: int) -> None:
    message, token = make_message(), await begin(store)
    await store.enqueue(message)
    await store.claim(claim_of(message, token))
    ended = store.complete(attempt_of(message, token, failed()))
    for _ in range(turns):
        await asyncio.sleep(0)
    async with after_a_crash(store, tmp_path) as again:
        left = (await states(again, message), await noticed(again))
    assert left in ((["sending"], []), (["bounced"], [("failed", 0, S.BOUNCED)]))
    await ended


@pytest.mark.sqlite
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_after_a_crash_there_is_the_notice_or_its_report(store: Database, tmp_path: Path, turns: int) -> None:
    await refused(store)
    report = make_report()
    told = store.report(await only(store), report, "reported")
    for _ in range(turns):
        await asyncio.sleep(0)
    async with after_a_crash(store, tmp_path) as again:
        is_kept, is_noted = await again.message(report.id) is not None, bool(await noticed(again))
        assert is_kept != is_noted
        for found in await again.noticed(LATER):  # the next process tells it, and once
            assert await again.report(found, report) is True
        assert len(await again.deliveries(DeliveryFilter(recipient="a@example.org"))) == 1
    assert await told is True


@pytest.mark.sqlite
async def test_what_is_durable_is_there_after_a_crash(store: Database, tmp_path: Path) -> None:
    await refused(store)
    report = make_report()
    await store.report(await only(store), report)
    async with after_a_crash(store, tmp_path) as again:
        assert await states(again, report) == ["queued"]
        assert await noticed(again) == []


# Delays -----------------------------------------------------------------------------------------------------------


async def warned(store: Database, at: datetime) -> int:
    return await store.warn(at - timedelta(hours=4), at)


async def test_a_delay_is_noted_once_of_what_is_under_way(store: Database) -> None:
    token = await begin(store)
    waits, ends, held, is_sent, null, never = [
        make_message(sender=sender, dsn=dsn)
        for sender, dsn in [("a@x", None)] * 4 + [("", None), ("a@x", asking("FAILURE,SUCCESS"))]
    ]
    for message in (waits, ends, held, is_sent, null, never):
        await store.enqueue(message)
    await claimed(store, token, ends)
    await store.hold(Selection(message_id=held.id), NOON)
    await store.claim(claim_of(is_sent, token))
    at = NOON + timedelta(hours=4)
    assert await warned(store, at) == 0
    assert await warned(store, at + timedelta(seconds=1)) == 2
    assert await noticed(store, at + timedelta(seconds=1)) == [
        ("delayed", 0, S.QUEUED), ("delayed", 0, S.SENDING),
    ]  # fmt: skip
    for found in await store.noticed(at + timedelta(seconds=1)):
        await store.report(found, None)
    await store.release(Selection(), at)
    assert await warned(store, at + timedelta(days=1)) == 0


async def test_delays_are_found_in_steps(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "WARNED", 2)
    monkeypatch.setattr(notices, "WARN_LOOK", 3)
    token = await begin(store)
    messages = [make_message() for _ in range(11)]
    for message in messages:
        await store.enqueue(message)
    for message in messages[2:8]:
        await claimed(store, token, message)
    assert await warned(store, NOON + timedelta(hours=5)) == 5
    await store.enqueue(make_message(at=NOON + timedelta(hours=1)))
    assert await warned(store, NOON + timedelta(hours=6)) == 1


async def test_a_clock_that_was_ahead_ends_no_warnings(store: Database) -> None:
    await store.enqueue(make_message(at=NOON + timedelta(days=3650)))
    assert await warned(store, NOON + timedelta(days=3651)) == 1
    assert await warned(store, NOON) == 0
    await store.enqueue(make_message(at=NOON + timedelta(minutes=1)))
    assert await warned(store, NOON + timedelta(hours=5)) == 1


async def test_a_delay_of_what_has_ended_is_moot(store: Database) -> None:
    message, token = make_message(), await begin(store)
    await store.enqueue(message)
    at = NOON + timedelta(hours=5)
    assert await warned(store, at) == 1
    await claimed(store, token, message, failed())
    found = await only(store, NOON)
    assert [(notice.kind, notice.is_moot) for notice in found.notices] == [("delayed", True), ("failed", False)]


# Ends without an attempt, and the end of the record -----------------------------------------------------------------


async def test_what_expires_is_noted_as_its_recipients_ask(store: Database) -> None:
    wants, all_never, null = [
        make_message("b@example.net", "c@example.net", dsn=asking(*notify), sender=sender)
        for notify, sender in ((("", "NEVER"), "a@x"), (("NEVER", "SUCCESS,DELAY"), "a@x"), (("", ""), ""))
    ]
    for message in (wants, all_never, null):
        await store.enqueue(message)
    await store.hold(Selection(message_id=wants.id, n=0), NOON)
    assert await store.expire(ends(NOON, NOON + timedelta(days=1)), NOON) == 6
    assert [found.id for found in await store.noticed(NOON)] == [wants.id]
    assert await noticed(store) == [("failed", 0, S.EXPIRED)]


async def test_a_person_who_cancels_notes_nothing(store: Database) -> None:
    await store.enqueue(make_message())
    assert await store.cancel(Selection(), NOON) == 1
    assert await noticed(store) == []


async def test_a_message_is_not_removed_before_its_report_is_made(store: Database) -> None:
    message = await refused(store)
    later = NOON + timedelta(days=60)
    assert await store.reap(later, later) == 0
    assert await store.report(await only(store), None) is True
    assert await store.reap(later, later) == 1
    assert await store.message(message.id) is None


async def test_what_was_noted_before_a_restore_is_told_when_a_person_releases_it(store: Database) -> None:
    await refused(store)
    await store.save_setting(notices.RESTORED, str(int(LATER.timestamp() * 1_000_000)))
    report, later = make_report(), make_report()
    assert await store.report(await only(store), report) is True
    assert await states(store, report) == ["held"]
    view = await store.message(report.id)
    assert view is not None
    assert "before the backup was restored" in view.events[-1].detail
    counts = {(state.value): count for (_, state), count in (await store.counts()).items()}
    assert counts == {"bounced": 1, "held": 1}
    fresh, token = make_message(), FencingToken(2)
    await store.enqueue(fresh)
    assert await begin(store) == token
    await store.claim(claim_of(fresh, token))
    at = LATER + timedelta(seconds=1)
    await store.complete(attempt_of(fresh, token, failed(), at=at))
    assert await store.report(await only(store, at), later) is True
    assert await states(store, later) == ["queued"]
