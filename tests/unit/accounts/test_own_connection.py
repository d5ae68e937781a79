"""A message's own connection: what becomes of its account, for every account and every connection."""

from __future__ import annotations

from typing import Any

import pytest
import trustme
from hypothesis import assume, given
from hypothesis import strategies as st

from postroom.accounts.definition import parse_account
from postroom.accounts.fields import ACCOUNT_FIELDS
from postroom.accounts.own_connection import LEADING, LOGIN, OVERRIDABLE, overridden, parse_connection, shown
from postroom.errors import InvalidInput
from postroom.model.account import Account, Authentication
from tests.tls_relay import own_certificate
from tests.unit.accounts.strategies import GREETING, HOSTS, SENDER, SMTP

SECRETS = [spec for spec in ACCOUNT_FIELDS.values() if spec.secret]
TRUST = ("tls_versions", "verification", "ca_bundle", "fingerprints")

CONNECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "host": HOSTS,
        "port": st.integers(1, 464),
        "security": st.sampled_from(["auto", "starttls", "tls", "starttls-if-offered", "none"]),
        "proxy_type": st.sampled_from(["none", "socks5"]),
        "proxy_host": HOSTS,
        "helo_name": st.just("own.example.test"),
        "connect_timeout": st.just("5s"),
        "username": st.just("guest"),
        "password": st.just("the message's own"),
    },
).filter(bool)


def account_of(*fields: dict[str, Any]) -> Account:
    """An account of kind smtp."""
    given: dict[str, Any] = {"name": "relay"}
    for one in fields:
        given |= one
    return parse_account(given)


@given(account=st.builds(account_of, SMTP, SENDER), fields=CONNECTIONS)
def test_no_stored_secret_goes_where_a_message_leads(account: Account, fields: dict[str, Any]) -> None:
    connection = parse_connection(fields)
    try:
        own = overridden(account, connection)
    except InvalidInput:
        assume(False)
    stored = {spec.name: spec.of(account) for spec in SECRETS if spec.of(account)}
    kept = {spec.name: spec.of(own) for spec in SECRETS if spec.of(own)}
    if fields.keys() & LEADING:
        assert kept == {name: value for name, value in fields.items() if ACCOUNT_FIELDS[name].secret}
        assert own.username == fields.get("username", "")
        assert own.authentication is (Authentication.PASSWORD if "username" in fields else Authentication.NONE)
        assert not own.client_certificate
    elif fields.keys() & LOGIN:
        assert {name for name, value in kept.items() if stored.get(name) == value} <= {"client_key", "proxy_password"}
    for name in TRUST:  # it trusts nobody whom the account does not
        assert ACCOUNT_FIELDS[name].of(own) == ACCOUNT_FIELDS[name].of(account)
    assert own.server_name == ("" if "host" in fields else account.server_name)
    for name, value in fields.items():
        shows = ACCOUNT_FIELDS[name].show(ACCOUNT_FIELDS[name].of(own))
        assert shows == value or name.endswith("host")  # in ASCII
    assert "the message's own" not in str(shown(connection)) + repr(connection)


@given(account=st.builds(account_of, SMTP), fields=GREETING.filter(bool))
def test_what_leads_nowhere_else_keeps_the_login(account: Account, fields: dict[str, Any]) -> None:
    own = overridden(account, parse_connection(fields))
    for spec in ACCOUNT_FIELDS.values():
        if spec.tab in ("Authentication", "Encryption", "Proxy"):
            assert spec.of(own) == spec.of(account)


@pytest.mark.parametrize(
    ("fields", "keeps"),
    [
        ({"username": "guest", "password": "x"}, True),
        (
            {"authentication": "pop-before-smtp", "pop_host": "pop.test", "pop_username": "x", "pop_password": "y"},
            False,
        ),
    ],
)
def test_a_pop3_login_of_the_message_sees_no_certificate_of_the_account(fields: dict[str, Any], keeps: bool) -> None:
    account = account_of({"host": "relay.example.com"} | own_certificate(trustme.CA()))
    own = overridden(account, parse_connection(fields))
    assert (bool(own.client_certificate), bool(own.client_key)) == (keeps, keeps)


def test_every_field_of_an_account_is_either_overridable_or_refused_by_name() -> None:
    for name in ACCOUNT_FIELDS:
        if name in OVERRIDABLE:
            continue
        with pytest.raises(InvalidInput) as refused:
            parse_connection({name: "x"})
        (fault,) = refused.value.faults
        assert (fault.field, bool(fault.fault), bool(fault.mend)) == (f"connection.{name}", True, True)


@pytest.mark.parametrize("given", [None, [], "host", {}])
def test_what_is_no_connection_is_refused(given: object) -> None:
    with pytest.raises(InvalidInput, match="connection"):
        parse_connection(given)
