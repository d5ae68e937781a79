"""What has waited too long, by its lane's rules or its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from postroom.model.account import Retry
from postroom.model.queue import DeliveryState, LaneId, NewMessage
from postroom.store import LaneEnds, Selection
from postroom.store.database import Database
from tests.contract.store.examples import LANE, NOON, attempt_of, begin, claim_of, make_message, result_of

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
S = DeliveryState


def ends(now: datetime, lane: int = LANE, *, fails: bool = False, stood: timedelta = timedelta(0)) -> list[LaneEnds]:
    """A window of two hours, of which `stood` did not count; given up after ten days."""
    return [
        LaneEnds(
            lane=LaneId(lane), window=2 * HOUR, began=lambda window: now - window - stood,
            accepted_before=now - 10 * DAY, fails=fails,
        )
    ]  # fmt: skip


async def kept(store: Database, *messages: NewMessage, deferred: bool = True) -> None:
    """Keep messages, tried once at noon if `deferred`."""
    for message in messages:
        await store.enqueue(message)
        if deferred:
            token = await begin(store)
            await store.claim(claim_of(message, token))
            await store.complete(attempt_of(message, token, result_of(0, S.DEFERRED, NOON)))


async def states(store: Database, *messages: NewMessage) -> list[str]:
    """Of the first delivery of each."""
    views = [await store.message(message.id) for message in messages]
    return [view.deliveries[0].state.value for view in views if view is not None]


async def test_a_window_of_its_own_ends_in_its_own_time(store: Database) -> None:
    usual, short, long = (make_message() for _ in range(3))
    short = replace(short, retry=Retry(window=HOUR))
    long = replace(long, retry=Retry(window=5 * HOUR, schedule="1m"))
    await kept(store, usual, short, long)
    for after, wanted in (
        (HOUR, ["deferred", "deferred", "deferred"]),
        (HOUR * 1.5, ["deferred", "expired", "deferred"]),
        (HOUR * 2.5, ["expired", "expired", "deferred"]),
        (HOUR * 5.5, ["expired", "expired", "expired"]),
    ):
        await store.expire(ends(NOON + after), NOON + after)
        assert await states(store, usual, short, long) == wanted, after


async def test_what_stood_still_does_not_count_for_own_windows_either(store: Database) -> None:
    usual, short = make_message(), replace(make_message(), retry=Retry(window=HOUR))
    await kept(store, usual, short)
    assert await store.expire(ends(NOON + 3 * HOUR, stood=2 * HOUR), NOON + 3 * HOUR) == 0
    assert await store.expire(ends(NOON + 3.5 * HOUR, stood=2 * HOUR), NOON + 3.5 * HOUR) == 1
    assert await states(store, usual, short) == ["deferred", "expired"]


async def test_own_rules_come_with_what_is_due_and_are_shown(store: Database) -> None:
    own = Retry(window=HOUR, give_up=2 * DAY, schedule="1m, 5m")
    message = replace(make_message(), retry=own)
    await kept(store, message, deferred=False)
    (due,) = (await store.due(LANE, NOON + DAY, 10)).messages
    assert due.retry == replace(own, give_up=None)
    view = await store.message(message.id)
    assert view is not None
    row = view.deliveries[0]
    assert (row.own_window, row.own_give_up) == (HOUR, message.accepted + 2 * DAY)


async def test_a_message_is_given_up_at_its_own_age(store: Database) -> None:
    usual, early, late = make_message(), make_message(), make_message()
    early = replace(early, retry=Retry(give_up=DAY))
    late = replace(late, retry=Retry(give_up=20 * DAY))
    await kept(store, usual, early, late, deferred=False)
    await store.hold(Selection(), NOON)
    assert await store.expire(ends(NOON + 2 * DAY), NOON + 2 * DAY) == 1
    assert await states(store, usual, early, late) == ["held", "expired", "held"]
    assert await store.expire(ends(NOON + 11 * DAY), NOON + 11 * DAY) == 1
    assert await states(store, usual, late) == ["expired", "held"]
    assert await store.expire(ends(NOON + 21 * DAY), NOON + 21 * DAY) == 1


async def test_what_was_never_tried_ends_by_its_window_only_while_its_account_fails(store: Database) -> None:
    usual, long = make_message(), replace(make_message(), retry=Retry(window=5 * HOUR))
    await kept(store, usual, long, deferred=False)
    later = NOON + 3 * HOUR
    assert await store.expire(ends(later), later) == 0
    assert await store.expire(ends(later, fails=True), later) == 1
    assert await states(store, usual, long) == ["expired", "queued"]


async def test_each_lane_has_its_own_rules(store: Database) -> None:
    message, other = make_message(), make_message()
    other = replace(other, deliveries=tuple(replace(d, lane=LaneId(LANE + 1)) for d in other.deliveries))
    await kept(store, message, other, deferred=False)
    later = NOON + 3 * DAY
    patient = replace(ends(later, LANE + 1)[0], accepted_before=NOON - DAY)
    hasty = replace(ends(later)[0], accepted_before=NOON + DAY)
    assert await store.expire([patient, hasty], later) == 1
    assert await states(store, message, other) == ["expired", "queued"]


async def test_since_when_mail_waits_alerts_apart(store: Database) -> None:
    assert await store.waiting_since(LANE) is None
    early, late, other = make_message(), make_message(), make_message()
    alert = replace(make_message(), application_id=0, accepted=NOON - DAY)
    late = replace(late, accepted=late.accepted + HOUR)
    other = replace(other, deliveries=tuple(replace(d, lane=LaneId(LANE + 1)) for d in other.deliveries))
    await kept(store, alert, deferred=False)
    assert await store.waiting_since(LANE) is None
    await kept(store, late, early, other, deferred=False)
    assert await store.waiting_since(LANE) == early.accepted
    await store.hold(Selection(message_id=early.id), NOON)
    assert await store.waiting_since(LANE) == late.accepted
