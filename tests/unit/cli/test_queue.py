"""What `postroom queue` prints of what strangers said."""

from __future__ import annotations

import pytest

from postroom.cli.queue import _print_transcripts


def test_transcripts_are_printed_line_by_line_without_what_moves_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"started": "2026-01-01T00:00:00.000Z", "account": "relay", "transcript": "C: QUIT\nS: 221 \x1b[2Jbye"}
    _print_transcripts([said, said | {"transcript": ""}])
    assert capsys.readouterr().out == "2026-01-01T00:00:00.000Z relay\n  C: QUIT\n  S: 221  [2Jbye\n"


def test_without_a_failure_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _print_transcripts([])
    assert capsys.readouterr().out == "no attempt failed\n"
