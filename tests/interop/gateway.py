"""A running gateway that many tests share: an application for each account, so that a login names the relay."""

from __future__ import annotations

import itertools
import json
import smtplib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import Served, end_serving, start_serving
from tests.e2e.attackers import Api

SENDER = "sender@source.example"
ENDED = frozenset({"delivered", "bounced", "expired", "cancelled", "captured"})

_tags = itertools.count(1)


def a_recipient(local: str = "someone", domain: str = "sink.example") -> str:
    """An address that no other test of this process has."""
    return f"{local}.{next(_tags)}@{domain}"


def a_message(*recipients: str, subject: str = "judged", body: bytes = b"Text.\r\n.dot\r\n..\r\n") -> bytes:
    """A message to which the gateway has only its Received to add; `subject` in UTF-8."""
    head = f"Message-ID: <{next(_tags)}@source.example>\r\nDate: Fri, 2 Jan 2026 03:04:05 +0000\r\nFrom: <{SENDER}>\r\n"
    return (head + f"To: {', '.join(recipients)}\r\nSubject: {subject}\r\n\r\n").encode() + body


def body_of(content: bytes) -> bytes:
    """Behind the header section."""
    return content.partition(b"\r\n\r\n")[2]


@dataclass
class Gateway:
    """`passwords` by application."""

    served: Served
    passwords: dict[str, str] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        """Its control socket, for what is asked over and over: a command is a process each time."""
        return Api(self.served.data / "control.sock")

    def add_account(self, name: str, port: int, *options: str, password: str | None = None) -> None:
        """An account for a relay on this machine, and an application of the same name that sends by it."""
        where = ["--host", "localhost", "--port", str(port), *options]
        where += ["--max-connections", "1", "--messages-per-connection", "1000"]
        if password is None:
            self.served.run("accounts", "add", name, *where)
        else:
            self.served.run("accounts", "add", name, *where, "--password-stdin", stdin=password + "\n")
        self.add_application(name, account=name)

    def add_application(self, name: str, account: str, *options: str) -> None:
        """An application that may send as anyone."""
        made = self.served.run(
            "applications", "add", name, "--allow-sender", "*", "--account", account, "--json", *options
        )
        self.passwords[name] = json.loads(made.stdout)["password"]

    def submit(
        self,
        application: str,
        recipients: Sequence[str],
        content: bytes,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> str:
        """One message by smtplib, its parameters as given; the message's id."""
        with self._client(application) as client:
            return send(client, recipients, content, mail_options, rcpt_options)

    def submit_each(self, application: str, contents: Mapping[str, bytes]) -> list[str]:
        """Content by recipient, on one connection; their ids."""
        with self._client(application) as client:
            return [send(client, [recipient], content) for recipient, content in contents.items()]

    @contextmanager
    def _client(self, application: str) -> Iterator[smtplib.SMTP]:
        with smtplib.SMTP("127.0.0.1", self.served.port, timeout=60) as client:
            client.login(application, self.passwords[application])
            client.command_encoding = "utf-8"
            yield client

    def stopped(self, account: str) -> dict[str, Any]:
        """How the account is, once it needs attention; pytest's limit is the patience."""
        while True:
            rows = self.api.ask("GET", "status")["accounts"]
            found: dict[str, Any] = next(row for row in rows if row["account"] == account)
            if found["health"] == "needs attention":
                return found
            assert self.served.process.poll() is None

    def rows(self, message: str) -> dict[str, dict[str, Any]]:
        """Its deliveries by local-part, once each has ended or was tried and waits; pytest's limit is the patience."""
        return self._once(message, ENDED | {"deferred"})

    def ended(self, message: str) -> dict[str, dict[str, Any]]:
        """The same, once each has ended."""
        return self._once(message, ENDED)

    def _once(self, message: str, states: Collection[str]) -> dict[str, dict[str, Any]]:
        while True:
            rows: list[dict[str, Any]] = self.api.ask("GET", f"messages/{message}")["deliveries"]
            if all(row["state"] in states for row in rows):
                return {row["recipient"].partition("@")[0]: row for row in rows}
            assert self.served.process.poll() is None

    def states(self, message: str) -> dict[str, str]:
        """How its deliveries ended, by local-part."""
        return {local: row["state"] for local, row in self.rows(message).items()}


def send(
    client: smtplib.SMTP,
    recipients: Sequence[str],
    content: bytes,
    mail_options: Sequence[str] = (),
    rcpt_options: Sequence[str] = (),
) -> str:
    """One message on a connection; its id."""
    answers = [client.mail(SENDER, mail_options), *(client.rcpt(path, rcpt_options) for path in recipients)]
    answers.append(client.data(content))
    assert [code for code, _ in answers] == [250] * len(answers), answers
    return answers[-1][1].decode().rpartition(" ")[2]


@contextmanager
def running_gateway(data: Path, *listeners: dict[str, object], **settings: str) -> Iterator[Gateway]:
    """One with `listeners`, the first of which takes what `submit` gives."""
    served = start_serving(data, json.dumps(listeners or [{"address": "127.0.0.1", "port": 0}]), **settings)
    try:
        yield Gateway(served)
        assert served.stop() == 0
    finally:
        end_serving(served)
