"""What is stored lies under file and environment; each value knows where it comes from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from postroom.config import Effect, Origin, Settings
from postroom.errors import InvalidInput


def test_each_source_wins_over_the_one_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postroom.toml").write_text('give_up = "7d"\n[smtp]\nmax_errors = 6\n')
    monkeypatch.setenv("POSTROOM_SMTP__MAX_RECIPIENTS", "7")
    base = Settings.load(tmp_path, log_level="debug")
    stored = {
        "give_up": "1d",
        "smtp.max_errors": 1,
        "smtp.max_recipients": 1,
        "log_level": "error",
        "retention": "5d",
        "smtp.max_auth_failures": 3,
    }
    settings = base.with_stored(stored)
    smtp = settings.smtp
    assert (settings.give_up, settings.retention, settings.log_level) == (timedelta(7), timedelta(5), "debug")
    assert (smtp.max_errors, smtp.max_recipients, smtp.max_auth_failures) == (6, 7, 3)
    origins = {name: settings.origin(name) for name in (*stored, "data", "postmaster", "smtp.idle_timeout")}
    assert origins == {
        "give_up": Origin.FILE,
        "smtp.max_errors": Origin.FILE,
        "smtp.max_recipients": Origin.ENVIRONMENT,
        "log_level": Origin.GIVEN,
        "retention": Origin.STORED,
        "smtp.max_auth_failures": Origin.STORED,
        "data": Origin.GIVEN,
        "postmaster": Origin.DEFAULT,
        "smtp.idle_timeout": Origin.DEFAULT,
    }
    assert base.retention == timedelta(30)
    assert settings.value("retention") == "5d"
    assert settings.value("smtp.max_size_bytes") == "35MiB"


def test_whole_tables_of_the_environment_lock_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_SMTP", '{"max_errors": 3}')
    settings = Settings.load(tmp_path)
    assert settings.smtp.max_errors == 3
    assert settings.origin("smtp.max_errors") is Origin.ENVIRONMENT
    assert settings.origin("smtp.max_recipients") is Origin.DEFAULT


def test_stored_values_are_judged_like_others(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        Settings.load(tmp_path).with_stored({"retention": "30", "smtp.max_errors": 0, "batch_interval": "20ms"})
    faults = {fault.field: (fault.fault, fault.mend) for fault in refused.value.faults}
    assert faults["retention"] == ("30 has no unit", "write 30ms or 30s")
    assert faults["batch_interval"][1].startswith("write 1s at least")
    assert "smtp.max_errors" in faults


def test_a_program_that_gives_settings_locks_them() -> None:
    settings = Settings(retention="4d", smtp={"max_errors": 4})
    assert settings.origin("retention") is Origin.GIVEN
    assert settings.origin("smtp.max_errors") is Origin.GIVEN
    assert settings.with_stored({"retention": "9d", "give_up": "9d"}).retention == timedelta(4)


def test_what_is_of_the_machine_stays_while_the_rest_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "postroom.toml"
    file.write_text('hostname = "one.example"\nretention = "1d"\n[smtp]\nmax_errors = 6\n')
    old = Settings.load(tmp_path)
    file.write_text('hostname = "two.example"\n[[smtp.listeners]]\nport = 2600\n')
    kept = Settings.load(tmp_path).keeping(["hostname", "smtp.listeners", "data"], old)
    assert (kept.hostname, kept.retention, kept.smtp.max_errors) == ("one.example", timedelta(30), 20)
    assert [one.port for one in kept.smtp.listeners] == [2525]
    assert (kept.origin("hostname"), kept.origin("retention")) == (Origin.FILE, Origin.DEFAULT)


def test_each_setting_says_when_it_takes_effect() -> None:
    effects = {entry.name: entry.effect for entry in Settings.describe()}
    assert effects["smtp.listeners"] is effects["smtp.listeners[].port"] is effects["data"] is Effect.OF_THE_MACHINE
    assert effects["hold_pending_at_start"] is Effect.AT_START
    assert effects["sending_enabled"] is effects["smtp.max_errors"] is Effect.AT_ONCE


def test_the_database_password_is_kept_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_DATABASE", "postgresql://ann:marked@db.example/mail")
    base = Settings.load(tmp_path)
    for settings in (base, base.with_stored({"retention": "9d"}), Settings.load(tmp_path).keeping(["database"], base)):
        assert settings.database.reveal() == "postgresql://ann:marked@db.example/mail"
        assert settings.value("database") == "postgresql://ann:***@db.example/mail"
