"""The data folder is private and has one process at a time."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from postroom.config.folder import SERVE, FolderLock, make_data_folder, reachable
from postroom.errors import InvalidInput, NotRunning


def test_the_folder_is_closed_to_others(tmp_path: Path) -> None:
    data = tmp_path / "a" / "b"
    make_data_folder(data)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    data.chmod(0o755)
    make_data_folder(data)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(InvalidInput) as refused:
        make_data_folder(tmp_path / "data")
    assert "--data" in refused.value.faults[0].mend


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path, SERVE), FolderLock(tmp_path)
    assert first.take()
    assert not second.take()
    with pytest.raises(NotRunning, match=f"pid {os.getpid()}"), second:
        pass
    first.give_back()
    first.give_back()
    assert second.take()
    second.give_back()
    assert stat.S_IMODE(second.path.stat().st_mode) & 0o077 == 0


def test_a_gateway_that_starts_waits_for_a_command_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, gateway = FolderLock(tmp_path), FolderLock(tmp_path, SERVE)
    assert command.take()
    monkeypatch.setattr(time, "sleep", lambda _: command.give_back())
    with gateway:
        assert gateway.holder() == os.getpid()


def test_a_socket_in_a_deep_folder_can_be_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = deep / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with reachable(path) as name:
            listener.bind(name)
            listener.listen()
        assert path.is_socket()
        with reachable(path) as name:
            client.connect(name)
