"""STARTTLS and implicit TLS on real sockets."""

from __future__ import annotations

import asyncio
import os
import smtplib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import trustme

from postroom.config import ListenerSettings
from postroom.errors import InvalidInput
from postroom.submission.listener import CertificateFiles
from tests.submission_door import Applications, KeepingGateway, RawClient, listening, until

CA = trustme.CA()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


@pytest.fixture
def listener(tmp_path: Path) -> Callable[[Literal["starttls", "implicit"]], ListenerSettings]:
    """Settings of a listener with a certificate for localhost."""
    certificate, key = write_certificate(tmp_path)
    return lambda tls: ListenerSettings(port=0, tls=tls, certificate=certificate, key=key)


def write_certificate(folder: Path) -> tuple[str, str]:
    issued = CA.issue_cert("localhost")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    issued.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return str(certificate), str(key)


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)


async def test_smtplib_starts_tls_and_logs_in(listener: Any) -> None:
    gateway = KeepingGateway(applications=Applications(passwordless=False))

    def send(port: int) -> None:
        with smtplib.SMTP("localhost", port) as client:
            client.starttls(context=trusting())
            client.ehlo("c.test")
            assert not client.has_extn("starttls")
            client.login("erp", "right")
            client.sendmail("erp@app.test", ["c@d.test"], b"x: y\r\n\r\n" + b"line\r\n" * 100_000)

    async with listening(gateway, listener("starttls")) as door:
        await in_thread(send, door.address[1])
    (submission,) = gateway.submissions
    assert submission.with_protocol == "ESMTPSA"
    assert gateway.content(submission.content) == b"x: y\r\n\r\n" + b"line\r\n" * 100_000


async def test_smtplib_speaks_implicit_tls(listener: Any) -> None:
    gateway = KeepingGateway()

    def send(port: int) -> None:
        with smtplib.SMTP_SSL("localhost", port, context=trusting()) as client:
            client.sendmail("a@b.test", ["c@d.test"], b"x: y\r\n\r\n")

    async with listening(gateway, listener("implicit")) as door:
        await in_thread(send, door.address[1])
    assert gateway.submissions[0].with_protocol == "ESMTPS"


async def test_commands_in_clear_behind_starttls_are_never_read(listener: Any) -> None:
    gateway = KeepingGateway()
    async with listening(gateway, listener("starttls")) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        client.writer.write(b"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@b.test>\r\n")
        assert (await client.reply()).startswith(b"220 ")
        await client.writer.start_tls(trusting(), server_hostname="localhost")
        assert await client.ask(b"RCPT TO:<c@d.test>") == b"503 5.5.1 Send EHLO first\r\n"
        assert (await client.ask(b"EHLO c.test")).startswith(b"250-")
        assert await client.ask(b"STARTTLS") == b"503 5.5.1 TLS is on\r\n"
        client.close()


async def test_commands_in_clear_in_place_of_a_handshake_end_the_connection(listener: Any) -> None:
    gateway = KeepingGateway()
    async with listening(gateway, listener("starttls")) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert (await client.ask(b"STARTTLS")).startswith(b"220 ")
        client.writer.write(b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
        said = b""
        try:
            said = await client.reader.read()
        except ConnectionError:
            pass
        assert b"250" not in said
        client.close()
        await until(lambda: not door.connections)


async def test_a_handshake_that_never_comes_does_not_stop_the_drain(listener: Any) -> None:
    gateway = KeepingGateway()
    async with listening(gateway, listener("implicit")) as door:
        _, writer = await asyncio.open_connection(*door.address)
        await until(lambda: door.connections == 1)
    assert door.connections == 0
    writer.close()


async def test_a_changed_certificate_is_read_again(tmp_path: Path) -> None:
    files = CertificateFiles(*write_certificate(tmp_path))
    files.load()
    first = files.context()
    assert files.context() is first
    write_certificate(tmp_path)
    os.utime(tmp_path / "cert.pem", (1, 1))
    second = files.context()
    assert second is not first
    (tmp_path / "cert.pem").write_text("broken")
    assert files.context() is second
    (tmp_path / "cert.pem").unlink()
    assert files.context() is second


async def test_a_listener_without_a_usable_certificate_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("broken")
    broken = str(tmp_path / "cert.pem")
    settings = ListenerSettings(port=0, tls="implicit", certificate=broken, key=broken)
    with pytest.raises(InvalidInput, match=r"cert\.pem"):
        async with listening(KeepingGateway(), settings):
            pass


async def test_auth_is_not_offered_in_clear_to_clients_from_elsewhere(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.submission.session.is_loopback", lambda peer_ip: False)
    gateway = KeepingGateway(applications=Applications(passwordless=False))
    async with listening(gateway, listener("starttls")) as door:
        client = await RawClient.connect(door)
        assert b"AUTH" not in await client.ask(b"EHLO c.test")
        assert (await client.ask(b"AUTH PLAIN AGVycAByaWdodA==")).startswith(b"538 5.7.11 ")
        refused = await client.ask(b"MAIL FROM:<erp@app.test>")
        assert refused == b"530 5.7.0 Must issue a STARTTLS command first\r\n"
        assert gateway.applications.asked == 0
        client.close()


async def test_a_bare_lf_of_clients_from_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.submission.session.is_loopback", lambda peer_ip: False)
    gateway = KeepingGateway()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.begin()
        client.writer.write(b"x: y\n\nbody\r\n.\r\n")
        assert (await client.reply()).startswith(b"554 5.6.0 ")
        client.close()
    assert gateway.submissions == []
