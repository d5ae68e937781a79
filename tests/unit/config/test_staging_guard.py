"""The settings of the staging guard: forms that are read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postroom.config import Settings
from postroom.errors import InvalidInput
from postroom.queue.rules import staging_guard


def guarded(**values: Any) -> Settings:
    return Settings().with_stored({f"staging_guard.{name}": value for name, value in values.items()})


def test_addresses_and_domains_are_kept_as_patterns() -> None:
    listed = guarded(only_to="QA@Example.org, test.example, *.lab.example, *@b\u00fccher.example, test.example")
    assert listed.value("staging_guard.only_to") == [
        "qa@example.org", "*@test.example", "*@*.lab.example", "*@xn--bcher-kva.example",
    ]  # fmt: skip


def test_the_environment_gives_it_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_STAGING_GUARD__ONLY_TO", "test.example,qa@example.org")
    monkeypatch.setenv("POSTROOM_STAGING_GUARD__REDIRECT_TO", "inbox@staging.example")
    monkeypatch.setenv("POSTROOM_STAGING_GUARD__ENABLED", "true")
    guard = staging_guard(Settings.load(tmp_path))
    assert guard is not None
    assert (guard.redirect_to, guard.subject_prefix) == ("inbox@staging.example", "[STAGING]")
    assert [guard.redirects(one) for one in ("a@test.example", "qa@example.org", "b@example.org")] == [
        False,
        False,
        True,
    ]


def test_it_is_off_until_it_is_enabled() -> None:
    assert staging_guard(guarded(only_to="test.example", redirect_to="inbox@staging.example")) is None


@pytest.mark.parametrize(
    ("values", "field", "mend"),
    [
        ({"enabled": True}, "staging_guard.enabled", "redirect_to = "),
        ({"enabled": True, "redirect_to": ""}, "staging_guard.enabled", "redirect_to = "),
        ({"redirect_to": "inbox"}, "staging_guard.redirect_to", "postmaster@example.org"),
        ({"redirect_to": "gr\u00fc\u00dfe@example.org"}, "staging_guard.redirect_to", "ASCII"),
        ({"only_to": "*"}, "staging_guard.only_to", "example.org"),
        ({"only_to": "a b"}, "staging_guard.only_to", "example.org"),
        ({"only_to": "@example.org"}, "staging_guard.only_to", "example.org"),
        ({"subject_prefix": "a\r\nBcc: b@y.test"}, "staging_guard.subject_prefix", "one line"),
        ({"subject": "x"}, "staging_guard.subject", "subject_prefix"),
    ],
)
def test_what_does_not_fit_is_named_with_its_mend(values: dict[str, Any], field: str, mend: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        guarded(**values)
    assert [fault.field for fault in refused.value.faults] == [field]
    assert mend in refused.value.faults[0].mend
