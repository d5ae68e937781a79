"""A connection that a message brings, by `/v1`: in the description, or in a header beside a raw message."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from .conftest import problem_of

RAW = {"content-type": "message/rfc822"}
ENVELOPE = {"from": "a@example.org", "to": "b@example.net"}
HELLO = b"From: a@example.org\r\nSubject: Hello\r\n\r\nIt works.\r\n"
SECRET = "marked-secret"
OWN = {"host": "smtp.example.com", "port": 2525, "username": "gäst", "password": SECRET}


@pytest.fixture
async def door(api: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """An account and an application that take it."""
    await api.post("/v1/accounts", json={"name": "office", "host": "smtp.example.org", "dynamic": True})
    await api.patch("/v1/applications/local", json={"accounts": ["office"], "dynamic": True})
    return api


async def described(api: httpx2.AsyncClient, connection: Any) -> httpx2.Response:
    """A message in parts."""
    message = {"from": "a@example.org", "to": ["b@example.net"], "text": "Hello", "connection": connection}
    return await api.post("/v1/messages", json=message)


async def raw(api: httpx2.AsyncClient, connection: str) -> httpx2.Response:
    """A whole message."""
    headers = RAW | {"postroom-connection": connection}
    return await api.post("/v1/messages", params=ENVELOPE, content=HELLO, headers=headers)


@pytest.mark.parametrize("form", ["described", "raw"])
async def test_it_is_taken_and_shown_without_its_secret(door: httpx2.AsyncClient, form: str) -> None:
    sent = await (described(door, OWN) if form == "described" else raw(door, json.dumps(OWN)))
    assert sent.status_code == 202, sent.text
    shown = await door.get(f"/v1/messages/{sent.json()['id']}")
    assert shown.json()["connection"] == {
        "target": "smtp.example.com:2525", "host": "smtp.example.com", "port": 2525, "username": "gäst",
        "secrets": ["password"],
    }  # fmt: skip
    assert SECRET not in shown.text
    plain = await door.post("/v1/messages", params=ENVELOPE, content=HELLO, headers=RAW)
    assert (await door.get(f"/v1/messages/{plain.json()['id']}")).json()["connection"] is None


async def test_faults_name_field_fault_and_mend(door: httpx2.AsyncClient) -> None:
    bad = {"port": "x", "ca_bundle": "", "hots": "a.example", "password": SECRET}
    answer = await described(door, bad)
    faults = await problem_of(answer, 422)
    assert {field for field, _, _ in faults} == {"connection.port", "connection.ca_bundle", "connection.hots"}
    assert all(fault and mend for _, fault, mend in faults)
    assert SECRET not in answer.text
    (fault,) = await problem_of(await described(door, {"host": "10.0.0.1"}), 422)
    assert fault[0] == "connection.host" and "--may-connect-to" in fault[2]
    for text in ("{", "[]", '"host"', "{}"):
        ((field, _, mend),) = await problem_of(await raw(door, text), 422)
        assert (field, bool(mend)) == ("connection", True)
    message = {"from": "a@example.org", "to": ["b@example.net"], "text": "Hello"}
    wrong = await door.post("/v1/messages", json=message, headers={"postroom-connection": "{}"})
    ((field, _, mend),) = await problem_of(wrong, 422)
    assert (field, mend) == ("Postroom-Connection", "give it as `connection` in the body")


async def test_the_switch_that_is_off_is_named(door: httpx2.AsyncClient) -> None:
    await door.patch("/v1/accounts/office", json={"dynamic": False})
    refused = await raw(door, json.dumps(OWN))
    assert await problem_of(refused, 422) == []
    assert "postroom accounts edit office --dynamic" in refused.json()["detail"]
