"""Fields as doors receive them, texts or JSON values, turned into values of the model with a fault for each bad one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from ..errors import Fault, InvalidInput
from .quantity import QuantityFault, format_duration, parse_duration

E = TypeVar("E", bound=StrEnum)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_YES = frozenset({"yes", "true", "on", "1"})
_NO = frozenset({"no", "false", "off", "0"})


class FieldFault(ValueError):
    """A value that its field can't take."""

    def __init__(self, fault: str, mend: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.mend = mend


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field: how its value is read, what is written when it is shown, and its line of documentation.

    `secret` fields are taken and never shown.
    """

    name: str
    parse: Callable[[object], Any]
    description: str
    form: str = "text"
    secret: bool = False


def parse_fields(fields: Mapping[str, object], specs: Mapping[str, FieldSpec], what: str) -> dict[str, Any]:
    """The values of `fields` by name.

    Raises:
        InvalidInput: a fault for every field that is unknown (with the names near it) or has a bad value.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in fields.items():
        spec = specs.get(name)
        if spec is None:
            near = difflib.get_close_matches(name, specs, n=3)
            mend = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(specs)}"
            faults.append(Fault(name, f"is not a field of an {what}", mend))
            continue
        try:
            values[name] = spec.parse(value)
        except (FieldFault, QuantityFault) as error:
            faults.append(Fault(name, error.fault, error.mend))
        except InvalidInput as error:
            faults += error.faults
    if faults:
        raise InvalidInput(faults)
    return values


def show_value(value: object) -> object:
    """`value` as JSON shows it and its field's parser reads it back."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def name(value: object) -> str:
    """A name: 1-64 letters, digits, `-`, `_`, `.`."""
    if not isinstance(value, str) or not _NAME.match(value) or not value.strip("."):
        shown = f"{value!r} can't be a name" if value not in ("", None) else "there is none"
        raise FieldFault(shown, "write 1 to 64 letters, digits, -, _ or .")
    return value


def line(longest: int = 255) -> Callable[[object], str]:
    """One line of text without control characters."""

    def parse(value: object) -> str:
        if not isinstance(value, str):
            raise FieldFault(f"{value!r} is not text", "write text")
        if _CONTROLS.search(value):
            raise FieldFault("holds a control character (a line end, a tab, ...)", "write one line of plain text")
        if len(value) > longest:
            raise FieldFault(f"is {len(value)} characters long", f"write at most {longest}")
        return value.strip()

    return parse


def secret(value: object) -> str:
    """A password; never quoted in a fault."""
    if not isinstance(value, str) or len(value) > 1024 or "\0" in value or "\r" in value or "\n" in value:
        raise FieldFault("can't be used", "write one line of at most 1024 characters")
    return value


def switch(value: object) -> bool:
    """On or off."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in _YES | _NO:
        raise FieldFault(f"{value!r} is neither yes nor no", "write yes or no")
    return text in _YES


def number(least: int, most: int) -> Callable[[object], int]:
    """A whole number between two bounds."""

    def parse(value: object) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,12}", text):
            raise FieldFault(f"{value!r} is not a whole number", f"write a number from {least} to {most}")
        if not least <= int(text) <= most:
            raise FieldFault(f"{text} is out of range", f"write a number from {least} to {most}")
        return int(text)

    return parse


def duration(least: timedelta, most: timedelta) -> Callable[[object], timedelta]:
    """A duration between two bounds."""

    def parse(value: object) -> timedelta:
        result = parse_duration(value)
        if not least <= result <= most:
            mend = f"write {format_duration(least)} to {format_duration(most)}"
            raise FieldFault(f"{format_duration(result)} is out of range", mend)
        return result

    return parse


def choice(
    kind: type[E], also: Mapping[str, E] | None = None, refused: Mapping[str, str] | None = None
) -> Callable[[object], E]:
    """One of an enum's values; `also` are other names for some, `refused` names with the reason why not."""

    def parse(value: object) -> E:
        text = str(value).strip().lower()
        known = {member.value: member for member in kind} | dict(also or {})
        if text in known:
            return known[text]
        fault = (refused or {}).get(text, f"{value!r} is not one of them")
        raise FieldFault(fault, f"write {', '.join(member.value for member in kind)}")

    return parse


def texts(value: object) -> tuple[str, ...]:
    """A list, or text separated by commas or line ends; without empty entries and repetitions."""
    if isinstance(value, str):
        value = re.split(r"[,;\n]+", value)
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise FieldFault(f"{value!r} is not a list", "write a list, or text separated by commas")
    entries = list(value)
    for entry in entries:
        if not isinstance(entry, str):
            raise FieldFault(f"{entry!r} is not text", "write a list of texts")
    return tuple(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))
