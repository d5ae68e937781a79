"""Makes a data folder with everything in it, as a release leaves it when it is killed, for the tests of upgrades.

    python -m scripts.make_release_fixture [--postroom COMMAND]

COMMAND is the `postroom` of the release, by default this checkout's. It is driven by its commands and by SMTP alone,
against a relay that answers as recipients say. What it leaves goes to tests/fixtures/releases/VERSION-SCHEMA:
`data.tar.gz`, the folder after a SIGKILL, and `manifest.json`, what its commands said of it a moment before.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import smtplib
import socketserver
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

RELEASES = Path(__file__).parent.parent / "tests" / "fixtures" / "releases"
FILES = ("postroom.db", "postroom.db-wal", "keys")

SENDER = "ann@source.example"
LOGIN = ("ann", "marked-secret")
LARGE = b"A line of a large message that is stored in pieces.\r\n" * 12_000

#: How long a state may take to come, in seconds.
PATIENCE = 60.0


class Relay(socketserver.StreamRequestHandler):
    """Answers by what stands before the first dot of a recipient: `later` 451, `no` 550; `vanish` and `hang` get no
    reply to the content, the one because the connection ends."""

    def handle(self) -> None:
        """One connection."""
        self._ways: list[str] = []
        self._say("220 relay.example ESMTP")
        for line in self.rfile:
            verb = line.split(None, 1)[0].upper().decode() if line.strip() else ""
            if verb == "DATA" and self._ways:
                if not self._content():
                    return
            else:
                self._say(self._reply(verb, line.decode("utf-8", "replace").strip()))
            if verb == "QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def _reply(self, verb: str, line: str) -> str:
        if verb == "EHLO":
            return "250-relay.example\r\n250-AUTH PLAIN\r\n250 8BITMIME"
        if verb == "AUTH":
            is_right = base64.b64decode(line.split()[-1]).split(b"\0")[1:] == [one.encode() for one in LOGIN]
            return "235 2.7.0 ok" if is_right else "535 5.7.8 wrong"
        if verb in ("MAIL", "RSET"):
            self._ways = []
        if verb == "RCPT":
            way = re.sub(r".*<([a-z]+).*", r"\1", line)
            if way in ("later", "no"):
                return "451 4.2.0 later" if way == "later" else "550 5.1.1 nobody of that name"
            self._ways.append(way)
        if verb == "DATA":
            return "503 5.5.1 nobody to send to"
        return "221 2.0.0 bye" if verb == "QUIT" else "250 2.0.0 ok"

    def _content(self) -> bool:
        self._say("354 go on")
        while self.rfile.readline() not in (b".\r\n", b""):
            pass
        if "vanish" in self._ways:
            return False
        if "hang" in self._ways:
            self.rfile.read()
            return False
        self._say("250 2.0.0 kept")
        return True


class Release:
    """A release on a data folder of its own."""

    def __init__(self, command: list[str], data: Path, relay_port: int) -> None:
        self._command = command
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        self._environment |= {"POSTROOM_DATA": str(data), "POSTROOM_SMTP__LISTENERS": '[{"port": 0}]'}
        self._environment |= {"POSTROOM_HOSTNAME": "gateway.example"}
        self._relay_port = relay_port
        self.data = data
        self.ids: list[str] = []

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """What a command prints."""
        return self._octets(*arguments, stdin=stdin, check=check).decode()

    def content(self, message_id: str) -> bytes:
        """The stored message."""
        return self._octets("queue", "show", message_id, "--content")

    def _octets(self, *arguments: str, stdin: str = "", check: bool = True) -> bytes:
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            input=stdin.encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        if check and done.returncode:
            raise SystemExit(f"postroom {' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout

    def serve(self, **settings: str) -> tuple[subprocess.Popen[str], int]:
        """The running gateway, and its port."""
        process = subprocess.Popen(
            [*self._command, "serve"],
            env=self._environment | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(r"postroom is ready: SMTP on .*:(\d+), data in", line):
                return process, int(found[1])
        raise SystemExit("the gateway ended before it was ready")

    def send(self, *recipients: str, account: str = "relay", raw: Path | None = None) -> str:
        """Submit by command; the message's id."""
        to = [word for recipient in recipients for word in ("--to", f"{recipient}@sink.example")]
        content = ["--raw", str(raw)] if raw else ["--subject", f"For {recipients[0]}", "--text", "Gr\u00fc\u00dfe"]
        answer = json.loads(self.run("send", "--from", SENDER, *to, "--account", account, *content, "--json"))
        self.ids.append(answer["id"])
        return self.ids[-1]

    def shown(self, message_id: str) -> dict[str, Any]:
        """What `queue show` says."""
        found: dict[str, Any] = json.loads(self.run("queue", "show", message_id, "--json"))
        return found

    def until(self, message_id: str, *states: str) -> None:
        """Wait until the message's deliveries are in `states`."""
        deadline = time.monotonic() + PATIENCE
        while (found := [one["state"] for one in self.shown(message_id)["deliveries"]]) != list(states):
            if time.monotonic() > deadline:
                raise SystemExit(f"{message_id} is {found}, not {states}")
            time.sleep(0.1)

    def prepare(self) -> str:
        """Accounts, an application with a password, and stored settings where there are any; the password."""
        at = ("--host", "127.0.0.1", "--port", str(self._relay_port), "--security", "none", "--allow-clear-password")
        login = ("--username", LOGIN[0], "--password-stdin")
        self.run(
            "accounts", "add", "relay", *at, *login, "--for", "local", "--allow-sender", "*", stdin=LOGIN[1] + "\n"
        )
        self.run("accounts", "add", "paused", *at, *login, "--no-enabled", stdin=LOGIN[1] + "\n")
        self.run("applications", "edit", "local", "--account", "paused")
        self.run("settings", "set", "retention", "60d", check=False)
        added = json.loads(
            self.run("applications", "add", "erp", "--allow-sender", "*", "--account", "relay", "--json")
        )
        return str(added["password"])

    def expire(self) -> None:
        """A message whose retry window has ended."""
        process, _ = self.serve(POSTROOM_RETRY_WINDOW="1s", POSTROOM_RETRY_SCHEDULE="2s")
        self.until(self.send("later.expired"), "expired")
        process.terminate()
        process.wait(PATIENCE)

    def fill(self, port: int, password: str) -> None:
        """Everything else; what is being sent comes last."""
        self.until(self.send("captured", account="sandbox"), "captured")
        self.until(self.send("delivered"), "delivered")
        self.until(self.send("delivered.two", "no.two", "later.two"), "delivered", "bounced", "deferred")
        bounced = self.send("no.bounced")
        self.until(bounced, "bounced")
        again = json.loads(self.run("queue", "retry", bounced, "--json"))["results"][0]["resubmitted_as"]
        self.ids.append(again)
        self.until(again, "bounced")
        self.until(self.send("later.deferred"), "deferred")
        large = self.data.parent / "large.eml"
        large.write_bytes(f"From: {SENDER}\r\nSubject: Large\r\n\r\n".encode() + LARGE)
        self.until(self.send("later.large", raw=large), "deferred")
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.login("erp", password)
            client.sendmail(
                SENDER, ["delivered.smtp@sink.example", "later.smtp@sink.example"], b"Subject: By SMTP\r\n\r\nx\r\n"
            )
        self.ids.append(json.loads(self.run("queue", "list", "--limit", "1", "--json"))["deliveries"][0]["message_id"])
        self.until(self.ids[-1], "delivered", "deferred")
        self.send("queued", account="paused")
        self.run("queue", "hold", self.send("held", account="paused"))
        self.run("queue", "cancel", self.send("cancelled", account="paused"))
        self.until(self.send("vanish.unknown"), "deferred")
        self.until(self.send("hang.sending"), "sending")

    def manifest(self, password: str) -> dict[str, Any]:
        """What the commands say now."""
        messages = [
            {"shown": self.shown(one), "sha256": hashlib.sha256(self.content(one)).hexdigest()} for one in self.ids
        ]
        accounts = json.loads(self.run("accounts", "list", "--json"))["accounts"]
        applications = json.loads(self.run("applications", "list", "--json"))["applications"]
        settings = json.loads(self.run("settings", "list", "--json", check=False) or '{"settings": []}')["settings"]
        return {
            "password": password,
            "accounts": accounts,
            "applications": applications,
            "stored": {one["name"]: one["value"] for one in settings if one["origin"] == "stored"},
            "messages": messages,
        }


def schema(database: Path) -> str:
    """The schema's revision."""
    with closing(sqlite3.connect(database)) as raw:
        return str(raw.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def keep(release: Release, manifest: dict[str, Any]) -> Path:
    """Write the fixture; its folder."""
    with tempfile.TemporaryDirectory() as place:  # looking into the database changes it
        for name in FILES:
            (Path(place) / name).write_bytes((release.data / name).read_bytes())
        number = schema(Path(place) / "postroom.db")
    folder = RELEASES / f"{manifest['version']}-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "data.tar.gz", "w:gz") as archive:
        for name in FILES:
            archive.add(release.data / name, name, filter=_nobody)
    (folder / "manifest.json").write_text(
        json.dumps(manifest | {"schema": number}, indent=1, ensure_ascii=False) + "\n"
    )
    return folder


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    """Make the fixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postroom", default="", help="the command of the release, by default this checkout's")
    given = parser.parse_args().postroom
    python = str(Path(given).parent / "python") if given else sys.executable
    version = subprocess.check_output([python, "-c", "import postroom; print(postroom.__version__)"], text=True).strip()
    with (
        tempfile.TemporaryDirectory() as place,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay,
    ):
        relay.daemon_threads = True
        relay.block_on_close = False
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        release = Release(
            [given] if given else [python, "-m", "postroom"], Path(place) / "data", relay.server_address[1]
        )
        password = release.prepare()
        release.expire()
        process, port = release.serve(POSTROOM_RETRY_SCHEDULE="1h")
        try:
            release.fill(port, password)
            manifest = {"version": version} | release.manifest(password)
        finally:
            process.kill()
            process.wait()
        print(f"wrote {keep(release, manifest).relative_to(RELEASES.parent.parent.parent)}")
        relay.shutdown()


if __name__ == "__main__":
    main()
