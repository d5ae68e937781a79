"""A POP3 login over TLS: by the account's rules, required where chosen, and nothing believed that came before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trustme

from postroom.model.account import Account, AccountKind, Authentication, PopLogin, PopSecurity, Verification
from postroom.net.pop3_login import log_in
from postroom.net.stream import ConnectFailed
from postroom.net.system_clock import SystemClock
from tests.pop3_server import Pop3Behaviour, Pop3Server
from tests.tls_relay import asking, fingerprint, own_certificate, pem, served

AUTHORITY = trustme.CA()
ISSUED = AUTHORITY.issue_cert("localhost")


def account(server: Pop3Server, security: PopSecurity, **fields: Any) -> Account:
    """One that logs in there by its password as it is, and trusts the authority."""
    login = PopLogin(
        host="localhost", port=server.port, security=security, username="ann", password="tanstaaf", apop=False
    )
    made = Account(
        id=1, name="isp", kind=AccountKind.SMTP, host="relay.test", authentication=Authentication.POP, pop=login,
        ca_bundle=pem(AUTHORITY), server_name="relay.test",
    )  # fmt: skip
    return replace(made, **fields)


async def failure(server: Pop3Server, account: Account) -> ConnectFailed:
    """Why the login fails; the password was not sent."""
    with pytest.raises(ConnectFailed) as failed:
        await log_in(account, SystemClock())
    assert failed.value.stage == "pop"
    assert not any(command.startswith(("USER", "PASS")) for command in server.commands)
    return failed.value


@pytest.mark.parametrize("security", [PopSecurity.STLS, PopSecurity.TLS])
async def test_the_password_goes_inside_tls_to_a_server_of_the_right_name(security: PopSecurity) -> None:
    async with Pop3Server(context=served(ISSUED), implicit=security is PopSecurity.TLS) as server:
        made = await log_in(account(server, security), SystemClock())
        asked = ["CAPA", "STLS"] if security is PopSecurity.STLS else []
        assert server.commands == [*asked, "USER ann", "PASS tanstaaf", "QUIT"]
        assert "C: PASS [hidden]" in made.transcript and "-- TLSv1.3 with" in made.transcript
        assert "tanstaaf" not in made.transcript


@pytest.mark.parametrize("security", [PopSecurity.STLS, PopSecurity.TLS])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ca_bundle": ""}, "the certificate of localhost was refused"),
        ({"verification": Verification.FINGERPRINT, "fingerprints": ("ab" * 32,)}, "which is not pinned"),
        ({"host": "localhost"}, "the certificate of localhost was refused"),  # then its server_name counts
    ],
)
async def test_a_certificate_that_is_not_taken(security: PopSecurity, fields: dict[str, Any], reason: str) -> None:
    async with Pop3Server(context=served(ISSUED), implicit=security is PopSecurity.TLS) as server:
        failed = await failure(server, account(server, security, **fields))
        assert (failed.kind, reason in failed.reason) == ("certificate", True)
        pinned = {"verification": Verification.FINGERPRINT, "fingerprints": ("ab" * 32, fingerprint(ISSUED))}
        await log_in(account(server, security, **pinned), SystemClock())


@pytest.mark.parametrize("security", [PopSecurity.STLS, PopSecurity.TLS])
async def test_the_client_certificate_is_shown_at_the_relays_own_host_alone(security: PopSecurity) -> None:
    asked = asking(AUTHORITY, ISSUED)
    async with Pop3Server(context=asked, implicit=security is PopSecurity.TLS) as server:
        shows = account(server, security, server_name="", **own_certificate(AUTHORITY))
        with pytest.raises(ConnectFailed):
            await log_in(shows, SystemClock())
        assert server.logins == 0
        await log_in(replace(shows, host="localhost"), SystemClock())
        assert server.logins == 1


@pytest.mark.parametrize(
    ("behaviour", "kind", "reason"),
    [
        (Pop3Behaviour({"CAPA": "+OK\r\nUSER\r\n."}), "tls", "localhost does not offer STLS"),
        (Pop3Behaviour({"CAPA": "-ERR what?", "STLS": "-ERR what?"}), "tls", "localhost refuses STLS"),
        (Pop3Behaviour(behind_stls=b"+OK you are in\r\n"), "protocol", "speaks before TLS was started"),
        (Pop3Behaviour({"STLS": ""}), "network", "localhost closed the connection"),
    ],
)
async def test_stls_that_does_not_come_about(behaviour: Pop3Behaviour, kind: str, reason: str) -> None:
    async with Pop3Server(behaviour, served(ISSUED)) as server:
        failed = await failure(server, account(server, PopSecurity.STLS))
        assert (failed.kind, reason in failed.reason) == (kind, True)


async def test_stls_is_asked_of_a_server_that_knows_no_capa() -> None:
    async with Pop3Server(Pop3Behaviour({"CAPA": "-ERR what?"}), served(ISSUED)) as server:
        await log_in(account(server, PopSecurity.STLS), SystemClock())
        assert server.logins == 1


async def test_tls_at_a_port_that_begins_in_clear() -> None:
    async with Pop3Server() as server:
        failed = await failure(server, account(server, PopSecurity.TLS))
        assert (failed.kind, "no TLS with localhost" in failed.reason) == ("tls", True)


async def test_no_password_in_clear_unless_the_account_allows_it() -> None:
    async with Pop3Server() as server:
        failed = await failure(server, account(server, PopSecurity.NONE))
        assert failed.kind == "clear-password"
        await log_in(account(server, PopSecurity.NONE, allow_clear_password=True), SystemClock())
        assert server.logins == 1
