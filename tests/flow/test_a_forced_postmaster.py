"""The forced postmaster is nobody else: refused on save, on both sides, with the name of what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from postroom.config import Settings
from postroom.errors import InvalidInput
from postroom.gateway import Gateway

FORCED: Mapping[str, object] = {"postmaster": "pm@example.org", "force_postmaster": True}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with applications of which one has the address shop@example.org."""
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gate.test"))
    await gateway.applications.add({"name": "shop", "address": "Shop@example.org", "senders": "shop@example.org"})
    await gateway.applications.add({"name": "erp", "senders": "*@example.org, erp@example.org"})
    yield gateway
    await gateway.stop()


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("shop@example.org", "the address of application shop, an allowed sender of application shop"),
        ("ERP@example.org", "an allowed sender of application erp"),
    ],
)
async def test_an_address_of_somebody_is_not_forced(gateway: Gateway, address: str, named: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await gateway.configuration.change({"postmaster": address, "force_postmaster": True})
    (fault,) = refused.value.faults
    assert (fault.field, named in fault.fault) == ("postmaster", True)
    assert gateway.settings.forced_postmaster == ""
    await gateway.configuration.change({"postmaster": address})  # whoever is only told of failures may be anybody
    with pytest.raises(InvalidInput, match="can't be forced"):
        await gateway.configuration.change({"force_postmaster": True})


async def test_a_pattern_of_many_is_nobody(gateway: Gateway) -> None:
    await gateway.configuration.change(FORCED)
    assert gateway.settings.forced_postmaster == "pm@example.org"


async def test_the_forced_postmaster_becomes_nobody_else(gateway: Gateway) -> None:
    await gateway.configuration.change(FORCED)
    faults = []
    for fields in ({"address": "PM@example.org"}, {"senders": "pm@example.org"}, {"senders": "*, pm@example.org"}):
        with pytest.raises(InvalidInput, match="pm@example.org is the postmaster, who is forced") as refused:
            await gateway.applications.edit("erp", fields)
        faults += [fault.field for fault in refused.value.faults]
        with pytest.raises(InvalidInput, match="pm@example.org is the postmaster"):
            await gateway.applications.add({"name": "new"} | fields)
    assert faults == ["address", "senders", "senders"]
    await gateway.applications.edit("erp", {"senders": "*@example.org"})
    await gateway.configuration.change({"force_postmaster": None})
    await gateway.applications.edit("erp", {"address": "pm@example.org"})


async def test_there_is_one_to_force(gateway: Gateway) -> None:
    with pytest.raises(InvalidInput, match="force_postmaster: is on and there is no postmaster"):
        await gateway.configuration.change({"force_postmaster": True})
    await gateway.configuration.change(FORCED)
    with pytest.raises(InvalidInput, match="there is no postmaster"):
        await gateway.configuration.change({"postmaster": ""})
