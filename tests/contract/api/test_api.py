"""What `/v1` promises: problems that name field, fault and mend, no secret in any answer, the queue's verbs."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from postroom.accounts.fields import ACCOUNT_FIELDS
from postroom.daemon.first_start import provision
from postroom.errors import EDGES
from postroom.gateway import Gateway

from .conftest import problem_of

RAW = {"content-type": "message/rfc822"}
ENVELOPE = {"from": "a@example.org", "to": "b@example.net"}
HELLO = b"From: a@example.org\nTo: b@example.net\nSubject: Hello\n\nIt works.\n"


async def _sent(api: httpx2.AsyncClient, **envelope: Any) -> str:
    response = await api.post("/v1/messages", params=ENVELOPE | envelope, content=HELLO, headers=RAW)
    assert response.status_code == 202, response.text
    message_id: str = response.json()["id"]
    return message_id


async def test_what_an_application_may_send_no_more_says_when_it_may(api: httpx2.AsyncClient) -> None:
    await api.patch("/v1/applications/local", json={"messages_per_hour": 1})
    await _sent(api)
    response = await api.post("/v1/messages", params=ENVELOPE, content=HELLO, headers=RAW)
    assert await problem_of(response, 429) == []
    assert response.json()["type"] == "urn:postroom:limit-reached"
    assert "application 'local' has reached its limit of 1 messages an hour" in response.json()["detail"]
    assert 3600 <= int(response.headers["retry-after"]) <= 3604


async def test_the_class_of_a_message_is_a_parameter_and_urgent_a_right(api: httpx2.AsyncClient) -> None:
    async def send(priority: str) -> httpx2.Response:
        return await api.post("/v1/messages", params=ENVELOPE | {"priority": priority}, content=HELLO, headers=RAW)

    faults = await problem_of(await send("high"), 422)
    assert faults == [("priority", "'high' is no class", "write urgent, normal or bulk")]
    refused = await send("urgent")
    assert await problem_of(refused, 422) == []
    assert "postroom applications edit local --urgent" in refused.json()["detail"]
    await api.patch("/v1/applications/local", json={"urgent": True})
    for priority in ("urgent", "normal", "bulk"):
        message = (await send(priority)).json()["id"]
        assert (await api.get(f"/v1/messages/{message}")).json()["priority"] == priority


async def test_a_new_folder_has_a_sandbox_and_a_local_application(api: httpx2.AsyncClient) -> None:
    (account,) = (await api.get("/v1/accounts")).json()["accounts"]
    assert (account["name"], account["kind"]) == ("sandbox", "sandbox")
    (application,) = (await api.get("/v1/applications")).json()["applications"]
    assert application["passwordless"] is True
    assert application["networks"] == ["127.0.0.0/8", "::1/128"]
    assert (application["senders"], application["accounts"]) == (["*"], ["kind:sandbox"])


async def test_what_a_person_removed_does_not_come_back(gateway: Gateway, api: httpx2.AsyncClient) -> None:
    assert (await api.delete("/v1/accounts/sandbox")).status_code == 204
    await provision(gateway)
    assert (await api.get("/v1/accounts")).json() == {"accounts": []}


async def test_accounts_go_out_and_come_back_as_a_file(api: httpx2.AsyncClient) -> None:
    fields = {"name": "relay", "host": "smtp.example.org", "username": "ann", "password": "marked-secret"}
    await api.post("/v1/accounts", json=fields)
    order = {"with_secrets": True, "passphrase": "correct horse battery"}
    file = (await api.post("/v1/accounts/export", json=order)).json()["toml"]
    assert "marked" not in file
    await api.delete("/v1/accounts/relay")
    given = {"toml": file, "passphrase": order["passphrase"]}
    tried = (await api.post("/v1/accounts/import", json=given | {"dry_run": True})).json()
    assert [change["action"] for change in tried["changes"]] == ["added", "unchanged"]
    assert {"field": "password", "before": "not set", "after": "set"} in tried["changes"][0]["fields"]
    assert (await api.get("/v1/accounts/relay")).status_code == 404
    assert (await api.post("/v1/accounts/import", json=given)).json()["order"] == ["relay", "sandbox"]
    assert (await api.get("/v1/accounts/relay")).json()["secrets"]["password"] == "set"
    bad = await api.post("/v1/accounts/import", json={"toml": "[[accounts]]\nname = 'x'\nhost = 'a'\nport = 0\n"})
    assert (await problem_of(bad, 422))[0][0] == "x.port"
    assert (await api.post("/v1/accounts/export", json={"passphrase": "x"})).status_code == 422


async def test_accounts_and_their_applications_come_together_or_not_at_all(
    gateway: Gateway, api: httpx2.AsyncClient
) -> None:
    accounts = [{"name": name, "host": "smtp.example.org"} for name in ("first", "second")]
    ann = {"name": "ann@example.org", "senders": ["ann@example.org"], "accounts": ["FIRST"], "password": "marked-word"}
    given = {"accounts": accounts, "applications": [ann, {"name": "erp", "accounts": ["second"]}]}
    bad = {"accounts": [*accounts, accounts[0], {"name": "x", "port": 0}], "applications": given["applications"]}
    faults = await problem_of(await api.post("/v1/accounts/together", json=bad), 422)
    assert {one[0] for one in faults} >= {"first.name", "x.port"}
    lost = given | {"applications": [ann, {"name": "local"}, {"name": "a", "accounts": ["nowhere"], "password": 1}]}
    faults = await problem_of(await api.post("/v1/accounts/together", json=lost), 422)
    assert [one[0] for one in faults] == ["local.name", "a.password"]
    tried = await api.post("/v1/accounts/together", json=given | {"dry_run": True})
    assert (tried.json()["order"], tried.json()["passwords"]) == (["first", "second", "sandbox"], {})
    assert [one["name"] for one in (await api.get("/v1/accounts")).json()["accounts"]] == ["sandbox"]
    added = await api.post("/v1/accounts/together", json=given)
    assert added.status_code == 201
    assert "marked" not in added.text
    assert [one["name"] for one in (await api.get("/v1/accounts")).json()["accounts"]] == ["first", "second", "sandbox"]
    assert gateway.applications.authenticate("ann@example.org", "marked-word", "").accounts == ("first",)
    assert gateway.applications.authenticate("erp", added.json()["passwords"]["erp"], "").accounts == ("second",)
    assert "marked" not in (await api.get("/v1/applications/ann%40example.org")).text


async def test_the_schema_knows_every_field(api: httpx2.AsyncClient) -> None:
    schemas = (await api.get("/v1/openapi.json")).json()["components"]["schemas"]
    properties = schemas["NewAccount"]["properties"]
    assert properties.keys() >= ACCOUNT_FIELDS.keys()
    assert properties["proxy_password"]["writeOnly"] is True
    assert properties["tls_versions"]["default"] == ["1.2", "1.3"]
    assert properties["command_timeout"] | {"default": "1m"} == properties["command_timeout"]


async def test_accounts_by_their_whole_life(api: httpx2.AsyncClient) -> None:
    secret = "marked-secret"
    fields = {"name": "relay", "host": "smtp.example.org", "username": "ann", "password": secret}
    answers = [
        await api.post("/v1/accounts", json=fields),
        await api.get("/v1/accounts/RELAY"),
        await api.get("/v1/accounts"),
        await api.patch("/v1/accounts/relay", json={"port": 465, "command_timeout": "90s"}),
        await api.post("/v1/accounts/relay/move", json={"position": 1}),
    ]
    assert [one.status_code for one in answers] == [201, 200, 200, 200, 200]
    assert [one.text for one in answers if secret in one.text] == []
    assert answers[0].json()["position"] == 0
    assert answers[3].json()["command_timeout"] == "90s"
    assert answers[4].json()["secrets"]["password"] == "set"
    assert answers[4].json() | {"port": 465, "position": 1} == answers[4].json()
    assert (await api.delete("/v1/accounts/relay")).status_code == 204
    assert (await problem_of(await api.get("/v1/accounts/relay"), 404))[0][0] == "account"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/v1/accounts", {"name": "x", "host": "h.example", "prot": 25}, 422, "prot"),
        ("POST", "/v1/accounts", {"name": "sandbox", "kind": "sandbox"}, 422, "name"),
        ("POST", "/v1/accounts", ["x"], 422, "body"),
        ("POST", "/v1/accounts/sandbox/move", {"position": -1}, 422, "position"),
        ("PATCH", "/v1/accounts/none", {"port": 25}, 404, "account"),
        ("DELETE", "/v1/accounts/none", None, 404, "account"),
        ("POST", "/v1/applications", {"name": "x", "senders": "*@*"}, 422, "senders"),
        ("PATCH", "/v1/applications/local", {"accounts": ["none"]}, 422, "accounts"),
        ("PATCH", "/v1/applications/none", {}, 404, "application"),
        ("POST", "/v1/queue/hold", {"state": ["queued"]}, 422, "state"),
        ("POST", "/v1/queue/hold", {"account": "none"}, 404, "account"),
        ("POST", "/v1/queue/explode", {}, 422, "verb"),
        ("GET", "/v1/deliveries?state=lost", None, 422, "state.0"),
        ("GET", "/v1/deliveries?cursor=x", None, 422, "cursor"),
        ("GET", "/v1/events?after=x", None, 422, "after"),
        ("GET", "/v1/events?wait=5", None, 422, "wait"),
        ("GET", "/v1/deliveries?since=yesterday", None, 422, "since"),
        ("GET", "/v1/deliveries?until=2026-13-01", None, 422, "until"),
        ("GET", "/v1/deliveries?subject=invoice", None, 422, "subject"),
        ("GET", "/v1/deliveries?subject=%22-%22", None, 422, "subject"),
        ("GET", "/v1/deliveries?limit=0", None, 422, "limit"),
        ("GET", "/v1/messages/x", None, 404, "id"),
        ("GET", "/v1/messages/01890000-0000-7000-8000-000000000000", None, 404, "id"),
        ("POST", "/v1/messages/01890000-0000-7000-8000-000000000000/hold", None, 404, "id"),
        ("GET", "/v1/nowhere", None, 404, "path"),
        ("POST", "/v1/drain?patience=5", None, 422, "patience"),
    ],
)
async def test_bad_input_is_named(
    api: httpx2.AsyncClient, method: str, path: str, body: Any, status: int, field: str
) -> None:
    faults = await problem_of(await api.request(method, path, json=body), status)
    assert [one[0] for one in faults] == [field]
    assert all(fault for _, fault, _ in faults)


async def test_other_refusals_are_problems_too(api: httpx2.AsyncClient) -> None:
    response = await api.put("/v1/accounts", json={})
    assert (response.status_code, response.headers["content-type"]) == (405, "application/problem+json")
    response = await api.post("/v1/accounts", content=b"{", headers={"content-type": "application/json"})
    assert (await problem_of(response, 422))[0][1]
    await problem_of(await api.post("/v1/drain"), 503)


async def test_a_fault_inside_is_told_to_the_log_alone(
    gateway: Gateway, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> dict[str, object]:
        raise RuntimeError("marked cause")

    monkeypatch.setattr(gateway.answers, "status", fail)
    response = await api.get("/v1/status")
    assert await problem_of(response, 500) == []
    assert "marked" not in response.text


async def test_a_raw_message(api: httpx2.AsyncClient) -> None:
    message_id = await _sent(api, to=["b@example.net", "C@example.net", "b@example.net"])
    message = (await api.get(f"/v1/messages/{message_id}")).json()
    assert [(one["recipient"], one["state"], one["account"]) for one in message["deliveries"]] == [
        ("b@example.net", "queued", "sandbox"),
        ("C@example.net", "queued", "sandbox"),
    ]
    assert (message["door"], message["reverse_path"], message["subject"]) == ("rest", "a@example.org", "Hello")
    content = await api.get(f"/v1/messages/{message_id}/content")
    assert content.headers["content-type"] == "message/rfc822"
    assert b"\r\nFrom: a@example.org\r\nTo: b@example.net\r\nSubject: Hello\r\n" in content.content
    assert content.content.endswith(b"\r\n\r\nIt works.\r\n")


async def test_the_envelope_comes_from_the_header_where_the_request_has_none(api: httpx2.AsyncClient) -> None:
    raw = (
        b"From: Ann <a@example.org>, x@example.org\nSender: s@example.org\nTo: b@example.net\n"
        b"Cc: Staff: c@example.net;\nBcc: d@example.net\n\nx\n"
    )
    response = await api.post("/v1/messages", content=raw, headers=RAW)
    message = (await api.get(f"/v1/messages/{response.json()['id']}")).json()
    assert message["reverse_path"] == "s@example.org"
    assert [one["recipient"] for one in message["deliveries"]] == ["b@example.net", "c@example.net", "d@example.net"]
    content = (await api.get(f"/v1/messages/{message['id']}/content")).content
    assert b"d@example.net" not in content


async def test_a_described_message(api: httpx2.AsyncClient) -> None:
    picture = base64.b64encode(b"\x89PNG").decode()
    described = {
        "from": "Ann <a@example.org>",
        "to": ["Bob B. <b@example.net>"],
        "bcc": ["hidden@example.net"],
        "subject": "Gr\u00fc\u00dfe",
        "text": "Hello",
        "html": "<img src=cid:logo>",
        "files": [
            {"file_name": "logo.png", "media_type": "image/png", "content": picture, "content_id": "logo"},
            {"file_name": "a.pdf", "media_type": "application/pdf", "content": picture},
        ],
    }
    response = await api.post("/v1/messages", json=described)
    assert response.status_code == 202, response.text
    message = (await api.get(f"/v1/messages/{response.json()['id']}")).json()
    assert message["subject"] == "Gr\u00fc\u00dfe"
    assert [one["recipient"] for one in message["deliveries"]] == ["b@example.net", "hidden@example.net"]
    content = (await api.get(f"/v1/messages/{message['id']}/content")).content
    assert b"hidden" not in content
    assert b"application/pdf" in content
    assert b"Content-ID: <logo>" in content


@pytest.mark.parametrize("sender", ["Jörg <jörg@example.org>", "Jörg <joerg@bücher.example>"])
async def test_a_described_message_needs_smtputf8_only_for_a_local_part(api: httpx2.AsyncClient, sender: str) -> None:
    described = {"from": sender, "to": ["Päivi <b@example.net>"], "subject": "Grüße", "text": "Grüße"}
    response = await api.post("/v1/messages", json=described)
    message = (await api.get(f"/v1/messages/{response.json()['id']}")).json()
    needed = "jörg@" in sender
    assert (message["smtputf8"], message["eight_bit"]) == (needed, needed)
    content = (await api.get(f"/v1/messages/{message['id']}/content")).content
    assert content.isascii() is not needed
    assert content.partition(b"\r\n\r\n")[2].isascii()


@pytest.mark.parametrize(("declared", "kept"), [({}, False), ({"smtputf8": "true"}, True)])
async def test_who_sends_raw_says_that_the_header_needs_smtputf8(
    api: httpx2.AsyncClient, declared: dict[str, str], kept: bool
) -> None:
    raw = "From: Jörg <a@example.org>\n\nx\n".encode()
    response = await api.post("/v1/messages", params=ENVELOPE | declared, content=raw, headers=RAW)
    message = (await api.get(f"/v1/messages/{response.json()['id']}")).json()
    assert message["smtputf8"] is kept


async def test_a_large_head_without_a_body_is_kept(api: httpx2.AsyncClient) -> None:
    head = b"Subject: x\r\n" + b"X-Field: 0123456789\r\n" * 20_000 + b"\r\n"
    response = await api.post("/v1/messages", params=ENVELOPE, content=head, headers=RAW)
    assert response.status_code == 202, response.text
    content = await api.get(f"/v1/messages/{response.json()['id']}/content")
    assert b"X-Field: 0123456789\r\n" * 20_000 in content.content


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"from": "nobody"}, "from"),
        ({"to": []}, "to"),
        ({"to": ["b@example.net\r\nBcc: c@example.net"]}, "to"),
        ({"to": ["b@example.net> SIZE=1 <"]}, "to"),
        ({"to": ["victim@evil.example x@ok.example"]}, "to"),
        ({"subject": "x\r\nBcc: c@example.net"}, "message"),
        ({"headers": {"X-A": "b\nBcc: c@example.net"}}, "message"),
        ({"headers": {"Bcc": "c@example.net"}}, "message"),
        ({"files": [{"content": "?"}]}, "files"),
        ({"files": [{"content": "", "file_name": "a\r\nb"}]}, "message"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_bad_description_is_named_and_nothing_is_kept(
    api: httpx2.AsyncClient, change: dict[str, Any], field: str
) -> None:
    described = {"from": "a@example.org", "to": ["b@example.net"], "text": "x"} | change
    faults = await problem_of(await api.post("/v1/messages", json=described), 422)
    assert [one[0] for one in faults] == [field]
    assert (await api.get("/v1/deliveries")).json()["deliveries"] == []


async def test_refusals_of_a_raw_message(api: httpx2.AsyncClient) -> None:
    async def post(content: bytes = HELLO, **parameters: Any) -> httpx2.Response:
        return await api.post("/v1/messages", params=ENVELOPE | parameters, content=content, headers=RAW)

    assert (await problem_of(await post(application="none"), 404))[0][0] == "application"
    assert (await problem_of(await post(account="none"), 404))[0][0] == "account"
    assert (await problem_of(await post(to="nobody"), 422))[0][0] == "to"
    assert (await problem_of(await post(b"a\rb"), 422))[0][0] == "content"
    assert (await problem_of(await post(b""), 422))[0][0] == "content"
    await api.patch("/v1/applications/local", json={"senders": ["*@example.org"]})
    for sender in ("x@elsewhere.example", ""):
        parameters: dict[str, Any] = {"from": sender}
        response = await post(HELLO, **parameters)
        await problem_of(response, 422)
        assert response.json()["enhanced_status"] == "5.7.1"
    await problem_of(await post(HELLO.replace(b"From: a@example.org", b"From: x@elsewhere.example")), 422)
    assert (await api.get("/v1/deliveries")).json()["deliveries"] == []


async def test_a_large_message_arrives_whole(api: httpx2.AsyncClient) -> None:
    body = b"0123456789abcdef\r\n" * 60_000
    response = await api.post("/v1/messages", params=ENVELOPE, content=b"Subject: x\r\n\r\n" + body, headers=RAW)
    content = await api.get(f"/v1/messages/{response.json()['id']}/content")
    assert content.content.partition(b"\r\n\r\n")[2] == body


async def test_a_message_over_the_limit(api: httpx2.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n\r\n"
        for _ in range(40):
            yield b"0123456789abcd\r\n" * 65536

    response = await api.post("/v1/messages", params=ENVELOPE, content=endless(), headers=RAW)
    await problem_of(response, 413)


async def test_verbs_on_a_message(api: httpx2.AsyncClient) -> None:
    message_id = await _sent(api, to=["b@example.net", "c@example.net"])

    async def change(verb: str, **parameters: Any) -> httpx2.Response:
        return await api.post(f"/v1/messages/{message_id}/{verb}", params=parameters)

    async def states() -> list[str]:
        return [one["state"] for one in (await api.get(f"/v1/messages/{message_id}")).json()["deliveries"]]

    assert (await change("hold", n=1)).json()["moved"] == 1
    assert await states() == ["queued", "held"]
    refused = await change("retry", n=1)
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "there is nothing to retry: held; what is held goes on with `postroom queue release`",
    )
    assert (await change("release")).json()["moved"] == 1
    await problem_of(await change("release"), 409)
    await problem_of(await change("retry"), 409)
    assert (await problem_of(await change("hold", n=7), 404))[0][0] == "n"
    why = (await api.get(f"/v1/messages/{message_id}/why")).json()["deliveries"]
    assert [(one["recipient"], one["command"]) for one in why] == [
        ("b@example.net", "postroom serve"),
        ("c@example.net", "postroom serve"),
    ]
    assert (await change("cancel")).json()["moved"] == 2
    assert await states() == ["cancelled", "cancelled"]
    again = (await change("retry")).json()
    assert again["moved"] == 0
    message = (await api.get(f"/v1/messages/{again['resubmitted_as']}")).json()
    assert message["resubmits"] == message_id


async def test_verbs_on_a_choice(api: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await _sent(api)
    assert (await api.post("/v1/queue/hold", json={"account": "sandbox"})).json() == {"moved": 3}
    assert (await api.post("/v1/queue/cancel", json={"states": ["queued"]})).json() == {"moved": 0}
    assert (await api.post("/v1/queue/release", json={})).json() == {"moved": 3}
    assert (await api.post("/v1/queue/cancel", json={"states": ["queued"]})).json() == {"moved": 3}
    status = (await api.get("/v1/status")).json()
    assert status["accounts"][0]["counts"]["cancelled"] == 3


async def test_pages_show_each_delivery_once(api: httpx2.AsyncClient) -> None:
    for number in range(4):
        await _sent(api, to=[f"{number}{letter}@example.net" for letter in "ab"])
    seen, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        page = (await api.get("/v1/deliveries", params={"limit": 3, "cursor": cursor})).json()
        seen += [one["recipient"] for one in page["deliveries"]]
        cursor, pages = page["next"], pages + 1
    assert pages == 3
    assert sorted(seen) == sorted(f"{number}{letter}@example.net" for number in range(4) for letter in "ab")
    assert seen[0][0] == "3"
    only = (await api.get("/v1/deliveries", params={"state": ["queued", "held"], "recipient": "2a@example.net"})).json()
    assert [one["recipient"] for one in only["deliveries"]] == ["2a@example.net"]


async def test_an_account_for_an_application_needs_its_senders(api: httpx2.AsyncClient) -> None:
    fields = {"name": "relay", "host": "smtp.example.org"}
    local = {"application": "local", "senders": []}
    faults = await problem_of(await api.post("/v1/accounts", json=fields | {"grant": local}), 422)
    assert faults[0][0] == "allow-sender"
    for grant in ({"application": "none", "senders": ["*"]}, {"application": "local", "senders": ["*@*"]}):
        assert (await api.post("/v1/accounts", json=fields | {"grant": grant})).is_error
    faults = await problem_of(await api.post("/v1/accounts", json=fields | {"grant": {"app": "local"}}), 422)
    assert {one[0] for one in faults} == {"grant.application", "grant.app"}
    assert [one["name"] for one in (await api.get("/v1/accounts")).json()["accounts"]] == ["sandbox"]
    local["senders"] = ["*@example.org"]
    assert (await api.post("/v1/accounts", json=fields | {"grant": local})).status_code == 201
    application = (await api.get("/v1/applications/local")).json()
    assert (application["senders"], application["accounts"]) == (["*@example.org"], ["kind:sandbox", "relay"])
    second = {"name": "second", "host": "b.example.org", "grant": {"application": "local", "senders": []}}
    assert (await api.post("/v1/accounts", json=second)).status_code == 201
    assert (await api.get("/v1/applications/local")).json()["senders"] == ["*@example.org"]
    await problem_of(await api.delete("/v1/accounts/relay"), 409)


async def test_a_password_is_shown_when_it_is_made_and_never_again(gateway: Gateway, api: httpx2.AsyncClient) -> None:
    password = (await api.post("/v1/applications", json={"name": "erp"})).json()["password"]
    assert gateway.applications.authenticate("erp", password, "192.0.2.1").name == "erp"
    answers = [await api.get("/v1/applications"), await api.get("/v1/applications/erp")]
    assert [one.text for one in answers if password in one.text] == []
    fresh = (await api.post("/v1/applications/erp/rotate")).json()["password"]
    assert fresh != password


async def test_check(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    findings = (await api.get("/v1/check")).json()["findings"]
    assert {one["subject"] for one in findings} >= {"settings", "folder", "keys", "disk", "database"}
    assert any(one["level"] == "error" and "chmod 700" in one["mend"] for one in findings)


async def test_the_description_of_the_api_lists_every_route(api: httpx2.AsyncClient) -> None:
    document = (await api.get("/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/accounts/{name}", "/v1/messages/{message_id}/{verb}", "/v1/deliveries"} <= set(document["paths"])
    assert all(path.startswith("/v1/") for path in document["paths"])


def test_every_error_has_its_http_status() -> None:
    assert {edge.http_status for edge in EDGES.values()} >= {401, 404, 409, 413, 422, 429, 500, 503, 507}


async def test_settings(api: httpx2.AsyncClient) -> None:
    listed = {one["name"]: one for one in (await api.get("/v1/settings")).json()["settings"]}
    assert listed["hostname"]["origin"] == "given at the start"
    assert (listed["retention"]["value"], listed["retention"]["origin"]) == ("30d", "default")
    changed = await api.patch("/v1/settings", json={"retention": "9d", "sending_enabled": False})
    assert [(one["name"], one["value"]) for one in changed.json()["settings"]] == [
        ("retention", "9d"),
        ("sending_enabled", False),
    ]
    assert (await api.get("/v1/settings/retention")).json()["origin"] == "stored"
    assert (await api.get("/v1/status")).json()["sending_enabled"] is False
    assert (await api.delete("/v1/settings/retention")).json()["value"] == "30d"
    bad = await api.patch("/v1/settings", json={"retention": "9d", "give_up": 9, "hostname": "x.example"})
    assert [fault[0] for fault in await problem_of(bad, 422)] == ["hostname"]
    bad = await api.patch("/v1/settings", json={"retention": "9d", "give_up": 9})
    assert await problem_of(bad, 422) == [("give_up", "9 has no unit", "write 9ms or 9s")]
    (_, _, mend), *_ = await problem_of(await api.get("/v1/settings/retenton"), 404)
    assert mend == "did you mean retention or content_retention?"
    assert (await api.get("/v1/settings/retention")).json()["value"] == "30d"
