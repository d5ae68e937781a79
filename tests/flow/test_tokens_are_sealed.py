"""Nothing that OAuth 2 keeps secret lies in the database as it is, whichever database that is."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from postroom.config import Settings
from postroom.diagnosis.connection_test import Result
from postroom.errors import Refused
from postroom.gateway import Gateway, Wanted
from postroom.net.stream import ConnectFailed
from tests.postgresql import Cluster
from tests.token_desk import TokenDesk
from tests.web_server import Asked, answer

GIVEN = {"access_token": "access-token-in-clear", "refresh_token": "rotated-token-in-clear", "expires_in": 3600}
DEVICE = {"device_code": "device-code-in-clear", "user_code": "ABCD-EFGH", "verification_uri": "https://as.test/d"}
PERSON = {"oauth_client_secret": "client-secret-in-clear", "oauth_refresh_token": "given-token-in-clear"}
ISSUED = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("app.test", key_type=trustme.KeyType.RSA)
KEY = ISSUED.private_key_pem.bytes().decode()

#: Lies there for everybody to read: what is searched would be found.
PUBLIC = "client-id-for-everybody"


@pytest.fixture
async def desk() -> AsyncIterator[TokenDesk]:
    """Where tokens come from."""
    async with TokenDesk() as desk:
        yield desk


def files(folder: Path) -> bytes:
    """What the files of a data folder hold, but for its keys."""
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file() and "key" not in path.name)


def dump(cluster: Cluster, url: str) -> bytes:
    """All of a database on the server."""
    command = [str(cluster.bin / "pg_dump"), "--inserts", url]
    return subprocess.run(command, capture_output=True, check=True, timeout=60, env=dict(os.environ)).stdout


def forms(secret: str) -> list[bytes]:
    """How it could be read: as it is, in hexadecimal, as a dump writes octets, and in base64."""
    raw = secret.encode()
    return [raw, raw.hex().encode(), base64.b64encode(raw)[:-4]]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_no_secret_of_oauth_lies_in_the_database_in_clear(
    tmp_path: Path, desk: TokenDesk, request: pytest.FixtureRequest, kind: str
) -> None:
    everything: Callable[[], bytes] = lambda: files(tmp_path)  # noqa: E731
    settings = Settings.load(tmp_path, smtp={"listeners": []})
    if kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        url = await asyncio.to_thread(cluster.new_store)
        settings = Settings.load(tmp_path, smtp={"listeners": []}, database=url)
        everything = lambda: dump(cluster, url)  # noqa: E731
    gateway = await Gateway.open(settings)
    own = {"oauth_client_id": PUBLIC, "host": "relay.test"}
    await gateway.accounts.add(desk.account(name="person", **own, **PERSON))
    certificate = {"oauth_certificate": ISSUED.cert_chain_pems[0].bytes().decode(), "oauth_certificate_key": KEY}
    flow = {"oauth_flow": "client-credentials"}
    await gateway.accounts.add(desk.account(name="robot", **own, **flow, **certificate))
    key = {"type": "service_account", "client_email": "r@p.test", "private_key": KEY, "token_uri": "https://as.test/t"}
    service = {"oauth_provider": "google", "oauth_flow": "service-account", "oauth_service_account": json.dumps(key)}
    await gateway.accounts.add(
        {"name": "service", "host": "relay.test", "authentication": "oauth2", "username": "ann@x.test"} | service
    )
    person = gateway.accounts.get("person")
    desk.misbehaviours = [lambda asked: answer(GIVEN), lambda asked: answer(DEVICE)]
    assert await gateway.tokens.token(person) == GIVEN["access_token"]
    link = await gateway.consents.begin_on_loopback(person, 9)
    device = await gateway.consents.begin_device(person)
    asked = [await gateway.store.tokens.asked(one.state) for one in (link, device)]
    verifier, code = (one.secret for one in asked if one is not None)
    assert code == DEVICE["device_code"]
    secrets = [*PERSON.values(), str(GIVEN["access_token"]), str(GIVEN["refresh_token"]), verifier, code, link.state]
    secrets += [KEY.splitlines()[number] for number in (1, -2)]
    for _ in range(2):
        found = await asyncio.to_thread(everything)
        assert any(form in found for form in forms(PUBLIC))
        for secret in secrets:
            assert not any(form in found for form in forms(secret)), secret
        await gateway.rotate_keys()
    await gateway.stop()
    found = await asyncio.to_thread(everything)
    assert not any(form in found for secret in secrets for form in forms(secret))


def repeats(asked: Asked) -> bytes:
    """Says no and names all that it was given, as Spring's server names the token that it does not take."""
    words = " ".join([*asked.form.values(), asked.body.decode(), asked.headers.get("authorization", "")])
    spelt = base64.b64decode(asked.headers["authorization"].partition(" ")[2]).decode()
    return answer({"error": "invalid_grant", "error_description": f"Invalid: {words[:300]} {spelt}"}, 400)


async def test_a_server_that_repeats_secrets_is_quoted_without_them(tmp_path: Path, desk: TokenDesk) -> None:
    gateway = await Gateway.open(Settings.load(tmp_path, smtp={"listeners": []}))
    secrets = {"oauth_client_secret": "client secret+in/clear", "oauth_refresh_token": "given-token-in-clear"}
    await gateway.accounts.add(desk.account(name="person", oauth_client_id=PUBLIC, host="relay.test", **secrets))
    account = gateway.accounts.get("person")
    link = await gateway.consents.begin_on_loopback(account, 9)
    pending = await gateway.store.tokens.asked(link.state)
    assert pending is not None
    desk.misbehaviours = [repeats, repeats, lambda asked: answer({**GIVEN, "expires_in": 1}), repeats]
    with pytest.raises(Refused) as refused:
        await gateway.consents.complete(account, {"state": link.state, "code": "code-in-clear"})
    with pytest.raises(ConnectFailed) as failed:
        await gateway.tokens.token(account)
    consent = await gateway.consents.of(account)
    assert consent is not None and consent.why.startswith("invalid_grant: Invalid: ")
    await gateway.tokens.token(account)
    result: Result = await gateway.trials.run(account, Wanted())
    told = [str(refused.value), str(failed.value), str(failed.value.reply), consent.why, str(result.show())]
    assert all("Invalid: " in text and "[hidden]" in text for text in told)
    await gateway.stop()
    told.append(files(tmp_path).decode("latin-1"))
    hidden = [*secrets.values(), pending.secret, "code-in-clear", str(GIVEN["refresh_token"]), "client+secret%2Bin"]
    assert [(secret, text) for text in told for secret in hidden if secret in text] == []
