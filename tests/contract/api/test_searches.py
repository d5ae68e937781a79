"""Finding messages and following events through `/v1`."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from postroom.gateway import Gateway

RAW = {"content-type": "message/rfc822"}
ENVELOPE = {"from": "a@example.org", "to": "b@example.net"}
HELLO = b"From: a@example.org\nTo: b@example.net\nSubject: Hello\n\nIt works.\n"


async def sent(api: httpx2.AsyncClient, **envelope: Any) -> str:
    """The id of a message that is taken."""
    response = await api.post("/v1/messages", params=ENVELOPE | envelope, content=HELLO, headers=RAW)
    assert response.status_code == 202, response.text
    message_id: str = response.json()["id"]
    return message_id


async def test_messages_are_found_by_what_is_known_of_them(api: httpx2.AsyncClient, gateway: Gateway) -> None:
    first = await sent(api, to="ann@example.com")
    second = await sent(api, to="bob@example.net", tag="May 2026")
    header_id = (await api.get(f"/v1/messages/{second}")).json()["header_message_id"]

    async def found(**wanted: str) -> list[str]:
        response = await api.get("/v1/deliveries", params=wanted)
        assert response.status_code == 200, response.text
        return [one["message_id"] for one in response.json()["deliveries"]]

    for indexed in (False, True):
        while indexed and await gateway.store.index(False):
            pass
        assert await found(domain="@example.com") == await found(recipient=" ann@") == [first]
        assert await found(message_id=second) == await found(message_id=header_id) == [second]
        assert await found(tag="May 2026") == [second]
        assert await found(application="LOCAL") == await found(sender="a@example.org") == [second, first]
        assert await found(application="gone") == []
        assert await found(since="1h") == await found(since="2020-01-01", until="2999-12-31T23:59:59+01:00")
        assert await found(until="1h") == await found(since="2999-01-01") == []


@pytest.mark.parametrize("tag", ["x" * 101, " x", "x\n", "\u202e"])
async def test_a_tag_that_nobody_could_read_is_refused(api: httpx2.AsyncClient, tag: str) -> None:
    response = await api.post("/v1/messages", params=ENVELOPE | {"tag": tag}, content=HELLO, headers=RAW)
    assert (response.status_code, [one["field"] for one in response.json()["errors"]]) == (422, ["tag"])
    assert (await api.get("/v1/deliveries")).json()["deliveries"] == []


async def test_events_are_waited_for(api: httpx2.AsyncClient) -> None:
    page = (await api.get("/v1/events", params={"wait": "1m"})).json()
    assert page["events"][0]["kind"] == "account.added"
    assert page["at_end"]
    follow = {"after": page["next"], "wait": "1m", "kind": ["accepted", "account"]}
    waiting = asyncio.create_task(api.get("/v1/events", params=follow))
    message_id = await sent(api)
    page = (await waiting).json()
    assert [(one["kind"], one["message_id"]) for one in page["events"]] == [("accepted", message_id)]
    nothing = (await api.get("/v1/events", params={"after": page["next"], "account": "SANDBOX"})).json()
    assert nothing == {"events": [], "next": page["next"], "at_end": True}
    of_account = (await api.get("/v1/events", params={"account": "SANDBOX"})).json()["events"]
    assert {one["account"] for one in of_account} == {"sandbox"}
