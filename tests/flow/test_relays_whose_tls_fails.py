"""A relay whose TLS fails stops the account with the reason and the mend; mail waits, and goes once it was mended."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.gateway import Gateway
from tests.flow.gateways import delivering, hello
from tests.tls_relay import (
    EXPIRED,
    NOT_YET_VALID,
    TlsRelay,
    asking,
    fingerprint,
    own_certificate,
    pem,
    served,
)

AUTHORITY = trustme.CA()
TRUSTED = {"ca_bundle": pem(AUTHORITY)}
GOOD = AUTHORITY.issue_cert("localhost")
STALE = AUTHORITY.issue_cert("localhost", **EXPIRED)
OTHER = AUTHORITY.issue_cert("mail.provider.test")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """One that delivers; its account is the test's."""
    async with delivering(tmp_path) as gateway:
        yield gateway


async def account_that(gateway: Gateway, health: str) -> dict[str, Any]:
    """The account, once it is `health`; pytest's limit is the patience."""
    while True:
        rows: Any = (await gateway.answers.status())["accounts"]
        found: dict[str, Any] = rows[0]
        if found["health"] == health:
            return found


SETUPS: dict[str, tuple[ssl.SSLContext, dict[str, Any], str, str, str, dict[str, Any]]] = {
    "expired": (
        served(STALE), TRUSTED, "needs attention", "certificate has expired", "have the relay's certificate renewed",
        {"verification": "fingerprint", "fingerprints": fingerprint(STALE)},
    ),
    "not yet valid": (
        served(AUTHORITY.issue_cert("localhost", **NOT_YET_VALID)), TRUSTED, "needs attention", "not yet valid",
        "check this machine's clock", {"verification": "off"},
    ),
    "unknown": (
        served(GOOD), {}, "needs attention", "was refused", "give the account the CA bundle", TRUSTED,
    ),
    "wrong name": (
        served(OTHER), TRUSTED, "needs attention", "mismatch", "server_name", {"server_name": "mail.provider.test"},
    ),
    "not pinned": (
        served(GOOD), {"verification": "fingerprint", "fingerprints": "ab" * 32}, "needs attention", "not pinned",
        "whether the certificate was renewed", {"fingerprints": fingerprint(GOOD)},
    ),
    "client certificate": (
        asking(AUTHORITY, GOOD, "1.3"), TRUSTED, "needs attention", "CERTIFICATE_REQUIRED",
        "give the account client_certificate", own_certificate(AUTHORITY),
    ),
    "client certificate of a stranger": (
        asking(AUTHORITY, GOOD, "1.2"), TRUSTED | own_certificate(trustme.CA()), "needs attention", "UNKNOWN_CA",
        "that the relay's operator has signed", own_certificate(AUTHORITY),
    ),
    "TLS 1.0 alone": (
        served(GOOD, "1.0"), TRUSTED, "sleeping", "PROTOCOL", "(tls_versions)", {"tls_versions": "1.0, 1.2, 1.3"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("setup", SETUPS)
async def test_the_reason_and_the_mend_are_told(gateway: Gateway, setup: str) -> None:
    context, fields, health, reason, advice, mend = SETUPS[setup]
    with TlsRelay(context) as relay:
        where = {"name": "relay", "host": "localhost", "port": relay.port, "security": "tls", "address_family": "ipv4"}
        await gateway.accounts.add(where | fields)
        accepted = await gateway.submit(hello(gateway))
        assert reason in (await account_that(gateway, health))["reason"]
        (why,) = await gateway.answers.why(accepted.id)
        assert reason in why.reason and advice in why.advice
        view = await gateway.store.message(accepted.id)
        assert view is not None and [(row.state.value, row.tries) for row in view.deliveries] == [("queued", 0)]
        assert relay.taken == []
        await gateway.accounts.edit("relay", mend)
        assert await gateway.wait_drained()
        assert relay.taken == ["RCPT TO:<b@y.test>"]
