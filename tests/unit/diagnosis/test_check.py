"""What `postroom check` finds."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from postroom.config import Settings
from postroom.diagnosis.check import Finding, Level, check
from postroom.diagnosis.ports import describe_holder, port_holders
from postroom.model.account import Account, AccountKind, Mechanism, Security, Verification
from postroom.model.application import Application
from postroom.model.circuit import Circuit, Health
from postroom.secrets import Keyring
from postroom.store.database import open_store

SANDBOX = Account(id=1, name="box", kind=AccountKind.SANDBOX)
RELAY = Account(id=2, name="relay", kind=AccountKind.SMTP, host="127.0.0.1")


@pytest.fixture
async def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a folder in good order, without listeners."""
    for name in list(os.environ):
        if name.startswith("POSTROOM_"):
            monkeypatch.delenv(name)
    os.chmod(tmp_path, 0o700)
    settings = Settings.load(tmp_path, hostname="gateway.example.org", smtp={"listeners": []})
    store = await open_store(settings.database_path, Keyring.load(tmp_path, settings), lambda: datetime.now(UTC))
    await store.close()
    return settings


async def _found(
    settings: Settings, accounts: list[Account], *applications: Application, circuit: Circuit | None = None
) -> list[Finding]:
    circuits = {} if circuit is None else {account.id: circuit for account in accounts}
    found = await check(settings, accounts, applications, circuits, is_running=True)
    return [one for one in found if one.level is not Level.OK]


def _about(found: list[Finding], subject: str) -> list[tuple[Level, str]]:
    return [(one.level, one.what) for one in found if one.subject == subject]


async def test_a_folder_in_order_has_no_error(settings: Settings) -> None:
    application = Application(id=1, name="erp", senders=("*@example.org",))
    found = await _found(settings, [RELAY], application)
    assert [one for one in found if one.subject != "keys"] == []


@pytest.mark.parametrize(
    ("helo_name", "hostname", "warned"),
    [("", "box", True), ("", "mail.example.org", False), ("mail.example.org", "box", False), ("[192.0.2.1]", "", True)],
)
async def test_an_account_that_delivers_directly_has_a_name(
    settings: Settings, helo_name: str, hostname: str, warned: bool
) -> None:
    direct = Account(id=3, name="mx", kind=AccountKind.DIRECT, helo_name=helo_name)
    found = await _found(settings.model_copy(update={"hostname": hostname}), [direct])
    assert [level for level, what in _about(found, "account mx") if "no name" in what] == [Level.WARNING] * warned


@pytest.mark.parametrize(
    ("helo_name", "hostname", "machine", "advised"),
    [
        ("", "", "box", True), ("", "box", "box.example.org", True), ("", "", "box.example.org", False),
        ("", "mail.example.org", "box", False), ("mail.example.org", "", "box", False),
        ("[192.0.2.1]", "", "box", False),
    ],
)  # fmt: skip
async def test_an_account_without_a_name_to_greet_with_is_advised(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, helo_name: str, hostname: str, machine: str, advised: bool
) -> None:
    async def own_name() -> str:
        return machine

    monkeypatch.setattr("postroom.diagnosis.check.own_name", own_name)
    relay = replace(RELAY, helo_name=helo_name)
    found = await _found(settings.model_copy(update={"hostname": hostname}), [relay, SANDBOX])
    told = [one for one in found if "greets with its address" in one.what]
    assert [(one.level, one.subject) for one in told] == [(Level.NOTE, "account relay")] * advised
    assert all(
        "accounts edit relay --helo-name NAME; or for all accounts the setting hostname" in one.mend for one in told
    )


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("circuit", "level", "what", "mend"),
    [
        (
            Circuit(health=Health.NEEDS_ATTENTION, reason="5.7.8 wrong password", advice="check it", since=NOON),
            Level.ERROR,
            "needs attention and sends nothing: 5.7.8 wrong password",
            "check it; then postroom accounts edit relay, or postroom accounts wake relay",
        ),
        (
            Circuit(health=Health.SLEEPING, reason="4.4.1 refused", since=NOON, until=NOON),
            Level.WARNING,
            "sleeps until 2026-11-20T12:00:00+00:00: 4.4.1 refused",
            "postroom accounts wake relay",
        ),
        (
            Circuit(health=Health.SLEEPING, reason="a person put it to sleep", since=NOON, until=NOON, by_hand=True),
            Level.NOTE,
            "sleeps until 2026-11-20T12:00:00+00:00: a person put it to sleep",
            "postroom accounts wake relay",
        ),
        (
            Circuit(health=Health.SLOWED, reason="0.2s between two messages: 4.7.0 too fast", since=NOON),
            Level.NOTE,
            "is slowed: 0.2s between two messages: 4.7.0 too fast",
            "",
        ),
    ],
)
async def test_an_account_that_is_not_well(
    settings: Settings, circuit: Circuit, level: Level, what: str, mend: str
) -> None:
    application = Application(id=1, name="erp", senders=("*@example.org",))
    found = await _found(settings, [RELAY], application, circuit=circuit)
    (one,) = [one for one in found if one.subject == "account relay"]
    assert (one.level, one.what, one.mend) == (level, what, mend)


async def test_open_folder_and_broken_database(settings: Settings) -> None:
    settings.data.chmod(0o755)
    (error,) = [one for one in await _found(settings, [RELAY]) if one.level is Level.ERROR]
    assert error.mend == f"chmod 700 {settings.data}"
    settings.data.chmod(0o700)
    with settings.database_path.open("r+b") as file:
        file.write(b"\0" * 100)
    (error,) = [one for one in await _found(settings, [RELAY]) if one.level is Level.ERROR]
    assert error.subject == "database"


async def test_accounts(settings: Settings) -> None:
    clear = Account(
        id=3,
        name="clear",
        kind=AccountKind.SMTP,
        host="127.0.0.1",
        enabled=False,
        security=Security.NONE,
        verification=Verification.OFF,
        username="ann",
        password="marked",
    )
    found = await _found(settings, [clear])
    assert [level for level, _ in _about(found, "account clear")] == [Level.NOTE, Level.WARNING, Level.WARNING]
    assert "only where the relay offers SCRAM" in repr(found)
    assert "marked" not in repr(found)
    fixed = await _found(settings, [replace(clear, mechanism=Mechanism.PLAIN)])
    assert _about(fixed, "account clear")[-1] == (
        Level.ERROR, "has a password and no encryption: it will not log in",
    )  # fmt: skip


async def test_applications(settings: Settings) -> None:
    found = await _found(
        settings,
        [SANDBOX],
        Application(id=1, name="local", senders=("*",), accounts=("kind:sandbox",)),
        Application(id=2, name="silent"),
        Application(id=3, name="lost", senders=("a@example.org",), accounts=("gone",)),
    )
    assert _about(found, "application local") == [
        (Level.NOTE, "sends into the sandbox box: nothing leaves"),
        (Level.NOTE, "may send as anybody"),
    ]
    assert (Level.ERROR, "has no allowed senders: its mail is refused") in _about(found, "application silent")
    assert _about(found, "application lost") == [(Level.ERROR, "may use no account: its mail is refused")]
    assert _about(found, "accounts") == [(Level.NOTE, "there is no real one: nothing leaves")]


async def test_anybody_through_a_real_account_is_a_warning(settings: Settings) -> None:
    found = await _found(settings, [RELAY], Application(id=1, name="local", senders=("*",)))
    assert _about(found, "application local") == [(Level.WARNING, "may send as anybody")]


async def test_a_port_that_is_taken(settings: Settings) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        wanted = Settings.load(settings.data, smtp={"listeners": [{"port": port}]})
        found = await check(wanted, [RELAY], [], {}, is_running=False)
        (error,) = [one for one in found if one.subject == f"listener 127.0.0.1:{port}"]
        assert error.level is Level.ERROR
        assert [pid for pid, _ in port_holders(port)] == [os.getpid()]
    assert port_holders(port) == []
    assert "may not look into" in describe_holder(port)


@pytest.mark.parametrize(
    ("notifications", "level", "words"),
    [
        ({"to": "none"}, Level.NOTE, "nobody is told"),
        ({"account": "gone"}, Level.ERROR, "the account gone, which does not exist"),
        ({"account": "BOX"}, Level.WARNING, "go into the sandbox box"),
        ({"account": "off"}, Level.WARNING, "the account off, which is off"),
    ],
)
async def test_the_way_of_reports(settings: Settings, notifications: dict[str, str], level: Level, words: str) -> None:
    wanted = Settings.load(settings.data, smtp={"listeners": []}, notifications=notifications)
    off = Account(id=9, name="off", kind=AccountKind.SMTP, host="127.0.0.1", enabled=False)
    ((found, what),) = _about(await _found(wanted, [RELAY, SANDBOX, off]), "notifications")
    assert found is level
    assert words in what
    assert _about(await _found(settings, [RELAY]), "notifications") == []


async def test_a_postmaster_to_force(settings: Settings) -> None:
    shop = Application(id=1, name="shop", senders=("*",))
    narrow = Application(id=2, name="narrow", senders=("*@example.org",), address="pm@example.org")
    ((level, what),) = _about(await _found(settings, [RELAY], shop, narrow), "postmaster")
    assert (level, what) == (
        Level.NOTE, "is not forced as the sender, and no allowed senders are named for shop"
    )  # fmt: skip
    assert _about(await _found(settings, [RELAY], narrow), "postmaster") == []
    forced = settings.model_copy(update={"postmaster": "other@example.org", "force_postmaster": True})
    assert _about(await _found(forced, [RELAY], shop, narrow), "postmaster") == []
    forced = settings.model_copy(update={"postmaster": "pm@example.org", "force_postmaster": True})
    ((level, what),) = _about(await _found(forced, [RELAY], shop, narrow), "postmaster")
    assert (level, "the address of application narrow" in what) == (Level.ERROR, True)


@pytest.mark.parametrize(("days", "level"), [(90, Level.OK), (20, Level.WARNING), (-1, Level.ERROR)])
async def test_certificates_that_expire(settings: Settings, tmp_path: Path, days: int, level: Level) -> None:
    at = datetime.now(UTC) + timedelta(days=days)
    ca = trustme.CA()
    issued = ca.issue_cert("mx.example.test", not_before=at - timedelta(days=200), not_after=at)
    file, key = tmp_path / "mx.pem", tmp_path / "mx.key"
    file.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    listener = {"tls": "starttls", "certificate": str(file), "key": str(key)}
    wanted = Settings.load(settings.data, smtp={"listeners": [listener, listener | {"port": 2526}]})
    account = replace(RELAY, client_certificate=file.read_text())
    found = [one for one in await check(wanted, [account], [], {}, is_running=True) if one.subject == "certificates"]
    assert [one.level for one in found] == [level] * 2
    date = at.date().isoformat()
    assert [one.what for one in found] == [
        f"the certificate {file} of the listeners is good until {date}",
        f"the client certificate of account relay is good until {date}",
    ]
