"""Settings: the environment wins over the file, the file over the default; each fault is named with its mend."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from postroom.config import Settings, unknown_environment
from postroom.errors import InvalidInput


@pytest.fixture(autouse=True)
def no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests must not count."""
    import os

    for name in list(os.environ):
        if name.startswith("POSTROOM_"):
            monkeypatch.delenv(name)


def _faults(data: Path) -> dict[str, tuple[str, str]]:
    with pytest.raises(InvalidInput) as refused:
        Settings.load(data)
    return {fault.field: (fault.fault, fault.mend) for fault in refused.value.faults}


def test_defaults(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path)
    assert settings.data == tmp_path
    assert settings.retention == timedelta(days=30)
    assert settings.smtp.max_size_bytes == 35 * 1024**2
    assert [(one.address, one.port, one.tls) for one in settings.smtp.listeners] == [("127.0.0.1", 2525, "none")]
    assert settings.retry_schedule == "1m, 5m*2, 15m, 1h*4, 4h"
    assert settings.sending_enabled


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postroom.toml").write_text(
        'retention = "3d"\ngive_up = "7d"\n[smtp]\nmax_recipients = 5\nmax_errors = 6\n'
        "[[smtp.listeners]]\nport = 2600\n"
    )
    monkeypatch.setenv("POSTROOM_GIVE_UP", "8d")
    monkeypatch.setenv("POSTROOM_SMTP__MAX_ERRORS", "7")
    settings = Settings.load(tmp_path)
    assert settings.retention == timedelta(days=3)
    assert settings.give_up == timedelta(days=8)
    assert (settings.smtp.max_recipients, settings.smtp.max_errors, settings.smtp.max_auth_failures) == (5, 7, 10)
    assert [one.port for one in settings.smtp.listeners] == [2600]


def test_the_config_variable_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "elsewhere.toml"
    file.write_text(f'data = "{tmp_path}/mail"\nlog_level = "debug"\n')
    monkeypatch.setenv("POSTROOM_CONFIG", str(file))
    settings = Settings.load()
    assert (settings.data, settings.log_level) == (tmp_path / "mail", "debug")
    monkeypatch.setenv("POSTROOM_CONFIG", str(tmp_path / "missing.toml"))
    assert _faults(tmp_path)["POSTROOM_CONFIG"][1] == "name a TOML file that can be read"


def test_listeners_from_the_environment_are_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_SMTP__LISTENERS", '[{"port": 2601}, {"address": "::1", "port": 2602}]')
    assert [(one.address, one.port) for one in Settings.load(tmp_path).smtp.listeners] == [
        ("127.0.0.1", 2601),
        ("::1", 2602),
    ]
    monkeypatch.setenv("POSTROOM_SMTP__LISTENERS", "[{")
    assert "JSON" in _faults(tmp_path)["environment"][1]


def test_every_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postroom.toml").write_text(
        'retenton = "3d"\nretention = 30\nlog_level = "loud"\nretry_schedule = "1m, soon"\n'
        '[smtp]\nmax_size_bytes = "9"\n[[smtp.listeners]]\naddress = "localhost"\n'
        '[[smtp.listeners]]\ntls = "starttls"\n'
    )
    monkeypatch.setenv("POSTROOM_SENDING_ENABLED", "maybe")
    faults = _faults(tmp_path)
    assert faults["retenton"] == ("is not a setting", "did you mean retention or content_retention?")
    assert faults["retention"] == ("30 has no unit", "write 30ms or 30s")
    assert faults["retry_schedule"] == ("'soon' is not a step", "write steps as in 1m, 5m*2, 1h")
    assert faults["smtp.max_size_bytes"] == ("9 has no unit", "write 9B, 9KiB or 9MiB")
    assert faults["sending_enabled"][1] == "write true or false"
    assert faults["smtp.listeners.0.address"][1] == "write 127.0.0.1, 0.0.0.0 or ::"
    assert faults["smtp.listeners.1"][1] == "name the files in certificate and key"
    assert "debug" in faults["log_level"][0]


@pytest.mark.parametrize(
    ("listener", "word", "mend"),
    [
        ('profile = "devices"', "networks", "networks"),
        ('profile = "devices"\nnetworks = ["0.0.0.0/0"]', "every address", "own networks"),
        ("allow_clear_login = true", "allow_clear_login", "devices"),
        ('minimum_tls = "1.0"', "minimum_tls", "devices"),
        ('networks = ["192.168.7.300"]', "192.168.7.300", "192.168.7.0/24"),
    ],
)
def test_what_a_listener_for_devices_needs(tmp_path: Path, listener: str, word: str, mend: str) -> None:
    (tmp_path / "postroom.toml").write_text(f"[[smtp.listeners]]\n{listener}\n")
    ((fault, told),) = _faults(tmp_path).values()
    assert word in fault
    assert mend in told


def test_a_listener_for_devices(tmp_path: Path) -> None:
    (tmp_path / "postroom.toml").write_text(
        '[[smtp.listeners]]\nprofile = "devices"\nnetworks = ["192.168.7.0/24", "fd00::9"]\n'
        'allow_clear_login = true\nminimum_tls = "1.0"\n'
    )
    (listener,) = Settings.load(tmp_path).smtp.listeners
    assert listener.networks == ("192.168.7.0/24", "fd00::9/128")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_servers_of_the_dns(tmp_path: Path, written: str, read: tuple[str, int]) -> None:
    (tmp_path / "postroom.toml").write_text(f'[dns]\nservers = ["{written}"]\n')
    assert Settings.load(tmp_path).dns.addresses == (read,)


@pytest.mark.parametrize("written", ["192.0.2.1, [::1]:5353", '["192.0.2.1", "[::1]:5353"]', "192.0.2.1,[::1]:5353,"])
def test_a_list_is_read_from_one_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    wanted = (("192.0.2.1", 53), ("::1", 5353))
    assert Settings.load(tmp_path).with_stored({"dns.servers": written}).dns.addresses == wanted
    monkeypatch.setenv("POSTROOM_DNS__SERVERS", written)
    assert Settings.load(tmp_path).dns.addresses == wanted


@pytest.mark.parametrize("written", ["dns.example.org", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:dns", "", "1.2.3"])
def test_a_server_of_the_dns_is_an_address(tmp_path: Path, written: str) -> None:
    (tmp_path / "postroom.toml").write_text(f'[dns]\nservers = ["{written}"]\n')
    with pytest.raises(InvalidInput) as refused:
        Settings.load(tmp_path)
    (fault,) = refused.value.faults
    assert fault.field == "dns.servers"
    assert "127.0.0.1:5353" in fault.mend


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "postroom.toml").write_text("retention = \n")
    ((fault, _),) = _faults(tmp_path).values()
    assert "line 1" in fault


def test_unknown_names_of_the_environment() -> None:
    names = {"POSTROOM_RETNTION": "1d", "POSTROOM_RETENTION": "1d", "POSTROOM_KEYS": "", "PATH": ""}
    assert unknown_environment(names) == ["POSTROOM_RETNTION"]


def test_every_setting_is_described() -> None:
    entries = {entry.name: entry for entry in Settings.describe()}
    assert entries["smtp.max_size_bytes"].default == "35MiB"
    assert entries["smtp.max_size_bytes"].form == "size"
    assert entries["smtp.max_size_bytes"].environment == "POSTROOM_SMTP__MAX_SIZE_BYTES"
    assert entries["retry_schedule"].form == "schedule"
    assert entries["retention"].default == "30d"
    assert entries["smtp.listeners[].port"].default == "2525"
    assert [name for name, entry in entries.items() if not entry.description] == []


def test_defaults_read_back_as_they_are_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in Settings.describe():
        if entry.environment and entry.default:
            monkeypatch.setenv(entry.environment, entry.default)
    assert Settings.load(tmp_path).model_dump(exclude={"data"}) == Settings().model_dump(exclude={"data"})


def test_who_is_told_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load(tmp_path).notifications.delay_warning == timedelta(hours=4)
    monkeypatch.setenv("POSTROOM_NOTIFICATIONS__TO", "both")
    (fault, mend) = _faults(tmp_path)["notifications"]
    assert "there is no postmaster" in fault
    assert mend.startswith("name one: postmaster = ")
    monkeypatch.setenv("POSTROOM_POSTMASTER", "postmaster@example.org")
    monkeypatch.setenv("POSTROOM_NOTIFICATIONS__DELAY_WARNING", "0s")
    monkeypatch.setenv("POSTROOM_NOTIFICATIONS__MAX_RETURNED_BYTES", "50KiB")
    told = Settings.load(tmp_path).notifications
    assert (told.to, told.delay_warning, told.max_returned_bytes) == ("both", timedelta(0), 50 * 1024)
    monkeypatch.setenv("POSTROOM_NOTIFICATIONS__SENDER", "nobody")
    assert "notifications.sender" in _faults(tmp_path)
