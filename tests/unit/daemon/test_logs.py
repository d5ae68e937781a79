"""Secrets do not reach the log."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from postroom.daemon.logs import HIDDEN, configure_logs


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    """Other tests log as before."""
    import logging

    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_values_under_names_of_secrets_are_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger().info("connected", password="marked", Authorization="marked", account="relay", token=7)
    event = json.loads(capsys.readouterr().err)
    assert event["password"] == event["Authorization"] == HIDDEN
    assert (event["account"], event["token"], event["event"]) == ("relay", 7, "connected")


def test_libraries_log_through_the_same_door(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    configure_logs("info", "json")
    logging.getLogger("library").warning("seen %d", 5)
    logging.getLogger("library").info("not seen")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["seen 5"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logs("info", form)
    try:
        password = "".join(("mar", "ked"))
        int("x" if password else "1")
    except ValueError:
        structlog.get_logger().exception("failed")
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "marked" not in written
