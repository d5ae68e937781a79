"""The file of passwords that an import reads: nothing of a password is told, whatever stands in it."""

from __future__ import annotations

import pytest

from postroom.cli.import_from import _passwords_of
from postroom.errors import InvalidInput


def test_a_password_is_all_that_stands_behind_the_first_space() -> None:
    text = "\ufeffann@x.test one two\u2028three \r\n# a word\n\nbob@x.test b\x85c\n"
    assert _passwords_of(text) == {"ann@x.test": "one two\u2028three ", "bob@x.test": "b\x85c"}


@pytest.mark.parametrize("text", ["marked-secret ann@x.test\n", "marked-secret\n", "ann@x.test \nmarked-secret\n"])
def test_lines_that_are_none_are_told_by_their_number(text: str) -> None:
    with pytest.raises(InvalidInput, match="line 1 has no") as told:
        _passwords_of(text)
    assert "marked-secret" not in str(told.value)
