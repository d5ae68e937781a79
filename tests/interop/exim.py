"""A private Exim: relay of a running gateway, or client of its listener."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.process_tree import members
from bench.traffic import answers, free_port, wait_until
from tests.conftest import PEERS_MUST_BE_THERE, find_peer

#: The user that Debian's binary looks up before all else, and becomes.
USER = "Debian-exim"

#: Options unless others are given: no TLS is offered; no message waits for a queue run because many came before it.
DEFAULTS = {"tls_advertise_hosts": "", "smtp_accept_queue_per_connection": "0"}

#: What Exim would expand in an option.
_ESCAPED = re.compile(r"[\\$]")


class Exim:
    """A private Exim: its configuration, spool and log in `folder`; all it takes goes to `relay_port`. Needs root.

    `options` are further lines of the main section. With `login` (name, password) it logs in by PLAIN, with `ca` (PEM)
    it insists on STARTTLS and checks the certificate; without, it stays in clear. `authenticators` are those that it
    offers as a server. Refusals: see exim.conf.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        listen_port: int,
        relay_port: int,
        *options: str,
        login: tuple[str, str] | None = None,
        ca: Path | None = None,
        authenticators: str = "",
    ) -> None:
        self.port = listen_port
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        (folder / "log").mkdir()
        transport = ["hosts_avoid_tls = *"]
        if ca:
            trusted = shutil.copyfile(ca, folder / "ca.pem")  # where Exim's user may read it
            transport = ["hosts_require_tls = *", f"tls_verify_certificates = {trusted}", "tls_verify_hosts = *"]
        authenticator = [authenticators]
        if login:
            transport.append("hosts_require_auth = *")
            words = "".join(
                "^" + _ESCAPED.sub(r"\\\g<0>", word.replace("^", "^^").replace(":", "::")) for word in login
            )
            authenticator += ["plain:", "driver = plaintext", "public_name = PLAIN", f"client_send = {words}"]
        given = {option.partition(" ")[0] for option in options}
        options += tuple(f"{name} = {value}" for name, value in DEFAULTS.items() if name not in given)
        self._write_configuration(
            program=str(program),
            folder=str(folder),
            spool=str(folder / "spool"),
            log=str(folder / "log" / "%slog"),
            listen_port=str(listen_port),
            relay_port=str(relay_port),
            options="\n".join(options),
            transport="\n  ".join(transport),
            authenticators="\n  ".join(authenticator),
        )
        for path in (folder, folder / "log"):
            shutil.chown(path, USER, USER)

    def _write_configuration(self, **names: str) -> None:
        text = Path(__file__).with_name("exim.conf").read_text()
        for name, value in names.items():
            text = text.replace("{" + name + "}", value)
        file = self._folder / "exim.conf"
        file.write_text(text)
        file.chmod(0o644)  # Exim reads no configuration that others may write

    def _command(self, *arguments: str) -> list[str]:
        return [str(self._program), "-C", str(self._folder / "exim.conf"), *arguments]

    def start(self) -> None:
        """Listen on `port`; each message is handed on at once."""
        self._process = subprocess.Popen(self._command("-bdf"), stdin=subprocess.DEVNULL)
        process = self._process
        wait_until(lambda: process.poll() is not None or answers(self.port), 20, "Exim greets")
        assert process.poll() is None, f"Exim ended with {process.returncode}:\n{self.log()}"

    def stop(self) -> None:
        """End its sessions and deliveries, which would outlive it and write their log, then the daemon."""
        daemon = self._process
        if daemon is None or daemon.poll() is not None:
            return
        for child in members(daemon.pid)[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        wait_until(lambda: members(daemon.pid) == [daemon.pid], 20, "Exim's sessions have ended")
        daemon.terminate()
        daemon.wait(30)

    def submit(self, content: bytes, sender: str, *recipients: str) -> None:
        """Hand over a message on the command line and try to deliver it, to the end of that try.

        `content` may have LF or CRLF as its line ends; Date, Message-ID and From are added where missing.
        """
        self._run("-odf", "-i", "-f", sender or "<>", "--", *recipients, stdin=content)

    def run_queue(self) -> None:
        """Try all that waits, whatever its retry time, to the end of those tries."""
        self._run("-qff")

    def _run(self, *arguments: str, stdin: bytes = b"") -> None:
        done = subprocess.run(
            self._command(*arguments), input=stdin, capture_output=True, timeout=60, check=False
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace") + self.log()

    def waiting(self) -> int:
        """Messages that it still keeps."""
        return len(list(self._folder.glob("spool/input/*-H")))

    def log(self) -> str:
        """Its main log and panic log so far."""
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self._folder.glob("log/*log")))


def exim_program() -> Path:
    """Where it is; the test is skipped, or fails, where it cannot be run."""
    program = find_peer("exim")
    lacking = ""
    if os.geteuid() != 0:
        lacking = "a private Exim needs root"
    elif not any(entry.pw_name == USER for entry in pwd.getpwall()):
        lacking = f"Exim looks for a user {USER} (useradd --system --user-group {USER})"
    if lacking:
        if PEERS_MUST_BE_THERE:
            pytest.fail(lacking, pytrace=False)
        pytest.skip(lacking)
    return program


@contextmanager
def private_exims() -> Iterator[Callable[..., Exim]]:
    """What it gives makes an Exim as `Exim` says and does not start it; all end with it."""
    program = exim_program()
    folder = Path(tempfile.mkdtemp(prefix="postroom-exim-"))
    folder.chmod(0o755)  # Exim's own user must get through; pytest's folders are closed
    made: list[Exim] = []

    def make(relay_port: int, *options: str, **given: Any) -> Exim:
        exim = Exim(program, folder / str(len(made)), free_port(), relay_port, *options, **given)
        made.append(exim)
        return exim

    try:
        yield make
    finally:
        for exim in made:
            exim.stop()
        shutil.rmtree(folder)


@pytest.fixture
def make_exim() -> Iterator[Callable[..., Exim]]:
    """`make_exim(relay_port, *options, login=..., ca=...)` makes an Exim and does not start it."""
    with private_exims() as make:
        yield make


@pytest.fixture
def exim_relay(make_exim: Callable[..., Exim]) -> Callable[..., Exim]:
    """`exim_relay(relay_port, *options)` starts an Exim that takes all mail at its `port` and hands it on."""

    def start(relay_port: int, *options: str) -> Exim:
        exim = make_exim(relay_port, *options)
        exim.start()
        return exim

    return start


@pytest.fixture
def exim_client(make_exim: Callable[..., Exim]) -> Callable[..., Exim]:
    """`exim_client(port, "user", "password").submit(content, sender, recipient)` relays through the listener there."""

    def make(port: int, user: str = "", password: str = "", ca: Path | None = None) -> Exim:
        return make_exim(port, login=(user, password) if user else None, ca=ca)

    return make
