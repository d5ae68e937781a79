"""What links to this gateway begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroom.config import Settings
from postroom.errors import InvalidInput


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        ("https://mail.example.org", "https://mail.example.org"),
        ("https://example.org:8443/postroom/", "https://example.org:8443/postroom"),
        ("http://localhost:8025", "http://localhost:8025"),
    ],
)
def test_it_is_a_url_without_a_slash_at_its_end(tmp_path: Path, given: str, kept: str) -> None:
    (tmp_path / "postroom.toml").write_text(f'public_url = "{given}"\n')
    assert Settings.load(tmp_path).public_url == kept


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mail.example.org", "is not a URL"),
        ("ftp://mail.example.org", "is not a URL"),
        ("https://mail.example.org:x", "is not a URL"),
        ("https:// mail.example.org", "is not a URL"),
        ("https://b\u00fccher.example", "is not a URL"),
        ("https://ann:marked@mail.example.org", "more stands in it"),
        ("https://mail.example.org/?a=b", "more stands in it"),
        ("https://mail.example.org/#", "more stands in it"),
        ("http://mail.example.org", "is not encrypted"),
    ],
)
def test_what_is_none_is_refused_with_its_mend(given: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Settings().with_stored({"public_url": given})
    (fault,) = refused.value.faults
    assert fault.field == "public_url" and said in fault.fault and "https://mail.example.org" in fault.mend
