"""`reroute` of messages and of the queue: what moves, what stays and why, and what is wrong with an order."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.contract.api.conftest import problem_of
from tests.contract.api.test_api import ENVELOPE, HELLO, RAW


async def _sent(api: httpx2.AsyncClient, **envelope: Any) -> str:
    response = await api.post("/v1/messages", params=ENVELOPE | envelope, content=HELLO, headers=RAW)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def _two_accounts(api: httpx2.AsyncClient) -> None:
    for name in ("first", "second"):
        response = await api.post("/v1/accounts", json={"name": name, "host": "relay.test", "security": "none"})
        assert response.status_code == 201, response.text
    await api.patch("/v1/applications/local", json={"accounts": ["first", "second"]})


async def _accounts(api: httpx2.AsyncClient, message: str) -> list[str]:
    return [row["account"] for row in (await api.get(f"/v1/messages/{message}")).json()["deliveries"]]


async def test_a_message_moves_whole_or_one_delivery_of_it(api: httpx2.AsyncClient) -> None:
    await _two_accounts(api)
    message = await _sent(api, to=["b@example.net", "c@example.net"])
    path = f"/v1/messages/{message}/reroute"
    answer = (await api.post(path, params={"to": "SECOND", "n": 1})).json()
    assert answer == {"id": message, "moved": 1, "accounts": {"second": 1}, "left": {}, "warnings": []}
    assert await _accounts(api, message) == ["first", "second"]
    answer = (await api.post(path, params={"to": "second"})).json()
    assert (answer["moved"], answer["left"]) == (1, {"it is where it belongs": 1})
    answer = (await api.post(path)).json()  # by the routes of today
    assert (answer["moved"], answer["accounts"]) == (2, {"first": 2})
    kinds = [e["kind"] for e in (await api.get(f"/v1/messages/{message}")).json()["events"]]
    assert kinds.count("rerouted") == 4


async def test_a_choice_moves_and_an_account_that_is_off_is_told_of(api: httpx2.AsyncClient) -> None:
    await _two_accounts(api)
    messages = [await _sent(api) for _ in range(3)]
    await api.post(f"/v1/messages/{messages[0]}/hold")
    await api.patch("/v1/accounts/second", json={"enabled": False})
    answer = (await api.post("/v1/queue/reroute", json={"account": "first", "states": ["held"], "to": "second"})).json()
    assert (answer["moved"], answer["accounts"]) == (1, {"second": 1})
    assert answer["warnings"] == [
        "account second is off: it waits there, or falls back; postroom accounts edit second --enabled"
    ]
    assert [await _accounts(api, one) for one in messages] == [["second"], ["first"], ["first"]]
    answer = (await api.post("/v1/queue/reroute", json={"account": "second", "states": ["queued"]})).json()
    assert answer == {"moved": 0, "accounts": {}, "left": {}, "warnings": []}
    counts = {one["account"]: one["counts"] for one in (await api.get("/v1/status")).json()["accounts"]}
    assert counts["first"]["queued"] == 2
    assert counts["second"]["held"] == 1


async def test_what_can_not_be_moved_is_said(api: httpx2.AsyncClient) -> None:
    await _two_accounts(api)
    message = await _sent(api)
    path = f"/v1/messages/{message}/reroute"
    assert (await problem_of(await api.post(path, params={"to": "none"}), 404))[0][0] == "account"
    assert (await problem_of(await api.post("/v1/queue/reroute", json={"to": "none"}), 404))[0][0] == "account"
    assert (await problem_of(await api.post(path, params={"to": "second", "n": 7}), 404))[0][0] == "n"
    nowhere = "/v1/messages/01890000-0000-7000-8000-000000000000/reroute"
    assert (await problem_of(await api.post(nowhere), 404))[0][0] == "id"
    refused = await api.post(path, params={"to": "sandbox"})
    await problem_of(refused, 409)
    assert "application local was not given account sandbox" in refused.json()["detail"]
    named = await _sent(api, account="first")
    refused = await api.post(f"/v1/messages/{named}/reroute")
    await problem_of(refused, 409)
    assert "its message named its account" in refused.json()["detail"]
    await api.post(f"/v1/messages/{message}/cancel")
    refused = await api.post(path, params={"to": "second"})
    await problem_of(refused, 409)
    assert refused.json()["detail"] == "there is nothing to reroute: cancelled"


async def test_patterns_narrow_a_choice(api: httpx2.AsyncClient) -> None:
    await _two_accounts(api)
    to = {"to": ["bob@mail.test", "cy@other.test"]}
    ours, theirs = await _sent(api, **to), await _sent(api, **to | {"from": "z@example.com"})
    choice = {"to": "second", "recipients": "*@mail.test", "senders": "*@example.org, none@example.net"}
    assert (await api.post("/v1/queue/reroute", json=choice)).json()["moved"] == 1
    assert await _accounts(api, ours) == ["second", "first"]
    assert await _accounts(api, theirs) == ["first", "first"]
    bad = await api.post("/v1/queue/reroute", json=choice | {"recipients": "b*@mail.test"})
    assert (await problem_of(bad, 422))[0][0] == "recipients"
