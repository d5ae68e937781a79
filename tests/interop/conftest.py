"""Programs that we did not write, as clients and as relays of a running gateway."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.conftest import Served
from tests.e2e.attackers import Api
from tests.interop.exim import exim_client, exim_relay, make_exim

__all__ = ["exim_client", "exim_relay", "make_exim"]  # fixtures


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it gave to localhost and 127.0.0.1: files in PEM."""

    ca: Path
    certificate: Path
    key: Path
    chain: Path  # key and certificate in one, as Postfix has it

    def context(self) -> ssl.SSLContext:
        """For a server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def written(folder: Path, authority: trustme.CA, times: Mapping[str, Any], *names: str) -> Certificates:
    """The files of what `authority` gives to `names`, valid for `times`; without names, of the authority's own."""
    issued: trustme.LeafCert | trustme.CA = authority.issue_cert(*names, **times) if names else authority
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", folder / "chain.pem")
    certificate = issued.cert_pem if isinstance(issued, trustme.CA) else issued.cert_chain_pems[0]
    authority.cert_pem.write_to_path(str(made.ca))
    certificate.write_to_path(str(made.certificate))
    issued.private_key_pem.write_to_path(str(made.key))
    made.chain.write_bytes(issued.private_key_pem.bytes() + certificate.bytes())
    return made


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A throw-away authority."""
    return written(tmp_path_factory.mktemp("certificates"), trustme.CA(), {}, "localhost", "127.0.0.1")


@dataclass
class Arrivals:
    """What an aiosmtpd relay took."""

    envelopes: list[Envelope] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    logins: list[str] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """aiosmtpd's hook."""
        session.host_name = hostname
        peer: Any = session.peer
        self.peers.append(str(peer[0]))
        return responses

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """aiosmtpd's hook."""
        with self.news:
            self.envelopes.append(envelope)
            self.news.notify_all()
        return "250 2.0.0 kept"

    def wait(self, count: int = 1) -> list[Envelope]:
        """All, once there are `count`."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.envelopes) >= count, 30), (
                f"{len(self.envelopes)} of {count} came"
            )
            return list(self.envelopes)

    def take(self) -> list[Envelope]:
        """All so far; the next wait begins from none."""
        with self.news:
            taken, self.envelopes = self.envelopes, []
        return taken

    def contents(self, count: int = 1) -> list[bytes]:
        """Their contents."""
        found = [envelope.content for envelope in self.wait(count)]
        return [content for content in found if isinstance(content, bytes)]


class ClosingController(Controller):
    """aiosmtpd's, which leaves connections open when it stops; this one ends them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.made: list[SMTP] = []

    def factory(self) -> SMTP:
        """A connection."""
        self.made.append(super().factory())  # type: ignore[no-untyped-call]
        return self.made[-1]

    async def end_connections(self) -> None:
        """Abort them, and let the loop close their sockets."""
        for connection in self.made:
            for transport in (connection.transport, connection._original_transport):
                if isinstance(transport, asyncio.WriteTransport):
                    transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)


@dataclass
class AioRelay:
    """A running aiosmtpd."""

    port: int
    arrivals: Arrivals


@pytest.fixture
def aiosmtpd_relay(free_port: Callable[[], int]) -> Iterator[Callable[..., AioRelay]]:
    """`aiosmtpd_relay(tls_context=..., login=("user", "secret"))` starts one."""
    running: list[ClosingController] = []

    def start(login: tuple[str, str] | None = None, **options: Any) -> AioRelay:
        arrivals = Arrivals()

        def authenticate(
            server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
        ) -> AuthResult:
            arrivals.logins.append(f"{mechanism} {data.login.decode()}")
            return AuthResult(success=login == (data.login.decode(), data.password.decode()))

        if login:
            options |= {"authenticator": authenticate, "auth_required": True}
        port = free_port()
        controller = ClosingController(
            arrivals, hostname="127.0.0.1", port=port, data_size_limit=40_000_000, decode_data=False, **options
        )
        controller.start()
        running.append(controller)
        return AioRelay(port, arrivals)

    yield start
    for controller in running:
        asyncio.run_coroutine_threadsafe(controller.end_connections(), controller.loop).result(30)
        controller.stop(no_assert=True)


def add_relay(served: Served, port: int, *options: str) -> None:
    """An account for all mail of `local`, at a relay on loopback."""
    host = ["--host", "127.0.0.1", "--port", str(port)]
    security = [] if "--security" in options else ["--security", "none"]
    served.run("accounts", "add", "relay", *host, *security, *options, "--for", "local", "--allow-sender", "*")


def rows_of(served: Served) -> list[dict[str, Any]]:
    """The first page of deliveries."""
    page = json.loads(served.run("queue", "list", "--json", "--limit", "1000").stdout)
    rows: list[dict[str, Any]] = page["deliveries"]
    return rows


def wait_for_rows(served: Served, right: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The deliveries, once they are as wanted; pytest's time limit is the patience."""
    api = Api(served.data / "control.sock")
    while not right(rows := api.deliveries()):
        assert served.process.poll() is None
    return rows


def wait_for_account(served: Served, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The account `relay` as `status` shows it, once it is as wanted."""

    api = Api(served.data / "control.sock")

    def look() -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in api.ask("GET", "status")["accounts"] if one["account"] == "relay")
        return found

    while not right(account := look()):
        assert served.process.poll() is None
    return account
