"""Programs that we did not write submit to the listener, each in every way that it may come."""

from __future__ import annotations

import asyncio
import json
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest

from tests.conftest import Served
from tests.interop.conftest import AioRelay, Arrivals, Certificates, add_relay, rows_of

SENDER = "sender@source.example"
RECIPIENT = "recipient@sink.example"
SUBJECT = "judged from outside"
BODY_LINES = ("First line.", ".a line that begins with a dot", "..two dots", "The end.")
PROGRAM = "printer"

#: The ways to come: the mechanism of AUTH (none: as a program on this machine), and whether STARTTLS comes first.
WAYS = [(mechanism, tls) for tls in (False, True) for mechanism in ("", "PLAIN", "LOGIN")]


@dataclass(frozen=True)
class Door:
    """The listener of a running gateway, and the credentials of an application."""

    served: Served
    arrivals: Arrivals
    password: str
    ca: Path

    @property
    def port(self) -> int:
        """Of the listener; the certificate is for localhost."""
        return self.served.port


@pytest.fixture
def door(
    serve: Callable[..., Served],
    free_port: Callable[[], int],
    aiosmtpd_relay: Callable[..., AioRelay],
    certificates: Certificates,
) -> Iterator[Door]:
    """A gateway that offers STARTTLS and relays to aiosmtpd."""
    relay, port = aiosmtpd_relay(), free_port()
    tls = {"tls": "starttls", "certificate": str(certificates.certificate), "key": str(certificates.key)}
    served = serve(port=port, POSTROOM_SMTP__LISTENERS=json.dumps([{"address": "127.0.0.1", "port": port} | tls]))
    add_relay(served, relay.port)
    made = served.run("applications", "add", PROGRAM, "--allow-sender", SENDER, "--account", "relay", "--json")
    yield Door(served, relay.arrivals, json.loads(made.stdout)["password"], certificates.ca)
    assert served.stop() == 0


def message() -> EmailMessage:
    """What is sent."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = SENDER, RECIPIENT, SUBJECT
    made.set_content("\n".join(BODY_LINES) + "\n")
    return made


def run(command: list[str], stdin: bytes = b"", secret: str = "") -> None:
    """Run a client to its end; its whole dialogue is shown when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace").replace(secret or "\0", "(secret)")
    assert done.returncode == 0, said


def assert_arrived(door: Door, mechanism: str) -> None:
    """One message more came through, whole, in the name of the application that it was."""
    content = door.arrivals.contents()[0]
    (envelope,) = door.arrivals.take()
    head, _, body = content.partition(b"\r\n\r\n")
    assert f"Subject: {SUBJECT}".encode() in head.splitlines()
    assert tuple(body.decode().rstrip("\r\n").split("\r\n")) == BODY_LINES
    assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, [RECIPIENT])
    shown = json.loads(door.served.run("queue", "show", "last", "--json").stdout)
    assert shown["application"] == (PROGRAM if mechanism else "local")


def test_swaks(door: Door, peer: Callable[[str], Path]) -> None:
    for mechanism, tls in WAYS:
        run(swaks(door, peer("swaks"), mechanism, tls), secret=door.password)
        assert_arrived(door, mechanism)


def swaks(door: Door, program: Path, mechanism: str, tls: bool) -> list[str]:
    """Its command line."""
    command = [str(program), "--server", f"localhost:{door.port}", "--from", SENDER, "--to", RECIPIENT]
    command += ["--header", f"Subject: {SUBJECT}", "--body", "\n".join(BODY_LINES)]
    if tls:
        command += ["--tls", "--tls-verify", "--tls-ca-path", str(door.ca)]
    if mechanism:
        command += ["--auth", mechanism, "--auth-user", PROGRAM, "--auth-password", door.password]
    return command if mechanism or tls else [*command, "--pipeline"]


def test_msmtp(door: Door, peer: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "msmtprc"
    for mechanism, tls in WAYS:
        settings = ["account default", "host localhost", f"port {door.port}", f"from {SENDER}"]
        settings += ["tls on", "tls_starttls on", f"tls_trust_file {door.ca}"] if tls else ["tls off"]
        if mechanism:
            settings += [f"auth {mechanism.lower()}", f"user {PROGRAM}", f"password {door.password}"]
        file.touch(mode=0o600)
        file.write_text("\n".join([*settings, ""]))
        run([str(peer("msmtp")), f"--file={file}", RECIPIENT], stdin=message().as_bytes(), secret=door.password)
        assert_arrived(door, mechanism)


@pytest.mark.peer("nodemailer")
def test_nodemailer(door: Door, peer: Callable[[str], Path]) -> None:
    for mechanism, tls in WAYS:
        transport = {"host": "localhost", "port": door.port, "requireTLS": tls, "ignoreTLS": not tls}
        if mechanism:
            transport |= {"authMethod": mechanism, "auth": {"user": PROGRAM, "pass": door.password}}
        what = {"raw": message().as_string(), "envelope": {"from": SENDER, "to": [RECIPIENT]}}
        nodemailer(peer, {"transport": transport, "message": what, "copies": 1, "ca": str(door.ca)}, door.password)
        assert_arrived(door, mechanism)


def nodemailer(peer: Callable[[str], Path], order: dict[str, object], secret: str) -> None:
    """Send by `nodemailer_send.mjs`."""
    run([str(peer("node")), str(Path(__file__).with_name("nodemailer_send.mjs")), json.dumps(order)], secret=secret)


def test_smtplib(door: Door) -> None:
    for mechanism, tls in WAYS:
        with smtplib.SMTP("localhost", door.port, timeout=30) as client:
            if tls:
                client.starttls(context=ssl.create_default_context(cafile=str(door.ca)))
            if mechanism:
                client.ehlo_or_helo_if_needed()
                client.user, client.password = PROGRAM, door.password
                log_in = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
                assert client.auth(mechanism, log_in)[0] == 235
            assert client.send_message(message()) == {}
        assert_arrived(door, mechanism)


async def test_aiosmtplib(door: Door) -> None:
    context = ssl.create_default_context(cafile=str(door.ca))
    for mechanism, tls in WAYS:
        client = aiosmtplib.SMTP(hostname="localhost", port=door.port, start_tls=tls, tls_context=context)
        async with client:
            if mechanism:
                await client.ehlo()
                log_in = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
                assert (await log_in(PROGRAM, door.password)).code == 235
            refused, _ = await client.send_message(message())
            assert refused == {}
        await asyncio.to_thread(assert_arrived, door, mechanism)


def test_nodemailer_pool_keeps_its_connections(door: Door, peer: Callable[[str], Path]) -> None:
    """Twenty messages over two connections that stay."""
    peer("nodemailer")
    transport = {"host": "localhost", "port": door.port, "ignoreTLS": True, "pool": True, "maxConnections": 2}
    what = {"from": SENDER, "to": RECIPIENT, "subject": SUBJECT, "text": "\n".join(BODY_LINES)}
    order = {"transport": transport, "message": what, "copies": 20}
    nodemailer(peer, order, door.password)
    subjects = sorted(line for content in door.arrivals.contents(20) for line in content.split(b"\r\n")[:20]
                      if line.startswith(b"Subject:"))  # fmt: skip
    assert subjects == sorted(f"Subject: {SUBJECT} {n}".encode() for n in range(20))


@pytest.mark.parametrize("keep", ["-d", "-4"], ids=["connections that stay", "a connection for each"])
def test_smtp_source(door: Door, peer: Callable[[str], Path], keep: str) -> None:
    """Its 200 messages are all there, each once."""
    load = ["-s", "10", "-m", "200", "-l", "4096", "-N", "-f", SENDER, "-t", RECIPIENT]
    run([str(peer("smtp-source")), keep, *load, f"127.0.0.1:{door.port}"])
    envelopes = door.arrivals.wait(200)
    recipients = {envelope.rcpt_tos[0] for envelope in envelopes}
    assert (len(envelopes), len(recipients)) == (200, 200)


def test_a_wrong_password_is_refused(door: Door, peer: Callable[[str], Path]) -> None:
    wrong = replace(door, password="not-" + door.password)
    done = subprocess.run(swaks(wrong, peer("swaks"), "PLAIN", True), capture_output=True, timeout=60, check=False)
    assert done.returncode == 28  # swaks: no AUTH succeeded
    assert b"535 5.7.8" in done.stdout
    assert door.arrivals.envelopes == []
    assert rows_of(door.served) == []
