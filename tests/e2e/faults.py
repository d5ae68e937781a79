"""A gateway whose disk fails, whose clocks step, or that runs out of something, beside a relay that counts.

`standing_room` is `postroom serve` with one account at that relay. What a client was told of each message is written
down, and `Room.keeps_its_word` compares it with what the relay has taken once the fault has gone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import resource
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served, end_serving, find_peer, start_serving
from tests.e2e.attackers import Api, Client, ends_in_a_reply
from tests.e2e.scripted_relay import Background, Script, ScriptedRelay, behaving

SENDER = "app@source.example"
LISTENERS = '[{"address": "127.0.0.1", "port": 0}]'

#: Files of a data folder, as `Shim.aim` takes them.
DATABASE, LOG = "/postroom.db", "/postroom.db-wal"

_SHIM = Path(__file__).with_name("shim.c")
_ORDERS = struct.Struct("=7q64s")
_NAMES = (
    "stepped_seconds",
    "passed_seconds",
    "sync_errno",
    "write_errno",
    "syncs_failed",
    "syncs_after",
    "writes_failed",
)


class Shim:
    """Orders to `shim.c` in a gateway that was started with its `environment`; see there what each name means."""

    def __init__(self, library: Path, path: Path) -> None:
        path.write_bytes(bytes(_ORDERS.size))
        with path.open("r+b") as file:
            self._orders = mmap.mmap(file.fileno(), _ORDERS.size)
        self.environment: dict[str, Any] = {"LD_PRELOAD": str(library), "FAULTS": str(path)}

    def __getitem__(self, name: str) -> int:
        (value,) = struct.unpack_from("=q", self._orders, 8 * _NAMES.index(name))
        return int(value)

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("=q", self._orders, 8 * _NAMES.index(name), value)

    def aim(self, path_end: str) -> None:
        """Which files fail: those whose path ends so."""
        struct.pack_into("=64s", self._orders, 8 * len(_NAMES), path_end.encode() + b"\0")

    def step(self, seconds: int) -> None:
        """The time of day steps by so much, and no timer sees it."""
        self["stepped_seconds"] += seconds

    def pass_time(self, seconds: int) -> None:
        """So much time has passed, by every clock at once."""
        self["passed_seconds"] += seconds


def compile_shim(folder: Path) -> Path:
    """The shim as a library in `folder`; the test is skipped where it can't be made."""
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD and /proc are Linux's")
    library = folder / "shim.so"
    command = [str(find_peer("cc")), "-O1", "-shared", "-fPIC", "-o", str(library), str(_SHIM), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


@dataclass
class Room:
    """A gateway, its relay, and what clients were told of each message that they sent (by its recipient's name)."""

    served: Served
    api: Api
    relay: ScriptedRelay
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)

    @property
    def port(self) -> int:
        """Of the listener."""
        return self.served.port

    @property
    def pid(self) -> int:
        """Of the gateway."""
        return self.served.process.pid

    def submit(self, name: str, body_bytes: int = 2000) -> bytes:
        """Send one message on a connection of its own; the reply to its end of data, b"" where there is none."""
        with Client(self.port) as client:
            return self.submit_on(client, name, body_bytes)

    def submit_on(self, client: Client, name: str, body_bytes: int = 2000) -> bytes:
        """The same on a connection that is there."""
        client.begin(f"{name}@sink.example", SENDER)
        reply = client.pour(content(name, body_bytes) + b".\r\n", ends_in_a_reply)
        self.note(name, reply)
        return reply

    def note(self, name: str, reply: bytes) -> None:
        """What a client was told of the message."""
        told = self.acknowledged if reply[:1] == b"2" else self.refused if reply else self.unanswered
        told.add(name)

    def log(self, words: str) -> list[str]:
        """Lines of the log in which `words` stand."""
        return [line for line in list(self.served.output) if words in line]

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds, with questions to the gateway in between; fails if that takes too long."""
        self.api.wait_for("status", lambda _: holds())

    def until_logged(self, words: str) -> None:
        """Wait for a line of the log."""
        self.until(lambda: bool(self.log(words)))

    def taken(self) -> Counter[str]:
        """How often the relay took each message."""
        return Counter(one.recipients[0].partition("@")[0] for one in list(self.relay.taken))

    def send_all(self) -> None:
        """Whatever waits for a later try goes now, until nothing is left that waits."""
        self.api.ask("POST", "queue/retry", {"account": "relay"})
        assert self.api.ask("POST", "drain") == {"drained": True}

    def keeps_its_word(self) -> None:
        """Everything acknowledged has arrived, and exactly once; nothing refused has."""
        self.send_all()
        arrived = self.taken()
        assert self.acknowledged - arrived.keys() == set(), "acknowledged and lost"
        assert arrived.keys() & self.refused == set(), "refused and delivered"
        assert arrived.keys() - self.acknowledged - self.unanswered == set(), "delivered though never taken"
        assert {name for name, times in arrived.items() if times > 1} == set(), "sent twice"

    def serves_others(self, name: str) -> None:
        """A new client's message is taken, and the process is the one that was started."""
        assert self.submit(name).startswith(b"250 2.0.0 Ok: queued as ")
        assert self.served.process.poll() is None
        assert self.log("Traceback") == []


def content(name: str, body_bytes: int) -> bytes:
    """A message whose body has about so many octets, and names it in every line."""
    line = f"Line of {name}, which shall not be lost.\r\n".encode()
    return f"Subject: {name}\r\nFrom: {SENDER}\r\n\r\n".encode() + line * max(1, body_bytes // len(line))


@contextlib.contextmanager
def standing_room(
    data: Path,
    script: Script = behaving,
    *,
    relay: ScriptedRelay | None = None,
    prefix: Sequence[str] = (),
    stderr: int = subprocess.STDOUT,
    **settings: str,
) -> Iterator[Room]:
    """A gateway on `data` with an account at a relay that does what `script` says, or at `relay`, which stays."""
    with contextlib.ExitStack() as stack:
        own = relay or stack.enter_context(_relay(script))
        served = start_serving(data, LISTENERS, prefix, stderr, **settings)
        stack.callback(end_serving, served)
        room = Room(served, Api(data / "control.sock"), own)
        fields: dict[str, Any] = {"host": "127.0.0.1", "port": own.port, "security": "none"}
        grant = {"application": "local", "senders": ["*"]}
        there = {one["name"]: one for one in room.api.ask("GET", "accounts")["accounts"]}
        if "relay" not in there:
            room.api.ask("POST", "accounts", {"name": "relay", "grant": grant, **fields})
        elif there["relay"]["port"] != own.port:
            room.api.ask("PATCH", "accounts/relay", fields)
        yield room


@contextlib.contextmanager
def counting_relay(script: Script = behaving) -> Iterator[ScriptedRelay]:
    """A relay that outlives the gateways that use it."""
    with _relay(script) as relay:
        yield relay


@contextlib.contextmanager
def _relay(script: Script) -> Iterator[ScriptedRelay]:
    background = Background()
    relay = ScriptedRelay(background, script)
    try:
        yield relay
    finally:
        relay.stop()
        background.close()


@contextlib.contextmanager
def limited(pid: int, what: int, to: int) -> Iterator[None]:
    """The process may have no more than `to` of a resource here (setrlimit(2)), and then as much as before."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (to, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own in memory; the test is skipped where this user may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount(8)")
    if done.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left there; remove the file that is returned, and there is room again."""
    hog = folder / "hog"
    with contextlib.suppress(OSError), hog.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    with contextlib.suppress(OSError), hog.open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
    return hog


def descriptors(pid: int) -> int:
    """How many the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_ticks(pid: int) -> int:
    """Clock ticks that the process has computed for."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(stat[11]) + int(stat[12])


def code_of(reply: bytes) -> str:
    """The code and the enhanced status of a reply."""
    found = re.match(rb"[0-9]{3}(?: [0-9.]+)?", reply)
    return found[0].decode() if found else ""
