"""DKIM keys of an account, and the sender of composed mail, over `/v1`."""

from __future__ import annotations

import httpx2

from .conftest import problem_of


async def test_a_described_message_without_a_sender_is_from_the_account(api: httpx2.AsyncClient) -> None:
    described = {"to": ["bob@y.test"], "text": "hi"}
    assert (await problem_of(await api.post("/v1/messages", json=described), 422))[0][0] == "from"
    await api.patch("/v1/accounts/sandbox", json={"full_name": "Office", "email_address": "office@x.test"})
    office = {"address": "office@x.test", "name": "Office"}
    assert (await api.get("/v1/messages/sender")).json() == {"from": office, "reply_to": []}
    other = await api.get("/v1/messages/sender", params={"from": "Ann <ann@x.test>"})
    assert other.json() == {"from": {"address": "ann@x.test", "name": "Ann"}, "reply_to": [office]}
    accepted = await api.post("/v1/messages", json=described)
    content = await api.get(f"/v1/messages/{accepted.json()['id']}/content")
    assert b"\r\nFrom: Office <office@x.test>\r\n" in content.content
    accepted = await api.post("/v1/messages", json=described | {"from": "ann@x.test"})
    content = await api.get(f"/v1/messages/{accepted.json()['id']}/content")
    assert b"\r\nFrom: ann@x.test\r\nReply-To: Office <office@x.test>\r\n" in content.content


async def test_dkim_keys_by_their_whole_life(api: httpx2.AsyncClient) -> None:
    await api.post("/v1/accounts", json={"name": "relay", "host": "smtp.example.org"})
    wanted = {"domain": "example.org", "selector": "s1", "key": "both"}
    made = await api.post("/v1/accounts/relay/dkim", json=wanted)
    assert made.status_code == 201
    assert [(key["selector"], key["record"]["name"]) for key in made.json()["keys"]] == [
        ("s1", "s1._domainkey.example.org"),
        ("s1-ed25519", "s1-ed25519._domainkey.example.org"),
    ]
    assert (await api.get("/v1/accounts/relay/dkim")).json() == made.json()
    account = await api.get("/v1/accounts/relay")
    assert account.json()["secrets"] | {"dkim_rsa_key": "set", "dkim_ed25519_key": "set"} == account.json()["secrets"]
    assert "PRIVATE KEY" not in made.text + account.text
    assert (await problem_of(await api.post("/v1/accounts/relay/dkim", json=wanted), 422))[0][0] == "selector"
    assert (await api.delete("/v1/accounts/relay/dkim")).status_code == 204
    assert (await api.get("/v1/accounts/relay/dkim")).json()["keys"] == []
    assert (await problem_of(await api.get("/v1/accounts/nobody/dkim"), 404))[0][0] == "account"
