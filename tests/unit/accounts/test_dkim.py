"""DKIM keys as an account has them: made, named, published."""

from __future__ import annotations

import pytest

from postroom.accounts.definition import parse_account, show_account
from postroom.accounts.dkim import NO_KEYS, new_keys, published_keys
from postroom.errors import InvalidInput
from postroom.model.account import Account, KeyKind
from postroom.policy.signing import replaced_fields, signs

RELAY = parse_account({"name": "relay", "host": "a.example"})


def with_keys(kind: KeyKind, account: Account = RELAY, domain: str = "example.org", selector: str = "s1") -> Account:
    return parse_account(new_keys(account, domain, selector, kind), account)


@pytest.mark.parametrize(
    ("kind", "published"),
    [
        (KeyKind.RSA, [("rsa-sha256", "s1", "v=DKIM1; k=rsa; p=")]),
        (KeyKind.ED25519, [("ed25519-sha256", "s1", "v=DKIM1; k=ed25519; p=")]),
        (
            KeyKind.BOTH,
            [
                ("rsa-sha256", "s1", "v=DKIM1; k=rsa; p="),
                ("ed25519-sha256", "s1-ed25519", "v=DKIM1; k=ed25519; p="),
            ],
        ),
    ],
)
def test_each_key_has_a_selector_of_its_own(kind: KeyKind, published: list[tuple[str, str, str]]) -> None:
    account = with_keys(kind)
    keys = published_keys(account)
    assert [
        (key.algorithm, key.selector, key.record.value[: len(p[2])]) for key, p in zip(keys, published, strict=True)
    ] == (published)
    assert [key.record.name for key in keys] == [f"{p[1]}._domainkey.example.org" for p in published]
    assert signs(account)
    assert "PRIVATE" not in str(show_account(account)) + repr(account)


def test_a_selector_in_use_is_refused_for_the_new_key() -> None:
    account = with_keys(KeyKind.BOTH)
    for selector in ("s1", "S1", "s1-ed25519"):
        with pytest.raises(InvalidInput, match="is in use, and mail under way is verified by its record"):
            new_keys(account, "example.org", selector, KeyKind.RSA)
    again = with_keys(KeyKind.RSA, account, selector="s2")
    assert [key.selector for key in published_keys(again)] == ["s2"]
    assert [key.selector for key in published_keys(with_keys(KeyKind.RSA, account, domain="example.net"))] == ["s1"]


@pytest.mark.parametrize(
    ("domain", "selector", "field"),
    [
        ("example..org", "s1", "dkim_domain"),
        ("192.0.2.1", "s1", "dkim_domain"),
        ("example.org", "s 1", "dkim_selector"),
    ],
)
def test_names_that_dns_can_not_have_are_refused(domain: str, selector: str, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        new_keys(RELAY, domain, selector, KeyKind.ED25519)
    assert [fault.field for fault in refused.value.faults] == [field]


def test_a_selector_may_be_a_number_and_a_domain_internationalised() -> None:
    (key,) = published_keys(with_keys(KeyKind.ED25519, domain="bücher.example", selector="20260301"))
    assert key.record.name == "20260301._domainkey.xn--bcher-kva.example"


def test_keys_are_taken_away() -> None:
    account = parse_account(NO_KEYS, with_keys(KeyKind.BOTH))
    assert account.dkim == RELAY.dkim
    assert published_keys(account) == ()
    assert not signs(account)


def test_what_ses_replaces_is_left_out() -> None:
    ses = parse_account({"name": "ses", "host": "email-smtp.eu-west-1.amazonaws.com"})
    assert replaced_fields(ses) == {b"date", b"message-id"}
    assert replaced_fields(RELAY) == frozenset()
