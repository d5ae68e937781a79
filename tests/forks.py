"""Processes of the command that need no interpreter to be started: forks of one that has loaded all and run nothing.

Most of what `make test` costs is hundreds of starts of `postroom`, of which nearly all is loading modules. A fork is a
process of its own like any other: it can be killed, its files and memory are its own, and it ends as the command ends.
POSTROOM_TEST_FRESH=1 (`make soak`) has every one start afresh; whoever watches system calls or puts a library below
the process has that always.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import postroom
from postroom import crashing
from postroom.policy import classify
from tests import new_stores

#: What is said over the socket is short: an order itself is in a file, and may be as long as it likes.
_MOST_BYTES = 4096

_GONE = "the process that forks has ended"

#: Tests take away what the variable says as they begin.
_FRESH = bool(os.environ.get("POSTROOM_TEST_FRESH"))


class Process:
    """A fork that runs `postroom ARGUMENTS`; what tests use of `subprocess.Popen`, and nothing else."""

    def __init__(self, pid: int, stdin: IO[str] | None, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        """The exit status, if it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("postroom", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def ended(self, status: int) -> None:
        """It has ended with `status`, as waitpid tells it."""
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()


class Forks:
    """The process that forks, and what it tells."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forks", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._lock = threading.Lock()
        self._begun: dict[int, Process] = {}
        self._answer: Process | None = None
        self._is_gone = False
        self._ended = threading.Event()
        self._answered = threading.Condition(self._lock)
        self._asking = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], *, stdin: bool, stderr: int) -> Process:
        """`postroom ARGUMENTS` with pipes for what it prints, and for what it reads where `stdin` is asked for.

        Raises:
            OSError: the process that forks has ended.
        """
        read_out, out = os.pipe()
        read_error, error = os.pipe() if stderr == subprocess.PIPE else (None, os.dup(out if stderr < 0 else stderr))
        into, write_in = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
        order = {"arguments": [*arguments], "environment": {**environment}, "folder": os.getcwd()}
        try:
            process = self._begin(order, [into, out, error])
        except OSError:
            for descriptor in (read_out, read_error, write_in):
                if descriptor is not None:
                    os.close(descriptor)
            raise
        finally:
            for descriptor in (into, out, error):
                os.close(descriptor)
        process.stdout = open(read_out, encoding="utf-8")
        process.stderr = open(read_error, encoding="utf-8") if read_error is not None else None
        process.stdin = open(write_in, "w", encoding="utf-8") if write_in is not None else None
        return process

    def end(self) -> None:
        """End it, and all that it has forked."""
        self._process.kill()
        self._process.wait()
        self._ended.wait()
        self._ours.close()

    def _begin(self, order: Mapping[str, object], descriptors: Sequence[int]) -> Process:
        with tempfile.TemporaryFile("w", encoding="utf-8") as file, self._asking:
            json.dump(order, file)
            file.flush()
            with self._lock:
                if self._is_gone:
                    raise BrokenPipeError(_GONE)
            socket.send_fds(self._ours, [b"order"], [*descriptors, file.fileno()])
            with self._lock:
                self._answered.wait_for(lambda: self._answer is not None or self._is_gone)
                if self._answer is None:
                    raise BrokenPipeError(_GONE)
                process, self._answer = self._answer, None
                return process

    def _listen(self) -> None:
        try:
            while told := self._ours.recv(_MOST_BYTES):
                notice = json.loads(told)
                with self._lock:
                    if "status" in notice:
                        self._begun.pop(notice["pid"]).ended(notice["status"])
                    else:
                        self._answer = self._begun[notice["pid"]] = Process(notice["pid"], None, None, None)
                        self._answered.notify_all()
        finally:
            with self._lock:
                self._is_gone = True
                for process in self._begun.values():  # nobody would tell how they end
                    process.kill()
                    process.ended(signal.SIGKILL)
                self._answered.notify_all()
            self._ended.set()


@functools.cache
def forks() -> Forks:
    """The one of this process; it ends with it, and all its forks too."""
    return Forks()


def may_fork(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment may be a fork: none that its interpreter reads as it starts."""
    own = {name for name, value in environment.items() if os.environ.get(name) != value}
    return not _FRESH and not any(name.startswith(("LD_", "PYTHON", "MALLOC_", "GLIBC_")) for name in own)


def run(arguments: Sequence[str], environment: Mapping[str, str], text: str | None) -> subprocess.CompletedProcess[str]:
    """`postroom ARGUMENTS` with `text` on its standard input, to its end.

    Raises:
        subprocess.TimeoutExpired: it did not end within a minute, and was killed.
    """
    process = forks().start(arguments, environment, stdin=text is not None, stderr=subprocess.PIPE)
    said: dict[str, str] = {}

    def read(name: str, pipe: IO[str] | None) -> None:
        assert pipe is not None
        with pipe:
            said[name] = pipe.read()

    readers = [
        threading.Thread(target=read, args=(name, pipe), daemon=True)
        for name, pipe in (("out", process.stdout), ("error", process.stderr))
    ]
    for reader in readers:
        reader.start()
    try:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(text or "")
        process.wait(60)
    finally:
        process.kill()
        for reader in readers:
            reader.join()
    return subprocess.CompletedProcess(["postroom", *arguments], process.wait(), said["out"], said["error"])


# The other side -------------------------------------------------------------------------------------------------------


def _load() -> None:
    """Import every module of the command, and those that it imports where they are used."""
    for name in (
        "alembic.command",
        "anyio._backends._asyncio",
        "encodings.idna",
        "httpx2",
        "typer._adapters",
        "uvloop",
    ):
        __import__(name)
    for module in pkgutil.walk_packages(postroom.__path__, "postroom."):
        if not module.name.startswith(("postroom.__main__", "postroom.store.migrations.")):
            __import__(module.name)
    new_stores.copy_stores()
    new_stores.migrated()
    classify.load()
    gc.collect()
    gc.freeze()


def _serve(orders: socket.socket) -> None:
    """Fork as ordered, until nobody is left to order. Returns in the forks alone, which are the command by then."""
    children: set[int] = set()
    waking, woken = socket.socketpair()
    for end in (waking, woken):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno())
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(waking, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if orders in ready:
                order, descriptors, _, _ = socket.recv_fds(orders, _MOST_BYTES, 4)
                if not order:
                    _end(children)
                if (pid := os.fork()) == 0:
                    break
                children.add(pid)
                for descriptor in descriptors:
                    os.close(descriptor)
                orders.send(json.dumps({"pid": pid}).encode())
            if waking in ready:
                waking.recv(4096)
            for child in list(children):
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    children.discard(pid)
                    orders.send(json.dumps({"pid": pid, "status": status}).encode())
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for end in (orders, waking, woken):
        end.close()
    with open(descriptors.pop(), encoding="utf-8") as file:
        file.seek(0)
        wanted = json.load(file)
    _become(wanted, descriptors)


def _end(children: set[int]) -> NoReturn:
    for child in children:
        os.kill(child, signal.SIGKILL)
    sys.exit(0)


def _become(order: dict[str, object], descriptors: Sequence[int]) -> None:
    """Be a process that was started with this environment, these files and these arguments."""
    arguments, environment = order["arguments"], order["environment"]
    assert isinstance(arguments, list)
    assert isinstance(environment, dict)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(order["folder"]))
    _set_trap(environment.get(crashing.VARIABLE, ""))
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    main = sys.modules["__main__"]
    main.__package__ = "postroom"  # of these two the command makes its own name
    sys.argv = [str(Path(postroom.__path__[0]) / "__main__.py"), *arguments]


def _set_trap(wanted: str) -> None:
    """What `postroom.crashing` does as it is loaded: whoever has taken a call that does nothing gets the trap's."""
    if (trap := crashing.trap(wanted)) is None:
        return
    calls = {name: (getattr(crashing, name), getattr(trap, name)) for name in ("reach", "written", "fails")}
    for name, module in list(sys.modules.items()):
        for call, (before, after) in calls.items():
            if name.startswith("postroom.") and vars(module).get(call) is before:
                setattr(module, call, after)


if __name__ == "__main__":
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from postroom.cli import main

    main()
