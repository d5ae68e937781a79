"""An archive on a running gateway: over a kill and a folder that goes away, everything acknowledged is in it."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Served
from tests.e2e.counting_sink import PATIENCE
from tests.e2e.crash_room import begin, letter


def submit(served: Served, *names: str) -> None:
    with smtplib.SMTP("127.0.0.1", served.port, timeout=PATIENCE) as client:
        client.ehlo("client.example")
        for name in names:
            begin(client, f"{name}@customer.example")
            assert client.data(letter(name, b"text\r\n"))[0] == 250


def archived(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.rglob("*.eml")}


def all_ids(served: Served) -> set[str]:
    listed = json.loads(served.run("queue", "list", "--limit", "1000", "--json").stdout)["deliveries"]
    return {row["message_id"] for row in listed}


def test_everything_acknowledged_is_archived_over_a_kill_and_an_unmounted_folder(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    folder, away = tmp_path / "archive", tmp_path / "away"
    folder.mkdir()
    served = serve(POSTROOM_ARCHIVE__FOLDER=str(folder))
    served.run("applications", "edit", "local", "--allow-sender", "*")
    submit(served, *(f"a{n}" for n in range(100)))
    served.kill()

    served = serve(data=served.data, POSTROOM_ARCHIVE__FOLDER=str(folder))
    submit(served, *(f"b{n}" for n in range(20)))
    while archived(folder).keys() != all_ids(served):
        assert served.process.poll() is None
    folder.rename(away)
    submit(served, "c")
    while not json.loads(served.run("events", "--kind", "archive", "--json").stdout)["events"]:
        assert served.process.poll() is None
    away.rename(folder)
    ids = all_ids(served)
    assert len(ids) == 121
    while archived(folder).keys() != ids:
        assert served.process.poll() is None
    for name in list(ids)[:5]:
        shown = served.run("queue", "show", name, "--content").stdout
        assert archived(folder)[name].decode().splitlines() == shown.splitlines()
    refused = served.run("settings", "set", "archive.folder", "/elsewhere", check=False)
    assert "archive.folder: is locked" in refused.stderr + refused.stdout
    assert served.stop() == 0
