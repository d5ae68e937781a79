"""Crash points that are not asked for do nothing; what asks for none is refused."""

from __future__ import annotations

import pytest

from postroom import crashing
from postroom.crashing import ALIASES, EXIT_STATUS, FAULTS, POINTS, Trap, trap


def test_a_process_that_shall_live_passes_every_point() -> None:
    assert trap("") is None
    for point in POINTS:
        crashing.reach(point)
        crashing.written(point, None)
    assert not any(crashing.fails(fault) for fault in FAULTS)


@pytest.mark.parametrize("wanted", [*POINTS, *FAULTS, *ALIASES, "D4:1", "D7-notice:12"])
def test_what_names_a_point_sets_a_trap(wanted: str) -> None:
    assert isinstance(trap(wanted), Trap)


@pytest.mark.parametrize(
    "wanted", ["D9", "d4", "D4:0", "D4:-1", "D4:x", "D4:٣", "D4:", "D4:1:2", ":1", " D4", "D4:1\n", "D4:9999999999"]
)
def test_what_names_no_point_is_refused_and_told(wanted: str) -> None:
    with pytest.raises(SystemExit, match=r"POSTROOM_CRASH_AT: .* is no point and number, as in D4:2 \(points: A1, "):
        trap(wanted)


def test_it_ends_at_the_nth_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    set_trap = trap("D4:3")
    assert set_trap is not None
    for point in ("D4", "D4", "D5", "D3"):
        set_trap.reach(point)
    assert ended == []
    set_trap.reach("D4")
    assert ended == [EXIT_STATUS]


def test_a_fault_is_there_twice_from_the_nth_time_on() -> None:
    set_trap = Trap("O1-wal", 2)
    assert [set_trap.fails("O1-wal") for _ in range(5)] == [False, True, True, False, False]
    assert not Trap("O1-wal", 1).fails("O1-body")
