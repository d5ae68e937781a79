"""Sender patterns: which addresses they cover, and what is refused on save."""

from __future__ import annotations

import pytest

from postroom.errors import InvalidInput
from postroom.policy.patterns import matches, parse_patterns


@pytest.mark.parametrize(
    ("pattern", "address", "covered"),
    [
        ("*", "anyone@anywhere.example", True),
        ("*", "", True),
        ("a@x.example", "A@X.Example", True),
        ("a@x.example", "b@x.example", False),
        ("*@x.example", "b@x.EXAMPLE", True),
        ("*@x.example", "b@mail.x.example", False),
        ("*@x.example", "b@evilx.example", False),
        ("*@*.x.example", "b@mail.x.example", True),
        ("*@*.x.example", "b@a.b.x.example", True),
        ("*@*.x.example", "b@x.example", False),
        ("*@*.x.example", "b@evilx.example", False),
        ("*@x.example", '"a@y.example"@x.example', True),
        ("*@y.example", '"a@y.example"@x.example', False),
    ],
)
def test_a_pattern_covers_exactly_what_it_says(pattern: str, address: str, covered: bool) -> None:
    assert matches(pattern, address) is covered


def test_lists_are_read_from_commas_semicolons_and_lines_without_regard_to_case() -> None:
    assert parse_patterns("A@x.example, *@Y.example;\n*@*.z.example\na@x.example", "senders") == (
        "a@x.example",
        "*@y.example",
        "*@*.z.example",
    )


@pytest.mark.parametrize("wrong", ["x.example", "@x.example", "a*@x.example", "*@", "*@*", "a@x..example", "a@-", "**"])
def test_what_is_no_pattern_is_refused_with_field_fault_and_mend(wrong: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_patterns(["*", wrong], "senders")
    (fault,) = refused.value.faults
    assert fault.field == "senders"
    assert wrong in fault.fault
    assert "*@example.org" in fault.mend


def test_a_domain_is_kept_in_the_form_that_addresses_have_behind_the_doors() -> None:
    assert parse_patterns("*@Bücher.example, *@*.bücher.example, a@bücher.example", "senders") == (
        "*@xn--bcher-kva.example",
        "*@*.xn--bcher-kva.example",
        "a@xn--bcher-kva.example",
    )
