"""The settings as their documentation shows them, read from their declarations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, PlainSerializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..model.quantity import format_duration, format_size
from .quantities import is_schedule


class Effect(StrEnum):
    """When a change of a setting takes effect; one of the machine stands in its file or environment alone."""

    AT_ONCE = "at once"
    AT_START = "at the next start"
    OF_THE_MACHINE = "file or environment only, at the next start"


#: Marks of fields whose change does not take effect at once.
AT_START: dict[str, Any] = {"effect": Effect.AT_START}
OF_THE_MACHINE: dict[str, Any] = {"effect": Effect.OF_THE_MACHINE}


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One setting: `environment` is empty for a field of a list, which is given as a whole."""

    name: str
    environment: str
    form: str
    default: str
    description: str
    effect: Effect


def describe(
    model: type[BaseModel], prefix: str = "", environment: str = "POSTROOM_", effect: Effect = Effect.AT_ONCE
) -> tuple[SettingDoc, ...]:
    """The settings of `model` and of the models in it, in the order of their declaration."""
    entries: list[SettingDoc] = []
    for name, field in model.model_fields.items():
        variable = environment and environment + name.upper()
        inner, words = inner_model(field.annotation), field.description or ""
        marked = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        own = Effect(str(marked.get("effect", effect)))
        if inner is None:
            entries.append(SettingDoc(prefix + name, variable, _form(field), format_default(field), words, own))
        elif get_origin(field.annotation) is tuple:
            entries.append(SettingDoc(prefix + name, variable, "list", "", words, own))
            entries += describe(inner, f"{prefix}{name}[].", "", own)
        else:
            entries += describe(inner, f"{prefix}{name}.", variable and variable + "__", own)
    return tuple(entries)


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field of this type holds, itself or as a list."""
    candidates = get_args(annotation) or (annotation,)
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _form(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if annotation is int:
        return "size" if _is_size(field) else "number"
    if is_schedule(field.metadata):
        return "schedule"
    named: dict[Any, str] = {
        tuple[str, ...]: "list of texts",
        timedelta: "duration",
        Path: "path",
        bool: "true or false",
        str: "text",
    }
    return named.get(annotation, "text")


def _is_size(field: FieldInfo) -> bool:
    return field.annotation is int and any(isinstance(entry, PlainSerializer) for entry in field.metadata)


def format_default(field: FieldInfo) -> str:
    """The default as it would be written."""
    default = field.default
    if default is PydanticUndefined or default is None:
        return ""
    if isinstance(default, timedelta):
        return format_duration(default)
    if isinstance(default, bool):
        return "true" if default else "false"
    if _is_size(field):
        return format_size(default)
    if isinstance(default, tuple):
        return "[]"
    return str(default)
