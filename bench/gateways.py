"""What is measured: a private Postfix and Postroom as a user starts it, each in a folder of its own, on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from tests.postgresql import Cluster, programs

from .process_tree import cpu_seconds, members
from .traffic import Void, answers, free_port, program, wait_until

UNFINISHED = frozenset({"queued", "sending", "deferred", "held"})
CONFIGURATIONS = Path(__file__).parent / "postfix"


class MeasuredGateway(Protocol):
    """A relay between `port` and the sink's port."""

    name: str
    port: int
    pid: int

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes at the head of all that belongs to it."""

    def start(self) -> None:
        """Be ready for mail when this returns."""

    def stop(self) -> None:
        """End, and everything below."""

    def waiting(self) -> int:
        """How many messages it still keeps."""


def cpu_of(gateway: MeasuredGateway) -> float:
    """User and system time of all its processes, in seconds."""
    return sum(map(cpu_seconds, gateway.pids))


def settle(gateway: MeasuredGateway) -> None:
    """Wait until nothing waits in `gateway` and it uses no more CPU, so that its whole work is counted."""
    wait_until(lambda: gateway.waiting() == 0, 60, f"{gateway.name} has an empty queue")
    rest(gateway)


def rest(gateway: MeasuredGateway) -> None:
    """Wait until `gateway` has used no CPU for half a second; 10 seconds at most."""
    quiet_since, used = time.monotonic(), cpu_of(gateway)
    end = quiet_since + 10
    while time.monotonic() - quiet_since < 0.5 and time.monotonic() < end:
        time.sleep(0.05)
        if (now := cpu_of(gateway)) > used + 0.011:
            quiet_since, used = time.monotonic(), now


class Postfix:
    """A private Postfix: own configuration, queue and state; needs root, as Postfix does.

    `{name}` in its main.cf and master.cf is filled in, and in `services`, which are more lines of the latter.
    """

    def __init__(self, main_cf: Path, folder: Path, relay_port: int, services: str = "", **names: str) -> None:
        self.name = f"postfix-{main_cf.stem}"
        self.port = free_port()
        self.pid = 0
        self.folder = folder / self.name
        self._main = main_cf
        self._services = services
        self._names = {
            "relay_port": str(relay_port),
            "listen_port": str(self.port),
            "config": str(self.folder / "etc"),
            "queue": str(self.folder / "queue"),
            "state": str(self.folder / "state"),
            **names,
        }

    @property
    def pids(self) -> tuple[int, ...]:
        """See `MeasuredGateway.pids`."""
        return (self.pid,)

    def _filled(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace("{" + name + "}", value)
        return text

    def _postfix(self, verb: str) -> None:
        done = subprocess.run(
            [program("postfix"), "-c", str(self.folder / "etc"), verb], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Void(f"postfix {verb}: {done.stderr.strip()[-400:]}")

    def start(self) -> None:
        """Write the configuration, let Postfix make its queue, start its master.

        Raises:
            Void: not root, not installed, or it does not start.
        """
        if os.geteuid() != 0:
            raise Void("a private Postfix needs root")
        for name in ("etc", "queue", "state"):
            (self.folder / name).mkdir(parents=True)
        shutil.chown(self.folder / "state", "postfix")
        (self.folder / "etc" / "main.cf").write_text(self._filled(self._main.read_text()))
        services = (CONFIGURATIONS / "master.cf").read_text() + self._services
        (self.folder / "etc" / "master.cf").write_text(self._filled(services))
        self._postfix("start")
        wait_until(lambda: answers(self.port), 20, f"{self.name} greets")
        self.pid = int((self.folder / "queue" / "pid" / "master.pid").read_text())

    def stop(self) -> None:
        """Stop the master and its children."""
        if self.pid:
            self._postfix("stop")

    def waiting(self) -> int:
        """Queue files that are not yet done with."""
        queues = (self.folder / "queue" / name for name in ("incoming", "active", "deferred"))
        return sum(len(files) for queue in queues for _, _, files in os.walk(queue))

    @staticmethod
    def version() -> str:
        """As `postconf` tells it."""
        return subprocess.run(
            [program("postconf"), "-d", "-h", "mail_version"], capture_output=True, text=True, check=True
        ).stdout.strip()


class Postroom:
    """`postroom serve` as a user starts it: shipped defaults but for the port, one account added by the command.

    `connections` is the account's limit towards the relay; None leaves the default of four. `settings` are variables of
    its environment beside that.
    """

    def __init__(
        self,
        folder: Path,
        relay_port: int,
        *,
        connections: int | None = None,
        traced: bool = False,
        prefix: tuple[str, ...] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = "postroom" if connections is None else f"postroom-{connections}"
        self._account = [] if connections is None else ["--max-connections", str(connections)]
        self.port = free_port()
        self.pid = 0
        self._folder = folder / self.name
        self._relay_port = relay_port
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")} | {
            "POSTROOM_DATA": str(self._folder / "data"),
            "POSTROOM_SMTP__LISTENERS": f'[{{"address": "127.0.0.1", "port": {self.port}}}]',
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._prefix = list(prefix)
        self._trace = self._folder / "trace" if traced else None

    @property
    def pids(self) -> tuple[int, ...]:
        """See `MeasuredGateway.pids`."""
        return (self.pid,)

    def command(self, *arguments: str) -> str:
        """What `postroom ARGUMENTS` prints.

        Raises:
            Void: it fails.
        """
        done = subprocess.run(
            [sys.executable, "-m", "postroom", *arguments],
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Void(f"postroom {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-400:]}")
        return done.stdout

    def start(self) -> None:
        """Start it, add the account.

        Raises:
            Void: it does not start, or refuses the account.
        """
        self._folder.mkdir(parents=True)
        self.launch()
        wait_until(lambda: answers(self.port) or self._process_ended(), 30, "postroom greets")
        if self._process_ended():
            raise Void(f"postroom serve ended: {(self._folder / 'log').read_text()[-600:]}")
        relay = ["--host", "127.0.0.1", "--port", str(self._relay_port), "--security", "none", *self._account]
        self.command("accounts", "add", "relay", *relay, "--for", "local", "--allow-sender", "*")

    @property
    def database(self) -> Path:
        """Its database."""
        return self._folder / "data" / "postroom.db"

    def launch(self, **settings: str) -> None:
        """Start the process, again or for the first time, and wait for nothing; `settings` are for this time alone."""
        prefix = self._prefix
        if self._trace:
            prefix = [program("strace"), "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", str(self._trace)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "postroom", "serve"],
                env=self._environment | settings,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid

    def recovered(self) -> int:
        """How many deliveries were being sent when it ended before this start, as its log tells."""
        lines = (self._folder / "log").read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return sum(event["deliveries"] for event in events if event["event"] == "recovered_after_crash")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _process_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """SIGTERM; SIGKILL if it does not end."""
        if self._process is None or self._process_ended():
            return
        os.kill(members(self.pid)[-1] if self._trace else self.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def waiting(self) -> int:
        """Deliveries that have not ended."""
        counts = [account["counts"] for account in json.loads(self.command("status", "--json"))["accounts"]]
        return sum(number for of in counts for state, number in of.items() if state in UNFINISHED)

    def syncs(self) -> int:
        """Calls of fsync and fdatasync since the start, as strace saw them; for one that was made `traced`."""
        assert self._trace is not None
        return len(re.findall(rb"\b(?:fsync|fdatasync)\(", self._trace.read_bytes()))


class PostroomOnPostgresql(Postroom):
    """The same with a PostgreSQL of its own on the same disk, whose processes count as its own; the server as Debian
    ships it, but for the port and 128 MiB of shared buffers, which is its default."""

    def __init__(self, folder: Path, relay_port: int, *, connections: int | None = None) -> None:
        self._server = Cluster(folder / "server", free_port(), bin_of_postgresql(), shared_buffers="128MB")
        url = self._server.url("postgres")
        super().__init__(folder, relay_port, connections=connections, settings={"POSTROOM_DATABASE": url})
        self.name += "-postgresql"

    @property
    def pids(self) -> tuple[int, ...]:
        """See `MeasuredGateway.pids`."""
        return (self.pid, self._server.pid)

    def start(self) -> None:
        """Make and start the server, then the gateway.

        Raises:
            Void: the gateway does not start.
        """
        self._server.folder.mkdir()
        self._server.make()
        self._server.start()
        super().start()

    def stop(self) -> None:
        """Stop both."""
        super().stop()
        self._server.stop("fast")


def bin_of_postgresql() -> Path:
    """The folder of the server's programs.

    Raises:
        Void: it is not installed.
    """
    found = programs()
    if found is None:
        raise Void("PostgreSQL is not installed (apt-get install postgresql)")
    return found
