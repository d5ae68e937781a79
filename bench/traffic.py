"""Source and sink of the benchmarks: Postfix's smtp-source and smtp-sink, which are no part of what is measured."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

#: What smtp-sink -c appends after each message.
_COUNTER = re.compile(rb"mesg=(\d+)")

SENDER = "sender@source.example"
RECIPIENT = "recipient@sink.example"


class Void(Exception):
    """A run that counts for nothing, and why."""


def program(name: str) -> str:
    """Where `name` is.

    Raises:
        Void: it is not installed.
    """
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Void(f"{name} is not installed (apt-get install postfix)")
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Look every 5 ms until `true()`.

    Raises:
        Void: it was not so in time.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Void(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.005)


def answers(port: int) -> bool:
    """Somebody listens on `port` and greets as SMTP servers do."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as probe:
            return probe.recv(4) == b"220 "
    except OSError:
        return False


class Sink:
    """smtp-sink, counting what it takes; stays up until it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.pid = 0
        self.folder = folder
        self._counters = folder / f"sink-{self.port}.counters"

    def __enter__(self) -> Sink:
        command = [program("smtp-sink"), "-4", "-c", "-m", "1000"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        with self._counters.open("wb") as out:
            self._process = subprocess.Popen([*command, f"127.0.0.1:{self.port}", "1000"], stdout=out)
        self.pid = self._process.pid
        try:
            wait_until(lambda: answers(self.port), 10, "smtp-sink greets")
        except Void:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()

    def count(self) -> int:
        """How many messages it has taken since it was started."""
        with self._counters.open("rb") as counters:
            counters.seek(max(0, counters.seek(0, os.SEEK_END) - 200))
            found = _COUNTER.findall(counters.read())
        return int(found[-1]) if found else 0

    def last_at(self) -> float:
        """When the counter last moved, as `time.time()` (to about 4 ms)."""
        return self._counters.stat().st_mtime


@dataclass(frozen=True, slots=True)
class Passage:
    """One load that went through: how long from the first connect to the last 250, and to the last at the sink."""

    messages: int
    accepted_seconds: float
    relayed_seconds: float


def submit(port: int, messages: int, connections: int, *, size_bytes: int = 4096, sender: str = SENDER) -> None:
    """Send `messages` over `connections` that persist (smtp-source -d).

    Raises:
        Void: not all were accepted.
    """
    command = [program("smtp-source"), "-4", "-d", "-s", str(connections), "-m", str(messages), "-l", str(size_bytes)]
    command += ["-f", sender, "-t", RECIPIENT, f"127.0.0.1:{port}"]
    try:
        source = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise Void("smtp-source did not end within 600 s") from None
    if source.returncode != 0:
        raise Void(f"smtp-source: {source.stderr.strip()[-400:]}")


def send(
    port: int, sink: Sink, messages: int, connections: int, *, size_bytes: int = 4096, patience_seconds: float = 120
) -> Passage:
    """Send `messages` over `connections` that persist (smtp-source -d) and wait until the sink has counted as many.

    Raises:
        Void: not all were accepted, or the sink counted more or fewer.
    """
    before = sink.count()
    started = time.time()
    submit(port, messages, connections, size_bytes=size_bytes)
    accepted = time.time() - started
    wait_until(lambda: sink.count() - before >= messages, patience_seconds, f"the sink has {messages}")
    relayed = sink.last_at() - started
    return Passage(messages, accepted, relayed)
