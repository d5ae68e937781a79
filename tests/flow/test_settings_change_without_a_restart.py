"""A setting that is changed counts at once in the running gateway; a bad one changes nothing."""

from __future__ import annotations

import asyncio
import json
import smtplib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from postroom.config import Origin, Settings
from postroom.errors import InvalidInput, NotFound
from postroom.gateway import Gateway
from postroom.store import EventFilter
from postroom.submission.listener import Listener, clients_of

LOOPBACK = {"address": "127.0.0.1", "port": 0}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that delivers."""
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gate.test"))
    await gateway.start()
    yield gateway
    await gateway.stop()


async def reopened(gateway: Gateway) -> Gateway:
    """The next start of it, which only takes mail."""
    await gateway.stop()
    return await Gateway.open(Settings.load(gateway.settings.data, hostname="gate.test"))


async def changes(gateway: Gateway) -> list[str]:
    """What events say of settings."""
    page = await gateway.store.events(EventFilter(kinds=("settings.changed",)))
    return [event.detail for event in page.events]


async def test_a_change_is_kept_and_told(gateway: Gateway) -> None:
    await gateway.configuration.change({"retention": "10d", "smtp.max_errors": "7", "postmaster": "pm@example.org"})
    assert gateway.settings.retention == timedelta(10)
    assert await changes(gateway) == [
        'postmaster: "" -> pm@example.org',
        "smtp.max_errors: 20 -> 7",
        "retention: 30d -> 10d",
    ]
    again = await reopened(gateway)
    shown = again.configuration.get("smtp.max_errors")
    assert (shown.value, shown.origin, shown.is_locked) == (7, Origin.STORED, False)
    await again.configuration.change({"smtp.max_errors": None})
    assert again.configuration.get("smtp.max_errors").origin is Origin.DEFAULT
    assert (await changes(again))[-1] == "smtp.max_errors: 7 -> 20"
    await again.configuration.change({"smtp.max_errors": None, "retention": "10d"})
    assert len(await changes(again)) == 4  # nothing is another
    await again.stop()


async def test_nothing_is_half_done(gateway: Gateway) -> None:
    with pytest.raises(InvalidInput) as refused:
        await gateway.configuration.change({"retention": "10d", "give_up": "10"})
    assert [(one.field, one.mend) for one in refused.value.faults] == [("give_up", "write 10ms or 10s")]
    with pytest.raises(InvalidInput) as refused:
        await gateway.configuration.change({"retention": "10d", "notifications.to": "both"})
    assert "there is no postmaster" in str(refused.value)
    with pytest.raises(NotFound, match="did you mean retention"):
        await gateway.configuration.change({"retention": "10d", "retenton": "10d"})
    with pytest.raises(InvalidInput) as refused:
        await gateway.configuration.change({"retention": "10d", "notifications.account": "relay"})
    assert refused.value.faults[0].field == "notifications.account"
    assert gateway.settings.retention == timedelta(30)
    assert "retention" not in await gateway.store.settings()
    assert await changes(gateway) == []
    await gateway.configuration.change({"postmaster": "pm@example.org", "notifications.to": "both"})
    with pytest.raises(InvalidInput, match="there is no postmaster"):
        await gateway.configuration.change({"postmaster": None})


async def test_what_file_and_environment_give_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postroom.toml").write_text('retention = "9d"\n')
    monkeypatch.setenv("POSTROOM_SMTP__MAX_ERRORS", "5")
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gate.test"))
    with pytest.raises(InvalidInput) as refused:
        await gateway.configuration.change({"retention": "10d", "smtp.max_errors": 6, "smtp.listeners": []})
    told = {one.field: (one.fault, one.mend) for one in refused.value.faults}
    assert told["retention"][0] == "is locked: its value comes from the file"
    assert f"change it in {tmp_path / 'postroom.toml'}" in told["retention"][1]
    assert told["smtp.max_errors"][0] == "is locked: its value comes from the environment"
    assert "POSTROOM_SMTP__MAX_ERRORS" in told["smtp.max_errors"][1]
    assert "POSTROOM_SMTP__LISTENERS" in told["smtp.listeners"][1]
    locked = {one.name for one in gateway.configuration.snapshot() if one.is_locked}
    assert locked == {"retention", "smtp.max_errors", "smtp.listeners", "smtp.hostname", "hostname", "data", "database"}
    with pytest.raises(InvalidInput):
        await gateway.configuration.change({"retention": None})
    await gateway.stop()


async def test_a_stored_value_under_a_file_comes_back_when_the_file_lets_go(tmp_path: Path) -> None:
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gate.test"))
    await gateway.configuration.change({"retention": "10d"})
    file = tmp_path / "postroom.toml"
    file.write_text('retention = "9d"\nhostname = "other.test"\n')
    done = await gateway.configuration.reload(Settings.load(tmp_path))
    assert (done.changed, done.waiting) == (("retention: 10d -> 9d",), ("hostname",))
    assert gateway.settings.hostname == "gate.test"
    file.write_text("")
    await gateway.configuration.reload(Settings.load(tmp_path))
    assert gateway.settings.retention == timedelta(10)
    assert (await changes(gateway))[1:] == ["retention: 10d -> 9d", "retention: 9d -> 10d"]
    await gateway.stop()


async def test_a_stored_value_that_no_longer_fits_is_left_out_and_told(tmp_path: Path) -> None:
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gate.test"))
    await gateway.store.save_setting("retention", json.dumps("a while"))
    await gateway.store.save_setting("give_up", "no JSON")
    await gateway.store.save_setting("smtp.max_errors", "9")
    gateway = await reopened(gateway)
    settings = gateway.settings
    assert (settings.retention, settings.give_up, settings.smtp.max_errors) == (timedelta(30), timedelta(14), 9)
    assert set(gateway.configuration.unusable) == {"retention", "give_up"}
    await gateway.configuration.change({"smtp.max_errors": 8})
    await gateway.configuration.change({"retention": "8d"})
    await gateway.configuration.change({"give_up": None})
    assert gateway.configuration.unusable == {}
    gateway = await reopened(gateway)
    assert (gateway.settings.retention, gateway.configuration.unusable) == (timedelta(8), {})
    await gateway.stop()


async def test_limits_of_smtp_hold_for_the_next_connection(gateway: Gateway) -> None:
    smtp = gateway.settings.smtp
    listener = Listener(
        gateway, smtp.listeners[0].model_copy(update=LOOPBACK), smtp, hostname="gate.test", clients=clients_of(smtp)
    )
    gateway.configuration.on_change.append(lambda _, after: listener.change(after.smtp))
    await listener.start()

    def size() -> str:
        with smtplib.SMTP(*listener.address) as client:
            client.ehlo()
            return client.esmtp_features["size"]

    assert await asyncio.to_thread(size) == str(35 * 1024**2)
    await gateway.configuration.change({"smtp.max_size_bytes": "9MiB"})
    assert await asyncio.to_thread(size) == str(9 * 1024**2)
    await listener.stop()


async def test_an_account_that_reports_go_through_can_not_be_removed(gateway: Gateway) -> None:
    await gateway.accounts.add({"name": "relay", "host": "relay.test"})
    await gateway.configuration.change({"notifications.account": "RELAY"})
    with pytest.raises(Exception, match="notifications.account"):
        await gateway.accounts.remove("relay")
    await gateway.configuration.change({"notifications.account": None})
    await gateway.accounts.remove("relay")
