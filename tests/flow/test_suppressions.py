"""The suppression list: who is on it is not sent to, by applications that apply it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from postroom.model.application import RepeatGuard
from postroom.model.circuit import Circuit
from postroom.model.envelope import DsnRequest, Envelope
from postroom.model.submission import Door
from postroom.queue import retention
from postroom.queue.retention import Ages
from postroom.queue.why import Sending, explain
from postroom.suppressions.service import Given, SuppressionService

from .conftest import Room

SUPPRESSED = ("bounced", "5.7.1", "ann@y.test is on the suppression list: she asked us to")


def listed(room: Room) -> SuppressionService:
    """The list, which the application applies from now on."""
    room.application = replace(room.application, apply_suppressions=True)
    return SuppressionService(room.store.suppressions, room.clock.now)


async def test_who_is_on_the_list_is_not_sent_to_and_the_others_are(room: Room) -> None:
    suppressions = listed(room)
    await suppressions.add(Given("Ann@y.test", "she asked us to"))
    message = await room.submit("b@y.test", "ANN@Y.test", "c@y.test")
    rows = await room.until(message, "delivered", "bounced", "delivered")
    assert (rows[1].state.value, rows[1].status, rows[1].reply) == SUPPRESSED
    sent = [one.envelope.recipients for one in room.transports["relay1"].sent]
    assert sent == [("b@y.test", "c@y.test")]
    view = await room.store.message(message)
    assert [attempt.n for attempt in view.attempts] == [0, 2]
    told = explain(
        view, view.deliveries[1], room.accounts[0], Circuit(), sending=Sending(), running=True, now=room.clock.time
    )
    assert told.reason == "refused for good: ann@y.test is on the suppression list: she asked us to"
    assert told.advice == "take it off the list first: postroom suppressions remove ann@y.test"


async def test_a_message_of_which_nothing_is_left_is_taken_and_nobody_is_told(room: Room) -> None:
    await listed(room).add(Given("y.test"))
    dsn = DsnRequest.of("FULL", "", ("FAILURE,DELAY",), ("",))
    message = await room.submit(envelope=Envelope("a@x.test", ("b@y.test",), dsn=dsn))
    assert await room.states(message) == ["bounced"]
    assert await room.store.noticed(room.clock.time + timedelta(days=1)) == []
    assert room.transports["relay1"].sent == []


async def test_an_application_that_does_not_apply_the_list_sends(room: Room) -> None:
    suppressions = SuppressionService(room.store.suppressions, room.clock.now)
    await suppressions.add(Given("b@y.test"))
    await room.until(await room.submit(), "delivered")


async def test_the_repeat_guard_is_not_said_to_hold_what_the_list_ended(room: Room) -> None:
    await listed(room).add(Given("b@y.test"))
    room.application = replace(room.application, repeat_guard=RepeatGuard(count=2))
    room.clock.advance(timedelta(hours=1))  # what may have been held before the start counts no more
    for _ in range(3):
        assert await room.states(await room.submit()) == ["bounced"]
    assert list(room.admission.watched()) == []


async def test_reports_and_alerts_go_to_whom_they_are_for(room: Room) -> None:
    await listed(room).add(Given("b@y.test"))
    report = replace(room.submission(), door=Door.NOTIFICATION)
    await room.until((await room.intake.submit(report)).id, "delivered")


async def test_an_entry_ends_by_the_clock_and_by_hand(room: Room) -> None:
    suppressions = listed(room)
    await suppressions.add(Given("b@y.test", expires="1h"))
    assert await room.states(await room.submit()) == ["bounced"]
    room.clock.advance(timedelta(hours=1))
    await room.until(await room.submit(), "delivered")
    await suppressions.add(Given("b@y.test"))
    ended = await room.submit()
    assert await room.states(ended) == ["bounced"]
    assert await room.states(await room.submit(resubmits=ended)) == ["bounced"], "a retry is looked up as well"
    await suppressions.remove("B@y.test")
    await room.until(await room.submit(resubmits=ended), "delivered")
    assert await room.states(ended) == ["bounced"], "what has ended stays"


async def test_what_expired_is_kept_as_long_as_records_are(room: Room) -> None:
    suppressions = listed(room)
    await suppressions.add(Given("b@y.test", expires="1h"))
    ages = Ages(timedelta(days=30), timedelta(days=30))
    room.clock.advance(timedelta(days=30))
    await retention.step(room.store, room.clock.time, ages)
    assert [one.key for one in await suppressions.page()] == ["b@y.test"]
    room.clock.advance(timedelta(hours=2))
    while await retention.step(room.store, room.clock.time, ages):
        pass
    assert list(await suppressions.page()) == []
