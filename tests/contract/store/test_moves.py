"""What people, maintenance and a new start move: hold, release, retry, cancel, expire, recover, reap."""

from __future__ import annotations

from datetime import timedelta

import pytest

from postroom.model.queue import FINAL, TRANSITIONS, DeliveryState
from postroom.store import Selection, removal, selections
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import (
    LANE,
    NOON,
    OTHER_LANE,
    Hour,
    ask,
    attempt_of,
    begin,
    claim_of,
    counted,
    make_message,
    result_of,
    sent,
    staged,
    states,
    told,
)
from tests.waited_too_long import ends

S = DeliveryState
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def one_in_each_state(store: Database) -> dict[DeliveryState, bytes]:
    """A message for each state; their ids."""
    token = await begin(store)
    ids: dict[DeliveryState, bytes] = {}
    for state in S:
        message = make_message()
        ids[state] = message.id
        await store.enqueue(message)
        if state is S.CANCELLED:
            await store.cancel(Selection(message_id=message.id), NOON)
        elif state is not S.QUEUED:
            await store.claim(claim_of(message, token))
            if state is not S.SENDING:
                due = NOON + HOUR if state is S.DEFERRED else None
                await store.complete(attempt_of(message, token, result_of(0, state, due)))
    assert sorted(state for _, state in await counted(store)) == sorted(S)
    return ids


@pytest.mark.parametrize(
    ("verb", "made_by"), [("hold", "hold"), ("release", "release"), ("retry", "retry now"), ("cancel", "cancel")]
)
async def test_a_verb_makes_the_moves_of_the_table_and_no_other(store: Database, verb: str, made_by: str) -> None:
    ids = await one_in_each_state(store)
    moves = {before: after for (before, after), who in TRANSITIONS.items() if who.split(",")[0] == made_by}
    assert moves
    assert await getattr(store, verb)(Selection(), NOON) == len(moves)
    for before, message_id in ids.items():
        view = await store.message(message_id)  # type: ignore[arg-type]
        assert view is not None
        assert view.deliveries[0].state is moves.get(before, before)
        if before in moves:
            assert view.events[-1].kind == moves[before].value
    assert await told(store) == await counted(store)


async def test_a_selection_means_no_more_than_it_says(store: Database) -> None:
    here, there = make_message("b@example.net", "c@example.net"), make_message(lane=OTHER_LANE)
    await store.enqueue(here)
    await store.enqueue(there)
    assert await store.hold(Selection(lane=OTHER_LANE), NOON) == 1
    assert await store.hold(Selection(message_id=here.id, n=1), NOON) == 1
    assert await store.hold(Selection(states=(S.DEFERRED, S.BOUNCED)), NOON) == 0
    assert (await states(store, here), await states(store, there)) == (["queued", "held"], ["held"])
    assert await store.cancel(Selection(states=(S.HELD,), lane=LANE), NOON) == 1
    assert (await states(store, here), await states(store, there)) == (["queued", "cancelled"], ["held"])


async def test_held_is_not_due_and_released_is_due_with_a_new_window(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    await sent(store, token, message, result_of(0, S.HELD, unknown=True))
    assert (await store.due(LANE, NOON + DAY, 10)).messages == []
    later = NOON + HOUR
    assert await store.release(Selection(message_id=message.id), later) == 1
    assert (await store.due(LANE, NOON, 10)).messages == []
    (due,) = (await store.due(LANE, later, 10)).messages
    assert (due.window_from, due.accepted) == (later, NOON)
    assert [(d.tries, d.unknowns) for d in due.deliveries] == [(1, 1)]  # the relay may have it, released or not


async def test_retry_makes_due_now(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    await sent(store, token, message, result_of(0, S.DEFERRED, NOON + DAY))
    assert (await store.due(LANE, NOON + HOUR, 10)).messages == []
    assert await store.retry(Selection(), NOON + HOUR) == 1
    assert len((await store.due(LANE, NOON + HOUR, 10)).messages) == 1


async def test_more_than_one_step_is_moved_whole(store: Database) -> None:
    recipients = [f"r{n}@example.net" for n in range(900)]
    for _ in range(3):
        store.enqueue(make_message(*recipients))
    assert 2 * 900 > selections.STEP
    assert await store.hold(Selection(), NOON) == 2700
    assert await store.release(Selection(lane=LANE), NOON) == 2700
    assert await told(store) == await counted(store) == {(LANE, "queued"): 2700}


async def test_ended_says_when(store: Database) -> None:
    message = make_message()
    await store.enqueue(message)
    await store.cancel(Selection(), NOON + HOUR)
    view = await store.message(message.id)
    assert view is not None
    assert (view.deliveries[0].ended, view.deliveries[0].due) == (NOON + HOUR, None)


async def test_expire_ends_what_was_tried_too_long_and_all_that_is_too_old(store: Database) -> None:
    ids = await one_in_each_state(store)
    later = NOON + DAY
    assert await store.expire(ends(NOON, NOON), later) == 0
    assert await store.expire(ends(NOON + HOUR, NOON), later) == 1  # the deferred one
    assert await store.expire(ends(NOON, NOON + HOUR), later) == 2  # queued and held; sending is left alone
    ended = {S.QUEUED, S.DEFERRED, S.HELD}
    for before, message_id in ids.items():
        view = await store.message(message_id)  # type: ignore[arg-type]
        assert view is not None
        (row,) = view.deliveries
        assert row.state is (S.EXPIRED if before in ended else before)
        if before in ended:
            assert (row.ended, view.events[-1].kind) == (later, "expired")
    assert await told(store) == await counted(store)


async def test_expire_looks_at_the_window_not_at_the_age(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    await sent(store, token, message, result_of(0, S.HELD))
    await store.release(Selection(), NOON + DAY)
    assert await store.claim(claim_of(message, token)) == (0,)
    await store.complete(attempt_of(message, token, result_of(0, S.DEFERRED, NOON + DAY)))
    assert await store.expire(ends(NOON + HOUR, NOON), NOON + DAY) == 0
    assert await store.expire(ends(NOON + DAY + HOUR, NOON), NOON + DAY) == 1


async def test_a_new_start_marks_what_may_be_sent_twice(store: Database, open_again: Opener) -> None:
    token = await begin(store)
    message, waiting = make_message("b@example.net", "c@example.net"), make_message()
    await store.enqueue(message)
    await store.enqueue(waiting)
    await store.claim(claim_of(message, token, 1))
    await store.close()
    again = await open_again()
    later = NOON + HOUR
    assert await again.recover(later) == (token + 1, 1)
    view = await again.message(message.id)
    assert view is not None
    rows = [(row.state.value, row.may_be_sent_twice, row.due, row.tries) for row in view.deliveries]
    assert rows == [("queued", False, NOON, 0), ("deferred", True, later, 0)]
    assert view.events[-1].kind == "deferred"
    assert "twice" in view.events[-1].detail
    assert await told(again) == await counted(again)
    assert await again.recover(later) == (token + 2, 0)


async def test_reap_removes_whole_messages_that_ended_before(store: Database) -> None:
    token = await begin(store)
    large = make_message(body=await staged(store, [b"a" * 1000, b"b"]))
    half = make_message("b@example.net", "c@example.net")
    recent, open_ = make_message(), make_message()
    await sent(store, token, large)
    await sent(store, token, half, result_of(0, S.DELIVERED), result_of(1, S.DEFERRED, NOON))
    await store.enqueue(recent)
    await store.claim(claim_of(recent, token))
    await store.complete(attempt_of(recent, token, at=NOON + DAY))
    await store.enqueue(open_)
    assert await store.reap(NOON, NOON) == 0
    assert await store.reap(NOON + HOUR, NOON) == 1
    assert await store.message(large.id) is None
    assert await store.content(large.id) is None
    for table in ("chunk", "staging"):
        assert await store.write(ask(f"SELECT count(*) FROM {table}")) == 0
    for table, rows in (("message", 3), ("content", 3), ("delivery", 4), ("attempt", 3), ("event", 3 + 3)):
        assert await store.write(ask(f"SELECT count(*) FROM {table}")) == rows, table
    assert await told(store) == await counted(store)
    assert await store.reap(NOON + 2 * DAY, NOON) == 1
    assert await store.reap(NOON + 2 * DAY, NOON) == 0
    assert await states(store, open_) == ["queued"]


async def test_reap_never_takes_what_has_not_ended(store: Database) -> None:
    ids = await one_in_each_state(store)
    assert await store.reap(NOON + 365 * DAY, NOON) == len(FINAL)
    left = {state for state, message_id in ids.items() if await store.message(message_id)}  # type: ignore[arg-type]
    assert left == set(S) - FINAL


async def test_reap_walks_past_what_stays(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "REAP_LOOK", 3)
    monkeypatch.setattr(removal, "REAP_MOST", 2)
    token = await begin(store)
    for _ in range(4):
        await store.enqueue(make_message())
    for _ in range(3):
        await sent(store, token, make_message())
    removed = [await store.reap(NOON + DAY, NOON) for _ in range(6)]
    assert sum(removed) == 3
    assert max(removed) <= 2


async def test_content_that_no_message_took_is_collected_after_its_time(store: Database, hour: Hour) -> None:
    await staged(store, [b"a", b"b"])
    hour.at = NOON + HOUR
    young = await staged(store, [b"c"])
    await store.reap(NOON, NOON)
    assert await store.write(ask("SELECT count(*) FROM chunk")) == 3
    await store.reap(NOON, NOON + HOUR)
    assert await store.write(ask("SELECT count(*) FROM chunk")) == 1
    await store.enqueue(make_message(body=young))


async def test_content_may_go_before_its_record(store: Database) -> None:
    token = await begin(store)
    large = make_message(body=await staged(store, [b"a" * 1000, b"b"]))
    small, bounced, open_ = make_message(), make_message(), make_message()
    await sent(store, token, large)
    await sent(store, token, small)
    await sent(store, token, bounced, result_of(0, S.BOUNCED, notice="failed"))
    await store.enqueue(open_)
    assert await store.reap_content(NOON) == 0
    assert await store.reap_content(NOON + HOUR) == 2
    assert await store.reap_content(NOON + HOUR) == 0
    for message in (large, small):
        assert await store.content(message.id) is None
        assert await states(store, message) == ["delivered"]
    assert await store.write(ask("SELECT count(*) FROM chunk")) == 0
    for message in (bounced, open_):  # of the first the sender is still to be told
        assert await store.content(message.id) is not None
    assert await store.reap(NOON + HOUR, NOON) == 2
    assert await told(store) == await counted(store)
