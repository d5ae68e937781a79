"""What `make run` says when the machine lacks something: each fault comes with the command that mends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from scripts import port_holder
from tests.meta.sources import ROOT


def _fake_python(folder: Path, name: str, body: str) -> None:
    script = folder / name
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)


def _find_python(folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    for tool in ("id", "env", "sh"):
        (folder / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/bin/{tool}")
    command = [str(ROOT / "scripts" / "find-python")]
    return subprocess.run(command, env={"PATH": str(folder), **extra}, capture_output=True, text=True, check=False)


def test_a_machine_without_python_is_told_what_to_install(tmp_path: Path) -> None:
    result = _find_python(tmp_path)
    assert result.returncode == 69
    assert "apt-get install -y python3 python3-venv" in result.stderr
    assert result.stdout == ""


def test_an_old_python_does_not_count(tmp_path: Path) -> None:
    _fake_python(tmp_path, "python3", "exit 1")
    result = _find_python(tmp_path)
    assert result.returncode == 69
    assert "needs Python 3.11" in result.stderr


def test_a_python_without_venv_names_its_package(tmp_path: Path) -> None:
    _fake_python(tmp_path, "python3", 'case "$2" in *ensurepip*) exit 1 ;; *print*) echo 3.12 ;; *) exit 0 ;; esac')
    result = _find_python(tmp_path)
    assert result.returncode == 69
    assert "apt-get install -y python3.12-venv" in result.stderr


def test_a_later_python_is_found_behind_an_old_one(tmp_path: Path) -> None:
    _fake_python(tmp_path, "python3", "exit 1")
    _fake_python(tmp_path, "python3.13", "exit 0")
    result = _find_python(tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, str(tmp_path / "python3.13"))


def test_a_named_python_is_the_only_one_asked(tmp_path: Path) -> None:
    _fake_python(tmp_path, "python3", "exit 0")
    _fake_python(tmp_path, "mine", "exit 0")
    result = _find_python(tmp_path, PYTHON=str(tmp_path / "mine"))
    assert result.stdout.strip() == str(tmp_path / "mine")


def test_a_taken_port_names_its_process_and_the_way_out() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        command = [sys.executable, str(ROOT / "scripts" / "port_holder.py"), "127.0.0.1", str(port)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 69
    assert f"Port {port} on 127.0.0.1 is taken" in result.stderr
    if Path("/proc/net/tcp").exists():
        assert f"process {os.getpid()}:" in result.stderr
    assert f'"port": {port + 1}' in result.stderr


def test_a_free_port_is_free_again_after_the_look() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert port_holder.main("127.0.0.1", port) == 0
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


def test_settings_that_name_listeners_leave_the_ports_to_the_gateway(tmp_path: Path) -> None:
    environment = {**os.environ, "POSTROOM_DATA": str(tmp_path), "PYTHON": "no-such-python"}
    command = [str(ROOT / "scripts" / "preflight")]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 69

    (tmp_path / "postroom.toml").write_text("")
    environment["PYTHON"] = sys.executable
    assert subprocess.run(command, env=environment, check=False).returncode == 0
