"""docs/fields.md: every field of an account and an application, and the fields of other products beside them.

The first two come from the declarations, the last from docs/fields.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from postroom.accounts.fields import ACCOUNT_FIELDS
from postroom.accounts.fields import DEFAULTS as ACCOUNT_DEFAULTS
from postroom.accounts.unbuilt import UNBUILT
from postroom.applications.fields import APPLICATION_FIELDS
from postroom.applications.fields import DEFAULTS as APPLICATION_DEFAULTS
from postroom.applications.unbuilt import UNBUILT as APPLICATION_UNBUILT
from postroom.model.fields import FieldSpec

DATA = Path(__file__).parent.parent / "docs" / "fields.toml"

_HEAD = """# Fields

Written by `make docs` from `postroom/accounts/fields.py`, `postroom/applications/fields.py` and `docs/fields.toml`.
A field has one name everywhere: the option `--proxy-host` (of a secret `--proxy-password-file`), `proxy_host` in JSON
and in files. Durations are written as in `500ms`, `60s`, `5m`, `2h`, `3d`, sizes as in `2MiB`; a bare number is
refused. *Not yet*: the field is kept and checked, and this release cannot obey it (the values named there, else any but
the default); see [accounts](accounts.md).
"""


def products() -> list[dict[str, Any]]:
    """The products with their fields, as docs/fields.toml has them."""
    found: list[dict[str, Any]] = tomllib.loads(DATA.read_text("utf-8"))["product"]
    return found


def fields_page() -> str:
    """The whole page."""
    parts = [_HEAD, "\n## Accounts\n"]
    for tab in dict.fromkeys(spec.tab for spec in ACCOUNT_FIELDS.values()):
        specs = [spec for spec in ACCOUNT_FIELDS.values() if spec.tab == tab]
        parts.append(f"\n### {tab}\n\n" + _fields(specs, ACCOUNT_DEFAULTS, UNBUILT))
    parts.append("\n## Applications\n\n")
    parts.append(_fields(list(APPLICATION_FIELDS.values()), APPLICATION_DEFAULTS, APPLICATION_UNBUILT))
    parts.append("\n## Fields of other products\n\nBy the names that they have there, with what they are here.\n")
    parts += [_product(product) for product in products()]
    return "".join(parts)


def _fields(
    specs: Sequence[FieldSpec], defaults: Mapping[str, object], unbuilt: Mapping[str, Collection[object]]
) -> str:
    rows = []
    for spec in specs:
        default = "" if spec.secret or spec.name not in defaults else _written(spec, defaults[spec.name])
        notes = [spec.description]
        if spec.kinds:
            notes.append(f"({', '.join(sorted(spec.kinds))} only)")
        if spec.name in unbuilt:
            values = ", ".join(map(str, unbuilt[spec.name]))
            notes.append(f"*not yet: {values}*" if values else "*not yet*")
        rows.append((f"`{spec.name}`", spec.form, f"`{default}`" if default else "", " ".join(notes)))
    return _table(("field", "form", "default", "meaning"), rows)


def _written(spec: FieldSpec, value: object) -> str:
    shown = spec.show(value)
    if shown is None:
        return spec.form.rpartition(" or ")[2]
    if isinstance(shown, bool):
        return "yes" if shown else "no"
    return ", ".join(map(str, shown)) if isinstance(shown, list) else str(shown)


def _product(product: dict[str, Any]) -> str:
    rows = []
    for field in product["fields"]:
        here = [f"`{name}`" for name in field.get("is", ())]
        if "planned" in field:
            here.append(f"*planned* ({field['planned']})")
        if "outside" in field:
            here.append("none")
        difference = field.get("difference", field.get("outside", ""))
        rows.append((field["name"], field.get("unit", ""), ", ".join(here), difference))
    return f"\n### {product['name']}\n\n" + _table(("field there", "unit there", "here", "difference"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
