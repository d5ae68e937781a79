"""Limits as an independent relay sees them: no window of its clock holds more MAILs than allowed, and all mail arrives.

Over several connections with PIPELINING, a restart, SIGKILLs, and a clock that is set back and ahead.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served, end_serving, start_serving
from tests.e2e.attackers import Api, Client, ends_in_a_reply
from tests.e2e.faults import LISTENERS, SENDER, Shim, content

PATIENCE = 60.0
SECOND = 1_000_000_000

MESSAGES = 40
#: So many have arrived when the next thing happens to the gateway.
STAGES = (6, 14, 22, 30)


class TimingSink:
    """`timing_sink.py` as a process that lives through the kills, and what it has said."""

    def __init__(self) -> None:
        self.mails: list[int] = []
        self.taken: list[str] = []
        self._news = threading.Condition()
        command = [sys.executable, str(Path(__file__).with_name("timing_sink.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().removeprefix("port "))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, _, detail = line.split()
            with self._news:
                if what == "mail":
                    self.mails.append(int(detail))
                else:
                    self.taken.append(detail.partition("@")[0])
                self._news.notify_all()

    def wait_for(self, names: int) -> None:
        """So many different messages have arrived."""
        with self._news:
            assert self._news.wait_for(lambda: len(set(self.taken)) >= names, PATIENCE), f"arrived: {self.taken}"

    def most_in(self, window: int) -> int:
        """The most MAILs in any window of so many nanoseconds."""
        times = sorted(self.mails)
        return max(sum(start <= at < start + window for at in times) for start in times)

    def shortest_pause(self) -> int:
        """Between the MAILs of any two messages."""
        return min(two - one for one, two in itertools.pairwise(sorted(self.mails)))

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def sink() -> Iterator[TimingSink]:
    """A relay for one test."""
    sink = TimingSink()
    yield sink
    sink.stop()


@dataclass
class Limited:
    """A gateway that is started again and again on one folder."""

    data: Path
    shim: Shim
    served: list[Served] = field(default_factory=list)

    @property
    def now(self) -> Served:
        """As it runs now."""
        return self.served[-1]

    @property
    def api(self) -> Api:
        """Of the gateway that runs now."""
        return Api(self.data / "control.sock")

    def start(self) -> None:
        """It runs."""
        settings: dict[str, Any] = {"POSTROOM_RETRY_SCHEDULE": "1s", **self.shim.environment}
        self.served.append(start_serving(self.data, LISTENERS, **settings))

    def submit(self, names: list[str]) -> None:
        """All of them are acknowledged."""
        with Client(self.now.port) as client:
            for name in names:
                client.begin(f"{name}@sink.example", SENDER)
                assert client.pour(content(name, 500) + b".\r\n", ends_in_a_reply).startswith(b"250 ")


@pytest.fixture
def gateway(tmp_path: Path, shim: Shim) -> Iterator[Limited]:
    """Not started yet."""
    gateway = Limited(tmp_path / "data", shim)
    yield gateway
    for served in gateway.served:
        end_serving(served)


def add_account(gateway: Limited, sink: TimingSink, name: str, **fields: Any) -> None:
    """At the sink, for everybody."""
    where = {"host": "127.0.0.1", "port": sink.port, "security": "none", "messages_per_connection": 7}
    grant = {"application": "local", "senders": ["*"]}
    gateway.api.ask("POST", "accounts", {"name": name, "grant": grant, **where, **fields})


def kill(gateway: Limited) -> None:
    """A crash, and a start."""
    gateway.now.kill()
    gateway.start()


def kill_and_set_back(gateway: Limited) -> None:
    """A crash, a clock that is set back for a day, and a start."""
    gateway.now.kill()
    gateway.shim.step(-86_400)
    gateway.start()


def restart(gateway: Limited) -> None:
    """An orderly end, a clock that is set ahead, and a start."""
    assert gateway.now.stop() == 0
    gateway.shim.step(3600)
    gateway.start()


def set_back(gateway: Limited) -> None:
    """The clock is set under the running gateway."""
    gateway.shim.step(-7200)


def goes_through_it_all(gateway: Limited, sink: TimingSink, names: list[str]) -> None:
    """All of them arrive, while things happen to the gateway."""
    gateway.submit(names)
    happenings: tuple[Callable[[Limited], None], ...] = (kill, kill_and_set_back, restart, set_back)
    for arrived, happens in zip(STAGES, happenings, strict=True):
        sink.wait_for(arrived)
        happens(gateway)
    sink.wait_for(len(names))
    assert gateway.api.ask("POST", "drain") == {"drained": True}
    assert set(sink.taken) == set(names)
    assert {row["state"] for row in gateway.api.deliveries()} == {"delivered"}


NAMES = [f"{'later' if n % 10 == 3 else 'm'}{n}" for n in range(MESSAGES)]


def test_no_window_holds_more_than_the_limit(gateway: Limited, sink: TimingSink) -> None:
    gateway.start()
    add_account(gateway, sink, "relay", messages_per_second=5, max_connections=4)
    goes_through_it_all(gateway, sink, NAMES)
    assert sink.most_in(SECOND) <= 5


def test_between_two_starts_the_interval_is_kept(gateway: Limited, sink: TimingSink) -> None:
    gateway.start()
    add_account(gateway, sink, "relay", send_interval="100ms", max_connections=4)
    goes_through_it_all(gateway, sink, NAMES)
    assert sink.shortest_pause() >= SECOND // 10


def test_accounts_of_one_group_share_the_window(gateway: Limited, sink: TimingSink) -> None:
    gateway.start()
    shared = {"quota_group": "provider", "messages_per_second": 6, "max_connections": 3}
    add_account(gateway, sink, "odd", recipient_patterns=[f"{name}@sink.example" for name in NAMES[1::2]], **shared)
    add_account(gateway, sink, "rest", **shared)
    goes_through_it_all(gateway, sink, NAMES)
    assert sink.most_in(SECOND) <= 6


def test_what_a_crash_left_counts(gateway: Limited, sink: TimingSink) -> None:
    """In a window that no start outlasts; of what is under way at a kill nobody knows whether its MAIL was seen."""
    gateway.start()
    add_account(gateway, sink, "relay", messages_per_hour=40, max_connections=2)
    names = [f"m{n}" for n in range(60)]
    gateway.submit(names)
    for arrived in (6, 12, 18):
        sink.wait_for(arrived)
        kill(gateway)

    def is_reached(status: dict[str, Any]) -> bool:
        (account,) = [one for one in status["accounts"] if one["account"] == "relay"]
        return account["limit"] == "its limit of 40 messages an hour" and not account["counts"].get("sending")

    gateway.api.wait_for("status", is_reached)
    assert 18 <= len(sink.mails) <= 40
    gateway.api.ask("PATCH", "accounts/relay", {"messages_per_hour": None})
    sink.wait_for(len(names))
