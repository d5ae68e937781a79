"""The accounting of the crash test finds every fault that it is there for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.crash_clients import STRANGE, Fate, Submission
from tests.e2e.crash_report import Judgement, Row

ADDRESS = "m1-0@sink.example"
OTHERS = [Submission(f"x{n}", fate=Fate.ACKNOWLEDGED) for n in range(20, 40)]
OPENED = [f"open {n}" for n in range(20, 40)]
CLOSED = [f"closed {n}" for n in range(20, 40)]


def took(connection: int, one: Submission) -> str:
    """The sink's line."""
    return f"took {connection} {one.name} {one.digest} {','.join(one.recipients)}"


def submission(fate: Fate = Fate.ACKNOWLEDGED, **differences: Any) -> Submission:
    """`m1`."""
    return Submission("m1", fate=fate, **differences)


def names(judgement: Judgement) -> list[str]:
    """The faults without the details."""
    return [fault.partition(":")[0] for fault in judgement.faults]


def judged(
    one: Submission,
    before: list[str],
    after: list[str],
    *,
    marked: tuple[str, ...] = (),
    state: str = "delivered",
    others: list[Submission] = OTHERS,
) -> Judgement:
    """What is said of `m1`, with one kill between the lines `before` and `after`, at which `others` are open."""
    held = [took(20 + n, other) for n, other in enumerate(others)]
    rows = [Row(other.recipients[0], "delivered", False) for other in others]
    if any(line.startswith("took") for line in [*before, *after]):
        rows.append(Row(ADDRESS, state, ADDRESS in marked))
    lines = [*OPENED, *before, *held, "killed", *CLOSED, "closed 1", "restarted", *after]
    return Judgement([one, *others], lines, [marked], rows)


TOOK = took(1, submission())


def test_a_good_run_has_no_fault() -> None:
    judgement = judged(submission(), ["open 1", TOOK], [TOOK], marked=(ADDRESS,))
    assert judgement.faults == []
    (kill,) = judgement.kills
    assert (kill.open, kill.connections, kill.marked, kill.duplicated, kill.lost) == (21, 21, 1, 1, 0)


def test_what_is_answered_is_not_open() -> None:
    (kill,) = judged(submission(), ["open 1", TOOK, "answered 1"], []).kills
    assert (kill.open, kill.connections, kill.duplicated) == (20, 21, 0)


def test_what_is_acknowledged_and_never_comes_is_lost() -> None:
    judgement = judged(submission(), [], [])
    assert names(judgement) == ["acknowledged and lost"]
    assert judgement.kills[0].lost == 1


def test_a_refused_recipient_must_bounce_and_be_reported() -> None:
    one = submission(ways=("no", ""))
    line = f"took 1 m1 {one.digest} m1-1@sink.example"
    judgement = Judgement([one], [line], [], [Row("m1-0.no@sink.example", "queued", False)])
    assert names(judgement) == [
        "acknowledged and lost",
        "in a wrong state at the end",
        "delivered and not shown",
    ]
    report = "took 1 None - m1@source.example"
    rows = [
        Row("m1-0.no@sink.example", "bounced", False),
        Row("m1-1@sink.example", "delivered", False),
        Row("m1@source.example", "delivered", False),
    ]
    assert Judgement([one], [line, report], [], rows).faults == []


@pytest.mark.parametrize("fate", [Fate.CUT, Fate.REFUSED])
def test_what_was_refused_or_cut_must_not_come(fate: Fate) -> None:
    judgement = judged(submission(fate, sender_at=STRANGE), [TOOK], [])
    assert names(judgement) == ["delivered though refused, cut or never sent"]


def test_what_is_in_doubt_may_come_once_or_not() -> None:
    assert judged(submission(Fate.IN_DOUBT), [TOOK], []).faults == []
    assert judged(submission(Fate.IN_DOUBT), [], []).faults == []
    judgement = judged(submission(Fate.IN_DOUBT), [TOOK], [TOOK])
    assert names(judgement) == [
        "twice and not marked",
        "in doubt, and there more often than sent",
    ]


def test_a_second_copy_without_a_kill_between_is_a_fault_even_if_marked() -> None:
    judgement = judged(submission(), [TOOK], [TOOK, TOOK], marked=(ADDRESS,))
    assert names(judgement) == ["twice without a kill between"]


def test_changed_content_is_a_fault() -> None:
    judgement = judged(submission(), [f"took 1 m1 {'0' * 64} {ADDRESS}"], [])
    assert names(judgement) == ["changed content"]


def test_a_kill_with_too_little_open_is_a_fault() -> None:
    judgement = judged(submission(), ["open 1", TOOK], [], others=OTHERS[1:])
    assert judgement.faults == []
    judgement = judged(submission(), ["open 1", TOOK, "answered 1"], [], others=OTHERS[1:])
    assert names(judgement) == ["too few open"]


def crowd(count: int) -> tuple[list[Submission], list[str], list[str]]:
    """So many submissions, the sink's lines for them, and their recipients."""
    some = [Submission(f"y{n}", fate=Fate.ACKNOWLEDGED) for n in range(count)]
    return some, [took(20 + n % 20, one) for n, one in enumerate(some)], [one.recipients[0] for one in some]


@pytest.mark.parametrize(("count", "faults"), [(60, []), (61, ["too many marked"])])
def test_at_most_three_are_marked_for_a_connection(count: int, faults: list[str]) -> None:
    some, lines, marked = crowd(count)
    held = [took(20 + n, one) for n, one in enumerate(OTHERS)]
    rows = [Row(name, "delivered", True) for name in marked]
    rows += [Row(one.recipients[0], "delivered", False) for one in OTHERS]
    judgement = Judgement([*some, *OTHERS], [*OPENED, *held, "killed", *CLOSED, "restarted", *lines], [marked], rows)
    assert names(judgement) == faults


@pytest.mark.parametrize(("count", "faults"), [(40, []), (41, ["too many duplicated"])])
def test_at_most_two_come_twice_for_a_connection(count: int, faults: list[str]) -> None:
    some, lines, marked = crowd(count)
    rows = [Row(name, "delivered", True) for name in marked]
    judgement = Judgement(some, [*OPENED, *lines, "killed", *CLOSED, "restarted", *lines], [marked], rows)
    assert names(judgement) == faults


def test_marks_must_be_shown_and_states_must_be_right() -> None:
    judgement = judged(submission(), [TOOK], [], marked=(ADDRESS,), state="held")
    assert names(judgement) == ["in a wrong state at the end"]
    judgement = Judgement(
        [submission()], [TOOK, "killed", "restarted"], [[ADDRESS]], [Row(ADDRESS, "delivered", False)]
    )
    assert names(judgement) == [
        "too few open",
        "too many marked",
        "marked and not shown so",
    ]


def test_a_refusal_without_a_reason_is_a_fault() -> None:
    judgement = judged(submission(Fate.REFUSED, code=554), [], [])
    assert judgement.faults == ["refused with nothing wrong: 1, as m1 554"]
    assert judged(submission(Fate.REFUSED, code=554, received=60), [], []).faults == []
