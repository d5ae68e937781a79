"""What this release keeps but cannot obey: the account says so, and all else does not."""

from __future__ import annotations

import pytest

from postroom.accounts.definition import parse_account, show_account
from postroom.accounts.fields import ACCOUNT_FIELDS, DEFAULTS
from postroom.accounts.unbuilt import UNBUILT, refusal
from tests.unit.accounts.strategies import PAIR as CERTIFICATE

RELAY: dict[str, object] = {"name": "relay", "host": "a.example"}

#: What this release does obey, set to something else than its default.
OBEYED: dict[str, object] = {
    "description": "d", "enabled": False, "port": 25, "connect_timeout": "1s", "command_timeout": "1s",
    "end_of_data_timeout": "1s", "connect_retry": "1s", "reconnect_interval": "1s", "helo_name": "me.example",
    "local_address": "127.0.0.1", "address_family": "ipv4",
    "username": "ann", "password": "p", "allow_clear_password": True, "mechanism": "scram-sha-256",
    "security": "tls", "tls_versions": "1.0, 1.2", "server_name": "b.example", "verification": "fingerprint",
    "fingerprints": "ab" * 32, **CERTIFICATE,
    "max_connections": 1, "messages_per_connection": 1, "recipients_per_transaction": 1, "idle_timeout": "1s",
    "fixed_sender": "robot@x.test", "fixed_sender_name": "Robot", "fixed_sender_keeps_reply": True,
    "fixed_sender_not_private": True, "full_name": "Ann", "email_address": "ann@x.test", "reply_address": "b@x.test",
    "sender_patterns": "*@x.test", "recipient_patterns": "*@y.test", "send_interval": "1s", "messages_per_second": 1,
    "messages_per_minute": 1, "messages_per_hour": 1, "messages_per_day": 1, "recipients_per_day": 1,
    "quota_group": "ses", "day": "calendar", "day_zone": "Europe/Berlin", "when_limited": "refuse",
    "fallback": "accounts", "fallback_accounts": "other", "fall_back_after": "1s",
    "proxy_type": "socks5", "proxy_host": "p.example",
}  # fmt: skip


def test_what_is_obeyed_may_send() -> None:
    account = parse_account(RELAY | OBEYED)
    assert refusal(account) is None
    assert show_account(account)["not_built"] == []
    assert refusal(parse_account({"name": "box", "kind": "sandbox"})) is None
    pop = {"authentication": "pop-before-smtp", "pop_username": "u", "pop_password": "p"}
    assert refusal(parse_account(RELAY | pop)) is None
    oauth = {"authentication": "oauth2", "username": "u", "oauth_client_id": "c"}
    assert refusal(parse_account(RELAY | oauth)) is None


def test_the_list_names_fields_and_values_that_are_there() -> None:
    assert set(UNBUILT) <= set(ACCOUNT_FIELDS)
    assert set(UNBUILT) & set(OBEYED) == set(), "both obeyed and not"
    for name, values in UNBUILT.items():
        assert DEFAULTS[name] not in values


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"template_cache": 0}, ("template_cache",)),
        ({"charset": "latin-1", "template_cache": "5"}, ("charset", "template_cache")),
    ],
)
def test_what_is_not_is_named(fields: dict[str, object], named: tuple[str, ...]) -> None:
    account = parse_account(RELAY | fields)
    assert show_account(account)["not_built"] == list(named)
    refused = refusal(account)
    assert refused is not None
    reason, mend = refused
    assert all(name in reason for name in named)
    assert f"--reset {named[0]}" in mend


def test_every_kind_is_built() -> None:
    graph = {"name": "g", "kind": "graph", "oauth_tenant": "t", "oauth_client_id": "c", "mailbox": "a@x.test"}
    assert refusal(parse_account(graph)) is None
    assert refusal(parse_account({"name": "mx", "kind": "direct", "mx_port": 2500})) is None
