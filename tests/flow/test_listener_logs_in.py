"""Who may submit: by address, by password, and how guessing ends."""

from __future__ import annotations

import asyncio
import smtplib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from postroom.errors import Busy
from tests.submission_door import Applications, KeepingGateway, RawClient, listening


def plain(login: str, password: str) -> bytes:
    return b"AUTH PLAIN " + b64encode(f"\0{login}\0{password}".encode())


def with_passwords() -> KeepingGateway:
    return KeepingGateway(applications=Applications(passwordless=False))


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)


async def test_without_a_login_mail_is_refused() -> None:
    async with listening(with_passwords()) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert await client.ask(b"MAIL FROM:<erp@app.test>") == b"530 5.7.0 Authentication required\r\n"
        client.close()


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
async def test_smtplib_logs_in(mechanism: str) -> None:
    gateway = with_passwords()

    def send(host: str, port: int) -> None:
        with smtplib.SMTP(host, port) as client:
            client.ehlo("c.test")
            client.user, client.password = "erp", "right"
            client.auth(mechanism.removeprefix("auth_").upper(), getattr(client, mechanism))
            client.sendmail("erp@app.test", ["c@d.test"], b"x: y\r\n\r\n")

    async with listening(gateway) as door:
        await in_thread(send, *door.address)
    assert [one.application.name for one in gateway.submissions] == ["erp"]
    assert gateway.submissions[0].with_protocol == "ESMTPA"


async def test_a_sender_that_is_not_allowed_is_named() -> None:
    async with listening(with_passwords()) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert (await client.ask(plain("erp", "right"))).startswith(b"235 ")
        refused = await client.ask(b"MAIL FROM:<boss@app.test>")
        assert refused == b"550 5.7.1 <boss@app.test> is not an allowed sender of application erp\r\n"
        assert (await client.ask(b"MAIL FROM:<>")).startswith(b"550 5.7.1 ")
        assert (await client.ask(b"MAIL FROM:<erp@app.test>")).startswith(b"250 ")
        client.close()


async def test_ten_failed_logins_end_the_connection() -> None:
    gateway = with_passwords()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        for n in range(9):
            assert await client.ask(plain(f"name{n}", "wrong")) == b"535 5.7.8 Authentication failed\r\n"
        assert (await client.ask(plain("name9", "wrong"))).startswith(b"421 4.7.0 ")
        assert await client.is_closed()


@pytest.mark.parametrize("names", [[f"name{n}" for n in range(10)], ["erp"] * 10], ids=["one address", "one name"])
async def test_guessing_is_throttled_over_connections_for_a_minute(names: list[str]) -> None:
    gateway = with_passwords()
    async with listening(gateway) as door:
        for name in names:
            client = await RawClient.connect(door)
            await client.ask(b"EHLO c.test")
            assert (await client.ask(plain(name, "wrong"))).startswith(b"535 ")
            client.close()
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert (await client.ask(plain("erp", "right"))).startswith(b"421 4.7.0 ")
        assert await client.is_closed()
        assert gateway.applications.asked == 10
        gateway.clock.advance(61)
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert (await client.ask(plain("erp", "right"))).startswith(b"235 ")
        client.close()


async def test_good_logins_are_not_throttled() -> None:
    async with listening(with_passwords()) as door:
        for _ in range(25):
            client = await RawClient.connect(door)
            await client.ask(b"EHLO c.test")
            assert (await client.ask(plain("erp", "right"))).startswith(b"235 ")
            client.close()


async def test_trouble_of_the_gateway_is_not_the_clients_fault() -> None:
    gateway = with_passwords()
    gateway.applications.error = Busy("x")
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        assert (await client.ask(plain("erp", "right"))).startswith(b"454 4.7.0 ")
        client.close()


@pytest.mark.parametrize("change", [{"enabled": False}, {"credential": b"other"}, {"networks": ("192.0.2.0/24",)}])
async def test_a_login_ends_when_its_ground_is_gone(change: dict[str, Any]) -> None:
    gateway = with_passwords()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        await client.ask(plain("erp", "right"))
        assert (await client.ask(b"MAIL FROM:<erp@app.test>")).startswith(b"250 ")
        await client.ask(b"RSET")
        gateway.applications.change_erp(**change)
        assert (await client.ask(b"MAIL FROM:<erp@app.test>")).startswith(b"530 5.7.0 ")
        assert (await client.ask(plain("erp", "right"))).startswith(b"235 ")  # asked again, as on a new connection
        client.close()


async def test_new_rights_hold_for_the_next_message_of_an_open_connection() -> None:
    gateway = with_passwords()
    async with listening(gateway) as door:
        client = await RawClient.connect(door)
        await client.ask(b"EHLO c.test")
        await client.ask(plain("erp", "right"))
        gateway.applications.change_erp(senders=("*",))
        assert (await client.ask(b"MAIL FROM:<boss@app.test>")).startswith(b"250 ")
        client.close()
