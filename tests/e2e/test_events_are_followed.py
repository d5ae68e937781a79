"""`postroom events`: followed while the gateway runs, from a cursor, and what is there when it does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.conftest import Served, run_postroom

SEND = ("send", "--from", "ann@example.org", "--to", "bob@example.net", "--text", "Hello", "--account", "sandbox")


def follow(served: Served, *arguments: str) -> subprocess.Popen[str]:
    """`postroom events --follow --json`, under way."""
    command = [sys.executable, "-m", "postroom", "events", "--follow", "--json", *arguments]
    return subprocess.Popen(command, env=served.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    """The next events that it prints."""
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_what_happens_is_told_while_it_happens(serve: Callable[..., Served]) -> None:
    served = serve()
    served.run("applications", "edit", "local", "--allow-sender", "*@example.org")
    cursor = json.loads(served.run("events", "--json").stdout)["next"]
    with follow(served, "--after", cursor) as process:
        message_id = served.run(*SEND).stdout.strip()
        assert [(one["kind"], one["message_id"]) for one in lines(process, 2)] == [
            ("accepted", message_id), ("captured", message_id),
        ]  # fmt: skip
        served.run("accounts", "edit", "sandbox", "--description", "nothing leaves")
        (edited,) = lines(process, 1)
        assert (edited["kind"], edited["account"], edited["detail"]) == ("account.edited", "sandbox", "description")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    with follow(served, "--kind", "account", "--after", "0") as process:
        assert [one["kind"] for one in lines(process, 2)] == ["account.added", "account.edited"]
        assert served.stop() == 0
        assert process.wait(20) == 69
        assert process.stderr is not None
        assert "gateway" in process.stderr.read()


def test_without_a_gateway_what_is_there_is_printed(serve: Callable[..., Served]) -> None:
    served = serve()
    served.run("applications", "edit", "local", "--allow-sender", "*@example.org")
    message_id = served.run(*SEND, "--wait").stdout.split()[0]
    assert served.stop() == 0
    done = run_postroom(served.environment, "events", "--follow", "--message", message_id)
    accepted, captured = done.stdout.splitlines()
    assert f"  accepted  {message_id}" in accepted
    assert f"  captured  {message_id}/0  sandbox  " in captured
    assert "the gateway is not running; go on with --after " in done.stderr
    first = run_postroom(served.environment, "events", "--after", "0", "--limit", "1").stdout
    assert first.splitlines()[1].startswith("more: --after ")
    assert run_postroom(served.environment, "events", "--kind", "held").stdout == "no events\n"
