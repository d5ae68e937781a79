"""What Postroom is for: a scanner and cron, which speak plain SMTP, send by Microsoft Graph and by XOAUTH2."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from tests.conftest import Served, end_serving, start_serving
from tests.graph_peer import Item
from tests.interop.authorization_server import MECHANISMS, running_authorization_server
from tests.interop.conftest import written
from tests.interop.dovecot import running_dovecot
from tests.interop.node_relay import running_node_relay
from tests.microsoft import MAILBOX, TENANT, Microsoft

T = TypeVar("T")

MIB = 1024 * 1024

#: The address that the listener for devices lets connect.
SCANNER = "127.0.0.5"

#: As Debian's cron writes it.
CRON = """\
From: root (Cron Daemon)
To: admin@y.test
Subject: Cron <root@db1> /usr/local/bin/backup
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit
X-Cron-Env: <MAILTO=admin@y.test>

backup of the 27th: 3 files, größer als gestern
.
done
"""


@cache
def pdf() -> bytes:
    """A PDF of 10 MiB: one page, and a stream that nothing can press together."""
    scanned = random.Random(8).randbytes(10 * MIB)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>",
        b"<</Length %d>>\nstream\n%s\nendstream" % (len(scanned), scanned),
    ]  # fmt: skip
    made, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 5\n0000000000 65535 f \n%strailer\n<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n"
    return made + end % (table, len(made))


def scan_lines() -> Iterator[bytes]:
    """The message of a scanner: no Date and no Message-ID, and lines of its file that end with a bare LF."""
    head = [
        f'From: "Scanner, 2nd floor" <{MAILBOX}>', "To: <ann@y.test>", "Subject: Scan 0042", "MIME-Version: 1.0",
        'Content-Type: multipart/mixed; boundary="KM_0042"', "", "--KM_0042", "Content-Type: text/plain", "",
        "Please find the scan attached.", "--KM_0042", 'Content-Type: application/pdf; name="SKM_0042.pdf"',
        "Content-Transfer-Encoding: base64", 'Content-Disposition: attachment; filename="SKM_0042.pdf"', "",
    ]  # fmt: skip
    for line in head:
        yield line.encode() + b"\r\n"
    yield from base64.encodebytes(pdf()).splitlines(keepends=True)
    yield b"--KM_0042--\r\n"


class Scanner:
    """An office device: a socket, commands one by one, and content one line at a time."""

    def __init__(self, port: int, address: str = SCANNER) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60, (address, 0))
        self._replies = self._socket.makefile("rb")
        self.greeting = self._reply()

    def _reply(self) -> str:
        while (line := self._replies.readline())[3:4] == b"-":
            pass
        return line.decode().rstrip()

    def ask(self, line: str, wanted: str) -> str:
        """Its reply, which is `wanted`."""
        self._socket.sendall(line.encode() + b"\r\n")
        reply = self._reply()
        assert reply.startswith(wanted), (line, reply)
        return reply

    def send(self, user: str, password: str) -> str:
        """Scan to e-mail; the message's id."""
        self.ask("EHLO KM_C284e (2nd floor)", "250")
        self.ask("AUTH LOGIN", "334 ")
        self.ask(base64.b64encode(user.encode()).decode(), "334 ")
        self.ask(base64.b64encode(password.encode()).decode(), "235 ")
        self.ask(f"MAIL FROM: <{MAILBOX}>", "250 ")
        for recipient in ("ann@y.test", "bob@z.test"):
            self.ask(f"RCPT TO: <{recipient}>", "250 ")
        self.ask("DATA", "354 ")
        for line in scan_lines():
            self._socket.sendall(line)
        return self.ask(".", "250 ").rpartition(" ")[2]

    def close(self) -> None:
        """Hang up, without QUIT."""
        self._replies.close()
        self._socket.close()


class Office:
    """A gateway as a process, started as often as the test wants, with a listener for devices beside its own."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.folder = folder
        self.ports = [free_port(), free_port()]
        self.started: list[Served] = []
        self.password = ""

    @property
    def served(self) -> Served:
        """The process."""
        return self.started[-1]

    async def start(self) -> None:
        """Start the process; the first time, or on what the last one left."""
        devices = {"profile": "devices", "networks": [SCANNER], "allow_clear_login": True}
        doors = [{"address": "127.0.0.1", "port": port} for port in self.ports]
        listeners = json.dumps([doors[0], doors[1] | devices])
        self.started.append(await asyncio.to_thread(start_serving, self.folder / "data", listeners))

    async def run(self, *arguments: str) -> str:
        """What the command prints."""
        return (await asyncio.to_thread(self.served.run, *arguments)).stdout

    async def file(self, name: str, text: str) -> str:
        """A file of that text."""
        await asyncio.to_thread((self.folder / name).write_text, text)
        return str(self.folder / name)

    async def may_scan_to(self, microsoft: Microsoft) -> None:
        """An account at Graph, and a scanner that sends by it."""
        fields = microsoft.account()
        ca, secret = fields.pop("ca_bundle"), fields.pop("oauth_client_secret")
        options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items() if name != "name"]
        files = ["--ca-bundle", await self.file("ca", ca), "--oauth-client-secret-file", await self.file("s", secret)]
        await self.run("accounts", "add", "m365", *options, *files)
        allowed = ["--allow-sender", MAILBOX, "--account", "m365", "--json"]
        self.password = json.loads(await self.run("applications", "add", "scanner", *allowed))["password"]

    async def scanned(self) -> str:
        """The scanner sends; the message's id."""

        def scan() -> str:
            scanner = Scanner(self.ports[1])
            message = scanner.send("scanner", self.password)
            scanner.close()
            return message

        return await asyncio.to_thread(scan)

    async def shown(self, message: str) -> dict[str, Any]:
        """A message, once nothing of it is left to send; pytest's limit is the patience."""
        while True:
            found: dict[str, Any] = json.loads(await self.run("queue", "show", message, "--json"))
            if all(row["state"] in ("delivered", "bounced", "expired") for row in found["deliveries"]):
                return found
            assert self.served.process.poll() is None


@pytest.fixture
async def office(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Office]:
    """One that runs."""
    found = Office(tmp_path, free_port)
    await found.start()
    yield found
    for served in found.started:
        await asyncio.to_thread(end_serving, served)


@pytest.fixture
async def microsoft() -> AsyncIterator[Microsoft]:
    """Microsoft 365, behind a proxy."""
    async with Microsoft() as found:
        yield found


def is_the_scan(item: Item) -> None:
    """What Graph sent is the message of the scanner, with its file as it was, to those whom the envelope named."""
    assert item.recipients == ["ann@y.test", "bob@z.test"]
    assert [one["emailAddress"]["address"] for one in item.message["toRecipients"]] == ["ann@y.test"]
    assert item.message["from"]["emailAddress"] == {"name": "Scanner, 2nd floor", "address": MAILBOX}
    assert item.message["subject"] == "Scan 0042"
    assert item.message["body"]["content"].strip() == "Please find the scan attached."
    (file,) = item.files
    assert (file["name"], file["contentType"]) == ("SKM_0042.pdf", "application/pdf")
    assert hashlib.sha256(file["content"]).hexdigest() == hashlib.sha256(pdf()).hexdigest()


@pytest.mark.peer("oidc-provider", "dovecot", "smtp-server", "msmtp")
async def test_a_scan_leaves_by_graph_and_the_mail_of_cron_by_xoauth2(
    office: Office, microsoft: Microsoft, peer: Callable[[str], Path]
) -> None:
    await office.may_scan_to(microsoft)
    stranger = await asyncio.to_thread(Scanner, office.ports[1], "127.0.0.6")
    assert stranger.greeting.startswith("554 5.7.1 ")
    stranger.close()
    shown = await office.shown(await office.scanned())
    assert [row["state"] for row in shown["deliveries"]] == ["delivered"] * 2
    (item,) = microsoft.graph.sent
    is_the_scan(item)
    ranges = [asked for asked in microsoft.graph.requests if asked.method == "PUT"]
    assert len(ranges) == 4 and microsoft.graph.asked[-1] == "POST messages/ID/send"
    (asked,) = microsoft.desk.asked
    assert asked.path == f"/{TENANT}/oauth2/v2.0/token"
    assert asked.form == {
        "grant_type": "client_credentials", "client_id": "app-1", "client_secret": "s3cret",
        "scope": "https://graph.microsoft.com/.default",
    }  # fmt: skip

    certificates = written(office.folder, trustme.CA(), {}, "localhost")
    with ExitStack() as running:
        server = running.enter_context(running_authorization_server(certificates, ""))
        sink = running.enter_context(running_node_relay(office.folder, certificates))
        passdb = server.passdb(office.folder)
        dovecot = running.enter_context(
            running_dovecot(certificates, sink.plain_port, mechanisms=MECHANISMS, service=passdb)
        )
        options = server.options("robot", "client-credentials", "--oauth-scopes", "mail.send", "--username", "robot")
        way = ["--host", "localhost", "--port", str(dovecot.starttls_port), "--security", "starttls"]
        files = ["--ca-bundle", str(certificates.ca)]
        files += ["--oauth-client-secret-file", await office.file("robot", "robot secret")]
        given = [*way, *options, *files, "--for", "local", "--allow-sender", "*"]
        await office.run("accounts", "add", "smtp", *given)
        settings = f"account default\nhost 127.0.0.1\nport {office.ports[0]}\nfrom root@db1.x.test\ntls off\n"
        sendmail = [str(peer("msmtp")), f"--file={await office.file('msmtprc', settings)}"]
        sendmail += ["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "admin@y.test"]
        run = partial(subprocess.run, sendmail, input=CRON.encode(), check=True, timeout=60)
        await asyncio.to_thread(run)
        (taken,) = await asyncio.to_thread(sink.witness.to, "admin@y.test")
        assert taken.reverse_path == "root@db1.x.test"
        assert taken.content.replace(b"\r\n", b"\n").endswith(CRON.partition("\n\n")[2].encode())
        assert "Login: user=<robot>, method=XOAUTH2" in dovecot.log()
    assert len(microsoft.graph.sent) == 1
    assert await asyncio.to_thread(office.served.stop) == 0


async def test_a_gateway_that_is_killed_within_the_upload_sends_the_scan_once(
    office: Office, microsoft: Microsoft
) -> None:
    """As docs/graph.md says it: the draft stays, nobody got it, and the next try takes it away first."""
    graph = microsoft.graph
    await office.may_scan_to(microsoft)
    graph.be_silent("PUT")
    message = await office.scanned()
    while "PUT /upload/ID" not in graph.asked:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(office.served.kill)
    assert len(graph.drafts) == 1 and graph.sent == []
    before = len(graph.asked)
    await office.start()
    shown = await office.shown(message)
    assert [row["state"] for row in shown["deliveries"]] == ["delivered"] * 2
    assert all(any("sent twice" in mark for mark in row["marks"]) for row in shown["deliveries"])
    (item,) = graph.sent
    is_the_scan(item)
    assert graph.drafts == {}
    assert graph.asked[before : before + 4] == [
        "GET mailFolders/sentitems/messages", "GET mailFolders/drafts/messages", "DELETE messages/ID", "POST messages",
    ]  # fmt: skip
    assert await asyncio.to_thread(office.served.stop) == 0
