"""The fields of accounts and applications as JSON Schema, made of their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model.fields import FieldSpec


def fields_schema(specs: Mapping[str, FieldSpec], defaults: Mapping[str, object]) -> dict[str, Any]:
    """An object of these fields, none of them needed; null takes one back to its default."""
    properties = {spec.name: _property(spec, defaults) for spec in specs.values()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _property(spec: FieldSpec, defaults: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": spec.description}
    has_default = spec.name in defaults
    default = spec.show(defaults[spec.name]) if has_default else None
    if spec.is_switch:
        found["type"] = ["boolean", "null"]
    elif isinstance(default, list):
        found |= {"type": ["array", "null"], "items": {"type": "string"}}
    elif spec.form.startswith("number"):
        found["type"] = ["integer", "null"]
    elif ", " in spec.form:
        found["enum"] = [*spec.form.split(", "), None]
    else:
        found["type"] = ["string", "null"] if has_default else "string"
    if spec.secret:
        found["writeOnly"] = True
    elif has_default:
        found["default"] = default
    return found
