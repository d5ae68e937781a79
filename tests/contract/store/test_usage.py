"""What limits count is kept in the transaction of what it counts, and what a crash left is counted at the start."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from postroom.model.queue import DeliveryState
from postroom.model.usage import LAST, MESSAGES_AT, RECIPIENTS_AT, Usage, lane_meter
from postroom.store.database import Database
from postroom.store.schema import micros
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import LANE, NOON, attempt_of, begin, claim_of, make_message, result_of

DAY = 86_400_000_000


def _row(count: int, bucket: int = 5, ends: int = 100) -> Usage:
    return Usage("account/1", "messages/60", bucket, count, ends)


async def test_rows_of_intakes_outcomes_and_what_is_given_back_are_added_up(store: Database) -> None:
    token = await begin(store)
    first, second = make_message(), make_message()
    await store.enqueue(replace(first, usage=(_row(1), Usage("app/3", "messages/60", 5, 1, 100))))
    await store.enqueue(replace(second, usage=(_row(2), Usage("account/1", LAST, 0, 70, 100))))
    for message in (first, second):
        await store.claim(claim_of(message, token))
    await store.complete(replace(attempt_of(first, token, result_of(0, DeliveryState.DELIVERED)), usage=(_row(4),)))
    last = Usage("account/1", LAST, 0, 60, 100)
    await store.unclaim(replace(claim_of(second, token), usage=(_row(8), last)))
    assert sorted(await store.usage(), key=str) == sorted(
        [_row(15), Usage("app/3", "messages/60", 5, 1, 100), Usage("account/1", LAST, 0, 70, 100)], key=str
    )


async def test_what_was_under_way_at_a_crash_counts_at_the_start(store: Database, open_again: Opener) -> None:
    token = await begin(store)
    message = make_message("b@y.test", "c@y.test", "d@y.test")
    await store.enqueue(message)
    await store.claim(claim_of(message, token))
    await store.close()
    again = await open_again()
    await again.recover(NOON)
    assert sorted(await again.usage(), key=str) == [*_under_way(micros(NOON), 3)]


async def test_with_a_clock_that_was_set_back_it_counts_at_the_last_send_on_record(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    late = micros(NOON + timedelta(days=365))
    last = Usage("account/1", LAST, 0, late, late + DAY)
    await store.enqueue(replace(message, usage=(last,)))
    await store.claim(claim_of(message, token))
    await store.recover(NOON)
    assert sorted(await store.usage(), key=str) == [last, *_under_way(late, 1)]


def _under_way(at: int, recipients: int) -> list[Usage]:
    meter = lane_meter(LANE)
    ends = at + 2 * DAY
    return [Usage(meter, MESSAGES_AT, at, 1, ends), Usage(meter, RECIPIENTS_AT, at, recipients, ends)]


async def test_what_is_worthless_is_forgotten(store: Database) -> None:
    await store.enqueue(replace(make_message(), usage=(_row(1, 1, 10), _row(1, 2, 20))))
    assert await store.forget_usage(10) == 1
    assert await store.usage() == [_row(1, 2, 20)]
