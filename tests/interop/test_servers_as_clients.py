"""A Postfix and an Exim that we did not write hand mail to the listener; npm's smtp-server shows what came through."""

from __future__ import annotations

import json
import re
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from bench.gateways import Postfix
from tests.conftest import find_peer
from tests.interop.conftest import Certificates
from tests.interop.exim import Exim, private_exims
from tests.interop.gateway import SENDER, Gateway, a_message, a_recipient, body_of, running_gateway, send
from tests.interop.node_relay import running_node_relay
from tests.interop.postfix import log_of, running_postfix
from tests.interop.witness import Witness

PROGRAM = "mailserver"


@dataclass
class Door:
    """A listener with STARTTLS for an application with a password, and in clear for programs of this machine."""

    gateway: Gateway
    witness: Witness
    certificates: Certificates
    at_end: ExitStack

    @cached_property
    def postfix(self) -> Postfix:
        """Sends what is for sink.tls over TLS, with the login, and all else in clear without."""
        login = f"{PROGRAM}:{self.gateway.passwords[PROGRAM]}"
        main_cf, port = "postfix_client.cf", self.gateway.served.port
        return self.at_end.enter_context(running_postfix(self.certificates, port, main_cf, login=login))

    @cached_property
    def make_exim(self) -> Callable[..., Exim]:
        """See `private_exims`."""
        return self.at_end.enter_context(private_exims())

    @cached_property
    def exim_with_login(self) -> Exim:
        """Over TLS, as `PROGRAM`; it serves SMTP, too."""
        login = (PROGRAM, self.gateway.passwords[PROGRAM])
        exim = self.make_exim(self.gateway.served.port, login=login, ca=self.certificates.ca)
        exim.start()
        return exim

    @cached_property
    def exim_in_clear(self) -> Exim:
        """Without a login."""
        return self.make_exim(self.gateway.served.port)

    def newest(self) -> dict[str, Any]:
        """The newest message as `queue show` has it."""
        shown: dict[str, Any] = json.loads(self.gateway.served.run("queue", "show", "last", "--json").stdout)
        return shown


@pytest.fixture(scope="module")
def door(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Shared by all of this module; each test has recipients of its own."""
    kept = tmp_path_factory.mktemp("kept")
    tls = {"tls": "starttls", "certificate": str(certificates.certificate), "key": str(certificates.key)}
    with ExitStack() as at_end:
        relay = at_end.enter_context(running_node_relay(kept, certificates))
        data = tmp_path_factory.mktemp("gateway") / "data"
        gateway = at_end.enter_context(running_gateway(data, {"address": "127.0.0.1", "port": 0} | tls))
        gateway.add_account("relay", relay.plain_port, "--security", "none", "--for", "local", "--allow-sender", "*")
        gateway.add_application(PROGRAM, "relay")
        yield Door(gateway, relay.witness, certificates, at_end)


def sendmail(postfix: Postfix, content: bytes, *arguments: str) -> None:
    """Postfix's command, with LF as its line ends."""
    command = [str(find_peer("sendmail")), "-C", str(postfix.folder / "etc"), "-i", "-f", SENDER, *arguments]
    done = subprocess.run(command, input=content.replace(b"\r\n", b"\n"), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def inject(port: int, recipient: str, content: bytes, options: tuple[str, ...], about: tuple[str, ...] = ()) -> None:
    """By the mail server's own SMTP port."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        send(client, [recipient], content, options, about)


#: All octets over 127, and what a client has to stuff.
BODY = bytes(range(128, 256)) + b"\r\n.\r\n..\r\n.dot\r\n"


# Postfix ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "application"), [("sink.tls", PROGRAM), ("sink.example", "local")])
def test_postfix_over_tls_with_a_login_and_in_clear_without(door: Door, domain: str, application: str) -> None:
    recipient = a_recipient(domain=domain)
    content = a_message(recipient, body=BODY)
    sendmail(door.postfix, content, recipient)
    (taken,) = door.witness.to(recipient)
    assert body_of(taken.content) == BODY
    assert (taken.reverse_path, taken.recipients) == (SENDER, (recipient,))
    assert "BODY=8BITMIME" in taken.mail_parameters
    shown = door.newest()
    assert shown["application"] == application
    queued = f"status=sent (250 2.0.0 Ok: queued as {shown['id']})"
    assert queued in log_of(door.postfix)
    verified = re.findall(r"Verified TLS connection established to localhost", log_of(door.postfix))
    assert bool(verified) or domain == "sink.example"


def test_postfix_asks_for_notifications(door: Door) -> None:
    recipient = a_recipient()
    asked = ["-N", "success,failure", "-V", "QQ+314", "-R", "hdrs"]
    sendmail(door.postfix, a_message(recipient), *asked, recipient)
    (taken,) = door.witness.to(recipient)
    assert {"RET=HDRS", "ENVID=QQ+2B314"} <= taken.mail_parameters
    assert {"NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;{recipient}"} <= taken.rcpt_parameters(recipient)


def test_postfix_with_an_address_and_a_header_beyond_ascii(door: Door) -> None:
    recipient = a_recipient("jörg")
    content = a_message(recipient, subject="Grüße")
    inject(door.postfix.port, recipient, content, ("SMTPUTF8", "BODY=8BITMIME"))
    (taken,) = door.witness.to(recipient)
    assert taken.content.endswith(content)
    assert {"SMTPUTF8", "BODY=8BITMIME"} <= taken.mail_parameters


def test_postfix_with_a_load(door: Door) -> None:
    """Each message comes once, and Postfix has nothing to say of us."""
    load = ["-s", "5", "-m", "60", "-N", "-f", SENDER, "-t", "load@sink.example"]
    subprocess.run(
        [str(find_peer("smtp-source")), *load, f"127.0.0.1:{door.postfix.port}"], check=True, timeout=60
    )  # fmt: skip
    recipients = [f"{n}load@sink.example" for n in range(1, 61)]
    taken = door.witness.to(*recipients, count=60)
    assert sorted(one.recipients[0] for one in taken) == sorted(recipients)
    log = log_of(door.postfix)
    assert re.findall(r"postfix/smtp\[.*(?:warning|lost connection|status=deferred|protocol)", log) == []


# Exim -------------------------------------------------------------------------------------------------------------


def delivered_line(exim: Exim, recipient: str) -> str:
    """What Exim's log says of a delivery."""
    (line,) = (line for line in exim.log().splitlines() if f"=> {recipient} " in line)
    return line


@pytest.mark.parametrize("application", [PROGRAM, "local"])
def test_exim_over_tls_with_a_login_and_in_clear_without(door: Door, application: str) -> None:
    """By BDAT, as we offer CHUNKING: Exim marks that by K in its log."""
    exim = door.exim_with_login if application == PROGRAM else door.exim_in_clear
    recipient = a_recipient()
    content = a_message(recipient, body=BODY)
    exim.submit(content, SENDER, recipient)
    (taken,) = door.witness.to(recipient)
    assert body_of(taken.content) == BODY
    assert (taken.reverse_path, taken.recipients) == (SENDER, (recipient,))
    shown = door.newest()
    assert shown["application"] == application
    line = delivered_line(exim, recipient)
    assert f'C="250 2.0.0 Ok: queued as {shown["id"]}"' in line
    assert " K " in line
    assert ("CV=yes" in line, "A=plain" in line) == ((True, True) if application == PROGRAM else (False, False))


def test_exim_with_many_chunks(door: Door) -> None:
    recipient = a_recipient()
    body = b"".join(b"line %d\r\n.\r\n..\r\n" % n for n in range(100_000))
    exim = door.exim_in_clear
    exim.submit(a_message(recipient, body=body), SENDER, recipient)
    (taken,) = door.witness.to(recipient)
    assert body_of(taken.content) == body
    assert " K " in delivered_line(exim, recipient)


def test_exim_asks_for_notifications(door: Door) -> None:
    recipient = a_recipient()
    about = ("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@source.example")
    inject(door.exim_with_login.port, recipient, a_message(recipient), ("RET=HDRS", "ENVID=QQ+2B314"), about)
    (taken,) = door.witness.to(recipient)
    assert {"RET=HDRS", "ENVID=QQ+2B314"} <= taken.mail_parameters
    assert set(about) <= taken.rcpt_parameters(recipient)


def test_exim_with_an_address_and_a_header_beyond_ascii(door: Door) -> None:
    recipient = a_recipient("jörg")
    content = a_message(recipient, subject="Grüße")
    inject(door.exim_with_login.port, recipient, content, ("SMTPUTF8", "BODY=8BITMIME"))
    (taken,) = door.witness.to(recipient)
    assert taken.content.endswith(content)
    assert "SMTPUTF8" in taken.mail_parameters
