"""The service of accounts on a new database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from postroom.accounts.service import AccountService
from postroom.secrets import Keyring
from postroom.store.database import open_store


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[AccountService]:
    """The service on a new database."""
    store = await open_store(tmp_path / "postroom.db", Keyring([Fernet.generate_key()]), lambda: datetime.now(UTC))
    service = AccountService(store)
    await service.load()
    yield service
    await store.close()
