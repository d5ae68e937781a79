"""Fields looked at together: what is at odds, what a choice implies, and what it leaves without a use."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trustme

from postroom.accounts.definition import parse_account
from postroom.errors import InvalidInput
from postroom.model.account import Account, Authentication, Dkim, Fallback, OAuth, PopLogin, Proxy
from tests.unit.accounts.examples import certificate_and_key, ed25519_key, rsa_key

RELAY: dict[str, object] = {"name": "relay", "host": "a.example"}
CERTIFICATE, KEY = certificate_and_key()
OTHER_KEY = certificate_and_key(1)[1]
ELLIPTIC = certificate_and_key(2, trustme.KeyType.ECDSA)
POP = {"authentication": "pop-before-smtp", "pop_username": "ann", "pop_password": "p"}
OAUTH = {"authentication": "oauth2", "username": "ann@x.test", "oauth_client_id": "c"}
SOCKS = {"proxy_type": "socks5", "proxy_host": "p.example"}
GRAPH = {"name": "m365", "kind": "graph", "host": None, "oauth_client_id": "c", "mailbox": "a@x.test"}


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        ({"password": "p"}, "password", "has no use as things stand"),
        ({"authentication": "password", "password": "p"}, "username", "there is none for the password"),
        ({"username": "ann"}, "password", "there is none for the user name"),
        ({"authentication": "none", "username": "ann"}, "username", "has no use as things stand"),
        ({"username": "ann", "password": "p", "mechanism": "xoauth2"}, "mechanism", "carries no password"),
        (OAUTH | {"mechanism": "plain"}, "mechanism", "carries no token"),
        (OAUTH | {"username": ""}, "username", "there is none"),
        (OAUTH | {"password": "p"}, "password", "has no use as things stand"),
        (OAUTH | {"oauth_client_id": ""}, "oauth_client_id", "there is none"),
        (OAUTH | {"oauth_flow": "client-credentials", "oauth_tenant": "t"}, "oauth_client_secret", "there is none"),
        (OAUTH | {"oauth_flow": "client-credentials", "oauth_client_secret": "s"}, "oauth_tenant", "there is none"),
        (OAUTH | {"oauth_provider": "custom", "oauth_scopes": "a", "oauth_token_url": "https://t.example"},
         "oauth_authorize_url", "there is none"),
        (OAUTH | {"oauth_token_url": "https://t.example"}, "oauth_token_url", "microsoft has its own"),
        (OAUTH | {"oauth_flow": "service-account"}, "oauth_flow", "is Google's"),
        (OAUTH | {"oauth_provider": "google", "oauth_flow": "service-account"}, "oauth_service_account", "none"),
        (OAUTH | {"oauth_certificate": CERTIFICATE}, "oauth_certificate_key", "there is none for the certificate"),
        (OAUTH | {"oauth_certificate": CERTIFICATE, "oauth_certificate_key": OTHER_KEY}, "oauth_certificate_key",
         "is not the key of the certificate"),
        (OAUTH | {"oauth_certificate": CERTIFICATE, "oauth_certificate_key": KEY, "oauth_client_secret": "s"},
         "oauth_client_secret", "has no use as things stand"),
        (OAUTH | {"oauth_certificate": ELLIPTIC[0], "oauth_certificate_key": ELLIPTIC[1]}, "oauth_certificate_key",
         "is of a kind that signs nothing here"),
        (OAUTH | {"oauth_secret_expires": "2027-01-31"}, "oauth_secret_expires", "has no use as things stand"),
        (OAUTH | {"oauth_client_secret": "s", "oauth_secret_expires": "soon"}, "oauth_secret_expires", "is not a day"),
        (OAUTH | {"oauth_issuer": "https://as.test"}, "oauth_issuer", "has no use as things stand"),
        (OAUTH | {"oauth_scopes": 'a "b"'}, "oauth_scopes", "is not a scope"),
        (OAUTH | {"security": "none"}, "security", "a token goes over no such connection"),
        (OAUTH | {"oauth_provider": "google", "oauth_flow": "client-credentials", "oauth_client_secret": "s"},
         "oauth_flow", "is nothing that Google has"),
        ({"oauth_client_id": "c"}, "oauth_client_id", "has no use as things stand"),
        (POP | {"pop_username": ""}, "pop_username", "there is none"),
        (POP | {"pop_password": ""}, "pop_password", "there is none"),
        (POP | {"pop_apop": False}, "pop_apop", "the password would go in clear"),
        (POP | {"pop_username": "ann b"}, "pop_username", "has a space"),
        (POP | {"pop_interval": "1m", "pop_validity": "1m"}, "pop_validity", "is over before SMTP may start"),
        (POP | {"username": "ann"}, "username", "has no use as things stand"),
        ({"pop_host": "p.example"}, "pop_host", "has no use as things stand"),
        ({"port": 465, "security": "starttls"}, "security", "port 465 speaks TLS from the first byte"),
        ({"verification": "fingerprint"}, "fingerprints", "there is none"),
        ({"fingerprints": "ab" * 32}, "fingerprints", "has no use as things stand"),
        ({"client_certificate": CERTIFICATE}, "client_key", "there is none for the certificate"),
        ({"client_key": KEY}, "client_key", "has no use as things stand"),
        ({"client_certificate": CERTIFICATE, "client_key": OTHER_KEY}, "client_key", "is not the key"),
        ({"client_certificate": CERTIFICATE, "client_key": KEY, "security": "none"}, "client_certificate",
         "is never shown without encryption"),
        ({"proxy_host": "p.example"}, "proxy_host", "has no use as things stand"),
        (SOCKS | {"proxy_host": ""}, "proxy_host", "there is none"),
        (SOCKS | {"proxy_password": "p"}, "proxy_password", "has no use as things stand"),
        (SOCKS | {"proxy_use_credentials": True, "proxy_password": "p"}, "proxy_username", "there is none"),
        (SOCKS | {"proxy_use_credentials": True, "proxy_username": "u"}, "proxy_password", "there is none"),
        (SOCKS | {"proxy_use_credentials": True, "proxy_username": "u", "proxy_password": "p", "proxy_domain": "D"},
         "proxy_domain", "socks5 knows none"),
        (SOCKS | {"proxy_type": "socks4", "proxy_use_credentials": True, "proxy_username": "u", "proxy_password": "p"},
         "proxy_password", "socks4 knows none"),
        (SOCKS | {"proxy_use_credentials": True, "proxy_username": "ännchen", "proxy_password": "p"},
         "proxy_username", "can't be sent by socks5"),
        (SOCKS | {"proxy_use_credentials": True, "proxy_username": "u", "proxy_password": "p" * 256},
         "proxy_password", "can't be sent by socks5"),
        (SOCKS | {"proxy_type": "http", "proxy_use_credentials": True, "proxy_username": "u:v", "proxy_password": "p"},
         "proxy_username", "holds a colon"),
        (SOCKS | {"proxy_type": "socks4a", "host": "2001:db8::1"}, "proxy_type", "knows no IPv6 address"),
        ({"fixed_sender_name": "Office"}, "fixed_sender_name", "has no use as things stand"),
        ({"dkim_rsa_key": rsa_key(), "dkim_selector": "s"}, "dkim_rsa_key", "has no use as things stand"),
        ({"dkim_rsa_key": rsa_key(), "dkim_domain": "x.test"}, "dkim_selector", "there is none for the key"),
        ({"dkim_rsa_key": rsa_key(), "dkim_ed25519_key": ed25519_key(), "dkim_domain": "x.test", "dkim_selector": "s"},
         "dkim_ed25519_selector", "there is none"),
        ({"dkim_rsa_key": rsa_key(), "dkim_ed25519_key": ed25519_key(), "dkim_domain": "x.test", "dkim_selector": "s",
          "dkim_ed25519_selector": "s"}, "dkim_ed25519_selector", "as that of the RSA key"),
        ({"fallback": "accounts"}, "fallback_accounts", "there are none"),
        ({"fallback_accounts": "b, RELAY"}, "fallback_accounts", "names relay itself"),
        ({"fallback": "none", "fallback_accounts": "b"}, "fallback_accounts", "has no use as things stand"),
        ({"day_zone": "Europe/Berlin"}, "day_zone", "has no use as things stand"),
        ({"retry_window": "5d", "give_up": "3d"}, "give_up", "comes before the end of the retry window"),
        ({"local_address": "127.0.0.1", "address_family": "ipv6"}, "local_address", "is IPv4 and only IPv6"),
        ({"preset_region": "eu-west-1"}, "preset_region", "has no use as things stand"),
        ({"mailbox": "a@x.test"}, "mailbox", "is nothing that an account of kind smtp has"),
        ({"kind": "direct"}, "host", "is nothing that an account of kind direct has"),
        ({"kind": "sandbox", "host": None, "proxy_type": "socks5"}, "proxy_type", "of kind sandbox has"),
        (GRAPH | {"mailbox": ""}, "mailbox", "there is none"),
        (GRAPH | {"oauth_provider": "google"}, "oauth_provider", "is google"),
        (GRAPH | {"draft_mailbox": "d@x.test"}, "draft_mailbox", "has no use as things stand"),
        (GRAPH | {"port": 25}, "port", "is nothing that an account of kind graph has"),
        (GRAPH | {"dkim_domain": "x.test"}, "dkim_domain", "is nothing that an account of kind graph has"),
        (GRAPH | {"verification": "off"}, "verification", "is nothing that an account of kind graph has"),
        (GRAPH | {"max_connections": 5}, "max_connections", "is 5, and Graph takes 4 requests of a mailbox at a time"),
    ],
)  # fmt: skip
def test_what_is_at_odds(fields: dict[str, object], field: str, fault: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_account(RELAY | fields)
    found = {one.field: one for one in refused.value.faults}
    assert field in found, refused.value
    assert fault in found[field].fault
    assert found[field].mend


def test_secrets_are_never_quoted() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_account(RELAY | {"password": "marked", "proxy_password": "marked", "client_key": OTHER_KEY})
    assert len(refused.value.faults) == 3
    assert "marked" not in str(refused.value)


def test_what_goes_without_saying() -> None:
    account = parse_account(RELAY | {"username": "ann", "password": "p", "fallback_accounts": "b"})
    assert (account.authentication, account.fallback) == (Authentication.PASSWORD, Fallback.ACCOUNTS)
    pop = parse_account(RELAY | POP | {"pop_security": "tls"})
    assert pop.pop.port == 995
    assert parse_account({"pop_security": "stls"}, pop).pop.port == 110
    assert pop.pop_host == RELAY["host"]
    assert parse_account({"pop_host": "pop.example", "pop_apop": False}, pop).pop_host == "pop.example"
    assert not parse_account(RELAY | POP | {"pop_apop": False, "allow_clear_password": True}).pop.apop
    assert parse_account({"pop_security": "tls", "pop_port": 7}, pop).pop.port == 7


def _changed(before: Mapping[str, object], after: Mapping[str, object]) -> Account:
    return parse_account(after, parse_account({**RELAY, **before}))


def test_what_a_choice_leaves_without_a_use_is_forgotten() -> None:
    login = {"username": "ann", "password": "p", "mechanism": "plain"}
    for after in ({"authentication": "none"}, {"username": ""}, POP):
        without = _changed(login, after)
        assert (without.username, without.password, without.mechanism.value) == ("", "", "auto")
    assert _changed(OAUTH | {"oauth_refresh_token": "t"}, {"authentication": "none"}).oauth == OAuth()
    assert _changed(POP | {"pop_host": "p.example"}, {"authentication": "none"}).pop == PopLogin()
    proxy = SOCKS | {"proxy_use_credentials": True, "proxy_username": "u", "proxy_password": "p"}
    assert _changed(proxy, {"proxy_type": "none"}).proxy == Proxy()
    pair = {"client_certificate": CERTIFICATE, "client_key": KEY}
    assert _changed(pair, {"client_certificate": None}).client_key == ""
    signing = {"dkim_domain": "x.test", "dkim_selector": "s", "dkim_rsa_key": rsa_key()}
    assert _changed(signing, {"dkim_domain": ""}).dkim == Dkim()
    app = OAUTH | {"oauth_client_secret": "s"}
    certified = _changed(app, {"oauth_certificate": CERTIFICATE, "oauth_certificate_key": KEY})
    assert (certified.oauth.client_secret, certified.oauth.certificate_key) == ("", KEY)
    open_proxy = _changed(proxy, {"proxy_use_credentials": False}).proxy
    assert (open_proxy.host, open_proxy.username, open_proxy.password) == ("p.example", "", "")
    assert _changed({"day": "calendar", "day_zone": "Europe/Berlin"}, {"day": "rolling"}).limits.day_zone == "UTC"


def test_null_takes_a_field_back_to_its_default() -> None:
    account = _changed({"port": 25, "send_interval": "1s", "messages_per_day": 3, "client_certificate": CERTIFICATE,
                        "client_key": KEY},
                       {"port": None, "send_interval": None, "messages_per_day": None, "client_certificate": None,
                        "client_key": None})  # fmt: skip
    assert account == parse_account(RELAY)


def test_the_kind_stays() -> None:
    with pytest.raises(InvalidInput, match="kind: is smtp and stays so"):
        _changed({}, {"kind": "sandbox"})
