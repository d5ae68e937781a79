"""docs/fields.toml maps the fields of five products: each counterpart is there, and each field has one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from postroom.accounts.fields import ACCOUNT_FIELDS
from postroom.applications.fields import APPLICATION_FIELDS
from postroom.cli import app
from postroom.config import Settings
from scripts.fields_page import fields_page, products

#: How many fields and behaviours each product is known to have.
FIELDS = {"Auron Omni": 26, "VisualCron": 21, "ASTERIA Warp": 19, "MultiSendcon": 21, "Akuiteo": 13}

#: What is still to be built, and how many fields wait for it.
PLANNED = {"templates": 3, "campaigns": 1, "console": 2}


def _commands(command: Any, name: str = "") -> Iterator[str]:
    yield name.strip()
    for word, one in getattr(command, "commands", {}).items():
        yield from _commands(one, f"{name} {word}")


def _there() -> set[str]:
    """Everything that may be named as a counterpart."""
    settings = [entry.name for entry in Settings.describe()]
    return {
        *(f"account.{name}" for name in ACCOUNT_FIELDS),
        *(f"application.{name}" for name in APPLICATION_FIELDS),
        *(f"setting.{name}" for name in settings if "[]" not in name),
        *(f"listener.{name.rpartition('.')[2]}" for name in settings if name.startswith("smtp.listeners[].")),
        *(f"command.{words}" for words in _commands(typer.main.get_command(app)) if words),
    }


ROWS = [(product["name"].partition(":")[0], field) for product in products() for field in product["fields"]]


def test_no_field_of_a_product_is_missing_or_stands_twice() -> None:
    assert Counter(product for product, _ in ROWS) == FIELDS
    assert [row for row, n in Counter((product, field["name"]) for product, field in ROWS).items() if n > 1] == []


@pytest.mark.parametrize(("product", "field"), ROWS, ids=lambda part: part if isinstance(part, str) else part["name"])
def test_each_has_a_counterpart_that_is_there(product: str, field: dict[str, Any]) -> None:
    assert field.keys() <= {"name", "unit", "is", "planned", "outside", "difference"}
    assert [name for name in field.get("is", ()) if name not in _there()] == []
    assert field.get("is") or "planned" in field or field.get("outside"), "it has no counterpart"
    if "unit" in field:
        assert field["difference"], "a unit that may differ is told"


def test_what_is_planned_is_counted_and_not_there_yet() -> None:
    assert Counter(field["planned"] for _, field in ROWS if "planned" in field) == PLANNED
    built = {f"{area}.{subject}" for subject in PLANNED for area in ("setting", "command", "command.accounts")}
    assert {name.replace("command.accounts.", "command.accounts ") for name in built} & _there() == set(), (
        "built by now: name it in docs/fields.toml"
    )


def test_every_field_of_ours_is_on_the_page() -> None:
    page = fields_page()
    assert [name for name in (*ACCOUNT_FIELDS, *APPLICATION_FIELDS) if f"| `{name}` |" not in page] == []
