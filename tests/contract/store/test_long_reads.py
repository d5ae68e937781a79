"""A read that goes on for long, as a backup of a large store does, and the log that can't be emptied meanwhile."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from postroom.store import sqlite, sqlite_log
from postroom.store.database import Database
from tests.contract.store.examples import make_message

pytestmark = pytest.mark.sqlite


async def test_the_writer_waits_for_a_long_read_only_as_often_as_the_log_doubles(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    checkpoint = sqlite.checkpoint

    def counted(raw: sqlite3.Connection, **how: Any) -> sqlite.Checkpoint:
        did = checkpoint(raw, **how)
        if how.get("wait_seconds") is not None:
            waits.append(did.frames)
        return did

    monkeypatch.setattr(sqlite, "checkpoint", counted)
    monkeypatch.setattr(sqlite, "READ_SECONDS", 0.0)
    monkeypatch.setattr(sqlite_log, "CHECKPOINT_BYTES", 8 * sqlite.PAGE_BYTES)
    monkeypatch.setattr(store._writer._upkeep, "_patient_until", 32 * sqlite.PAGE_BYTES)
    with closing(sqlite3.connect(tmp_path / "postroom.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchone()
        for _ in range(150):
            await store.enqueue(make_message(body=b"x" * 20_000))
    assert len(waits) in range(2, 8)  # of some sixty checkpoints
    assert all(later > 2 * earlier for earlier, later in itertools.pairwise(waits))
