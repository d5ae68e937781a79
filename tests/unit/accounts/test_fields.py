"""The fields of an account: what is taken, what is refused with which mend, what is shown."""

from __future__ import annotations

from datetime import timedelta

import pytest

from postroom.accounts.definition import parse_account, show_account
from postroom.accounts.fields import ACCOUNT_FIELDS, DEFAULTS
from postroom.errors import InvalidInput
from postroom.model.account import AccountKind, Security, Verification

RELAY = {"name": "relay", "host": "smtp.example.org"}


def _fault(fields: dict[str, object]) -> tuple[str, str, str]:
    with pytest.raises(InvalidInput) as refused:
        parse_account(RELAY | fields)
    (fault,) = refused.value.faults
    return fault.field, fault.fault, fault.mend


def test_texts_and_values_are_read_alike() -> None:
    texts = parse_account(
        RELAY
        | {
            "port": "465",
            "security": "TLS",
            "verification": "off",
            "enabled": "no",
            "command_timeout": "2m",
            "max_connections": "7",
            "username": "ann",
            "password": "secret",
        }
    )
    values = parse_account(
        RELAY
        | {
            "port": 465,
            "security": "tls",
            "verification": "off",
            "enabled": False,
            "command_timeout": "120s",
            "max_connections": 7,
            "username": "ann",
            "password": "secret",
        }
    )
    assert texts == values
    assert (texts.port, texts.security, texts.verification) == (465, Security.TLS, Verification.OFF)
    assert texts.command_timeout == timedelta(minutes=2)
    assert texts.kind is AccountKind.SMTP
    assert not texts.enabled


@pytest.mark.parametrize(
    ("field", "value", "fault", "mend"),
    [
        ("name", "", "there is none", "1 to 64"),
        ("name", "a b", "can't be a name", "1 to 64"),
        ("name", "x" * 65, "can't be a name", "1 to 64"),
        ("name", "..", "can't be a name", "1 to 64"),
        ("name", "a\n", "can't be a name", "1 to 64"),
        ("kind", "pigeon", "'pigeon' is not one of them", "smtp, graph, direct, sandbox"),
        ("host", "smtp://relay", "is not a host name", "smtp.example.org"),
        ("host", "relay:25", "holds a port", "give 25 as the port"),
        ("host", "a..b", "is not a host name", "DNS name"),
        ("host", "1.2.3.400", "is not a host name", "DNS name"),
        ("host", "a\r\nb", "control character", "one line"),
        ("port", "0", "0 is out of range", "from 1 to 65535"),
        ("port", "smtp", "'smtp' is not a whole number", "from 1 to 65535"),
        ("port", True, "True is not a whole number", "from 1 to 65535"),
        ("security", "sslv3", "SSL 2 and 3 are broken", "starttls"),
        ("verification", "maybe", "is not one of them", "full, fingerprint, off"),
        ("enabled", "perhaps", "neither yes nor no", "yes or no"),
        ("command_timeout", "60", "60 has no unit", "write 60ms or 60s"),
        ("command_timeout", 2000, "2000 has no unit", "write 2000ms or 2s"),
        ("command_timeout", "0s", "0s is out of range", "100ms to 1d"),
        ("helo_name", "[1.2]", "is not an address literal", "[192.0.2.1]"),
        ("ca_bundle", "hello", "no certificate", "PEM"),
        ("prot", 25, "is not a field of an account", "did you mean port"),
        ("username", "ann", "there is none for the user name", "set authentication to none"),
    ],
)
def test_bad_values(field: str, value: object, fault: str, mend: str) -> None:
    named, found, mended = _fault({field: value})
    assert named == ("password" if field == "username" else field)
    assert fault in found
    assert mend in mended


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_account({"name": "", "port": "x", "colour": "red"})
    assert [fault.field for fault in refused.value.faults] == ["name", "port", "colour"]


def test_a_relay_needs_a_host_and_a_sandbox_none() -> None:
    with pytest.raises(InvalidInput, match="host: there is none"):
        parse_account({"name": "relay"})
    assert parse_account({"name": "box", "kind": "sandbox"}).host == ""


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("SMTP.Example.org.", "smtp.example.org"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("mail_out.example", "mail_out.example"),
    ],
)
def test_hosts_have_one_spelling(written: str, kept: str) -> None:
    assert parse_account({"name": "relay", "host": written}).host == kept


def test_ssl_is_read_as_implicit_tls() -> None:
    assert parse_account(RELAY | {"security": "ssl"}).security is Security.TLS


def test_a_password_is_never_shown_nor_quoted() -> None:
    account = parse_account(RELAY | {"username": "ann", "password": "marked-secret"})
    assert "marked-secret" not in str(show_account(account)) + repr(account)
    assert show_account(account)["secrets"]["password"] == "set"  # type: ignore[index]
    with pytest.raises(InvalidInput) as refused:
        parse_account(RELAY | {"username": "ann", "password": "marked\0secret"})
    assert "marked" not in str(refused.value)


def test_what_is_shown_reads_back() -> None:
    account = parse_account(RELAY | {"command_timeout": "90s", "username": "ann", "password": "p"})
    shown = {name: value for name, value in show_account(account).items() if name in ACCOUNT_FIELDS}
    assert parse_account(shown | {"password": "p"}) == account


def test_only_the_fields_given_change() -> None:
    account = parse_account(RELAY | {"port": 2525})
    changed = parse_account({"description": "new"}, account)
    assert (changed.port, changed.description) == (2525, "new")
    assert DEFAULTS["port"] == 587
