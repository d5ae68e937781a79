"""Data folders that releases left when they were killed: this version loses nothing of them and sends what waits, once.

`scripts/make_release_fixture.py` makes one for each release; its manifest is what that release said of the folder.
"""

from __future__ import annotations

import hashlib
import json
import smtplib
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from postroom.api import create_app
from postroom.config import Settings
from postroom.gateway import Gateway
from postroom.model.queue import FINAL, DeliveryState
from tests.conftest import ROOT, Served
from tests.e2e.counting_sink import CountingSink
from tests.e2e.crash_room import arrived

RELEASES = sorted(path.parent for path in (ROOT / "tests" / "fixtures" / "releases").glob("*/manifest.json"))
#: What becomes of what was being sent when the release was killed; the other fields tell of it.
RECOVERED = {"state": "deferred", "may_be_sent_twice": True}
TOLD_OF_RECOVERY = ("due", "status", "reply", "marks")

ENDED = {state.value for state in FINAL}
AGES = {f"POSTROOM_{name}": "36500d" for name in ("RETRY_WINDOW", "GIVE_UP", "RETENTION")}


@pytest.fixture(params=RELEASES, ids=lambda path: str(path.name))
def release(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a release said of its folder, which lies in `data`; nothing in it ends for its age."""
    for name, value in AGES.items():
        monkeypatch.setenv(name, value)
    folder: Path = request.param
    (tmp_path / "data").mkdir(mode=0o700)
    with tarfile.open(folder / "data.tar.gz") as archive:
        archive.extractall(tmp_path / "data", filter="data")
    said: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return said


@pytest.fixture
async def api(release: dict[str, Any], tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """The folder under this version, which delivers nothing."""
    gateway = await Gateway.open(Settings.load(tmp_path / "data", hostname="gateway.example"))
    await gateway.start(deliver=False)
    transport = httpx2.ASGITransport(create_app(gateway), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.example") as client:
        yield client
    await gateway.stop()


def deliveries(said: dict[str, Any]) -> list[dict[str, Any]]:
    """All of a release."""
    return [one for message in said["messages"] for one in message["shown"]["deliveries"]]


def lost(old: Any, new: Any, path: str = "") -> list[str]:
    """What stands otherwise in `new` than in `old`; fields that only the new one has are welcome."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [text for key, value in old.items() for text in lost(value, new.get(key), f"{path}/{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [text for n, pair in enumerate(zip(old, new, strict=True)) for text in lost(*pair, f"{path}/{n}")]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def test_each_release_has_every_state() -> None:
    assert RELEASES
    for folder in RELEASES:
        said = json.loads((folder / "manifest.json").read_text("utf-8"))
        assert {one["state"] for one in deliveries(said)} == {state.value for state in DeliveryState}, folder.name


async def test_nothing_is_lost(release: dict[str, Any], api: httpx2.AsyncClient) -> None:
    for message in release["messages"]:
        old, path = message["shown"], f"/v1/messages/{message['shown']['id']}"
        new = (await api.get(path)).json()
        for delivery in old["deliveries"]:
            if delivery["state"] == "sending":
                delivery |= RECOVERED
                for name in TOLD_OF_RECOVERY:
                    delivery.pop(name, None)
                new["events"] = new["events"][: len(old["events"])]
        assert lost(old, new) == []
        content = (await api.get(f"{path}/content")).content
        assert hashlib.sha256(content).hexdigest() == message["sha256"]
    accounts = {one["name"]: one for one in (await api.get("/v1/accounts")).json()["accounts"]}
    old_accounts = {one["name"]: one for one in release["accounts"]}
    for one in old_accounts.values():
        one.pop("has_password", None)  # told in another way now; whether it opens, logging in shows
    assert lost(old_accounts, accounts) == []
    applications = {one["name"]: one for one in (await api.get("/v1/applications")).json()["applications"]}
    assert lost({one["name"]: one for one in release["applications"]}, applications) == []
    for name in release["stored"].keys() - {"retention"}:  # which the test gives
        assert (await api.get(f"/v1/settings/{name}")).json()["value"] == release["stored"][name]


def test_what_waits_is_sent_once(
    release: dict[str, Any], serve: Callable[..., Served], counting_sink: CountingSink, tmp_path: Path
) -> None:
    counting_sink.again()
    served = serve(data=tmp_path / "data", POSTROOM_NOTIFICATIONS__DELAY_WARNING="0s", **AGES)
    for account in ("relay", "paused"):
        served.run("accounts", "edit", account, "--port", str(counting_sink.port), "--enabled")
    served.run("queue", "release", "--all")
    served.run("queue", "retry", "--all")
    pending = {one["recipient"]: 1 for one in deliveries(release) if one["state"] not in ENDED}
    counting_sink.wait_for(lambda seen: arrived(seen.copies).keys() >= pending.keys())

    with smtplib.SMTP("127.0.0.1", served.port) as client:  # the application's password is the old one
        client.login("erp", release["password"])
        client.sendmail("ann@source.example", ["new@sink.example"], b"Subject: new\r\n\r\nx\r\n")
    counting_sink.wait_for(lambda seen: "new@sink.example" in arrived(seen.copies))
    assert json.loads(served.run("queue", "list", "--state", "sending", "--json").stdout)["deliveries"] == []
    assert served.stop() == 0
    assert arrived(counting_sink.seen.copies) == pending | {"new@sink.example": 1}
    assert counting_sink.seen.verbs["login"] > 0  # nor was the account's password lost
    assert counting_sink.seen.verbs["wrong login"] == 0
    left = json.loads(served.run("queue", "list", "--limit", "1000", "--json").stdout)["deliveries"]
    states = {(one["message_id"], one["n"]): one["state"] for one in left}
    for message in release["messages"]:
        for one in message["shown"]["deliveries"]:
            expected = one["state"] if one["state"] in ENDED else "delivered"
            assert states[message["shown"]["id"], one["n"]] == expected
