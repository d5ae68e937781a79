"""`/v1/suppressions`, and what a message says of it."""

from __future__ import annotations

import httpx2
import pytest

from postroom.gateway import Gateway

from .conftest import problem_of

HELLO = b"From: a@example.org\r\nSubject: hi\r\n\r\nhello\r\n"
PATH = "/v1/suppressions"


async def test_an_entry_is_added_shown_and_removed(api: httpx2.AsyncClient) -> None:
    added = await api.post(PATH, json={"entry": "Ann@Example.org", "reason": "left", "expires": "90d"})
    assert added.status_code == 201
    shown = added.json()
    assert shown == (await api.get(f"{PATH}/ANN@example.org")).json()
    assert (shown["entry"], shown["kind"], shown["reason"], shown["source"], shown["expired"]) == (
        "ann@example.org", "address", "left", "by-hand", False,
    )  # fmt: skip
    assert shown["message_id"] is None
    assert shown["expires"] > shown["created"]
    await api.post(PATH, json={"entry": "*@Bücher.test"})
    assert (await api.get(f"{PATH}/bücher.test")).json()["kind"] == "domain"
    await api.post(PATH, json={"entry": "a/b@example.org"})
    assert (await api.delete(f"{PATH}/a%2Fb@example.org")).status_code == 204
    assert (await api.delete(f"{PATH}/ann@example.org")).status_code == 204
    ((field, fault, mend),) = await problem_of(await api.delete(f"{PATH}/ann@example.org"), 404)
    assert (field, fault) == ("entry", "ann@example.org is not on the suppression list")
    assert "postroom suppressions list" in mend


async def test_the_list_is_read_page_by_page(api: httpx2.AsyncClient) -> None:
    names = [f"r{n}@example.org" for n in range(5)]
    await api.post(f"{PATH}/import", json={"entries": [{"entry": name} for name in [*names, "other@example.org"]]})
    found, cursor = [], ""
    while True:
        page = (await api.get(PATH, params={"prefix": "R", "limit": 2, "cursor": cursor})).json()
        found += [one["entry"] for one in page["suppressions"]]
        cursor = page["next"]
        if not cursor:
            break
    assert found == names
    (fault,) = await problem_of(await api.get(PATH, params={"cursor": "é"}), 422)
    assert fault[0] == "cursor"


async def test_an_import_is_all_or_nothing(api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"entries": [{"entry": "a@example.org"}, {"entry": "b"}, {"entry": "c@example.org", "expires": "soon"}]}
    faults = await problem_of(await api.post(f"{PATH}/import", json=bad), 422)
    assert [field for field, _, _ in faults] == ["entries.1.entry", "entries.2.expires"]
    assert (await api.get(PATH)).json() == {"suppressions": [], "next": ""}
    await api.post(PATH, json={"entry": "b@example.org"})
    good = {"entries": [{"entry": f"{name}@example.org"} for name in "aBb"], "reason": "a list", "expires": "1d"}
    assert (await api.post(f"{PATH}/import", json=good)).json() == {"entries": 2, "new": 1}
    shown = (await api.get(PATH)).json()["suppressions"]
    assert [(one["entry"], one["reason"], one["source"]) for one in shown] == [
        ("a@example.org", "a list", "import"),
        ("b@example.org", "a list", "import"),
    ]
    monkeypatch.setattr("postroom.suppressions.service.MOST_IMPORTED", 2)
    (fault,) = await problem_of(await api.post(f"{PATH}/import", json=good), 422)
    assert fault == ("entries", "are 3", "give at most 2 at a time")
    assert (await problem_of(await api.post(f"{PATH}/import", json={"entries": []}), 422))[0][0] == "entries"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"entry": "ann"}, "entry"),
        ({"entry": "a@x.test", "expires": "2020-01-01"}, "expires"),
        ({"entry": "a@x.test", "reason": "a\r\nb"}, "reason"),
        ({"entry": "a@x.test", "why": "x"}, "why"),
        ({}, "entry"),
    ],
)
async def test_what_cannot_be_read_names_the_field(api: httpx2.AsyncClient, body: dict[str, str], field: str) -> None:
    assert [one[0] for one in await problem_of(await api.post(PATH, json=body), 422)] == [field]


async def test_a_message_to_who_is_on_the_list_is_accepted_and_says_what_became_of_it(
    api: httpx2.AsyncClient, gateway: Gateway
) -> None:
    await gateway.applications.edit("local", {"apply_suppressions": True})
    await api.post(PATH, json={"entry": "example.org", "reason": "closed"})
    envelope = {"from": "a@example.org", "to": ["Ann@Example.ORG", "b@example.net"]}
    headers = {"content-type": "message/rfc822"}
    response = await api.post("/v1/messages", params=envelope, content=HELLO, headers=headers)
    assert response.status_code == 202
    message = (await api.get(f"/v1/messages/{response.json()['id']}")).json()
    reply = "example.org is on the suppression list: closed"
    assert [(one["state"], one["status"], one["reply"]) for one in message["deliveries"]] == [
        ("bounced", "5.7.1", reply),
        ("queued", "", ""),
    ]
    (listed,) = (await api.get("/v1/deliveries", params={"state": "bounced"})).json()["deliveries"]
    assert (listed["recipient"], listed["reply"]) == ("Ann@Example.ORG", reply)
    (why, _) = (await api.get(f"/v1/messages/{response.json()['id']}/why")).json()["deliveries"]
    assert why["advice"] == "take it off the list first: postroom suppressions remove example.org"
    only = await api.post("/v1/messages", params=envelope | {"to": "ann@example.org"}, content=HELLO, headers=headers)
    assert only.status_code == 202
    again = await api.post(f"/v1/messages/{only.json()['id']}/retry")
    ended = (await api.get(f"/v1/messages/{again.json()['resubmitted_as']}")).json()["deliveries"]
    assert [one["state"] for one in ended] == ["bounced"], "sent again, and still on the list"
