"""One form of an address for the suppression list."""

from __future__ import annotations

import pytest

from postroom.policy.suppressions import keys_of


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("Ann@Example.ORG", "ann@example.org"),
        ('"Ann.Lee"@example.org', "ann.lee@example.org"),
        ('"Ann Lee"@example.org', '"ann lee"@example.org'),
        ('"a@b"@example.org', '"a@b"@example.org'),
        ('"a..b"@example.org', '"a..b"@example.org'),
        ("ZOE\u0308@xn--e1afmkfd.test", "zo\u00eb@xn--e1afmkfd.test"),
        ("x@[192.0.2.1]", "x@[192.0.2.1]"),
    ],
)
def test_spellings_of_one_mailbox_are_one(address: str, key: str) -> None:
    assert keys_of(address) == (key, key.rpartition("@")[2])
