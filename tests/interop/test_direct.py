"""Direct delivery judged by Postfix as the MX of domains in a DNS that the test serves, with MTA-STS over HTTPS."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from bench.gateways import Postfix
from bench.traffic import free_port
from tests.interop.aio_relay import running_aio_relay
from tests.interop.conftest import Certificates
from tests.interop.gateway import Gateway, a_message, a_recipient, body_of, running_gateway
from tests.interop.postfix import log_of, running_postfix
from tests.interop.witness import Taken, Witness
from tests.name_server import SERVFAIL, NameServer
from tests.policy_host import PolicyHost

pytestmark = pytest.mark.peer("postfix")

#: Where the policies are served: one address for each process of the tests, since the port is that of all HTTPS.
POLICY_ADDRESS = f"127.43.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"

#: Where nothing listens.
DEAD = "127.0.0.99"

ZONE = {
    "plain.example MX": ["10 dead.example.", "20 mx.plain.example."],
    "mx.plain.example A": ["127.0.0.1"],
    "dead.example A": [DEAD],
    "down.example A": [DEAD],
    "null.example MX": ["0 ."],
    "failing.example MX": [SERVFAIL],
    "foreign.example MX": ["10 mx.plain.example."],
    "verified.example MX": ["10 mx.verified.example."],
    "mx.verified.example A": ["127.0.0.1"],
    "_mta-sts.verified.example TXT": ['"v=STSv1; id=1"'],
    "mta-sts.verified.example A": [POLICY_ADDRESS],
    "elsewhere.example MX": ["10 mx.elsewhere.example."],
    "mx.elsewhere.example A": ["127.0.0.1"],
    "_mta-sts.elsewhere.example TXT": ['"v=STSv1; id=1"'],
    "mta-sts.elsewhere.example A": [POLICY_ADDRESS],
}

POLICY = b"version: STSv1\nmode: enforce\nmx: mx.verified.example\nmx: mx.elsewhere.example\nmax_age: 86400\n"


@dataclass
class Internet:
    """A gateway that delivers directly, and what it finds."""

    gateway: Gateway
    names: NameServer
    policies: PolicyHost
    witness: Witness
    postfix: Postfix

    def send(self, *recipients: str) -> tuple[str, bytes]:
        """The id and the body of a message to them."""
        content = a_message(*recipients)
        return self.gateway.submit("mx", recipients, content), body_of(content)

    def arrived(self, recipient: str) -> Taken:
        """What Postfix handed on for `recipient`."""
        (taken,) = self.witness.to(recipient)
        return taken


def certificates_for(authority: trustme.CA, folder: Path, *names: str) -> Certificates:
    """Files of a certificate for `names`."""
    issued = authority.issue_cert(*names)
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", folder / "chain.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    issued.private_key_and_cert_chain_pem.write_to_path(str(made.chain))
    return made


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """One for all tests of this file."""
    folder, authority = tmp_path_factory.mktemp("direct"), trustme.CA()
    certificates = certificates_for(authority, folder, "mx.verified.example")
    with ExitStack() as at_end:
        witness = Witness()
        behind = at_end.enter_context(running_aio_relay(free_port(), witness, auth_required=False))
        postfix = at_end.enter_context(running_postfix(certificates, behind, "postfix_mx.cf"))
        names = at_end.enter_context(NameServer(ZONE))
        hosts = ("mta-sts.verified.example", "mta-sts.elsewhere.example")
        policies = PolicyHost(authority, *hosts, body=POLICY, address=POLICY_ADDRESS, port=443)
        at_end.enter_context(policies)
        environment = {"POSTROOM_DNS__SERVERS": json.dumps([names.address]), "SSL_CERT_FILE": str(certificates.ca)}
        gateway = at_end.enter_context(running_gateway(folder / "data", **environment))
        options = ["--kind", "direct", "--mx-port", str(postfix.port), "--helo-name", "mail.source.example"]
        gateway.served.run("accounts", "add", "mx", *options, "--local-address", "127.0.0.77")
        gateway.add_application("mx", account="mx")
        yield Internet(gateway, names, policies, witness, postfix)
        assert not re.search(
            r"lost connection after (?!STARTTLS)\w+ from unknown|improper command pipelining", log_of(postfix)
        ), "it leaves by QUIT, but where the certificate is refused"


def test_it_arrives_at_the_next_host_over_tls_from_the_local_address(internet: Internet) -> None:
    recipient = a_recipient(domain="plain.example")
    message, body = internet.send(recipient)
    taken = internet.arrived(recipient)
    assert body_of(taken.content) == body
    received = taken.content.partition(b"\r\nReceived: by")[0].decode()
    assert re.search(r"from mail\.source\.example \(\S+ \[127\.0\.0\.77\]\)\s+\(using TLSv1\.3", received)
    assert list(internet.gateway.states(message).values()) == ["delivered"]


def test_each_domain_gets_its_recipients_and_each_its_outcome(internet: Internet) -> None:
    fine = a_recipient(domain="plain.example")
    recipients = [fine, "unknown@plain.example", "greylisted@plain.example", "nobody@nowhere.example",
                  "null@null.example", "failing@failing.example", "down@down.example",
                  "foreign@foreign.example"]  # fmt: skip
    message, _ = internet.send(*recipients)
    rows = internet.gateway.rows(message)
    internet.arrived(fine)
    found = {local: (row["state"], row["status"]) for local, row in rows.items()}
    assert found.pop(fine.partition("@")[0]) == ("delivered", "2.0.0")
    assert found == {
        "unknown": ("bounced", "5.7.1"),
        "greylisted": ("deferred", "4.7.1"),
        "nobody": ("bounced", "5.1.2"),
        "null": ("bounced", "5.1.10"),
        "failing": ("deferred", "4.4.3"),
        "down": ("deferred", "4.4.1"),
        "foreign": ("bounced", "5.7.1"),  # Postfix: relay access denied
    }
    status = json.loads(internet.gateway.served.run("status", "--json").stdout)
    (account,) = (one for one in status["accounts"] if one["account"] == "mx")
    assert account["health"] == "healthy"


def test_a_policy_is_met_by_a_host_with_its_certificate(internet: Internet) -> None:
    recipient = a_recipient(domain="verified.example")
    message, _ = internet.send(recipient)
    assert b"(using TLSv1." in internet.arrived(recipient).content
    assert list(internet.gateway.states(message).values()) == ["delivered"]
    assert ("mta-sts.verified.example", "/.well-known/mta-sts.txt") in internet.policies.asked


def test_a_policy_keeps_mail_from_a_host_with_another_certificate(internet: Internet) -> None:
    recipient = a_recipient(domain="elsewhere.example")
    message, _ = internet.send(recipient)
    (row,) = internet.gateway.rows(message).values()
    assert (row["state"], row["status"]) == ("deferred", "4.7.5")
    assert "certificate of mx.elsewhere.example was refused" in row["reply"]
    assert "MTA-STS" in row["reply"]
    assert not [taken for taken in internet.witness.taken if recipient in taken.recipients]


def test_messages_to_one_domain_share_connections(internet: Internet) -> None:
    recipients = [a_recipient(domain="plain.example") for _ in range(60)]
    before = log_of(internet.postfix).count("]: connect from unknown[127.0.0.77]")
    internet.gateway.submit_each("mx", {recipient: a_message(recipient) for recipient in recipients})
    for recipient in recipients:
        internet.arrived(recipient)
    assert log_of(internet.postfix).count("]: connect from unknown[127.0.0.77]") - before <= 10
    assert internet.names.asked["plain.example MX"] <= 2, "two may be under way before the first answer is there"
