"""Listeners with different profiles: who may connect, what is taken from devices, and what a refusal says to do."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from base64 import b64encode
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.config import ListenerSettings
from tests.submission_door import Applications, KeepingGateway, RawClient, listening

ACCEPTED = b"250 2.0.0 Ok: queued as 00000000-0000-0000-0000-000000000000\r\n"
HERE = ("127.0.0.0/8", "::1/128")
LOGIN = [b"AUTH LOGIN", b64encode(b"erp"), b64encode(b"right")]
CA = trustme.CA()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of this test are not on this machine."""
    monkeypatch.setattr("postroom.submission.session.is_loopback", lambda peer_ip: False)


def devices(**fields: Any) -> ListenerSettings:
    return ListenerSettings(port=0, profile="devices", **{"networks": HERE, **fields})


def with_passwords() -> KeepingGateway:
    return KeepingGateway(applications=Applications(passwordless=False))


@pytest.mark.parametrize("profile", ["strict", "devices"])
async def test_a_client_from_elsewhere_is_told_only_that_it_may_not_connect(profile: Any) -> None:
    settings = ListenerSettings(port=0, profile=profile, networks=("192.0.2.0/24", "2001:db8::/32"))
    async with listening(KeepingGateway(), settings) as door:
        client = RawClient(*await asyncio.open_connection(*door.address))
        client.writer.write(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n")
        assert await client.reply() == b"554 5.7.1 Your address may not connect\r\n"
        assert await client.is_closed()


async def test_a_client_from_elsewhere_gets_no_handshake(tmp_path: Path) -> None:
    settings = ListenerSettings(port=0, tls="implicit", networks=("192.0.2.0/24",), **certificate(tmp_path))
    async with listening(KeepingGateway(), settings) as door:
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.open_connection(*door.address, ssl=trusting(), server_hostname="localhost")


async def test_clients_of_the_networks_connect_and_those_turned_away_hold_no_place() -> None:
    gateway = KeepingGateway()
    async with AsyncExitStack() as stack:
        closed = await stack.enter_async_context(listening(gateway, devices(networks=("192.0.2.1",))))
        for _ in range(5):
            turned_away = await RawClient.connect(closed, greeting=b"554 5.7.1 ")
            assert await turned_away.is_closed()
        assert closed._rules.clients._open == {}
        door = await stack.enter_async_context(listening(gateway, devices()))
        client = await RawClient.connect(door)
        client.close()


async def scan(client: RawClient) -> list[bytes]:
    """What a scanner in the wild does, until it is refused: the replies."""
    said = []
    for line in [b"EHLO scanner", *LOGIN, b"MAIL FROM: <erp@app.test>", b"RCPT TO: <c@d.test>", b"DATA"]:
        said.append(await client.ask(line))
        if said[-1][:1] not in b"23":
            return said
    client.writer.write(b"From: erp@app.test\nSubject: scan\n\nThe scan.\n.\nis above\n\r\n.\r\n")
    return [*said, await client.reply()]


@pytest.mark.usefixtures("elsewhere")
async def test_a_scanner_is_served_by_a_listener_for_devices() -> None:
    gateway = with_passwords()
    async with listening(gateway, devices(allow_clear_login=True)) as door:
        client = await RawClient.connect(door)
        assert (await scan(client))[-1] == ACCEPTED
        client.close()
    (submission,) = gateway.submissions
    assert submission.application.name == "erp"
    content = gateway.content(submission.content)
    assert content == b"From: erp@app.test\r\nSubject: scan\r\n\r\nThe scan.\r\n.\r\nis above\r\n\r\n"


@pytest.mark.usefixtures("elsewhere")
async def test_a_scanner_is_refused_by_a_strict_listener_in_words_that_name_the_settings() -> None:
    gateway = with_passwords()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        said = await scan(client)
        assert said[-1].startswith(b"538 5.7.11 ")
        assert b'profile = "devices"' in said[-1] and b"allow_clear_login = true" in said[-1]
        # A library that sees no AUTH offered goes on without.
        refused = await client.ask(b"MAIL FROM:<erp@app.test>")
        assert refused.startswith(b"530 5.7.0 Authentication required, and there is no TLS here ")
        assert b"allow_clear_login = true" in refused
        client.close()
    assert gateway.applications.asked == 0


@pytest.mark.usefixtures("elsewhere")
async def test_a_passwordless_scanner_is_refused_for_its_bare_lf_in_words_that_name_the_setting() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"Subject: scan\n\nThe scan.\n\r\n.\r\n")
        refused = await client.reply()
        assert refused.startswith(b"554 5.6.0 Bare LF in the content")
        assert b'listener setting profile = "devices"' in refused
        client.close()
    assert gateway.submissions == []


@pytest.mark.usefixtures("elsewhere")
async def test_a_listener_for_devices_takes_a_login_in_clear_only_where_it_is_allowed() -> None:
    gateway = with_passwords()
    async with listening(gateway, devices()) as door:
        client = await RawClient.connect(door)
        assert b"AUTH" not in await client.ask(b"EHLO scanner")
        assert (await client.ask(b"AUTH LOGIN")).startswith(b"538 5.7.11 ")
        client.close()
    assert gateway.applications.asked == 0


@pytest.mark.parametrize(
    ("lines", "helo", "keyword"),
    [
        ([b"HELO my printer"], "my_printer", "SMTP"),
        ([b"EHLO"], "[127.0.0.1]", "ESMTP"),
        ([], "[127.0.0.1]", "SMTP"),
    ],
)
async def test_a_device_may_have_any_name_or_none(lines: list[bytes], helo: str, keyword: str) -> None:
    gateway = KeepingGateway()
    async with listening(gateway, devices()) as door:
        client = await RawClient.connect(door)
        for line in [*lines, b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>", b"DATA"]:
            assert (await client.ask(line))[:1] in b"23"
        client.writer.write(b"x: y\r\n\r\n.\r\n")
        assert await client.reply() == ACCEPTED
        client.close()
    assert (gateway.submissions[0].helo, gateway.submissions[0].with_protocol) == (helo, keyword)


async def test_listeners_of_both_profiles_stand_side_by_side() -> None:
    gateway = KeepingGateway()
    async with listening(gateway) as strict, listening(gateway, devices()) as lax:
        answers = {}
        for door in (strict, lax):
            client = await RawClient.connect(door)
            answers[door] = await client.ask(b"HELO my printer")
            client.close()
    assert answers[strict].startswith(b"501 5.5.4 ")
    assert b'listener setting profile = "devices"' in answers[strict]
    assert answers[lax] == b"250 mx.test\r\n"


def certificate(folder: Path) -> dict[str, str]:
    issued = CA.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


def trusting(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that speaks this version alone."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    if version is not None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
    return context


VERSIONS = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize(("minimum", "first"), [("1.0", 0), ("1.1", 1), ("1.2", 2), ("1.3", 3)])
async def test_the_oldest_version_of_tls_is_that_of_the_listener(
    tls: Any, minimum: Any, first: int, tmp_path: Path
) -> None:
    settings = devices(tls=tls, minimum_tls=minimum, **certificate(tmp_path))
    async with listening(KeepingGateway(), settings) as door:
        spoken = [version for version in VERSIONS if await handshake(door.address, tls, version)]
    assert spoken == VERSIONS[first:]


async def handshake(address: tuple[str, int], tls: str, version: ssl.TLSVersion) -> bool:
    """Whether a client that speaks only `version` gets an answer."""
    options: dict[str, Any] = {"ssl": trusting(version), "server_hostname": "localhost"} if tls == "implicit" else {}
    try:
        client = RawClient(*await asyncio.open_connection(*address, **options))
        await client.reply()
        if tls == "starttls":
            assert (await client.ask(b"STARTTLS")).startswith(b"220 ")
            await client.writer.start_tls(trusting(version), server_hostname="localhost")
        answered = (await client.ask(b"EHLO c.test")).startswith(b"250-")
    except (ssl.SSLError, OSError):
        return False
    client.close()
    return answered


async def test_a_lenient_listener_makes_no_other_lenient(tmp_path: Path) -> None:
    gateway, files = KeepingGateway(), certificate(tmp_path)
    strict = ListenerSettings(port=0, tls="implicit", **files)
    async with (
        listening(gateway, devices(tls="implicit", minimum_tls="1.0", **files)),
        listening(gateway, strict) as door,
    ):
        assert [await handshake(door.address, "implicit", version) for version in VERSIONS] == [
            False,
            False,
            True,
            True,
        ]
