"""What all tests share: a clean environment, peers by name, free ports, and the installed command as a process."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import forks, new_stores, postgresql

ROOT = Path(__file__).parent.parent
NODE_MODULES = ROOT / "tests" / "interop" / "node_modules"

settings.register_profile("dev", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# A shell starts what runs behind it deaf to SIGINT, and so would be every process of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

new_stores.copy_stores()

#: Programs of others that tests speak with: where to look for each, and how to get it.
PEERS: dict[str, tuple[str, str]] = {
    "postfix": ("postfix", "apt-get install postfix"),
    "sendmail": ("sendmail", "apt-get install postfix"),
    "smtp-sink": ("smtp-sink", "apt-get install postfix"),
    "smtp-source": ("smtp-source", "apt-get install postfix"),
    "swaks": ("swaks", "apt-get install swaks"),
    "msmtp": ("msmtp", "apt-get install msmtp"),
    "exim": ("exim4", "apt-get download exim4-daemon-light, dpkg -x it into tests/interop/peers/exim: see .ci/run"),
    "strace": ("strace", "apt-get install strace"),
    "cc": ("cc", "apt-get install gcc libc6-dev"),
    "openssl": ("openssl", "apt-get install openssl"),
    "node": ("node", "apt-get install nodejs"),
    "dovecot": ("/usr/lib/dovecot/submission-login", "apt-get install dovecot-submissiond"),
    "dovecot-pop3d": ("/usr/lib/dovecot/pop3-login", "apt-get install dovecot-pop3d"),
    "opendkim": ("opendkim", "apt-get install opendkim"),
    "danted": ("danted", "apt-get install dante-server"),
    "squid": ("squid", "apt-get install squid"),
    "sshd": ("/usr/sbin/sshd", "apt-get install openssh-server"),
    "ssh": ("ssh", "apt-get install openssh-client"),
    "ssh-keygen": ("ssh-keygen", "apt-get install openssh-client"),
    "nss_wrapper": (str(next(Path("/usr/lib").glob("*/libnss_wrapper.so"), "-")), "apt-get install libnss-wrapper"),
    "curl": ("curl", "apt-get install curl"),
    "postgresql": (str((postgresql.programs() or Path("/")) / "initdb"), "apt-get install postgresql"),
    "nodemailer": (str(NODE_MODULES / "nodemailer" / "package.json"), "npm install in tests/interop"),
    "smtp-server": (str(NODE_MODULES / "smtp-server" / "package.json"), "npm install in tests/interop"),
    "oidc-provider": (str(NODE_MODULES / "oidc-provider" / "package.json"), "npm install in tests/interop"),
}
PEERS_MUST_BE_THERE = os.environ.get("POSTROOM_REQUIRE_PEERS") == "1"

#: System programs lie here even where a user's PATH does not say so; Exim is unpacked here where Postfix is installed.
UNPACKED = ROOT / "tests" / "interop" / "peers" / "exim" / "usr" / "sbin"
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", str(UNPACKED)])


def find_peer(name: str) -> Path:
    """The program called `name`, else the test is skipped with the reason; a failure where peers are required."""
    wanted, mend = PEERS[name]
    found = shutil.which(wanted, path=SYSTEM_PATH) or (wanted if Path(wanted).is_file() else None)
    if found is not None:
        return Path(found)
    reason = f"{name} is not installed ({mend})"
    if PEERS_MUST_BE_THERE:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.peer("postfix")`: needs that program."""
    for mark in item.iter_markers("peer"):
        for name in mark.args:
            find_peer(name)


@pytest.fixture
def peer() -> Callable[[str], Path]:
    """`peer("postfix")` is the path of that program; skips, or fails where peers are required."""
    return find_peer


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the person who runs the tests reach no test."""
    for name in list(os.environ):
        if name.startswith("POSTROOM_"):
            monkeypatch.delenv(name)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Each call gives a TCP port of the loopback address that nothing listens on and no other call gave."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return find


@dataclass
class Served:
    """A running `postroom serve`: its data folder, its listener's port, and how to stop it."""

    data: Path
    port: int
    process: subprocess.Popen[str] | forks.Process
    environment: dict[str, str]
    output: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    def run(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """`postroom ARGUMENTS` against this data folder."""
        return run_postroom(self.environment, *arguments, check=check, stdin=stdin)

    def read_on(self) -> None:
        """Gather what it prints from now on: a process whose output nobody reads stops once the pipe is full."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.output.extend(line.rstrip("\n") for line in lines)

    def kill(self) -> None:
        """SIGKILL: what a crash of the process leaves."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as a service manager does; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def run_postroom(
    environment: dict[str, str], *arguments: str, check: bool = True, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, in `environment`."""
    if forks.may_fork(environment):
        result = forks.run(arguments, environment, stdin)
    else:
        result = run_installed(environment, *arguments, stdin=stdin)
    if check and result.returncode != 0:
        raise AssertionError(
            f"postroom {' '.join(arguments)} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
        )
    return result


def run_installed(
    environment: dict[str, str], *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The installed command as its user starts it, in `environment`."""
    return subprocess.run(
        [sys.executable, "-m", "postroom", *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start_serving(
    data: Path, listeners: str, prefix: Sequence[str] = (), stderr: int = subprocess.STDOUT, /, **settings: str
) -> Served:
    """`postroom serve` as a process on `data` with `listeners` (JSON), once it says that it is ready.

    Its `port` is that of the first listener, also where 0 was asked for; `prefix` goes before the command, and its log
    to `stderr`. To be ended with `end_serving`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    environment |= {"POSTROOM_DATA": str(data), "POSTROOM_SMTP__LISTENERS": listeners, **settings}
    process: subprocess.Popen[str] | forks.Process
    if not prefix and forks.may_fork(environment):
        process = forks.forks().start(["serve"], environment, stdin=False, stderr=stderr)
    else:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "postroom", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    served = Served(data, 0, process, environment)
    assert process.stdout is not None
    for line in process.stdout:
        served.output.append(line.rstrip("\n"))
        if ready := re.match(r"postroom is ready: SMTP on (.*), data in ", line):
            first = ready[1].partition(", ")[0]
            served.port = int(first.rpartition(":")[2]) if first != "no listener" else 0
            served.reader = threading.Thread(target=served.read_on, daemon=True)
            served.reader.start()
            return served
    end_serving(served)
    raise AssertionError("postroom serve ended before it was ready:\n" + "\n".join(served.output))


def end_serving(served: Served) -> None:
    """End the process, however it is."""
    if served.process.poll() is None:
        served.process.kill()
    served.process.wait()
    if served.reader is not None:
        served.reader.join()
    elif served.process.stdout is not None:
        served.process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Served]]:
    """`serve()` starts the gateway as a process on a temporary folder and waits until it says that it is ready;
    `serve(data=..., port=...)` starts it on a folder that is there already."""
    started: list[Served] = []

    def start(data: Path | None = None, port: int | None = None, **settings: str) -> Served:
        listeners = f'[{{"address": "127.0.0.1", "port": {port or free_port()}}}]'
        started.append(start_serving(data or tmp_path / "data", listeners, **settings))
        return started[-1]

    yield start
    for served in started:
        end_serving(served)


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgresql.Cluster]:
    """A PostgreSQL that no test stops, made once for each process that runs tests."""
    find_peer("postgresql")
    with postgresql.running(_unused_port()) as found:
        yield found


@pytest.fixture
def own_cluster() -> Iterator[postgresql.Cluster]:
    """A PostgreSQL for one test, which may stop and break it."""
    find_peer("postgresql")
    with postgresql.running(_unused_port(), connections=20) as found:
        yield found


# The suite runs on plain asyncio, and on the loop of the running gateway with POSTROOM_TEST_LOOP=uvloop.
if os.environ.get("POSTROOM_TEST_LOOP") == "uvloop":

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """One loop factory for every asynchronous test."""
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
