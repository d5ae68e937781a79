"""Command lines that `postroom accounts presets` and `propose` print to copy, and what `accounts edit` asks first."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from postroom.accounts.presets import find, show_preset
from postroom.cli import presets
from postroom.cli.passwords import add_password

MAILBOX = "o'neil&$(id)@x.test"


def test_what_is_proposed_can_be_copied_into_a_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"title": "Gmail", "because": "so", "notes": [], "fields": {"preset": "gmail", "username": MAILBOX}}
    monkeypatch.setattr(presets, "ask", lambda *_, **__: {"address": MAILBOX, "proposals": [one]})
    presets.propose(MAILBOX)
    line = capsys.readouterr().out.splitlines()[1]
    assert shlex.split(line)[-4:] == ["--preset", "gmail", "--username", MAILBOX]


def test_placeholders_stay_readable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(presets, "ask", lambda *_, **__: show_preset(find("ses")))
    presets.list_presets("ses")
    assert "accounts add NAME --preset ses --preset-region REGION --username USER\n" in capsys.readouterr().out


def test_an_edit_names_a_preset_without_its_region() -> None:
    # Only the gateway knows the account's region.
    fields: dict[str, Any] = {"preset": "ses"}
    add_password(fields, False, needed=False)
    assert fields == {"preset": "ses"}
