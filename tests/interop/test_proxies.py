"""Mail through proxies that we did not write: Dante, OpenSSH, Squid; to a relay that only they know by its name."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.errors import NotRunning
from postroom.gateway import Gateway
from postroom.net.stream import ConnectFailed
from postroom.oauth.consent import Waiting
from tests.flow.gateways import delivering, hello
from tests.interop.conftest import AioRelay, Certificates
from tests.interop.dovecot import LOGIN as MAILBOX
from tests.interop.dovecot_pop3 import Clients, Pop3Dovecot, running_pop3
from tests.interop.proxies import (
    HIDDEN_NAME,
    OUTSIDE,
    PASSWORD,
    USER,
    RunningProxy,
    running_dante,
    running_squid,
    running_ssh,
)
from tests.tls_relay import pem, served
from tests.token_desk import TokenDesk
from tests.web_server import answer

OTHER_PASSWORD = "Tr0ub4dor-and-3"

# Squid's ntlm_fake_auth takes user and domain for ASCII, and of UTF-16 reads the first letter of each.
LOGIN = {"proxy_use_credentials": True, "proxy_username": USER, "proxy_password": PASSWORD}
WRONG = LOGIN | {"proxy_password": OTHER_PASSWORD}
DOMAIN = LOGIN | {"proxy_domain": "CORP"}

PATIENCE = timedelta(seconds=60)

Start = Callable[[], AbstractContextManager[RunningProxy]]
STARTS: dict[str, Start] = {
    "dante": partial(running_dante, "none"),
    "dante with login": partial(running_dante, "username"),
    "ssh": running_ssh,
    "squid": running_squid,
    "squid with basic": partial(running_squid, "basic"),
    "squid with ntlm": partial(running_squid, "ntlm"),
    "squid with negotiate": partial(running_squid, "negotiate"),
    "squid with all": partial(running_squid, "negotiate", "ntlm", "basic"),
}


@pytest.fixture(scope="module")
def proxies() -> Iterator[Callable[[str], RunningProxy]]:
    """The proxy of that name, started when it is first asked for."""
    with ExitStack() as at_end:
        running: dict[str, RunningProxy] = {}

        def start(name: str) -> RunningProxy:
            if name not in running:
                running[name] = at_end.enter_context(STARTS[name]())
            return running[name]

        yield start


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway without an account; delivering."""
    async with delivering(tmp_path) as gateway:
        yield gateway


async def through(gateway: Gateway, proxy: RunningProxy, kind: str, relay: dict[str, Any], **fields: Any) -> None:
    """Add an account that goes through `proxy`, and submit a message."""
    way = {"proxy_type": kind, "proxy_host": "127.0.0.1", "proxy_port": proxy.port}
    await gateway.accounts.add({"name": "relay", "host": HIDDEN_NAME, "security": "none"} | relay | way | fields)
    await gateway.submit(hello(gateway))


async def account_that(gateway: Gateway, health: str) -> dict[str, Any]:
    """The account, once it is `health`; pytest's limit is the patience."""
    while True:
        rows: Any = (await gateway.answers.status())["accounts"]
        found: dict[str, Any] = rows[0]
        if found["health"] == health:
            return found


def _peers(relay: AioRelay) -> set[str]:
    return set(relay.arrivals.peers)


@pytest.mark.parametrize(
    ("name", "kind", "login", "written"),
    [
        ("dante", "socks5", {}, r"tcp/connect \[: 127\..* -> 127\.0\.0\.9\.\d+ 127\.0\.0\.1\.{port}"),
        ("dante", "socks4", {"host": "localhost"}, r"tcp/connect \[: .* -> 127\.0\.0\.9\.\d+ 127\.0\.0\.1\.{port}"),
        (
            "dante with login",
            "socks5",
            LOGIN,
            r"tcp/connect \[: username%ann@.* -> 127\.0\.0\.9\.\d+ 127\.0\.0\.1\.{port}",
        ),
        ("ssh", "socks4a", {}, r"direct_tcpip: .* target {name} port {port}"),
        ("ssh", "socks5", {}, r"direct_tcpip: .* target {name} port {port}"),
        ("squid", "http-connect", {}, r"- TCP_TUNNEL/200 CONNECT {name}:{port} 127\.0\.0\.1"),
        ("squid with basic", "http-connect", LOGIN, r"ann TCP_TUNNEL/200 CONNECT {name}:{port} 127\.0\.0\.1"),
        ("squid with ntlm", "http-connect", DOMAIN, r"C\\a TCP_TUNNEL/200 CONNECT {name}:{port} "),
        ("squid with ntlm", "http-connect", LOGIN, r"\\a TCP_TUNNEL/200 CONNECT {name}:{port} "),
        ("squid with negotiate", "http-connect", DOMAIN, r"\\a TCP_TUNNEL/200 CONNECT {name}:{port} "),
        ("squid with all", "http-connect", DOMAIN, r"C\\a TCP_TUNNEL/200 CONNECT {name}:{port} "),
        ("squid with all", "http-connect", LOGIN, r"ann TCP_TUNNEL/200 CONNECT {name}:{port} "),
    ],
)
async def test_mail_goes_through_and_the_name_is_resolved_there(
    gateway: Gateway,
    proxies: Callable[[str], RunningProxy],
    aiosmtpd_relay: Callable[..., AioRelay],
    name: str,
    kind: str,
    login: dict[str, Any],
    written: str,
) -> None:
    proxy, relay = proxies(name), aiosmtpd_relay()
    await through(gateway, proxy, kind, {"port": relay.port}, **login)
    assert await gateway.wait_drained(PATIENCE), await gateway.answers.status()
    (envelope,) = relay.arrivals.wait()
    assert envelope.rcpt_tos == ["b@y.test"]
    if name != "ssh":  # whose server connects from where it likes
        assert _peers(relay) == {OUTSIDE}
    await gateway.stop()  # Squid writes of a tunnel when it ends
    proxy.wait_for(written.format(name=re.escape(HIDDEN_NAME), port=relay.port))
    assert PASSWORD not in proxy.log()


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize(("name", "kind"), [("squid", "http-connect"), ("dante", "socks5")])
async def test_tls_is_with_the_relay_beyond_the_proxy(
    gateway: Gateway,
    proxies: Callable[[str], RunningProxy],
    aiosmtpd_relay: Callable[..., AioRelay],
    certificates: Certificates,
    security: str,
    name: str,
    kind: str,
) -> None:
    context = certificates.context()
    relay = aiosmtpd_relay(**({"ssl_context": context} if security == "tls" else {"tls_context": context}))
    fields = {"port": relay.port, "security": security, "ca_bundle": certificates.ca.read_text()}
    await through(gateway, proxies(name), kind, fields, server_name="localhost")
    assert await gateway.wait_drained(PATIENCE), await gateway.answers.status()
    relay.arrivals.wait()
    assert _peers(relay) == {OUTSIDE}


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    """Whom the POP3 server let in."""
    folder = Path(tempfile.mkdtemp(prefix="postroom-clients-"))
    folder.chmod(0o755)
    with Clients(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pop3(certificates: Certificates, clients: Clients) -> Iterator[Pop3Dovecot]:
    """Dovecot, which writes down whence its users come."""
    with running_pop3(certificates, clients) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "kind", "login"),
    [("squid with basic", "http-connect", LOGIN), ("squid with ntlm", "http-connect", DOMAIN), ("dante", "socks5", {})],
)
async def test_the_pop3_login_goes_through_too(
    gateway: Gateway,
    proxies: Callable[[str], RunningProxy],
    aiosmtpd_relay: Callable[..., AioRelay],
    pop3: Pop3Dovecot,
    clients: Clients,
    name: str,
    kind: str,
    login: dict[str, Any],
) -> None:
    relay = aiosmtpd_relay()
    clients.empty()
    fields = {"authentication": "pop-before-smtp", "pop_port": pop3.port}
    fields |= {"pop_username": MAILBOX[0], "pop_password": MAILBOX[1]}
    await through(gateway, proxies(name), kind, {"port": relay.port} | fields, **login)
    assert await gateway.wait_drained(PATIENCE), await gateway.answers.status()
    assert clients.path.read_text().split() == [OUTSIDE]
    assert _peers(relay) == {OUTSIDE}


@pytest.mark.parametrize(
    ("name", "kind", "fields", "health", "reason", "advice"),
    [
        ("dante with login", "socks5", WRONG, "needs attention", "refused the login", "proxy_username"),
        ("dante with login", "socks5", {}, "needs attention", "asks for a login", "proxy_use_credentials"),
        ("dante", "socks5", {"port": 9}, "needs attention", "not allowed by ruleset", "have the proxy allow"),
        ("dante", "socks5", {"host": "nobody.test"}, "sleeping", "Host unreachable", "as the proxy sees them"),
        ("dante", "http-connect", {}, "sleeping", "broke off|does not speak HTTP", "proxy_type"),
        ("squid with basic", "http-connect", WRONG, "needs attention", "refused the login by Basic", "proxy_username"),
        ("squid with basic", "http-connect", {}, "needs attention", "asks for a login", "proxy_use_credentials"),
        ("squid with basic", "http-connect", DOMAIN, "needs attention", "offers no login that", "leave proxy_domain"),
        ("squid", "http-connect", {"port": 9}, "needs attention", "403 Forbidden .ERR_ACCESS_DENIED", "SSL_ports"),
        (
            "squid",
            "http-connect",
            {"host": "nobody.test"},
            "sleeping",
            "500 .*ERR_CANNOT_FORWARD",
            "DNS that the proxy",
        ),
        ("squid", "socks5", {"connect_timeout": "1s"}, "sleeping", "through the proxy .* within 1 s", "proxy_type"),
        ("ssh", "socks5", {"host": "nobody.test"}, "sleeping", "proxy|closed", ""),
    ],
)
async def test_what_a_proxy_refuses_is_told_and_nobody_goes_round_it(
    gateway: Gateway,
    proxies: Callable[[str], RunningProxy],
    aiosmtpd_relay: Callable[..., AioRelay],
    name: str,
    kind: str,
    fields: dict[str, Any],
    health: str,
    reason: str,
    advice: str,
) -> None:
    proxy, relay = proxies(name), aiosmtpd_relay()
    await through(gateway, proxy, kind, {"port": relay.port, "host": "localhost"}, **fields)
    account = await account_that(gateway, health)
    assert re.search(reason, account["reason"]), account
    assert advice in account["advice"]
    assert not any(secret in str(account) for secret in (PASSWORD, OTHER_PASSWORD))
    assert (relay.arrivals.peers, relay.arrivals.envelopes) == ([], [])


# Tokens


@pytest.mark.parametrize(("name", "kind"), [("squid", "http-connect"), ("dante", "socks5")])
async def test_tokens_of_every_flow_come_through_the_proxy_and_from_nowhere_else(
    gateway: Gateway, proxies: Callable[[str], RunningProxy], name: str, kind: str
) -> None:
    """The server's name is the proxy's own; every request comes from the proxy's own address."""
    authority = trustme.CA()
    async with TokenDesk(served(authority.issue_cert(HIDDEN_NAME))) as desk:
        root = f"https://{HIDDEN_NAME}:{desk.server.port}"
        way = {"proxy_type": kind, "proxy_host": "127.0.0.1", "proxy_port": proxies(name).port}
        own = way | {f"oauth_{one}_url": f"{root}/{one}" for one in ("token", "authorize", "device")}
        own |= {"host": HIDDEN_NAME, "ca_bundle": pem(authority)}
        robot = {"oauth_flow": "client-credentials", "oauth_client_secret": "s3cret"}
        issued = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("app.test", key_type=trustme.KeyType.RSA)
        key = issued.private_key_pem.bytes().decode()
        certificate = {"oauth_certificate": pem_of(issued), "oauth_certificate_key": key}
        of_service = {"type": "service_account", "client_email": "r@p.test", "private_key": key}
        of_service["token_uri"] = f"{root}/google"
        google = {"oauth_provider": "google", "oauth_service_account": json.dumps(of_service)}
        for fields in (
            {"name": "secret", **desk.account(**own | robot)},
            {"name": "certified", **desk.account(**own | robot | certificate | {"oauth_client_secret": ""})},
            {"name": "person", **desk.account(**own)},
            {"name": "service", "host": HIDDEN_NAME, "ca_bundle": pem(authority), "authentication": "oauth2"}
            | {"username": "ann@x.test", "oauth_flow": "service-account"} | google | way,
        ):  # fmt: skip
            await gateway.accounts.add(fields)
        person = gateway.accounts.get("person")
        given = [await gateway.tokens.token(gateway.accounts.get(one)) for one in ("secret", "certified", "service")]
        link = await gateway.consents.begin_on_loopback(person, 9)
        await gateway.consents.complete(person, {"state": link.state, "code": "c0de"})
        given.append(await gateway.tokens.token(person))
        given.append(await gateway.tokens.token(person, given[-1]))
        device = {"device_code": "d", "user_code": "ABCD", "verification_uri": f"{root}/type"}
        desk.misbehaviours = [lambda asked: answer(device)]
        begun = await gateway.consents.begin_device(person)
        assert not isinstance(await gateway.consents.poll(person, begun.state), Waiting)
        assert given == ["a1", "a2", "a3", "a4", "a5"]
        assert [(asked.path, asked.form.get("grant_type", "").rpartition(":")[2]) for asked in desk.asked] == [
            ("/token", "client_credentials"), ("/token", "client_credentials"), ("/google", "jwt-bearer"),
            ("/token", "authorization_code"), ("/token", "refresh_token"), ("/device", ""), ("/token", "device_code"),
        ]  # fmt: skip
        assert {asked.peer for asked in desk.asked} == {OUTSIDE}
        assert len(desk.asked) == desk.server.connections


@pytest.mark.parametrize(("name", "kind"), [("squid", "socks5"), ("dante", "http-connect")])
async def test_a_proxy_that_fails_leads_no_token_request_to_the_server_itself(
    gateway: Gateway, proxies: Callable[[str], RunningProxy], name: str, kind: str
) -> None:
    """It is at localhost, and would answer."""
    authority = trustme.CA()
    async with TokenDesk(served(authority.issue_cert("localhost"))) as desk:
        own = {"proxy_type": kind, "proxy_host": "127.0.0.1", "proxy_port": proxies(name).port}
        own |= {"host": "localhost", "ca_bundle": pem(authority), "connect_timeout": "1s"}
        await gateway.accounts.add({"name": "person", **desk.account(**own, oauth_refresh_token="r1")})
        person = gateway.accounts.get("person")
        with pytest.raises(ConnectFailed, match="proxy"):
            await gateway.tokens.token(person)
        with pytest.raises(NotRunning, match="proxy"):
            await gateway.consents.begin_device(person)
        link = await gateway.consents.begin_on_loopback(person, 9)
        with pytest.raises(NotRunning, match="proxy"):
            await gateway.consents.complete(person, {"state": link.state, "code": "c0de"})
        assert desk.server.connections == 0


def pem_of(issued: trustme.LeafCert) -> str:
    """A certificate."""
    return issued.cert_chain_pems[0].bytes().decode()
