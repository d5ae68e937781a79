"""Regular expressions that every Python 3.11 reads alike."""

from __future__ import annotations

import re

from tests.meta.sources import ROOT

_POSSESSIVE_GROUP = re.compile(r"\)[*+?]\+(?:\"|\(|\[|\\)")


def test_no_group_is_possessive() -> None:
    """Before 3.11.5 (Debian 12 has 3.11.2) such a group keeps what its last, failed round ate (cpython#106052)."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _POSSESSIVE_GROUP.search(line)
    ]
    assert found == []
