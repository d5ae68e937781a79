"""A gateway and a client of its API, without a socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from postroom.api import create_app
from postroom.config import Settings
from postroom.daemon.first_start import provision
from postroom.gateway import Gateway


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """A gateway as a new folder has it, which takes mail and delivers none."""
    for name in list(os.environ):
        if name.startswith("POSTROOM_"):
            monkeypatch.delenv(name)
    gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test"))
    await provision(gateway)
    yield gateway
    await gateway.stop()


@pytest.fixture
async def api(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of its API, without a socket."""
    transport = httpx2.ASGITransport(create_app(gateway), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway.example.test") as client:
        yield client


async def problem_of(response: httpx2.Response, status: int) -> list[tuple[str, str, str]]:
    """The errors of a problem (RFC 9457) with this status, as field, fault and mend."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:postroom:")
    assert problem["title"] and problem["detail"]
    return [(one["field"], one["fault"], one["mend"]) for one in problem.get("errors", [])]
