"""What `why` says of a delivery whose outcome is not known, and of one that somebody or something holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from postroom.model.account import Account, AccountKind
from postroom.model.circuit import Circuit
from postroom.model.explanation import Explanation
from postroom.model.ids import new_message_id
from postroom.model.queue import DeliveryState, LaneId, MessageId, PriorityClass
from postroom.queue.delivery import THE_RELAY_REPORTS
from postroom.queue.why import Sending, explain
from postroom.store import AttemptRow, DeliveryRow, EventRow, MessageView

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
ID = MessageId(new_message_id(1, bytes(10)))
ROW = DeliveryRow(
    message_id=ID,
    n=0,
    recipient="b@y.test",
    state=DeliveryState.DEFERRED,
    lane=LaneId(1),
    priority=PriorityClass.NORMAL,
    tries=2,
    unknowns=0,
    may_be_sent_twice=False,
    due=NOON + timedelta(minutes=5),
    window_from=NOON,
    ended=None,
    status="4.4.2",
    reply="the end of data was written and no reply came",
    reverse_path="a@x.test",
    subject="hi",
    accepted=NOON,
    size_bytes=100,
)
ATTEMPT = AttemptRow(
    sent_to="",
    n=0, number=1, account="relay", started=NOON, ended=NOON, outcome="unknown", status="4.4.2", reply="", command="",
    advice="", remote_host="", transcript="",
)  # fmt: skip
EVENT = EventRow(id=1, at=NOON, kind="held", message_id=ID, n=0, account="", detail="")
RELAY = Account(id=1, name="relay", kind=AccountKind.SMTP, host="relay.test")


def explained(row: DeliveryRow, *attempts: AttemptRow, events: tuple[EventRow, ...] = ()) -> Explanation:
    """The explanation of `row` in a message with these attempts and events."""
    view = MessageView(
        id=ID, door="smtp", application="erp", reverse_path="a@x.test", eight_bit=False, smtputf8=False, accepted=NOON,
        subject="hi", header_message_id="<1@x.test>", peer="", priority=PriorityClass.NORMAL, size_bytes=100,
        resubmits=None, deliveries=(row,), attempts=attempts, events=events,
    )  # fmt: skip
    return explain(view, row, RELAY, Circuit(), sending=Sending(), running=True, now=NOON)


@pytest.mark.parametrize(
    ("state", "unknown", "said"),
    [
        ("deferred", 1, "the outcome of 1 try is unknown: the relay may have it"),
        ("held", 3, "the outcome of 3 tries is unknown: the relay may have it"),
        ("delivered", 2, "the outcome of 2 tries is unknown: the relay may have it more than once"),
        ("expired", 2, "the outcome of 2 tries is unknown: the relay may have it all the same"),
        ("bounced", 1, "the outcome of 1 try is unknown: the relay may have it all the same"),
    ],
)
def test_tries_whose_outcome_nobody_knows_are_told(state: str, unknown: int, said: str) -> None:
    known, another = replace(ATTEMPT, number=9, outcome="deferred"), replace(ATTEMPT, n=1)
    attempts = [replace(ATTEMPT, number=number) for number in range(unknown)]
    assert explained(replace(ROW, state=DeliveryState(state)), *attempts, known, another).marks == (said,)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("deferred", "it may be sent twice: the gateway stopped while it was being sent"),
        ("sending", "it may be sent twice: the gateway stopped while it was being sent"),
        ("held", "it may be sent twice: the gateway stopped while it was being sent"),
        ("delivered", "it may have been sent twice: the gateway stopped while it was being sent"),
        ("cancelled", "it may have been sent all the same: the gateway stopped while it was being sent"),
    ],
)
def test_what_a_crash_marked_is_told(state: str, said: str) -> None:
    assert explained(replace(ROW, state=DeliveryState(state), may_be_sent_twice=True)).marks == (said,)


def test_both_marks_stand_beside_each_other() -> None:
    assert len(explained(replace(ROW, may_be_sent_twice=True), ATTEMPT).marks) == 2


@pytest.mark.parametrize("state", ["delivered", "captured", "queued"])
def test_what_is_known_has_no_mark(state: str) -> None:
    row = replace(ROW, state=DeliveryState(state), may_be_sent_twice=state == "captured")
    assert explained(row, replace(ATTEMPT, outcome="deferred")).marks == ()


def test_a_third_unknown_says_what_to_do() -> None:
    held = replace(ROW, state=DeliveryState.HELD, unknowns=3, reply="the relay may have it: no reply came", due=None)
    found = explained(held, ATTEMPT, events=(replace(EVENT, account="relay", detail="4.4.2 the relay may have it"),))
    assert (found.reason, found.advice) == (held.reply, "ask the relay's log, then release or cancel")
    assert found.command.startswith("postroom queue release ")


@pytest.mark.parametrize(
    ("detail", "reason"),
    [("", "a person holds it"), ("it was pending in a backup", "it was pending in a backup")],
)
def test_who_else_holds_it_is_told_rather_than_the_relays_last_words(detail: str, reason: str) -> None:
    held = replace(ROW, state=DeliveryState.HELD, due=None, reply="452 full")
    unknown_before = replace(EVENT, account="relay", detail="4.4.2 the relay may have it")
    found = explained(held, events=(unknown_before, replace(EVENT, id=2, detail=detail), replace(EVENT, id=3, n=1)))
    assert (found.reason, found.advice) == (reason, "")


def test_who_asked_for_a_report_of_success_learns_who_makes_it() -> None:
    delivered = replace(ROW, state=DeliveryState.DELIVERED, ended=NOON, reply="250 2.0.0 Ok")
    earlier = replace(ATTEMPT, number=1, outcome="deferred", advice="wait")
    last = replace(ATTEMPT, number=2, outcome="delivered", advice=THE_RELAY_REPORTS)
    assert explained(delivered, earlier, last).advice == THE_RELAY_REPORTS
    assert explained(delivered, earlier, replace(last, advice="")).advice == ""
