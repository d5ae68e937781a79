"""Tokens of a real authorization server (npm's oidc-provider), judged by Dovecot, which asks that server about them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.interop.authorization_server import (
    MECHANISMS,
    AuthorizationServer,
    Browser,
    running_authorization_server,
)
from tests.interop.conftest import Certificates
from tests.interop.dovecot import Dovecot, running_dovecot
from tests.interop.gateway import Gateway, a_message, a_recipient, running_gateway
from tests.interop.node_relay import NodeRelay, running_node_relay

pytestmark = pytest.mark.peer("oidc-provider")


@dataclass
class House:
    """A gateway, an authorization server, and a Dovecot that hands on to a sink what it takes."""

    gateway: Gateway
    server: AuthorizationServer
    dovecot: Dovecot
    sink: NodeRelay
    certificates: Certificates
    folder: Path
    service_key: str

    def add(self, name: str, *options: str, files: dict[str, str] | None = None) -> None:
        """An account that logs in at Dovecot by what `options` say; `files` are options whose values are files."""
        given = []
        for option, text in (files or {}).items():
            file = self.folder / f"{name}.{option}"
            file.write_text(text)
            given += [f"--{option}", str(file)]
        way = ["--ca-bundle", str(self.certificates.ca), "--security", "starttls"]
        self.gateway.add_account(name, self.dovecot.starttls_port, *options, *given, *way)

    def send(self, account: str) -> None:
        """A message by `account`, that arrives."""
        recipient = a_recipient()
        message = self.gateway.submit(account, [recipient], a_message(recipient))
        self.sink.witness.to(recipient)
        assert list(self.gateway.states(message).values()) == ["delivered"]

    def login(self) -> str:
        """Mechanism and user of the last login."""
        user, method = re.findall(r" Login: user=<(.*?)>, method=([\w-]+)", self.dovecot.log())[-1]
        return f"{method} {user}"

    def shown(self, account: str) -> dict[str, Any]:
        """The account."""
        found: dict[str, Any] = json.loads(self.gateway.served.run("accounts", "show", account, "--json").stdout)
        return found

    def tested(self, account: str, *, passes: bool = True) -> dict[str, Any]:
        """The stages of a test of the account, by name."""
        told = self.gateway.served.run("accounts", "test", account, "--from", "me@sender.test", "--json", check=False)
        found = json.loads(told.stdout)
        assert (found["passed"], told.returncode) == (passes, 0 if passes else 1), found
        return {stage["stage"]: stage for stage in found["stages"]}

    def stopped(self, account: str) -> dict[str, Any]:
        """How the account is, once it needs attention; pytest's limit is the patience."""
        while (circuit := self.shown(account)["circuit"])["health"] != "needs attention":
            assert self.gateway.served.process.poll() is None
        found: dict[str, Any] = circuit
        return found

    @contextmanager
    def authorizing(self, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """`postroom accounts authorize`, and the address that it tells a person to open."""
        command = [sys.executable, "-m", "postroom", "accounts", "authorize", *arguments, "--json"]
        process = subprocess.Popen(
            command, env=self.gateway.served.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            found = (re.search(r"http://127\S+(?:state|user_code)=\S+", line) for line in process.stderr)
            yield process, next(match[0] for match in found if match is not None)
        finally:
            process.kill()
            process.communicate()

    def consent(self, account: str) -> dict[str, Any]:
        """A person consents in a browser; how the account stands then."""
        with self.authorizing(account, "--no-browser") as (process, url):
            _, page = Browser().open(url)
            assert "Postroom has the answer" in page
            told, said = process.communicate(timeout=60)
            assert process.returncode == 0, said
        found: dict[str, Any] = json.loads(told)["authorization"]
        return found


@pytest.fixture(scope="module")
def house(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Shared by all of this module; each test has accounts of its own. Access tokens are good for half a minute."""
    folder = tmp_path_factory.mktemp("house")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(encoding, pkcs8, serialization.NoEncryption()).decode()
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    with running_authorization_server(certificates, public) as server, running_node_relay(folder, certificates) as sink:
        with (
            running_dovecot(
                certificates, sink.plain_port, mechanisms=MECHANISMS, service=server.passdb(folder)
            ) as dovecot,
            running_gateway(folder / "data") as gateway,
        ):
            yield House(gateway, server, dovecot, sink, certificates, folder, private)


SCOPES = ("--oauth-scopes", "openid offline_access mail.send")


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer", "auto"])
def test_a_person_consents_in_a_browser_and_mail_goes(house: House, mechanism: str) -> None:
    """Authorization code with PKCE, to a redirect on loopback; the client has a secret with odd characters."""
    name = f"browser-{mechanism}"
    options = house.server.options("desktop", "authorization-code", *SCOPES, "--mechanism", mechanism)
    house.add(name, *options, files={"oauth-client-secret-file": "a secret: with + and %"})
    assert house.consent(name)["state"] == "given"
    house.send(name)
    assert house.login() == f"{'XOAUTH2' if mechanism == 'auto' else mechanism.upper()} mailbox"


def test_a_person_types_a_code(house: House) -> None:
    house.add("device", *house.server.options("public", "device-code", *SCOPES))
    with house.authorizing("device") as (process, url):
        assert "Sign-in Success" in Browser().enter_code(url)
        told, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert json.loads(told)["authorization"]["state"] == "given"
    house.send("device")
    assert house.login() == "XOAUTH2 mailbox"


@pytest.mark.parametrize(
    ("client", "secret"), [("robot", "robot secret"), ("certified", "")], ids=["by-secret", "by-certificate"]
)
def test_an_application_has_rights_of_its_own(house: House, client: str, secret: str) -> None:
    options = [*house.server.options(client, "client-credentials"), "--oauth-scopes", "mail.send", "--username", client]
    files = {"oauth-client-secret-file": secret}
    if not secret:
        files = {"oauth-certificate": house.server.certificate, "oauth-certificate-key-file": house.server.key}
    house.add(client, *options, files=files)
    house.send(client)
    assert house.login() == f"XOAUTH2 {client}"
    assert house.shown(client)["authorization"]["state"] == "not needed"


def test_a_service_account_sends_for_a_mailbox(house: House) -> None:
    key = {
        "type": "service_account", "client_email": "robot@project.test", "private_key_id": "1",
        "private_key": house.service_key, "token_uri": f"{house.server.issuer}/google/token",
    }  # fmt: skip
    options = ["--authentication", "oauth2", "--oauth-provider", "google", "--oauth-flow", "service-account"]
    house.add("service", *options, "--username", "mailbox", files={"oauth-service-account-file": json.dumps(key)})
    house.send("service")
    assert house.login() == "XOAUTH2 mailbox"


def test_a_refused_token_is_renewed_and_a_dead_consent_stops_the_account(house: House) -> None:
    """The refresh token rotates; its second use is taken for a theft by this server, and the consent ends."""
    options = house.server.options("public", "authorization-code", *SCOPES, "--idle-timeout", "0s")
    house.add("person", *options)
    house.consent("person")
    house.send("person")
    house.gateway.served.run("accounts", "authorize", "person", "--forget")
    recipient = a_recipient()
    message = house.gateway.submit("person", [recipient], a_message(recipient))
    assert "nobody has authorized this account yet" in house.stopped("person")["reason"]
    house.consent("person")
    house.sink.witness.to(recipient)
    assert list(house.gateway.states(message).values()) == ["delivered"]


def test_a_test_of_the_account_leaves_its_consent_as_it_should_be(house: House) -> None:
    """This server rotates refresh tokens, ends a consent whose old one comes again, and publishes its metadata."""
    house.add("tested", *house.server.options("public", "authorization-code", *SCOPES))
    assert "postroom accounts authorize tested" in house.tested("tested", passes=False)["token"]["advice"][0]["advice"]
    house.consent("tested")
    for _ in range(3):
        stages = house.tested("tested")
        assert stages["metadata"]["facts"]["issuer"] == house.server.issuer
        assert stages["metadata"]["outcome"] == stages["auth"]["outcome"] == "passed"
        assert {"mail.send"} <= set(stages["claims"]["facts"]["granted"])
    house.send("tested")
    assert house.login() == "XOAUTH2 mailbox"


def test_a_person_who_says_no(house: House) -> None:
    house.add("unwilling", *house.server.options("public", "authorization-code", *SCOPES), "--username", "unwilling")
    with house.authorizing("unwilling", "--no-browser") as (process, url):
        Browser().open(url)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 77 and "access_denied: the person said no" in said


def test_another_mailbox_than_the_one_that_consented(house: House) -> None:
    """Dovecot says so in a 334, which is answered; one more token does not help."""
    options = house.server.options("robot", "client-credentials", "--oauth-scopes", "mail.send")
    house.add("other", *options, files={"oauth-client-secret-file": "robot secret"})
    recipient = a_recipient()
    house.gateway.submit("other", [recipient], a_message(recipient))
    circuit = house.stopped("other")
    assert "535" in circuit["reason"] and "check that the user name is the mailbox" in circuit["advice"]


def test_a_wrong_secret(house: House) -> None:
    options = house.server.options("robot", "client-credentials", "--oauth-scopes", "mail.send")
    house.add("wrong", *options, files={"oauth-client-secret-file": "not it"})
    recipient = a_recipient()
    house.gateway.submit("wrong", [recipient], a_message(recipient))
    circuit = house.stopped("wrong")
    assert "401 invalid_client" in circuit["reason"] and "oauth_client_id and its secret" in circuit["advice"]
