"""POP-before-SMTP as providers had it: a Postfix that relays only for those who logged in to Dovecot's POP3."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.gateways import Postfix
from tests.interop.conftest import Certificates
from tests.interop.dovecot import LOGIN
from tests.interop.dovecot_pop3 import STRANGER, Clients, Pop3Dovecot, running_pop3
from tests.interop.gateway import Gateway, a_message, a_recipient, running_gateway
from tests.interop.node_relay import NodeRelay, running_node_relay
from tests.interop.postfix import log_of, running_postfix


@dataclass
class Provider:
    """A gateway, and the provider that it sends through."""

    gateway: Gateway
    pop: Pop3Dovecot
    clients: Clients
    relay: Postfix
    sink: NodeRelay
    certificates: Certificates

    def add(
        self, name: str, *options: str, port: int | None = None, user: str = LOGIN[0], password: str = LOGIN[1]
    ) -> None:
        """An account that logs in before; each of its messages has a connection of its own."""
        secret = self.sink.folder / "password"
        secret.write_text(password)
        pop = ["--pop-host", "localhost", "--pop-port", str(port or self.pop.port), "--pop-username", user]
        pop += ["--pop-password-file", str(secret), "--ca-bundle", str(self.certificates.ca)]
        authentication = ["--authentication", "pop-before-smtp"]
        self.gateway.add_account(name, self.relay.port, "--security", "none", *authentication, *pop, *options)
        self.gateway.served.run("accounts", "edit", name, "--messages-per-connection", "1")

    def send(self, account: str, *recipients: str) -> str:
        """A message that arrives, once, at each; its id."""
        message = self.gateway.submit(account, recipients, a_message(*recipients))
        for recipient in recipients:
            assert len(self.sink.witness.to(recipient)) == 1
        assert set(self.gateway.states(message).values()) == {"delivered"}
        return message


@pytest.fixture(scope="module")
def provider(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """Shared by all of this module; each test has an account of its own."""
    folder = tmp_path_factory.mktemp("provider")
    shared = Path(tempfile.mkdtemp(prefix="postroom-clients-"))
    shared.chmod(0o755)
    clients = Clients(shared)
    try:
        with (
            running_node_relay(folder, certificates) as sink,
            clients.answering(),
            running_postfix(certificates, sink.plain_port, "postfix_pop.cf", clients_port=str(clients.port)) as postfix,
            running_pop3(certificates, clients) as pop,
            running_gateway(folder / "data") as gateway,
        ):
            yield Provider(gateway, pop, clients, postfix, sink, certificates)
    finally:
        shutil.rmtree(shared)


@pytest.mark.parametrize(
    ("options", "login"),
    [
        (["--pop-security", "none"], ("APOP", False)),
        (["--pop-security", "stls"], ("APOP", True)),
        (["--pop-security", "tls"], ("APOP", True)),
        (["--pop-security", "stls", "--no-pop-apop"], ("PLAIN", True)),
        (["--pop-security", "tls", "--no-pop-apop"], ("PLAIN", True)),
        (["--pop-security", "none", "--no-pop-apop", "--allow-clear-password"], ("PLAIN", False)),
    ],
    ids=["apop", "apop-stls", "apop-tls", "stls", "tls", "clear"],
)
def test_the_relay_opens_by_a_login(provider: Provider, options: list[str], login: tuple[str, bool]) -> None:
    provider.clients.empty()
    name = "-".join([login[0], *(option.strip("-") for option in options)])
    port = provider.pop.tls_port if "tls" in options else provider.pop.port
    before = len(provider.pop.logins())
    provider.add(name, *options, port=port)
    for _ in range(3):
        provider.send(name, a_recipient())
    assert provider.pop.logins()[before:] == [(LOGIN[0], *login)], "one login serves"


def test_who_was_denied_gets_it_once_after_another_login(provider: Provider) -> None:
    provider.add("lapsed")
    provider.send("lapsed", a_recipient())
    before = len(provider.pop.logins())
    provider.clients.empty()  # the provider's window is over
    own, others = a_recipient(domain="isp.example"), [a_recipient(), a_recipient()]
    provider.send("lapsed", own, *others)
    assert f"<{others[0]}>: Relay access denied" in log_of(provider.relay)
    assert len(provider.pop.logins()) == before + 1
    provider.send("lapsed", a_recipient())
    assert len(provider.pop.logins()) == before + 1


def test_a_relay_that_stays_shut_stops_the_account_and_mail_waits(provider: Provider) -> None:
    provider.clients.empty()
    provider.add("stranger", user=STRANGER)
    recipient = a_recipient()
    message = provider.gateway.submit("stranger", [recipient], a_message(recipient))
    account = provider.gateway.stopped("stranger")
    assert "Relay access denied" in account["reason"]
    assert [user for user, _, _ in provider.pop.logins()].count(STRANGER) == 2
    why = provider.gateway.served.run("why", message).stdout
    assert "POP-before-SMTP" in why
    shown = json.loads(provider.gateway.served.run("queue", "show", message, "--json").stdout)
    assert [(row["state"], row["tries"]) for row in shown["deliveries"]] == [("deferred", 0)]
    provider.gateway.served.run("accounts", "edit", "stranger", "--pop-username", LOGIN[0])
    assert len(provider.sink.witness.to(recipient)) == 1


@pytest.mark.parametrize("options", [["--pop-security", "none"], ["--pop-security", "stls", "--no-pop-apop"]])
def test_a_wrong_password_stops_the_account(provider: Provider, options: list[str]) -> None:
    name = f"wrong-{len(options)}"
    provider.add(name, *options, password="wrong horse")
    recipient = a_recipient()
    message = provider.gateway.submit(name, [recipient], a_message(recipient))
    account = provider.gateway.stopped(name)
    assert "pop: localhost refused the POP3 login: -ERR [AUTH]" in account["reason"]
    assert "check pop_username and pop_password" in provider.gateway.served.run("why", message).stdout
    provider.gateway.served.run("accounts", "edit", name, "--pop-password-file", "-", stdin=LOGIN[1] + "\n")
    assert list(provider.gateway.states(message).values()) == ["delivered"]


def test_without_apop_the_password_stays_here_until_it_may_go_encrypted(provider: Provider) -> None:
    with running_pop3(provider.certificates, provider.clients, mechanisms="plain login") as plain:
        provider.clients.empty()
        provider.add("no-apop", port=plain.port)
        recipient = a_recipient()
        message = provider.gateway.submit("no-apop", [recipient], a_message(recipient))
        reason = provider.gateway.stopped("no-apop")["reason"]
        assert "localhost greets with no timestamp for APOP, and the password does not go in clear" in reason
        assert "switch APOP off and encrypt the login instead" in provider.gateway.served.run("why", message).stdout
        assert plain.logins() == []
        provider.gateway.served.run("accounts", "edit", "no-apop", "--no-pop-apop", "--pop-security", "stls")
        assert list(provider.gateway.states(message).values()) == ["delivered"]
        assert plain.logins() == [(LOGIN[0], "PLAIN", True)]
