"""What programs that we did not write may ask of a listener beside taking a message: TLS from the first octet,
SMTPUTF8, notifications, and what devices do. npm's smtp-server shows what came through."""

from __future__ import annotations

import json
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiosmtplib
import pytest

from bench.traffic import free_port
from tests.conftest import find_peer
from tests.interop.conftest import Certificates
from tests.interop.gateway import SENDER, Gateway, a_message, a_recipient, body_of, running_gateway, send
from tests.interop.node_relay import running_node_relay
from tests.interop.witness import Taken, Witness

PROGRAM = "printer"
BODY = bytes(range(128, 256)) + b"\r\n.\r\n..\r\n.dot\r\n"
ASKED = ("RET=HDRS", "ENVID=QQ+2B314")
NOTIFY = "NOTIFY=SUCCESS,FAILURE"


@dataclass
class Doors:
    """Listeners with STARTTLS, with TLS from the start, and in clear for devices, all on this machine."""

    gateway: Gateway
    witness: Witness
    ca: Path
    tls_port: int
    devices_port: int

    @property
    def starttls_port(self) -> int:
        """The first."""
        return self.gateway.served.port

    @property
    def password(self) -> str:
        """Of `PROGRAM`."""
        return self.gateway.passwords[PROGRAM]

    def context(self) -> ssl.SSLContext:
        """For a client."""
        return ssl.create_default_context(cafile=str(self.ca))

    def run(self, program: str, *arguments: object, stdin: bytes = b"") -> None:
        """Run a client to its end; its whole dialogue is shown when it fails."""
        command = [str(find_peer(program)), *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, said.replace(self.password, "(secret)")

    def took(self, recipient: str) -> Taken:
        """What came through for `recipient`, sent by `PROGRAM`."""
        (taken,) = self.witness.to(recipient)
        assert (taken.reverse_path, taken.recipients) == (SENDER, (recipient,))
        shown = json.loads(self.gateway.served.run("queue", "show", "last", "--json").stdout)
        assert shown["application"] == PROGRAM
        return taken


@pytest.fixture(scope="module")
def doors(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """Shared by all of this module; each test has recipients of its own."""
    files = {"certificate": str(certificates.certificate), "key": str(certificates.key)}
    here = {"address": "127.0.0.1"}
    tls_port, devices_port = free_port(), free_port()
    listeners: list[dict[str, object]] = [
        {**here, **files, "tls": "starttls", "port": 0},
        {**here, **files, "tls": "implicit", "port": tls_port},
        {**here, "profile": "devices", "networks": ["127.0.0.0/8"], "allow_clear_login": True, "port": devices_port},
    ]
    kept, data = tmp_path_factory.mktemp("kept"), tmp_path_factory.mktemp("gateway") / "data"
    with running_node_relay(kept, certificates) as relay, running_gateway(data, *listeners) as door:
        door.add_account("relay", relay.plain_port, "--security", "none")
        door.add_application(PROGRAM, "relay")
        yield Doors(door, relay.witness, certificates.ca, tls_port, devices_port)


def assert_all_was_kept(taken: Taken, recipient: str, content: bytes) -> None:
    """The octets, and everything that was asked for."""
    assert taken.content.endswith(content)
    assert {"SMTPUTF8", "BODY=8BITMIME", *ASKED} <= taken.mail_parameters
    assert NOTIFY in taken.rcpt_parameters(recipient)


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_smtplib(doors: Doors, tls: str) -> None:
    recipient = a_recipient("jörg")
    content = a_message(recipient, subject="Grüße", body=BODY)
    if tls == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", doors.tls_port, context=doors.context(), timeout=60)
    else:
        client = smtplib.SMTP("localhost", doors.starttls_port, timeout=60)
        client.starttls(context=doors.context())
    with client:
        client.login(PROGRAM, doors.password)
        client.command_encoding = "utf-8"
        orcpt = "ORCPT=utf-8;jürg@source.example"
        send(client, [recipient], content, ["SMTPUTF8", "BODY=8BITMIME", *ASKED], [NOTIFY, orcpt])
    taken = doors.took(recipient)
    assert_all_was_kept(taken, recipient, content)
    assert r"ORCPT=utf-8;j\x{FC}rg@source.example" in taken.rcpt_parameters(recipient)


async def test_aiosmtplib(doors: Doors) -> None:
    recipient = a_recipient("jörg")
    content = a_message(recipient, subject="Grüße", body=BODY)
    client = aiosmtplib.SMTP(hostname="localhost", port=doors.tls_port, use_tls=True, tls_context=doors.context())
    options = ["SMTPUTF8", "BODY=8BITMIME", *ASKED]
    async with client:
        await client.login(PROGRAM, doors.password)
        await client.mail(SENDER, options=options, encoding="utf-8")
        await client.rcpt(recipient, options=[NOTIFY], encoding="utf-8")
        assert (await client.data(content)).code == 250
    assert_all_was_kept(doors.took(recipient), recipient, content)


def test_nodemailer(doors: Doors) -> None:
    find_peer("nodemailer")
    recipient = a_recipient("jörg")
    content = a_message(recipient, subject="Grüße", body="Grüße\r\n.\r\n.dot\r\n".encode())
    transport = {"host": "localhost", "port": doors.tls_port, "secure": True}
    transport |= {"auth": {"user": PROGRAM, "pass": doors.password}}
    message = {"raw": content.decode(), "envelope": {"from": SENDER, "to": [recipient], "use8BitMime": True}}
    message |= {"dsn": {"id": "QQ+314", "return": "headers", "notify": ["success", "failure"], "recipient": SENDER}}
    order = {"transport": transport, "message": message, "copies": 1, "ca": str(doors.ca)}
    doors.run("node", Path(__file__).with_name("nodemailer_send.mjs"), json.dumps(order))
    taken = doors.took(recipient)
    assert_all_was_kept(taken, recipient, content)
    assert f"ORCPT=rfc822;{SENDER}" in taken.rcpt_parameters(recipient)


def test_msmtp(doors: Doors, tmp_path: Path) -> None:
    recipient = a_recipient()
    content = a_message(recipient, body=BODY)
    settings = ["account default", "host localhost", f"port {doors.tls_port}", f"from {SENDER}", "tls on"]
    settings += ["tls_starttls off", f"tls_trust_file {doors.ca}", "auth on", f"user {PROGRAM}"]
    file = tmp_path / "msmtprc"
    file.touch(mode=0o600)
    file.write_text("\n".join([*settings, f"password {doors.password}", ""]))
    options = ["--dsn-notify=success,failure", "--dsn-return=headers"]
    doors.run("msmtp", f"--file={file}", *options, recipient, stdin=content.replace(b"\r\n", b"\n"))
    taken = doors.took(recipient)
    assert taken.content.endswith(content)
    assert "RET=HDRS" in taken.mail_parameters
    assert NOTIFY in taken.rcpt_parameters(recipient)


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_curl(doors: Doors, tmp_path: Path, tls: str) -> None:
    recipient = a_recipient("jörg")
    content = a_message(recipient, subject="Grüße", body=BODY)
    file = tmp_path / "message"
    file.write_bytes(content)
    url = f"smtps://localhost:{doors.tls_port}" if tls == "implicit" else f"smtp://localhost:{doors.starttls_port}"
    login = ["--user", f"{PROGRAM}:{doors.password}", "--ssl-reqd", "--cacert", doors.ca]
    path = ["--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", file]
    doors.run("curl", "--silent", "--show-error", "--url", url, *login, *path)
    taken = doors.took(recipient)
    assert taken.content.endswith(content)
    assert "SMTPUTF8" in taken.mail_parameters


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_swaks(doors: Doors, tls: str) -> None:
    """With PIPELINING, over TLS."""
    recipient = a_recipient()
    where = ["--tlsc", "--port", doors.tls_port] if tls == "implicit" else ["--tls", "--port", doors.starttls_port]
    login = ["--auth", "PLAIN", "--auth-user", PROGRAM, "--auth-password", doors.password]
    message = ["--from", SENDER, "--to", recipient, "--header", "Subject: pipelined", "--body", "Text.\n.dot\n"]
    check = ["--tls-verify", "--tls-ca-path", doors.ca]
    doors.run("swaks", "--server", "localhost", "--pipeline", *where, *check, *login, *message)
    assert body_of(doors.took(recipient).content).startswith(b"Text.\r\n.dot\r\n")


SCAN = b"From: <sender@source.example>\nSubject: scan\n\nThe scan.\n.\nis above\n"


def scan(doors: Doors, port: int, recipient: str) -> subprocess.CompletedProcess[bytes]:
    """What a scanner does: no name worth the name, LOGIN in clear, bare LF, neither Date nor Message-ID."""
    login = ["--auth", "LOGIN", "--auth-user", PROGRAM, "--auth-password", doors.password]
    command = [
        str(find_peer("swaks")),
        "--server",
        "127.0.0.1",
        "--port",
        str(port),
        "--helo",
        "Office Scanner",
        *login,
    ]
    command += ["--from", SENDER, "--to", recipient, "--data", "-", "--no-data-fixup"]
    return subprocess.run(command, input=SCAN + b"\r\n.\r\n", capture_output=True, timeout=60, check=False)


def test_swaks_as_a_scanner_at_a_listener_for_devices(doors: Doors) -> None:
    recipient = a_recipient()
    assert scan(doors, doors.devices_port, recipient).returncode == 0
    content = doors.took(recipient).content
    head, _, body = content.partition(b"\r\n\r\n")
    assert body == b"The scan.\r\n.\r\nis above\r\n\r\n"
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b"\t", b" "))]
    assert sorted(names) == [b"Date", b"From", b"Message-ID", b"Received", b"Subject"]


def test_swaks_as_a_scanner_at_a_strict_listener(doors: Doors) -> None:
    done = scan(doors, doors.starttls_port, a_recipient())
    assert done.returncode != 0
    assert b'profile = "devices"' in done.stdout
