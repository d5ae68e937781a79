"""What an account was allowed that is not safe is said wherever it is shown."""

from __future__ import annotations

import pytest

from postroom.accounts.definition import parse_account, show_account

PROXY: dict[str, object] = {
    "proxy_type": "http-connect", "proxy_use_credentials": True, "proxy_username": "ann", "proxy_password": "p",
}  # fmt: skip
RELAY: dict[str, object] = {"name": "relay", "host": "a.example"}
POP: dict[str, object] = {"authentication": "pop-before-smtp", "pop_username": "ann", "pop_password": "p"}


@pytest.mark.parametrize(
    ("fields", "warnings"),
    [
        ({}, []),
        ({"verification": "off"}, ["does not verify the relay's certificate"]),
        ({"verification": "fingerprint", "fingerprints": "ab" * 32}, []),
        ({"tls_versions": "1.0, 1.1, 1.2"}, ["may speak TLS 1.0 and 1.1, which is no longer safe"]),
        ({"tls_versions": "1.0", "security": "none"}, []),
        (PROXY | {"proxy_host": "proxy.example"}, ["sends the proxy's password to it in clear"]),
        (PROXY | {"proxy_host": "127.0.0.1"}, []),
        (PROXY | {"proxy_host": "localhost"}, []),
        (PROXY | {"proxy_host": "proxy.example", "proxy_domain": "CORP"}, []),
        ({"proxy_type": "socks5", "proxy_host": "proxy.example"}, []),
        ({"username": "a", "password": "p", "allow_clear_password": True}, ["may send its password in clear"]),
        (POP, ["logs in by APOP without encryption"]),
        (POP | {"pop_security": "stls"}, []),
        (POP | {"pop_apop": False, "allow_clear_password": True}, ["sends the password of its POP3 login in clear"]),
    ],
)
def test_risks_are_shown(fields: dict[str, object], warnings: list[str]) -> None:
    shown = show_account(parse_account(RELAY | fields))["warnings"]
    assert isinstance(shown, list) and len(shown) == len(warnings)
    assert all(text.startswith(warning) for text, warning in zip(shown, warnings, strict=True))
