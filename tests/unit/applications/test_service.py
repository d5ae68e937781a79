"""Applications, on the real store: who is asking, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from postroom.applications.service import ApplicationService
from postroom.errors import InvalidInput, NotFound, Unauthenticated
from postroom.secrets import Keyring
from postroom.store.database import open_store


@pytest.fixture
async def applications(tmp_path: Path) -> AsyncIterator[ApplicationService]:
    """The service on a new database, where one account `Relay` exists."""
    keyring = Keyring([Fernet.generate_key()])
    store = await open_store(tmp_path / "postroom.db", keyring, lambda: datetime.now(UTC))
    service = ApplicationService(store, keyring)
    service.account_name = lambda name: "Relay" if name.lower() == "relay" else None
    await service.load()
    yield service
    await store.close()


LOCAL = {"name": "local", "passwordless": True, "networks": ["127.0.0.0/8", "::1"], "senders": "*"}


async def test_identify_by_the_narrowest_network(applications: ApplicationService) -> None:
    await applications.add(LOCAL)
    await applications.add({"name": "floor", "passwordless": True, "networks": "10.1.0.0/16"})
    await applications.add({"name": "printer", "passwordless": True, "networks": "10.1.2.3"})
    await applications.add({"name": "erp", "networks": "10.9.0.0/16"})

    def known(peer: str) -> str | None:
        application = applications.identify(peer)
        assert application is applications.identify(peer)
        return application.name if application else None

    assert known("127.0.0.1") == known("::ffff:127.0.0.2") == known("::1") == "local"
    assert known("10.1.2.3") == "printer"
    assert known("10.1.2.4") == "floor"
    assert known("10.9.0.1") is None
    assert known("nonsense") is known("") is None
    await applications.edit("printer", {"enabled": False})
    assert known("10.1.2.3") == "floor"


async def test_authenticate(applications: ApplicationService) -> None:
    application, password = await applications.add({"name": "Erp", "networks": "10.9.0.0/16"})
    assert applications.authenticate("eRP", password, "10.9.1.1").id == application.id
    for login, word, peer in [
        ("erp", password + "x", "10.9.1.1"),
        ("erp", "", "10.9.1.1"),
        ("nobody", password, "10.9.1.1"),
        ("erp", password, "10.8.1.1"),
        ("erp", password, ""),
    ]:
        with pytest.raises(Unauthenticated) as refused:
            applications.authenticate(login, word, peer)
        assert str(refused.value) == "authentication failed"
    fresh = await applications.rotate("erp")
    with pytest.raises(Unauthenticated):
        applications.authenticate("erp", password, "10.9.1.1")
    assert applications.authenticate("erp", fresh, "10.9.1.1").name == "Erp"
    await applications.edit("erp", {"enabled": "no"})
    with pytest.raises(Unauthenticated):
        applications.authenticate("erp", fresh, "10.9.1.1")


async def test_an_application_may_bring_its_password(applications: ApplicationService) -> None:
    found, made = applications.prepared({"name": "ann@example.org"}, "correct horse", applications.account_name)
    await applications._store.save_application(found)
    await applications.changed()
    assert made == ""
    assert applications.authenticate("Ann@Example.org", "correct horse", "").name == "ann@example.org"
    _, generated = await applications.add({"name": "erp"})
    for login, word in [("ann@example.org", generated), ("erp", "correct horse"), ("nobody", "correct horse")]:
        with pytest.raises(Unauthenticated):
            applications.authenticate(login, word, "")
    fresh = await applications.rotate("ann@example.org")
    assert applications.authenticate("ann@example.org", fresh, "").name == "ann@example.org"
    with pytest.raises(InvalidInput, match="password: is 7 characters long"):
        applications.prepared({"name": "x"}, "short-1", applications.account_name)
    with pytest.raises(InvalidInput, match="has no use in a passwordless"):
        applications.prepared(LOCAL, "correct horse", applications.account_name)


async def test_a_passwordless_application_has_no_login(applications: ApplicationService) -> None:
    _, password = await applications.add(LOCAL)
    assert password == ""
    with pytest.raises(Unauthenticated):
        applications.authenticate("local", "", "127.0.0.1")


def _stored(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in data.glob("postroom.db*") if path.suffix != ".lock")


async def test_the_password_is_kept_as_a_hash_alone(applications: ApplicationService, tmp_path: Path) -> None:
    application, password = await applications.add({"name": "erp"})
    assert password.encode() not in application.credential
    assert applications.show(application)["has_password"] is True
    assert "credential" not in applications.show(application)
    stored = _stored(tmp_path)
    assert b"erp" in stored
    assert password.encode() not in stored


@pytest.mark.parametrize(
    ("fields", "field", "mend"),
    [
        ({"passwordless": True}, "networks", "127.0.0.0/8"),
        ({"passwordless": True, "networks": "0.0.0.0/0"}, "networks", "name the networks that you mean"),
        ({"passwordless": True, "networks": ["127.0.0.0/8"]}, "networks", "narrower network"),
        ({"networks": "10.1.2.3/8"}, "networks", "did you mean 10.0.0.0/8?"),
        ({"networks": "house"}, "networks", "CIDR"),
        ({"senders": "*@*"}, "senders", "*@example.org"),
        ({"accounts": "nowhere"}, "accounts", "kind:sandbox"),
        ({"sender": "*"}, "sender", "did you mean senders"),
        ({"name": "LOCAL"}, "name", "choose another name"),
    ],
)
async def test_bad_values(applications: ApplicationService, fields: dict[str, object], field: str, mend: str) -> None:
    await applications.add(LOCAL)
    with pytest.raises(InvalidInput) as refused:
        await applications.add({"name": "erp"} | fields)
    assert refused.value.faults[0].field == field
    assert mend in refused.value.faults[0].mend
    assert [application.name for application in applications.snapshot()] == ["local"]


async def test_a_new_application_may_send_as_nobody(applications: ApplicationService) -> None:
    application, _ = await applications.add({"name": "erp"})
    assert application.senders == ()
    changed = await applications.edit("erp", {"senders": "*@Example.org, ann@example.net", "accounts": ["relay", "*"]})
    assert changed.senders == ("*@example.org", "ann@example.net")
    assert changed.accounts == ("Relay", "*")
    assert applications.naming("RELAY") == ("erp",)
    with pytest.raises(NotFound, match="applications are erp"):
        applications.get("other")
