"""`postroom send --connection` by the installed command: what the file brings is used, and ends with the message."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from tests.conftest import Served

PASSWORD = "marked-secret"


class Customer:
    """A relay of somebody else, who asks for a login."""

    def __init__(self) -> None:
        self.logins: list[tuple[str, str]] = []
        self.taken: list[list[str]] = []
        self.reply = "250 2.0.0 ok"

    def authenticator(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """Every login is right."""
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        """Take it, or not."""
        if self.reply.startswith("250"):
            self.taken.append(list(envelope.rcpt_tos))
        return self.reply


@pytest.fixture
def customer() -> Customer:
    """Who runs the relay."""
    return Customer()


@pytest.fixture
def port(customer: Customer, free_port: Callable[[], int]) -> Iterator[int]:
    """Where it listens."""
    number = free_port()
    controller = Controller(
        customer, hostname="127.0.0.1", port=number, authenticator=customer.authenticator, auth_require_tls=False,
    )  # fmt: skip
    controller.start()
    yield number
    controller.stop()


def test_a_message_goes_by_its_own_file_over_a_kill_and_no_secret_of_it_stays(
    tmp_path: Path, serve: Callable[..., Served], customer: Customer, port: int
) -> None:
    served = serve()
    served.run("accounts", "add", "office", "--host", "127.0.0.1", "--port", "9", "--security", "none", "--dynamic")
    file = tmp_path / "customer.toml"
    file.write_text(
        f'host = "127.0.0.1"\nport = {port}\nsecurity = "none"\nusername = "acme"\npassword = "{PASSWORD}"\n'
        "allow_clear_password = true\n"
    )
    file.chmod(0o644)
    send = ("send", "--from", "shop@example.org", "--to", "ann@acme.example", "--text", "x", "--connection", str(file))
    served.run("applications", "edit", "local", "--account", "office")
    refused = served.run(*send, check=False)
    assert "postroom applications edit local --dynamic" in refused.stderr
    assert f"chmod 600 {file}" in refused.stderr
    file.chmod(0o600)
    served.run("applications", "edit", "local", "--dynamic")
    refused = served.run(*send, check=False)
    assert "connection.host: 127.0.0.1 is a loopback address" in refused.stderr
    served.run("applications", "edit", "local", "--may-connect-to", "127.0.0.0/8")

    customer.reply = "451 4.2.0 later"
    served.run(*send)
    while not json.loads(served.run("queue", "show", "last", "--json").stdout)["attempts"]:
        pass
    served.kill()
    assert PASSWORD.encode() not in b"".join(path.read_bytes() for path in served.data.iterdir() if path.is_file())
    customer.reply = "250 2.0.0 ok"
    again = serve()
    again.run("queue", "retry", "last")
    while (shown := json.loads(again.run("queue", "show", "last", "--json").stdout))["deliveries"][0]["state"] != (
        "delivered"
    ):
        pass
    assert shown["connection"]["target"] == f"127.0.0.1:{port}"
    assert shown["deliveries"][0]["account"] == "office"
    assert (customer.taken, set(customer.logins)) == ([["ann@acme.example"]], {("acme", PASSWORD)})
    with sqlite3.connect(again.data / "postroom.db") as database:
        assert database.execute("SELECT length(sealed) FROM connection").fetchall() == [(0,)]
