"""The gateway of the demo: the installed command, as a process on a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


def _reaches(name: str) -> bool:
    """Settings from outside do not reach the gateway, but for the database: an empty one, that it may fill."""
    return name == "POSTROOM_DATABASE" or not name.startswith("POSTROOM_")


class GatewayProcess:
    """`with GatewayProcess(folder) as gateway:` serves on 127.0.0.1:`gateway.port`; `gateway.cli(...)` commands it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.output: list[str] = []
        self._environment = {name: value for name, value in os.environ.items() if _reaches(name)}
        self._environment |= {
            "POSTROOM_DATA": str(folder / "data"),
            "POSTROOM_SMTP__LISTENERS": json.dumps([{"address": "127.0.0.1", "port": self.port}]),
        }
        self._process: subprocess.Popen[str] | None = None

    def cli(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What `postroom ARGUMENTS` printed.

        Raises:
            RuntimeError: it ended with a status other than 0; the text is what it said.
        """
        result = subprocess.run(
            [sys.executable, "-m", "postroom", *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if result.returncode != 0:
            said = (result.stdout + result.stderr).decode(errors="replace").strip()
            raise RuntimeError(f"postroom {' '.join(arguments)} ended with {result.returncode}: {said}")
        return result.stdout

    def cli_json(self, *arguments: str, stdin: bytes = b"") -> Any:
        """What `postroom ARGUMENTS --json` printed, read."""
        return json.loads(self.cli(*arguments, "--json", stdin=stdin))

    def __enter__(self) -> GatewayProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "postroom", "serve"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)
            if "ready" in line:
                threading.Thread(target=self._drain, args=(self._process.stdout,), daemon=True).start()
                return self
        raise RuntimeError("postroom serve ended before it was ready:\n" + "".join(self.output))

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _drain(self, lines: Any) -> None:
        # A process whose output nobody reads stops once the pipe is full.
        self.output.extend(lines)


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
