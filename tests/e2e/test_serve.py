"""`postroom serve` as a process: its folder, lock, socket and signals, and what it says when it can't start."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import smtplib
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postroom.config.folder import FolderLock
from tests.conftest import Served, run_installed

HELLO = b"From: app@example.org\r\nTo: you@example.org\r\nSubject: Hello\r\n\r\nIt works.\r\n"


def _environment(data: Path, port: int) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    listeners = json.dumps([{"address": "127.0.0.1", "port": port}])
    return environment | {"POSTROOM_DATA": str(data), "POSTROOM_SMTP__LISTENERS": listeners}


def _states(served: Served) -> list[str]:
    return [one["state"] for one in json.loads(served.run("queue", "list", "--json").stdout)["deliveries"]]


def test_first_start_makes_a_private_folder_and_takes_mail(serve: Callable[..., Served]) -> None:
    served = serve()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (served.data, *served.data.iterdir())}
    assert modes["data"] == 0o700
    assert {name: oct(mode) for name, mode in modes.items() if name != "data" and mode & 0o077} == {}
    assert {"keys", "postroom.db", "postroom.lock", "control.sock"} <= modes.keys()
    with smtplib.SMTP("127.0.0.1", served.port) as client:
        client.sendmail("app@example.org", ["you@example.org"], HELLO)
    served.run("send", "--from", "app@example.org", "--to", "you@example.org", "--text", "x", "--wait")
    assert _states(served) == ["captured", "captured"]


def test_a_second_start_goes_on_with_the_same_data(serve: Callable[..., Served]) -> None:
    first = serve()
    first.run("send", "--from", "app@example.org", "--to", "you@example.org", "--text", "x", "--wait")
    assert first.stop() == 0
    assert not (first.data / "control.sock").exists()
    second = serve()
    assert _states(second) == ["captured"]
    assert len(json.loads(second.run("accounts", "list", "--json").stdout)["accounts"]) == 1
    second.process.send_signal(signal.SIGINT)
    assert second.stop() == 0


def test_a_killed_gateway_leaves_nothing_in_the_way(serve: Callable[..., Served]) -> None:
    first = serve()
    first.kill()
    assert (first.data / "control.sock").is_socket()
    done = first.run("queue", "list")
    assert done.stdout == "no deliveries\n"
    second = serve()
    assert second.run("status").stdout.splitlines()[0].endswith(": delivering")


def test_a_second_gateway_on_the_folder_is_refused(serve: Callable[..., Served], free_port: Callable[[], int]) -> None:
    served = serve()
    done = run_installed(_environment(served.data, free_port()), "serve")
    assert done.returncode == 69
    assert f"(pid {served.process.pid})" in done.stderr
    assert "--data" in done.stderr
    assert served.run("queue", "list").stdout == "no deliveries\n"


def test_a_port_in_use_is_named_with_its_process(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = run_installed(_environment(tmp_path / "data", port), "serve")
    assert done.returncode == 69
    assert f"port {port} of 127.0.0.1 is held by process {os.getpid()}" in done.stderr
    assert "POSTROOM_SMTP__LISTENERS" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_settings_are_named(tmp_path: Path) -> None:
    environment = _environment(tmp_path / "data", 1) | {"POSTROOM_RETENTION": "30"}
    done = run_installed(environment, "serve")
    assert (done.returncode, done.stderr) == (64, "postroom: retention: 30 has no unit (write 30ms or 30s)\n")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_is_held_and_does_not_answer(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        done = run_installed(_environment(tmp_path, 1), "queue", "list")
    assert done.returncode == 69
    assert f"a process (pid {os.getpid()}) uses the data folder" in done.stderr
    assert "does not answer on control.sock" in done.stderr


def test_sighup_takes_over_what_may_change(tmp_path: Path, free_port: Callable[[], int]) -> None:
    data = tmp_path / "data"
    environment = _environment(data, free_port()) | {"POSTROOM_LOG_FORMAT": "json"}
    file = data / "postroom.toml"
    with _started(environment) as process:
        _next_line(process, "ready")
        file.write_text('sending_enabled = false\nretention = "9d"\nhostname = "mx2.example.org"\n')
        process.send_signal(signal.SIGHUP)
        event = json.loads(_next_line(process, '"reloaded"'))
        assert event["changed"] == ["sending_enabled: true -> false", "retention: 30d -> 9d"]
        assert event["need_a_restart"] == ["hostname"]
        run_installed(environment, "send", "--from", "a@example.org", "--to", "one@example.org", "--text", "x")
        why = run_installed(environment, "why", "last").stdout
        assert "sending is switched off" in why
        assert f"change it in {file} and send the gateway a SIGHUP" in why
        file.write_text("sending_enabled = \n")
        process.send_signal(signal.SIGHUP)
        assert "TOML" in json.loads(_next_line(process, '"reload_refused"'))["reason"]
        file.write_text("sending_enabled = true\n")
        process.send_signal(signal.SIGHUP)
        _next_line(process, '"reloaded"')
        send = ("send", "--from", "a@example.org", "--to", "two@example.org", "--text", "x", "--wait")
        assert "captured" in run_installed(environment, *send).stdout


@contextlib.contextmanager
def _started(environment: dict[str, str], *options: str) -> Iterator[subprocess.Popen[str]]:
    """`postroom serve`, whose output the test reads itself; it must end well at SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "postroom", "serve", *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def _next_line(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if wanted in line:
            return line
    raise AssertionError(f"ended without {wanted}: {seen}")


def test_no_secret_is_left_in_the_folder_or_the_log(serve: Callable[..., Served]) -> None:
    served = serve(POSTROOM_LOG_LEVEL="debug")
    relay = ("--host", "127.0.0.1", "--port", "9", "--security", "none", "--allow-clear-password")
    served.run("accounts", "add", "relay", *relay, "--username", "ann", "--password-stdin", stdin="marked-secret\n")
    password = json.loads(served.run("applications", "add", "erp", "--json").stdout)["password"]
    with smtplib.SMTP("127.0.0.1", served.port) as client:
        client.login("erp", password)
    with smtplib.SMTP("127.0.0.1", served.port) as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login("erp", "marked-secret")
    assert served.stop() == 0
    stored = b"".join(path.read_bytes() for path in served.data.iterdir() if path.is_file())
    assert b"relay" in stored
    for secret in ("marked-secret", password):
        assert secret.encode() not in stored
        assert [line for line in served.output if secret in line] == []


def test_the_commands_of_the_hints_work(tmp_path: Path, free_port: Callable[[], int]) -> None:
    environment = _environment(tmp_path / "data", free_port())
    with _started(environment, "--hints") as process:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("Ctrl-C"):
            lines.append(_next_line(process, "").strip())
        commands = [line for line in lines if " -m postroom " in line or line.startswith("python3 ")]
        python = next(shlex.split(line) for line in commands if line.startswith("python3 "))
        subprocess.run([sys.executable, *python[1:]], check=True, timeout=60)
        for wanted in (" send ", " queue list", " queue show "):
            command = shlex.split(next(line for line in commands if wanted in line))
            done = subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True, text=True)
            assert "It works." in done.stdout or wanted != " queue show "
        assert any(line.startswith("swaks --server 127.0.0.1:") for line in lines)
        assert any("curl smtp://127.0.0.1:" in line for line in lines)
