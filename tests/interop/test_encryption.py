"""TLS as an account says it, with Postfix: old versions, client certificates, pins; else the reason and the mend."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from bench.gateways import Postfix
from tests.interop.conftest import Certificates
from tests.interop.gateway import Gateway, a_message, a_recipient, running_gateway
from tests.interop.node_relay import NodeRelay, running_node_relay
from tests.interop.postfix import log_of, running_postfix


@dataclass
class Hall:
    """The gateway, and what stands behind each Postfix."""

    gateway: Gateway
    certificates: Certificates
    sink: NodeRelay
    at_end: ExitStack

    def postfix(
        self, *, protocols: str = ">=TLSv1.2", asks: str = "no", command_filter: str = "", hidden: str = ""
    ) -> Postfix:
        """One of its own, that speaks these versions, and may ask for client certificates; see postconf(5)."""
        names = {"protocols": protocols, "asks": asks, "command_filter": command_filter, "hidden": hidden}
        running = running_postfix(self.certificates, self.sink.plain_port, "postfix_tls.cf", **names)
        return self.at_end.enter_context(running)

    def send(self, account: str) -> tuple[str, str]:
        """A message by `account`: its id, and its recipient."""
        recipient = a_recipient()
        return self.gateway.submit(account, [recipient], a_message(recipient)), recipient

    def why(self, message: str, account: str, health: str) -> str:
        """What the user is told of a message, once its account is so; pytest's limit is the patience."""
        while True:
            rows: list[dict[str, Any]] = self.gateway.api.ask("GET", "status")["accounts"]
            if any(row["account"] == account and row["health"] == health for row in rows):
                return self.gateway.served.run("why", message).stdout
            assert self.gateway.served.process.poll() is None

    def arrives(self, message: str, recipient: str) -> None:
        """It does."""
        assert self.sink.witness.to(recipient)
        assert list(self.gateway.states(message).values()) == ["delivered"]


@pytest.fixture(scope="module")
def hall(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """Shared by all of this module; each test has an account and a Postfix of its own."""
    folder = tmp_path_factory.mktemp("hall")
    with (
        running_node_relay(folder, certificates) as sink,
        ExitStack() as servers,
        running_gateway(folder / "data") as gateway,
    ):
        yield Hall(gateway, certificates, sink, servers)


def test_tls_1_0_alone(hall: Hall) -> None:
    postfix = hall.postfix(protocols=">=TLSv1, <=TLSv1")
    hall.gateway.add_account("old", postfix.port, "--ca-bundle", str(hall.certificates.ca))
    message, recipient = hall.send("old")
    told = hall.why(message, "old", "sleeping")
    assert "PROTOCOL" in told and "tls_versions" in told
    edited = hall.gateway.served.run("accounts", "edit", "old", "--tls-versions", "1.0,1.2,1.3").stdout
    assert "warning: old may speak TLS 1.0, which is no longer safe" in edited
    hall.arrives(message, recipient)
    assert re.search(r"TLS connection established from .*: TLSv1 with", log_of(postfix))


def test_client_certificate(hall: Hall) -> None:
    postfix, files = hall.postfix(asks="yes"), hall.certificates
    hall.gateway.add_account("shows", postfix.port, "--ca-bundle", str(files.ca))
    message, recipient = hall.send("shows")
    told = hall.why(message, "shows", "needs attention")
    assert "No client certificate presented" in told and "give the account client_certificate and client_key" in told
    own = ["--client-certificate", str(files.certificate), "--client-key-file", str(files.key)]
    hall.gateway.served.run("accounts", "edit", "shows", *own)
    hall.arrives(message, recipient)
    assert "Trusted TLS connection established from" in log_of(postfix)


def test_pinned_certificate(hall: Hall) -> None:
    """Which nobody whom this machine trusts has signed."""
    postfix = hall.postfix()
    pem = hall.certificates.certificate.read_text()
    right = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    hall.gateway.add_account("pins", postfix.port, "--verification", "fingerprint", "--fingerprints", "ab" * 32)
    message, recipient = hall.send("pins")
    told = hall.why(message, "pins", "needs attention")
    assert right.upper() in told.replace(":", "").upper() and "whether the certificate was renewed" in told
    hall.gateway.served.run("accounts", "edit", "pins", "--fingerprints", right)
    hall.arrives(message, recipient)


@pytest.mark.parametrize("security", ["auto", "starttls-if-offered"])
def test_postfix_that_demands_tls_without_offering_it(hall: Hall, security: str) -> None:
    """It takes every EHLO for a HELO, to which it offers nothing."""
    postfix = hall.postfix(command_filter="regexp:{ {/^EHLO(.*)/ HELO$$1} }")
    trusting = ["--ca-bundle", str(hall.certificates.ca), "--security", security]
    hall.gateway.add_account(f"demanded-{security}", postfix.port, *trusting)
    for _ in range(2):
        hall.arrives(*hall.send(f"demanded-{security}"))
    log = log_of(postfix)
    assert len(re.findall("TLS connection established from", log)) == 1
    assert len(re.findall(r"client=localhost\[127.0.0.1\]", log)) == 2
    assert len(re.findall(r"disconnect from .* mail=0/1 ", log)) == 1


def test_postfix_that_demands_tls_and_refuses_it(hall: Hall) -> None:
    postfix = hall.postfix(hidden="starttls")
    hall.gateway.add_account("refused", postfix.port, "--ca-bundle", str(hall.certificates.ca))
    message, _ = hall.send("refused")
    told = hall.why(message, "refused", "needs attention")
    assert "530 5.7.0 Must issue a STARTTLS command first" in told
    assert "set security to starttls; where the relay refuses that, to tls" in told
    while "starttls=0/1" not in log_of(postfix):  # written when it sees the end of the connection
        assert hall.gateway.served.process.poll() is None
