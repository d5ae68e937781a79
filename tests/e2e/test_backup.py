"""A backup is made while mail is taken, proved, and brought back with everything pending held."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served, run_postroom
from tests.e2e.attackers import Api

Serve = Callable[..., Served]
SECRET = "marked-secret"


@pytest.fixture
def filled(serve: Serve) -> Served:
    """A gateway with an account that is off, and three messages that wait for it."""
    served = serve()
    grant = {"application": "local", "senders": ["*"]}
    fields = {"name": "relay", "host": "127.0.0.1", "enabled": False, "username": "ann", "password": SECRET}
    Api(served.data / "control.sock").ask("POST", "accounts", fields | {"grant": grant})
    for number in range(3):
        send(served, f"r{number}@y.test")
    return served


def send(served: Served, recipient: str) -> None:
    """A message by the control socket."""
    Api(served.data / "control.sock").ask("POST", "messages", raw=b"From: a@x.test\r\n\r\nhello\r\n", to=recipient)


def on(data: Path, *arguments: str, check: bool = True) -> Any:
    """A command on another data folder, with no gateway there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    return run_postroom(environment | {"POSTROOM_DATA": str(data)}, *arguments, check=check)


def states(data: Path) -> dict[str, str]:
    """Each recipient's state."""
    rows = json.loads(on(data, "queue", "list", "--json").stdout)["deliveries"]
    return {row["recipient"]: row["state"] for row in rows}


def test_a_backup_comes_back_with_everything_pending_held(filled: Served, tmp_path: Path) -> None:
    folder, again = tmp_path / "backup", tmp_path / "again"
    made = json.loads(filled.run("backup", str(folder), "--with-keys", "--json").stdout)
    assert (made["messages"], made["deliveries"]) == (3, {"queued": 3})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    send(filled, "later@y.test")
    said = on(again, "restore", str(folder)).stdout
    assert "3 messages restored, 3 deliveries held" in said
    assert "r1@y.test" in said
    assert "queue release --all" in said
    assert states(again) == {f"r{number}@y.test": "held" for number in range(3)}
    accounts = json.loads(on(again, "accounts", "list", "--json").stdout)["accounts"]
    assert accounts[0]["secrets"]["password"] == "set"
    on(again, "queue", "release", "--all")
    assert set(states(again).values()) == {"queued"}


def test_keys_stay_behind_unless_asked_for(filled: Served, tmp_path: Path) -> None:
    folder, again = tmp_path / "backup", tmp_path / "again"
    assert "keys are not in it" in filled.run("backup", str(folder)).stdout
    assert "keys" not in [path.name for path in folder.iterdir()]
    assert SECRET.encode() not in (folder / "postroom.db").read_bytes()
    refused = on(again, "restore", str(folder), check=False)
    assert refused.returncode != 0
    assert "put back the keys file" in refused.stderr
    assert not (again / "postroom.db").exists()
    (again / "keys").write_bytes((filled.data / "keys").read_bytes())
    (again / "keys").chmod(0o600)
    on(again, "restore", str(folder))
    assert len(states(again)) == 3


def test_what_is_there_is_not_overwritten(filled: Served, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    filled.run("backup", str(folder))
    assert filled.run("backup", str(folder), check=False).returncode != 0
    running = filled.run("restore", str(folder), check=False)
    assert "stop it" in running.stderr
    send(filled, "later@y.test")
    assert filled.stop() == 0
    refused = on(filled.data, "restore", str(folder), check=False)
    assert "--replace" in refused.stderr
    assert "later@y.test" in states(filled.data)
    said = on(filled.data, "restore", str(folder), "--replace").stdout
    assert "what was there before" in said
    assert "later@y.test" not in states(filled.data)
    (aside,) = [path for path in filled.data.glob("postroom.db.2*") if not path.name.endswith(("-wal", "-shm"))]
    assert b"later@y.test" in aside.read_bytes()
