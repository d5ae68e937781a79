"""The SMTP clients that are compared: how each is run as a process of its own, and what is missing here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .one_client import CONTENT
from .traffic import RECIPIENT, SENDER, Void

PROJECT = Path(__file__).parent.parent
NODE_MODULES = PROJECT / "tests" / "interop" / "node_modules"

#: Patience with one load.
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Spent:
    """What a client took for its messages, set-up and warm-up left out."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and the event loop that it runs on, if it has a choice."""

    package: str
    loop: str = "asyncio"

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.package} ({self.loop})" if self.package in ("aiosmtplib", "postroom") else self.package

    def missing(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        if self.package == "nodemailer":
            if shutil.which("node") is None:
                return "node is not installed (apt-get install nodejs)"
            if not (NODE_MODULES / "nodemailer" / "package.json").is_file():
                return "nodemailer is not installed (npm install in tests/interop)"
        if self.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
            return "uvloop is not installed"
        return ""

    def version(self) -> str:
        """Of the package; smtplib's is Python's."""
        if self.package == "nodemailer":
            return str(json.loads((NODE_MODULES / "nodemailer" / "package.json").read_text())["version"])
        if self.package == "smtplib":
            return "Python " + sys.version.split()[0]
        return importlib.metadata.version(self.package)

    def run(self, port: int, *, connections: int, messages: int, warm_up: int) -> Spent:
        """Send `messages` of 4 KiB, and `warm_up` before, to 127.0.0.1.

        Raises:
            Void: it fails, or does not end.
        """
        with tempfile.NamedTemporaryFile(suffix=".eml") as content:
            content.write(CONTENT)
            content.flush()
            command = self._command(port, connections, messages, warm_up, content.name)
            try:
                done = subprocess.run(
                    command, cwd=PROJECT, capture_output=True, text=True, timeout=_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                raise Void(f"{self.name} did not end within {_SECONDS} s") from None
        if done.returncode != 0:
            raise Void(f"{self.name}: {done.stderr.strip()[-600:]}")
        return Spent(**json.loads(done.stdout))

    def _command(self, port: int, connections: int, messages: int, warm_up: int, content: str) -> list[str]:
        if self.package != "nodemailer":
            numbers = map(str, (port, connections, messages, warm_up))
            return [sys.executable, "-m", "bench.one_client", self.package, self.loop, *numbers]
        options = {
            "modules": f"{NODE_MODULES}/",
            "port": port,
            "connections": connections,
            "messages": messages,
            "warmUp": warm_up,
            "envelope": {"from": SENDER, "to": [RECIPIENT]},
            "content": content,
        }
        return ["node", str(Path(__file__).with_name("nodemailer_load.mjs")), json.dumps(options)]


#: Postroom, on the loop that the gateway makes for itself.
OURS = Client("postroom", "uvloop" if importlib.util.find_spec("uvloop") else "asyncio")

#: Ours first; aiosmtplib on both loops.
CLIENTS = (
    OURS,
    Client("smtplib"),
    Client("aiosmtplib"),
    Client("aiosmtplib", "uvloop"),
    Client("nodemailer"),
)


def present(clients: tuple[Client, ...]) -> tuple[list[Client], dict[str, str]]:
    """Those of `clients` that are here, and why others are not, by name; the latter is printed too."""
    absent = {client.name: reason for client in clients if (reason := client.missing())}
    for name, reason in absent.items():
        print(f"left out: {name}: {reason}", flush=True)
    return [client for client in clients if client.name not in absent], absent
