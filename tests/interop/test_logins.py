"""Each mechanism of login, taken by servers that we did not write: Dovecot, Postfix with Dovecot's, Exim."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.traffic import free_port
from tests.conftest import run_postroom
from tests.interop.conftest import Certificates
from tests.interop.dovecot import LOGIN, running_dovecot
from tests.interop.exim import private_exims
from tests.interop.gateway import SENDER, Gateway, a_message, a_recipient, running_gateway
from tests.interop.node_relay import NodeRelay, running_node_relay
from tests.interop.postfix import log_of, running_postfix
from tests.name_server import NameServer

MECHANISMS = ("scram-sha-256", "scram-sha-1", "cram-md5", "plain", "login")

#: Dovecot's service of logins, for Postfix.
AUTH_SERVICE = """
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""

EXIM_CRAM_MD5 = f"""cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{LOGIN[0]}}}{{{LOGIN[1]}}}fail}}
  server_set_id = $auth1
"""
EXIM_LOGIN = f"""login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{{{eq{{$auth1}}{{{LOGIN[0]}}}}}{{eq{{$auth2}}{{{LOGIN[1]}}}}}}}}}
  server_set_id = $auth1
"""


@dataclass
class Hall:
    """The gateway, and the servers that were started so far: the port of each, and what it says of its logins."""

    gateway: Gateway
    certificates: Certificates
    sink: NodeRelay
    at_end: ExitStack
    folder: Path
    servers: dict[str, tuple[int, Callable[[], list[str]]]] = field(default_factory=dict)

    def server(self, name: str) -> tuple[int, Callable[[], list[str]]]:
        """The server of that name, started when it is first asked for; mechanism and user of each login, in capitals
        and as it is."""
        if name not in self.servers:
            self.servers[name] = {"dovecot": self._dovecot, "postfix": self._postfix}[name]()
        return self.servers[name]

    def _dovecot(self) -> tuple[int, Callable[[], list[str]]]:
        mechanisms = " ".join(MECHANISMS)
        running = self.at_end.enter_context(
            running_dovecot(self.certificates, self.sink.plain_port, mechanisms=mechanisms)
        )
        logins = lambda: [  # noqa: E731
            f"{method} {user}" for user, method in re.findall(r" Login: user=<(.*?)>, method=([\w-]+)", running.log())
        ]
        return running.starttls_port, logins

    def _postfix(self) -> tuple[int, Callable[[], list[str]]]:
        port, mechanisms = free_port(), " ".join(MECHANISMS)
        service = AUTH_SERVICE.format(port=port)
        self.at_end.enter_context(
            running_dovecot(self.certificates, self.sink.plain_port, mechanisms=mechanisms, service=service)
        )
        postfix = self.at_end.enter_context(
            running_postfix(self.certificates, self.sink.plain_port, "postfix_logins.cf", auth_port=str(port))
        )
        logins = lambda: [  # noqa: E731
            " ".join(one) for one in re.findall(r"sasl_method=([\w-]+), sasl_username=(\S+)", log_of(postfix))
        ]
        return postfix.port, logins

    def exim(self, authenticators: str) -> tuple[int, Callable[[], list[str]]]:
        """A new one, that offers these alone, in clear."""
        make = self.at_end.enter_context(private_exims())
        exim = make(self.sink.plain_port, authenticators=authenticators)
        exim.start()
        return exim.port, lambda: [" ".join(one) for one in re.findall(r" A=(\w+):(\S+)", exim.log())]

    def send(self, account: str) -> None:
        """A message by `account`, that arrives."""
        recipient = a_recipient()
        content = a_message(recipient)
        message = self.gateway.submit(account, [recipient], content)
        (taken,) = self.sink.witness.to(recipient)
        assert taken.content.endswith(content)
        assert list(self.gateway.states(message).values()) == ["delivered"]

    def add(self, name: str, port: int, *options: str, password: str = LOGIN[1]) -> None:
        """An account that logs in there."""
        ca = ["--ca-bundle", str(self.certificates.ca)]
        self.gateway.add_account(name, port, "--username", LOGIN[0], *ca, *options, password=password)


@pytest.fixture(scope="module")
def hall(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """Shared by all of this module; each test has accounts of its own."""
    folder = tmp_path_factory.mktemp("hall")
    with (
        running_node_relay(folder, certificates) as sink,
        ExitStack() as servers,
        running_gateway(folder / "data") as gateway,
    ):
        yield Hall(gateway, certificates, sink, servers, folder)


@pytest.mark.parametrize("mechanism", [*MECHANISMS, "auto"])
@pytest.mark.parametrize("server", ["dovecot", "postfix"])
def test_login_over_tls(hall: Hall, server: str, mechanism: str) -> None:
    port, logins = hall.server(server)
    account = f"{server}-{mechanism}"
    hall.add(account, port, "--mechanism", mechanism, "--security", "starttls")
    hall.send(account)
    used = "SCRAM-SHA-256" if mechanism == "auto" else mechanism.upper()
    assert logins()[-1] == f"{used} {LOGIN[0]}"


@pytest.mark.parametrize("mechanism", ["scram-sha-256", "cram-md5", "plain"])
@pytest.mark.parametrize("server", ["dovecot", "postfix"])
def test_a_wrong_password_stops_the_account(hall: Hall, server: str, mechanism: str) -> None:
    port, _ = hall.server(server)
    account = f"{server}-wrong-{mechanism}"
    hall.add(account, port, "--mechanism", mechanism, "--security", "starttls", password="wrong horse")
    recipient = a_recipient()
    message = hall.gateway.submit(account, [recipient], a_message(recipient))
    assert "535" in hall.gateway.stopped(account)["reason"]
    why = hall.gateway.served.run("why", message).stdout
    assert "check the user name and the password" in why
    shown = json.loads(hall.gateway.served.run("queue", "show", message, "--json").stdout)
    assert [(row["state"], row["tries"]) for row in shown["deliveries"]] == [("queued", 0)]
    hall.gateway.served.run("accounts", "edit", account, "--password-stdin", stdin=LOGIN[1] + "\n")
    assert list(hall.gateway.states(message).values()) == ["delivered"]


def test_cram_md5_at_exim_in_clear(hall: Hall) -> None:
    port, logins = hall.exim(EXIM_CRAM_MD5 + EXIM_LOGIN)
    hall.add("exim-cram", port, "--security", "none")
    hall.send("exim-cram")
    assert logins() == [f"cram {LOGIN[0]}"]


def test_exim_that_offers_login_alone(hall: Hall) -> None:
    port, logins = hall.exim(EXIM_LOGIN)
    hall.add("exim-login", port, "--security", "none", "--allow-clear-password")
    hall.send("exim-login")
    assert logins() == [f"login {LOGIN[0]}"]
    hall.add("exim-careful", port, "--security", "none")
    recipient = a_recipient()
    hall.gateway.submit("exim-careful", [recipient], a_message(recipient))
    assert "may not send its password in clear" in hall.gateway.stopped("exim-careful")["reason"]
    assert logins() == [f"login {LOGIN[0]}"]


@pytest.mark.parametrize("server", ["dovecot", "postfix"])
def test_a_connection_test_goes_through_every_stage_and_tells_a_wrong_password(hall: Hall, server: str) -> None:
    port, _ = hall.server(server)
    run = hall.gateway.served.run
    hall.add(f"tried-{server}", port, "--security", "starttls")
    with NameServer({}) as names:
        run("settings", "set", "dns.servers", names.address)
        asked = ("accounts", "test", f"tried-{server}", "--from", SENDER, "--to", a_recipient(), "--json")
        found = json.loads(run(*asked).stdout)
        again = run_postroom(hall.gateway.served.environment, *asked, "--password-stdin", stdin="wrong\n", check=False)
    told = {stage["stage"]: stage for stage in found["stages"]}
    assert found["passed"]
    assert [told[name]["outcome"] for name in ("starttls", "tls", "auth", "sender", "recipient")] == ["passed"] * 5
    assert told["tls"]["facts"]["version"] == "TLSv1.3"
    assert told["auth"]["facts"]["mechanism"].startswith("SCRAM-SHA-256")
    refused = json.loads(again.stdout)["stages"]
    (auth,) = [stage for stage in refused if stage["stage"] == "auth"]
    assert (again.returncode, auth["outcome"]) == (1, "failed")
    assert auth["advice"][0]["cause"] == "a wrong user name or password"
