"""What an account changes in a message: told of what waits, and of what was sent while it is known."""

from __future__ import annotations

from typing import Any

import httpx2

from postroom.gateway import Gateway
from tests.contract.api.test_api import ENVELOPE, RAW

LETTER = b"From: Ann <a@example.org>\nSender: desk@example.org\nTo: b@example.net\nSubject: Hello\n\nIt works.\n"
FIXED = {"fixed_sender": "robot@example.org", "fixed_sender_keeps_reply": True}
CHANGES = [
    {"field": "reverse-path", "before": "a@example.org", "after": "robot@example.org"},
    {"field": "From", "before": "a@example.org", "after": "robot@example.org"},
    {"field": "Reply-To", "before": "", "after": "a@example.org"},
    {"field": "Sender", "before": "desk@example.org", "after": "robot@example.org"},
]


async def _sent(api: httpx2.AsyncClient, **envelope: Any) -> str:
    response = await api.post("/v1/messages", params=ENVELOPE | envelope, content=LETTER, headers=RAW)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def _told(api: httpx2.AsyncClient, message: str) -> Any:
    shown = (await api.get(f"/v1/messages/{message}")).json()["deliveries"]
    why = (await api.get(f"/v1/messages/{message}/why")).json()["deliveries"]
    assert [one["as_sent"] for one in why] == [one["as_sent"] for one in shown]
    return shown[0]["as_sent"]


async def test_what_waits_shows_as_whom_it_would_be_sent_and_how_it_is_signed(api: httpx2.AsyncClient) -> None:
    message = await _sent(api)
    plain = {"tense": "would", "account": "sandbox", "rewrites": [], "signatures": [], "why": ""}
    assert await _told(api, message) == plain
    await api.patch("/v1/accounts/sandbox", json=FIXED)
    await api.post("/v1/accounts/sandbox/dkim", json={"domain": "example.org", "selector": "s1", "key": "both"})
    told = await _told(api, message)
    assert (told["tense"], told["rewrites"]) == ("would", CHANGES)
    assert told["signatures"] == [
        {"domain": "example.org", "selector": "s1", "algorithm": "rsa-sha256"},
        {"domain": "example.org", "selector": "s1-ed25519", "algorithm": "ed25519-sha256"},
    ]
    await api.post(f"/v1/messages/{message}/cancel")
    assert await _told(api, message) is None  # it was never tried


async def test_what_was_sent_shows_as_whom_until_the_account_sends_otherwise(
    api: httpx2.AsyncClient, gateway: Gateway
) -> None:
    await api.patch("/v1/accounts/sandbox", json=FIXED)
    await gateway.start()
    message = await _sent(api)
    assert await gateway.wait_drained()
    told = await _told(api, message)
    assert (told["tense"], told["rewrites"], told["why"]) == ("was", CHANGES, "")
    await api.patch("/v1/accounts/sandbox", json={"max_connections": 2, "reply_address": "help@example.org"})
    assert (await _told(api, message))["tense"] == "was"
    await api.patch("/v1/accounts/sandbox", json={"fixed_sender": ""})
    told = await _told(api, message)
    assert (told["tense"], told["rewrites"]) == ("unknown", [])
    assert told["why"].startswith("account sandbox sends otherwise since ")
    later = await _sent(api)
    assert await gateway.wait_drained()
    assert (await _told(api, later))["tense"] == "was"
    await api.patch("/v1/settings", json={"postmaster": "post@example.org", "force_postmaster": True})
    assert (await _told(api, later))["why"].startswith("account sandbox sends otherwise since ")
