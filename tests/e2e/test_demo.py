"""`python -m demo` as people run it: every message is delivered as it was submitted, and the table says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo import messages
from demo.messages import SENDER
from demo.relay import Arrival
from demo.run import Row

ROOT = Path(__file__).parent.parent.parent

MESSAGES = {
    "plain text": "1 of 1",
    "HTML, inline image, PDF": "1 of 1",
    "UTF-8 subject, 8-bit text": "1 of 1",
    "several recipients": "3 of 3",
    "20 MiB attachment": "1 of 1",
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shown(request: pytest.FixtureRequest) -> subprocess.CompletedProcess[str]:
    """What the demo printed, and its exit status."""
    environment = dict(os.environ)
    if request.param == "postgresql":
        environment["POSTROOM_DATABASE"] = request.getfixturevalue("cluster").new_database()
    return subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def rows(output: str) -> list[list[str]]:
    """The cells of the table, its head apart."""
    lines = [[cell.strip() for cell in line.split(" | ")] for line in output.splitlines() if line.count(" | ") == 6]
    assert lines[0] == ["message", "door", "recipients", "size", "submitted to delivered", "state", "body identical"]
    return lines[1:]


def test_it_ends_well(shown: subprocess.CompletedProcess[str]) -> None:
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr == ""
    assert shown.stdout.endswith("11 of 11 messages are delivered with an identical body.\n")


@pytest.mark.parametrize(("door", "more"), [("SMTP", {}), ("CLI", {"HTML, image, PDF, by options": "1 of 1"})])
def test_each_door_delivers_each_message_once(
    shown: subprocess.CompletedProcess[str], door: str, more: dict[str, str]
) -> None:
    found = {row[0]: row for row in rows(shown.stdout) if row[1] == door}
    assert {title: row[2] for title, row in found.items()} == MESSAGES | more
    assert {row[5] for row in found.values()} == {"delivered"}
    assert {row[6] for row in found.values()} == {"yes"}


def test_times_are_shown(shown: subprocess.CompletedProcess[str]) -> None:
    times = [row[4] for row in rows(shown.stdout)]
    assert len(times) == 11
    assert all(time.endswith(" ms") and int(time[:-3].replace(",", "")) >= 0 for time in times)


def test_only_one_identical_copy_for_each_recipient_is_right() -> None:
    message = messages.several("SMTP")
    copy = Arrival(1.0, SENDER, message.recipients, b"Received: x\r\n" + message.content)
    cut = Arrival(1.0, SENDER, message.recipients, message.content[:-1])
    for_one = Arrival(1.0, SENDER, message.recipients[:1], message.content)

    def is_right(arrivals: list[Arrival], last_state: str = "delivered") -> bool:
        states = dict.fromkeys(message.recipients, "delivered") | {message.recipients[-1]: last_state}
        return Row(message, "SMTP", 0.0, states, arrivals).is_right

    assert is_right([copy])
    assert [is_right([]), is_right([cut]), is_right([copy, copy]), is_right([for_one])] == [False] * 4
    assert not is_right([copy], "deferred")
