"""Values with a syntax of their own: what is taken in which spelling, what is refused with which mend."""

from __future__ import annotations

from datetime import timedelta

import pytest

from postroom.accounts.definition import parse_account
from postroom.accounts.fields import ACCOUNT_FIELDS
from postroom.errors import InvalidInput
from tests.unit.accounts.examples import certificate_and_key, ed25519_key, rsa_key, service_account

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("field", "written", "kept"),
    [
        ("charset", "latin1", "iso-8859-1"),
        ("charset", "1252", "windows-1252"),
        ("charset", "65001", "utf-8"),
        ("charset", "Shift_JIS", "shift_jis"),
        ("charset", "EUC-JP", "euc-jp"),
        ("charset", "koi8-r", "koi8-r"),
        ("charset", "ISO-2022-JP", "iso-2022-jp"),
        ("charset", "ascii", "us-ascii"),
        ("tls_versions", "TLSv1.3, 1.2,TLS 1.3", ("1.2", "1.3")),
        ("tls_versions", ["1.0"], ("1.0",)),
        ("fingerprints", "sha256 Fingerprint=" + ":".join(["AB"] * 32), (HEX,)),
        ("fingerprints", [HEX.upper(), HEX], (HEX,)),
        ("local_address", "[2001:DB8::1]", "2001:db8::1"),
        ("sender_patterns", "A@x.test; *@Y.test\n*@*.z.test", ("a@x.test", "*@y.test", "*@*.z.test")),
        ("email_address", "office@b\u00fccher.example", "office@xn--bcher-kva.example"),
        ("proxy_type", "SOCKS5h", "socks5"),
        ("proxy_type", "http", "http-connect"),
        ("authentication", "Anonymous", "none"),
        ("oauth_tenant", "Contoso.onmicrosoft.com", "contoso.onmicrosoft.com"),
        ("oauth_token_url", "http://127.0.0.1:9/token", "http://127.0.0.1:9/token"),
        ("retry_schedule", "1m, 5m*2", "1m, 5m*2"),
        ("retry_window", "default", None),
        ("retry_window", "3d", timedelta(days=3)),
        ("messages_per_day", "none", None),
        ("messages_per_day", "10000", 10000),
        ("day_zone", "Europe/Berlin", "Europe/Berlin"),
        ("day_zone", "utc", "UTC"),
        ("graph_draft_from", "512KiB", 512 * 1024),
        ("pop_interval", "250ms", timedelta(milliseconds=250)),
        ("helo_name", "[2001:db8::1]", "[IPv6:2001:db8::1]"),
    ],
)
def test_spellings(field: str, written: object, kept: object) -> None:
    value = ACCOUNT_FIELDS[field].parse(written)
    assert value == kept
    assert ACCOUNT_FIELDS[field].parse(ACCOUNT_FIELDS[field].show(value)) == kept


@pytest.mark.parametrize(
    ("field", "value", "fault", "mend"),
    [
        ("charset", "klingon", "is not a charset for mail", "windows-1252"),
        ("charset", "utf-16", "is not a charset for mail", "utf-8"),
        ("charset", "cp037", "is not a charset for mail", "utf-8"),
        ("charset", "base64", "is not a charset for mail", "utf-8"),
        ("charset", "unicode_escape", "is not a charset for mail", "utf-8"),
        ("charset", "idna", "is not a charset for mail", "utf-8"),
        ("tls_versions", "SSLv3", "SSL 2 and 3 are broken", "1.2"),
        ("tls_versions", "1.4", "is not a version of TLS", "1.3"),
        ("tls_versions", "", "there is none", "1.2"),
        ("fingerprints", "ab" * 20, "SHA-1", "openssl x509"),
        ("fingerprints", "ab" * 31, "is not a SHA-256 fingerprint", "64 digits"),
        ("local_address", "relay.example", "is not an IP address", "192.0.2.1"),
        ("local_address", "0.0.0.0", "is not the address of one machine", "empty: any"),
        ("helo_name", "192.0.2.1", "is an address, not a name", "[192.0.2.1]"),
        ("helo_name", "a b", "is not a host name", "DNS name"),
        ("email_address", "office", "is not an address", "office@example.org"),
        ("fixed_sender", "a@b@", "is not an address", "office@example.org"),
        ("authentication", "ntlm", "NTLM is spoken to proxies only", "none, password, oauth2"),
        ("oauth_token_url", "http://login.example.org/", "is not encrypted", "https://"),
        ("oauth_token_url", "login.example.org", "is not a URL", "https://"),
        ("oauth_token_url", "https://me:x@login.example.org/", "holds a user name", "own fields"),
        ("oauth_tenant", "a b", "is not a tenant", "UUID"),
        ("retry_schedule", "5, 6", "'5' is not a step", "1m, 5m*2, 1h"),
        ("retry_window", "7", "7 has no unit", "write 7ms or 7s"),
        ("send_interval", 2000, "2000 has no unit", "write 2000ms or 2s"),
        ("graph_draft_from", "1000000", "has no unit", "MiB"),
        ("graph_draft_from", "4MiB", "is out of range", "3MiB"),
        ("messages_per_day", "0", "out of range", "or none"),
        ("day_zone", "Europe/Belin", "is not a time zone", "did you mean Europe/Berlin"),
        ("preset", "G Mail", "there is none called 'G Mail'", "did you mean gmail"),
        ("quota_group", "a b", "can't be a name", "1 to 64"),
        ("fallback_accounts", "a b", "can't be a name", "1 to 64"),
        ("sender_patterns", "*@*", "is not a pattern", "*@example.org"),
        ("when_limited", "stop", "is not one of them", "wait, overflow, refuse"),
        ("client_certificate", "hello", "no certificate", "PEM"),
        ("client_key", "hello", "no private key", "BEGIN"),
        ("dkim_rsa_key", "hello", "no private key", "BEGIN"),
        ("oauth_service_account", "{}", "is not the key of a service account", "Google's console"),
        ("oauth_service_account", '{"type": "service_account"}', "has no client_email", "Google's console"),
        ("oauth_service_account", "nothing", "is not JSON", "Google's console"),
        ("owner", "a b", "can't be a name", "1 to 64"),
    ],
)
def test_bad_values(field: str, value: object, fault: str, mend: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_account({"name": "relay", "host": "a.example", field: value})
    (found,) = refused.value.faults
    assert found.field == field
    assert fault in found.fault
    assert mend in found.mend


@pytest.mark.parametrize(
    ("field", "text", "fault", "mend"),
    [
        ("dkim_rsa_key", rsa_key(1024), "has 1024 bits", "2048"),
        ("dkim_rsa_key", ed25519_key(), "is not an RSA key", "openssl genrsa 2048"),
        ("dkim_ed25519_key", rsa_key(), "is not an Ed25519 key", "ed25519"),
        ("client_key", ed25519_key("locked"), "is locked with a passphrase", "openssl pkey"),
        ("client_key", certificate_and_key()[0], "is a certificate, not its private key", "BEGIN"),
    ],
)
def test_keys_of_the_wrong_kind(field: str, text: str, fault: str, mend: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_account({"name": "relay", "host": "a.example", field: text})
    (found,) = refused.value.faults
    assert (found.field, fault in found.fault, mend in found.mend) == (field, True, True)
    assert text.splitlines()[1] not in str(refused.value)


def test_keys_that_fit() -> None:
    assert ACCOUNT_FIELDS["dkim_rsa_key"].parse(rsa_key() + "\n") == rsa_key()
    assert ACCOUNT_FIELDS["dkim_ed25519_key"].parse(ed25519_key()) == ed25519_key()
    assert ACCOUNT_FIELDS["oauth_service_account"].parse(service_account()) == service_account()


def test_every_field_has_its_tab_and_its_words() -> None:
    tabs = ["Main", "Authentication", "Encryption", "Proxy", "Sender", "Routing", "Limits"]
    assert list(dict.fromkeys(spec.tab for spec in ACCOUNT_FIELDS.values())) == tabs
    assert [spec.name for spec in ACCOUNT_FIELDS.values() if not spec.description or not spec.form] == []
