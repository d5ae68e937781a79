"""The URL of a database: read, refused with a mend, and never shown with its password."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.config import Settings
from postroom.config.database import DatabaseUrl
from postroom.errors import InvalidInput

SECRET = "s3cr3t-of-the-database"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("postgresql://db.example/mail", "postgresql://db.example/mail"),
        ("postgresql://ann@db.example/mail", "postgresql://ann@db.example/mail"),
        (f"postgresql://ann:{SECRET}@db.example:5432/mail", "postgresql://ann:***@db.example:5432/mail"),
        (
            f"postgresql://ann:{SECRET}@a:1,b:2/mail?sslmode=require",
            "postgresql://ann:***@a:1,b:2/mail?sslmode=require",
        ),
        (f"postgresql:///mail?host=/run/pg&password={SECRET}&x=1", "postgresql:///mail?host=/run/pg&password=***&x=1"),
        (f"postgresql://ann:at@{SECRET}/and?that@db.example/mail", "postgresql://ann:***@db.example/mail"),
    ],
)
def test_it_is_shown_without_its_password(url: str, shown: str) -> None:
    assert str(DatabaseUrl(url)) == shown
    assert DatabaseUrl(url).reveal() == url


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=8))
def test_no_password_comes_through(password: str) -> None:
    url = DatabaseUrl(f"postgresql://u:{password}@h/n")
    assert (str(url), repr(url)) == ("postgresql://u:***@h/n", "DatabaseUrl('postgresql://u:***@h/n')")


def test_it_is_a_setting_that_reveals_itself_to_the_store_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load(tmp_path).store == tmp_path / "postroom.db"
    url = f"postgresql://ann:{SECRET}@db.example/mail"
    monkeypatch.setenv("POSTROOM_DATABASE", url)
    settings = Settings.load(tmp_path)
    assert settings.store == url
    for shown in (str(settings), repr(settings), settings.model_dump_json()):
        assert SECRET not in shown
    assert Settings.load(tmp_path) == settings


@pytest.mark.parametrize(
    ("given_url", "fault"),
    [
        (f"mysql://ann:{SECRET}@db.example/mail", "mysql is not supported"),
        (f"host=db password={SECRET}", "is not a URL of PostgreSQL"),
    ],
)
def test_what_is_none_is_refused_with_a_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_url: str, fault: str
) -> None:
    monkeypatch.setenv("POSTROOM_DATABASE", given_url)
    with pytest.raises(InvalidInput, match=f"database: .*{fault}.*write postgresql://") as told:
        Settings.load(tmp_path)
    assert SECRET not in str(told.value)
