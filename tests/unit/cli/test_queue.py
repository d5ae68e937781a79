"""What `postroom queue` prints of what strangers said."""

from __future__ import annotations

import pytest

from postroom.cli.queue import _print_as_sent, _print_transcripts


def test_transcripts_are_printed_line_by_line_without_what_moves_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"started": "2026-01-01T00:00:00.000Z", "account": "relay", "transcript": "C: QUIT\nS: 221 \x1b[2Jbye"}
    _print_transcripts([said, said | {"transcript": ""}])
    assert capsys.readouterr().out == "2026-01-01T00:00:00.000Z relay\n  C: QUIT\n  S: 221  [2Jbye\n"


def test_without_a_failure_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _print_transcripts([])
    assert capsys.readouterr().out == "no attempt failed\n"


CHANGED = {
    "tense": "would",
    "account": "relay",
    "rewrites": [{"field": "Reply-To", "before": "", "after": "ann@x.test\x1b"}],
    "signatures": [{"domain": "x.test", "selector": "s1", "algorithm": "rsa-sha256"}],
    "why": "",
}


def test_what_an_account_changes_is_printed_once_for_all_deliveries_that_it_is_so_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing = CHANGED | {"rewrites": [], "signatures": []}
    unknown = {"tense": "unknown", "account": "old", "rewrites": [], "signatures": [], "why": "it was removed"}
    told = [CHANGED, CHANGED | {"tense": "was"}, None, nothing, CHANGED, unknown]
    _print_as_sent([{"n": n, "as_sent": one} for n, one in enumerate(told)])
    lines = ["  Reply-To: (none) -> ann@x.test ", "  DKIM signature: x.test, selector s1 (rsa-sha256)", ""]
    assert capsys.readouterr().out.split("\n") == [
        "", "would be sent by account relay so (delivery 0, 4):", *lines,
        "was sent by account relay so (delivery 1):", *lines,
        "as sent by account old: not known (delivery 5):", "  it was removed", "",
    ]  # fmt: skip
