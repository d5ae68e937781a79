"""Presets and proposals as the API gives them."""

from __future__ import annotations

import httpx2
import pytest

from postroom.gateway import Gateway
from tests.contract.api.conftest import problem_of
from tests.name_server import NameServer


async def test_presets_are_listed_and_found_by_any_name(api: httpx2.AsyncClient) -> None:
    listed = (await api.get("/v1/presets")).json()["presets"]
    assert len(listed) >= 60
    one = (await api.get("/v1/presets/Amazon-SES")).json()
    assert one in listed
    assert one["regions"]["eu-west-1"] == "email-smtp.eu-west-1.amazonaws.com"
    assert [field for field, _, _ in await problem_of(await api.get("/v1/presets/nobody"), 404)] == ["preset"]


async def test_an_account_is_filled_in_by_its_preset(api: httpx2.AsyncClient) -> None:
    made = await api.post("/v1/accounts", json={"name": "relay", "preset": "sendgrid", "password": "marked"})
    account = made.json()
    assert (account["host"], account["port"], account["security"]) == ("smtp.sendgrid.net", 587, "starttls")
    assert (account["username"], account["not_built"]) == ("apikey", [])
    bad = await api.post("/v1/accounts", json={"name": "other", "preset": "ses", "username": "a", "password": "b"})
    assert [field for field, _, _ in await problem_of(bad, 422)] == ["preset_region"]


async def test_an_address_is_proposed_for(
    api: httpx2.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NameServer({"office.test MX": ["0 x.mail.protection.outlook.com."]}) as server:
        await gateway.configuration.change({"dns.servers": [f"127.0.0.1:{server.port}"]})
        found = (await api.get("/v1/proposals", params={"address": "ann@office.test"})).json()
    assert [one["fields"].get("preset") for one in found["proposals"]] == ["microsoft-365", "microsoft-graph"]
    assert found["sure"] is False
    bad = await api.get("/v1/proposals", params={"address": "ann"})
    assert [field for field, _, _ in await problem_of(bad, 422)] == ["address"]
