"""Enqueue, due, claim, unclaim, complete: the way of every message, and what stops it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from postroom.errors import StorageFailed
from postroom.model.content import ContentId, StagedBody
from postroom.model.envelope import DsnRequest
from postroom.model.queue import DeliveryState, FencingToken, PriorityClass
from postroom.store import Selection
from postroom.store.database import Database
from postroom.store.waiting import BODY_BYTES
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import (
    BODY,
    HEAD,
    LANE,
    NOON,
    OTHER_LANE,
    attempt_of,
    begin,
    claim_of,
    claimed,
    counted,
    found_due,
    make_message,
    result_of,
    sent,
    staged,
    states,
    told,
)

S = DeliveryState
MINUTE = timedelta(minutes=1)
CLASSES = tuple(PriorityClass)


async def test_what_is_enqueued_is_due_at_once_with_everything_that_sending_needs(store: Database) -> None:
    message = make_message("b@example.net", "c@example.net", priority=PriorityClass.URGENT)
    await store.enqueue(message)
    (due,) = await found_due(store, LANE, NOON, 10)
    assert (due.id, due.lane, due.priority) == (message.id, LANE, PriorityClass.URGENT)
    assert (due.reverse_path, due.eight_bit, due.smtputf8) == ("a@example.org", True, False)
    assert (due.accepted, due.window_from) == (NOON, NOON)
    assert [(d.n, d.recipient, d.tries, d.unknowns) for d in due.deliveries] == [
        (0, "b@example.net", 0, 0),
        (1, "c@example.net", 0, 0),
    ]
    assert (due.content.head, due.content.body) == (HEAD, BODY)
    assert await store.content(message.id) == HEAD + BODY
    assert await found_due(store, OTHER_LANE, NOON, 10) == []


async def test_what_the_sender_asks_of_notifications_is_kept(store: Database) -> None:
    dsn = DsnRequest("HDRS", "QQ314159", ("", "SUCCESS,DELAY"), ("rfc822;b@old.example", ""))
    asking = make_message("b@example.net", "c@example.net", dsn=dsn)
    silent = make_message("d@example.net")
    for message in (asking, silent):
        await store.enqueue(message)
    found = {due.id: due for due in await found_due(store, LANE, NOON, 10)}
    due = found[asking.id]
    assert (due.ret, due.envid) == ("HDRS", "QQ314159")
    assert [(d.notify, d.orcpt) for d in due.deliveries] == [("", "rfc822;b@old.example"), ("SUCCESS,DELAY", "")]
    plain = found[silent.id]
    assert (plain.ret, plain.envid, plain.deliveries[0].notify, plain.deliveries[0].orcpt) == ("", "", "", "")
    view = await store.message(asking.id)
    assert view is not None
    assert (view.ret, view.envid, [d.notify for d in view.deliveries]) == ("HDRS", "QQ314159", ["", "SUCCESS,DELAY"])


async def test_it_is_there_after_closing_and_opening(store: Database, open_again: Opener) -> None:
    message = make_message()
    await store.enqueue(message)
    await store.close()
    again = await open_again()
    assert [due.id for due in (await again.due(LANE, NOON, 10)).messages] == [message.id]


async def test_due_is_ordered_by_class_due_id_and_bounded(store: Database) -> None:
    late = make_message(at=NOON + MINUTE)
    bulk = make_message(at=NOON - MINUTE, priority=PriorityClass.BULK)
    first, second = make_message(), make_message()
    urgent = make_message(at=NOON + MINUTE, priority=PriorityClass.URGENT)
    for message in (late, second, bulk, urgent, first):
        await store.enqueue(message)
    now = NOON + MINUTE
    assert [d.id for d in await found_due(store, LANE, now, 10)] == [
        urgent.id,
        first.id,
        second.id,
        late.id,
        bulk.id,
    ]
    assert [d.id for d in await found_due(store, LANE, NOON, 10)] == [first.id, second.id, bulk.id]
    assert [d.id for d in await found_due(store, LANE, now, 2)] == [urgent.id, first.id]
    before = NOON - 2 * MINUTE
    assert await store.next_due(LANE, CLASSES, before) == NOON - MINUTE
    assert await store.next_due(LANE, CLASSES, NOON - MINUTE) == NOON  # later than that, not at it
    assert await store.next_due(LANE, [PriorityClass.URGENT], before) == NOON + MINUTE
    assert await store.next_due(LANE, CLASSES, now) is None
    assert await store.next_due(LANE, [], before) is None
    assert await store.next_due(OTHER_LANE, CLASSES, before) is None


async def test_due_keeps_a_message_together_and_counts_deliveries(store: Database) -> None:
    many = make_message(*(f"r{n}@example.net" for n in range(5)))
    after = make_message()
    await store.enqueue(many)
    await store.enqueue(after)
    assert [(d.id, len(d.deliveries)) for d in await found_due(store, LANE, NOON, 6)] == [
        (many.id, 5),
        (after.id, 1),
    ]
    assert [(d.id, len(d.deliveries)) for d in await found_due(store, LANE, NOON, 3)] == [(many.id, 3)]


async def test_large_bodies_do_not_all_come_into_memory(store: Database) -> None:
    body = b"x" * (256 * 1024)
    messages = [make_message(body=body) for _ in range(BODY_BYTES // len(body) + 2)]
    for message in messages:
        await store.enqueue(message)
    due = await found_due(store, LANE, NOON, 100)
    assert [d.id for d in due] == [message.id for message in messages]
    held = [d.content.body for d in due]
    assert sum(len(b) for b in held if isinstance(b, bytes)) <= BODY_BYTES
    last = held[-1]
    assert isinstance(last, StagedBody)
    assert b"".join([part async for part in store.chunks(last)]) == body


async def test_a_claim_moves_what_waits_and_only_once(store: Database) -> None:
    token = await begin(store)
    message = make_message("b@example.net", "c@example.net", "d@example.net")
    await store.enqueue(message)
    assert await store.claim(claim_of(message, token, 0, 2)) == (0, 2)
    assert await states(store, message) == ["sending", "queued", "sending"]
    assert await store.claim(claim_of(message, token)) == (1,)
    assert await store.claim(claim_of(message, token)) == ()
    assert await found_due(store, LANE, NOON, 10) == []


@pytest.mark.parametrize("verb", ["hold", "cancel"])
async def test_what_was_held_or_cancelled_is_not_claimed(store: Database, verb: str) -> None:
    token = await begin(store)
    message = make_message("b@example.net", "c@example.net")
    await store.enqueue(message)
    moved = getattr(store, verb)(Selection(message_id=message.id, n=0), NOON)
    claim = store.claim(claim_of(message, token))  # handed over before the first is known to have worked
    assert await moved == 1
    assert await claim == (1,)


async def test_two_claims_of_one_delivery_in_one_group_give_it_once(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    store.enqueue(message)
    claims = [store.claim(claim_of(message, token)) for _ in range(3)]
    assert [await claim for claim in claims] == [(0,), (), ()]


async def test_a_claim_on_another_lane_or_under_another_token_moves_nothing(store: Database) -> None:
    old = await begin(store)
    token = await begin(store)
    message = make_message()
    await store.enqueue(message)
    assert await store.claim(claim_of(message, token, lane=OTHER_LANE)) == ()
    assert await store.claim(claim_of(message, old)) == ()
    assert await store.claim(claim_of(message, FencingToken(token + 1))) == ()
    assert await states(store, message) == ["queued"]


async def test_what_is_deferred_is_claimed_like_what_is_new(store: Database) -> None:
    token = await begin(store)
    fresh, retried = make_message(), make_message("b@example.net", "c@example.net")
    await store.enqueue(fresh)
    await sent(store, token, retried, *(result_of(n, S.DEFERRED, NOON) for n in range(2)))
    together = [store.claim(claim_of(message, token)) for message in (fresh, retried)]
    assert [await claim for claim in together] == [(0,), (0, 1)]
    assert await told(store) == await counted(store) == {(LANE, "sending"): 3}


async def test_unclaimed_is_queued_and_due_as_before(store: Database) -> None:
    token = await begin(store)
    message = make_message("b@example.net", "c@example.net")
    await store.enqueue(message)
    await store.claim(claim_of(message, token))
    await store.unclaim(claim_of(message, token, 1))
    assert await states(store, message) == ["sending", "queued"]
    (due,) = await found_due(store, LANE, NOON, 10)
    assert [(d.n, d.tries) for d in due.deliveries] == [(1, 0)]
    await store.unclaim(claim_of(message, FencingToken(token - 1)))
    assert await states(store, message) == ["sending", "queued"]


async def test_claim_then_unclaim_without_waiting_keeps_its_order(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    store.enqueue(message)
    store.claim(claim_of(message, token))
    store.unclaim(claim_of(message, token))
    claimed_again = store.claim(claim_of(message, token))
    await store.complete(attempt_of(message, token))
    assert await claimed_again == (0,)
    assert await states(store, message) == ["delivered"]


async def test_completing_keeps_state_attempt_and_event(store: Database) -> None:
    token = await begin(store)
    message = make_message("b@example.net", "c@example.net", "d@example.net")
    due = NOON + MINUTE
    bounced = result_of(1, S.BOUNCED, status="5.1.1", reply="550 5.1.1 unknown", command="RCPT", advice="look it up")
    deferred = result_of(2, S.DEFERRED, due, status="4.2.2", reply="452 full")
    await sent(store, token, message, result_of(0, S.DELIVERED), bounced, deferred)
    view = await store.message(message.id)
    assert view is not None
    rows = [(r.state.value, r.ended, r.due, r.tries, r.status, r.reply) for r in view.deliveries]
    assert rows == [
        ("delivered", NOON, None, 1, "2.0.0", "250 Ok"),
        ("bounced", NOON, None, 1, "5.1.1", "550 5.1.1 unknown"),
        ("deferred", None, due, 1, "4.2.2", "452 full"),
    ]
    attempt = view.attempts[1]
    assert (attempt.n, attempt.number, attempt.account, attempt.outcome) == (1, 1, "relay", "bounced")
    assert (attempt.started, attempt.ended) == (NOON - timedelta(seconds=1), NOON)
    assert (attempt.command, attempt.advice, attempt.remote_host) == ("RCPT", "look it up", "relay.example [192.0.2.1]")
    assert [(e.kind, e.n, e.account, e.detail) for e in view.events] == [
        ("accepted", None, "", ""),
        ("delivered", 0, "relay", "2.0.0 250 Ok"),
        ("bounced", 1, "relay", "5.1.1 550 5.1.1 unknown"),
        ("deferred", 2, "relay", "4.2.2 452 full"),
    ]
    assert await store.next_due(LANE, CLASSES, NOON) == due


async def test_attempts_are_numbered_and_only_counting_tries_are_counted(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    await sent(store, token, message, result_of(0, S.DEFERRED, NOON, counts=False))
    await claimed(store, token, message, result_of(0, S.DEFERRED, NOON, unknown=True))
    (due,) = await found_due(store, LANE, NOON, 10)
    assert [(d.tries, d.unknowns) for d in due.deliveries] == [(1, 1)]
    await claimed(store, token, message, result_of(0, S.HELD, unknown=True))
    view = await store.message(message.id)
    assert view is not None
    assert [attempt.number for attempt in view.attempts] == [1, 2, 3]
    (row,) = view.deliveries
    assert (row.state, row.tries, row.unknowns, row.due) == (S.HELD, 2, 2, None)


async def test_an_outcome_under_an_old_token_changes_nothing(store: Database) -> None:
    old = await begin(store)
    message = make_message()
    await store.enqueue(message)
    await store.claim(claim_of(message, old))
    new = await begin(store)
    await store.complete(attempt_of(message, old))
    assert await states(store, message) == ["deferred"]
    assert await store.claim(claim_of(message, new)) == (0,)
    await store.complete(attempt_of(message, old))
    assert await states(store, message) == ["sending"]
    view = await store.message(message.id)
    assert view is not None
    assert view.attempts == ()


async def test_an_outcome_counts_once(store: Database) -> None:
    token = await begin(store)
    message = make_message("b@example.net", "c@example.net")
    await store.enqueue(message)
    await store.claim(claim_of(message, token, 0))
    twice = [store.complete(attempt_of(message, token)) for _ in range(2)]
    for outcome in twice:
        await outcome
    view = await store.message(message.id)
    assert view is not None
    assert [row.state.value for row in view.deliveries] == ["delivered", "queued"]
    assert [(attempt.n, attempt.number) for attempt in view.attempts] == [(0, 1)]
    assert await told(store) == await counted(store)


async def test_staged_content_is_read_chunk_by_chunk(store: Database) -> None:
    parts = [b"a" * 1000, b"b" * 1000, b"c"]
    message = make_message(body=replace(await staged(store, parts), body_hash=bytes(range(32))))
    await store.enqueue(message)
    (due,) = await found_due(store, LANE, NOON, 10)
    assert isinstance(due.content.body, StagedBody)
    assert due.content == message.content
    assert [part async for part in store.chunks(due.content.body)] == parts
    assert await store.content(message.id) == HEAD + b"".join(parts)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda body: StagedBody(body.content_id, body.chunks + 1, body.size_bytes, body.sha256),
        lambda body: StagedBody(body.content_id, body.chunks, body.size_bytes + 1, body.sha256),
        lambda body: StagedBody(body.content_id, body.chunks, body.size_bytes, bytes(32)),
        lambda body: StagedBody(ContentId(bytes(16)), body.chunks, body.size_bytes, body.sha256),
    ],
    ids=["count", "length", "digest", "name"],
)
async def test_content_that_is_not_what_was_received_is_refused_alone(store: Database, wrong: object) -> None:
    body = await staged(store, [b"a" * 1000, b"b"])
    good, bad, after = make_message(), make_message(body=wrong(body)), make_message()  # type: ignore[operator]
    kept = [store.enqueue(message) for message in (good, bad, after)]
    await kept[0]
    with pytest.raises(StorageFailed):
        await kept[1]
    await kept[2]
    assert await store.message(bad.id) is None
    assert [due.id for due in await found_due(store, LANE, NOON, 10)] == [good.id, after.id]
    assert await told(store) == {(LANE, "queued"): 2}


async def test_staged_content_belongs_to_one_message(store: Database) -> None:
    body = await staged(store, [b"a"])
    await store.enqueue(make_message(body=body))
    with pytest.raises(StorageFailed):
        await store.enqueue(make_message(body=body))


async def test_a_message_id_is_taken_once(store: Database) -> None:
    message = make_message()
    await store.enqueue(message)
    with pytest.raises(StorageFailed):
        await store.enqueue(message)
    assert await told(store) == {(LANE, "queued"): 1}
