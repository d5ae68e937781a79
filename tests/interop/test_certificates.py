"""Postfix and Dovecot with certificates that are expired, not yet valid, self-signed or another's: no mail, no
password, and nothing in clear, whatever the account's security; and the reason with the mend."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from bench.gateways import Postfix
from tests.e2e.attackers import Api
from tests.interop.conftest import Certificates, written
from tests.interop.dovecot import LOGIN, Dovecot, running_dovecot
from tests.interop.gateway import SENDER, Gateway, a_message, a_recipient, running_gateway
from tests.interop.node_relay import NodeRelay, running_node_relay
from tests.interop.postfix import log_of, running_postfix
from tests.tls_relay import EXPIRED, NOT_YET_VALID

#: What each relay shows, what the account is told, and the advice.
FAULTS = {
    "expired": ("certificate has expired", "have the relay's certificate renewed"),
    "not yet valid": ("not yet valid", "check this machine's clock"),
    "another's": ("mismatch", "server_name"),
    "self-signed": ("self-signed certificate", "give the account the CA bundle"),
}


@dataclass
class Row:
    """A Postfix for each certificate, a Dovecot for some, and a gateway that trusts the authority of all but one."""

    gateway: Gateway
    api: Api
    sink: NodeRelay
    postfixes: dict[str, Postfix]
    dovecots: dict[str, Dovecot]
    ca: str

    def send(self, name: str, port: int, **fields: Any) -> tuple[str, str]:
        """A message by a new account that trusts the authority: its id, and its recipient."""
        grant = {"application": "local", "senders": ["*"]}
        account = {"name": name, "host": "localhost", "port": port, "ca_bundle": self.ca, "grant": grant}
        self.api.ask("POST", "accounts", account | fields)
        recipient = a_recipient()
        where = {"account": name, "from": SENDER, "to": recipient}
        return self.api.ask("POST", "messages", raw=a_message(recipient), **where)["id"], recipient

    def stopped(self, account: str, message: str) -> str:
        """Why the message waits and what to do, once the account needs attention."""

        def has_stopped(status: Any) -> bool:
            (row,) = (row for row in status["accounts"] if row["account"] == account)
            assert not row["counts"].get("delivered")
            return bool(row["health"] == "needs attention")

        self.api.wait_for("status", has_stopped)
        (told,) = self.api.ask("GET", f"messages/{message}/why")["deliveries"]
        return f"{told['reason']} {told['advice']}"

    def arrives(self, message: str, recipient: str) -> None:
        """It does."""
        self.api.message(message, "delivered")
        assert self.sink.witness.to(recipient)


def certificate(fault: str, authority: trustme.CA, folder: Path) -> Certificates:
    """One with this fault, for localhost."""
    if fault == "self-signed":
        return written(folder, trustme.CA(), {})
    name = "mail.provider.test" if fault == "another's" else "localhost"
    times: dict[str, datetime.datetime] = {"expired": EXPIRED, "not yet valid": NOT_YET_VALID}.get(fault, {})
    return written(folder, authority, times, name)


@pytest.fixture(scope="module")
def row(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    """Shared by all of this module."""
    folder = tmp_path_factory.mktemp("row")
    authority = trustme.CA()
    with ExitStack() as running:
        sink = running.enter_context(running_node_relay(folder, certificates))
        shown = {fault: certificate(fault, authority, tmp_path_factory.mktemp("shown")) for fault in FAULTS}
        postfixes = {
            fault: running.enter_context(running_postfix(one, sink.plain_port, "postfix.cf"))
            for fault, one in shown.items()
        }
        dovecots = {
            fault: running.enter_context(running_dovecot(shown[fault], sink.plain_port))
            for fault in ("expired", "another's")
        }
        gateway = running.enter_context(running_gateway(folder / "data"))
        api = Api(folder / "data" / "control.sock")
        yield Row(gateway, api, sink, postfixes, dovecots, shown["expired"].ca.read_text())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("security", ["starttls-if-offered", "starttls", "auto"])
def test_postfix_gets_no_mail_and_none_in_clear(row: Row, fault: str, security: str) -> None:
    reason, advice = FAULTS[fault]
    postfix, name = row.postfixes[fault], f"{security}-{fault}".replace(" ", "-").replace("'", "")
    message, recipient = row.send(name, postfix.port, security=security)
    told = row.stopped(name, message)
    assert reason in told and advice in told
    assert recipient not in log_of(postfix)
    edited = row.api.ask("PATCH", f"accounts/{name}", {"verification": "off"})
    assert "does not verify the relay's certificate" in str(edited["warnings"])
    row.arrives(message, recipient)


def test_postfix_gets_mail_in_clear_where_the_account_says_none(row: Row) -> None:
    row.arrives(*row.send("in-clear", row.postfixes["expired"].port, security="none"))


@pytest.mark.parametrize("fault", ["expired", "another's"])
def test_dovecot_behind_tls_gets_neither_mail_nor_password(row: Row, fault: str) -> None:
    reason, advice = FAULTS[fault]
    dovecot, name = row.dovecots[fault], f"tls-{fault}".replace("'", "")
    login = {"username": LOGIN[0], "password": LOGIN[1]}
    message, recipient = row.send(name, dovecot.tls_port, security="tls", **login)
    told = row.stopped(name, message)
    assert reason in told and advice in told
    assert f"user=<{LOGIN[0]}>" not in dovecot.log()
    row.api.ask("PATCH", f"accounts/{name}", {"verification": "off"})
    row.arrives(message, recipient)
    assert re.search(rf"user=<{LOGIN[0]}>.* TLS", dovecot.log())


def test_verification_that_is_off_is_warned_of_everywhere(row: Row) -> None:
    row.send("unverified", row.postfixes["expired"].port, security="starttls", verification="off")
    for command in (["check"], ["accounts", "show", "unverified"]):
        assert "does not verify" in row.gateway.served.run(*command, check=False).stdout
