"""Fields as doors receive them, texts or JSON values, turned into values of the model with a fault for each bad one."""

from __future__ import annotations

import difflib
import functools
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from ..errors import Fault, InvalidInput
from .quantity import QuantityFault, format_duration, format_size, parse_duration, parse_size

E = TypeVar("E", bound=StrEnum)
R = TypeVar("R")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and halves of characters, which no encoding has
_YES = frozenset({"yes", "true", "on", "1"})
_NO = frozenset({"no", "false", "off", "0"})

#: More names than this are not listed in a fault.
_MANY = 40


class FieldFault(ValueError):
    """A value that its field can't take."""

    def __init__(self, fault: str, mend: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.mend = mend


def show_value(value: object) -> object:
    """`value` as JSON shows it and its field's parser reads it back."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, StrEnum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field: how its value is read and shown, its line of documentation, and where it stands.

    `form` says in a word what is written; with `, ` in it, it lists the choices. `secret` fields are taken and never
    shown. `tab` is the part of the form that it belongs to, `path` its place in the record (empty: its own name), and
    `kinds` are the kinds of account that have it (empty: all).
    """

    name: str
    parse: Callable[[object], Any]
    description: str
    form: str = "text"
    secret: bool = False
    tab: str = "Main"
    path: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    show: Callable[[Any], object] = show_value

    def of(self, record: object) -> Any:
        """The field's value in `record`."""
        return functools.reduce(getattr, self.path or (self.name,), record)

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return self.parse is switch

    @property
    def is_text_file(self) -> bool:
        """Whether its value has lines, and so is given as a file."""
        return self.form in ("PEM", "JSON")


def defaults(specs: Iterable[FieldSpec], kind: type[Any]) -> dict[str, Any]:
    """The value of each field that a record of class `kind` has where none is given; what must be given is left out."""
    own = {entry.name: entry.default for entry in fields(kind) if entry.default is not MISSING}
    found = {}
    for spec in specs:
        first, *rest = spec.path or (spec.name,)
        if first in own:
            found[spec.name] = functools.reduce(getattr, rest, own[first])
    return found


def changed(record: R, specs: Mapping[str, FieldSpec], values: Mapping[str, Any]) -> R:
    """`record` with `values` (by the names of `specs`) in their places."""
    own: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        path = specs[name].path or (name,)
        if len(path) == 1:
            own[path[0]] = value
        else:
            groups.setdefault(path[0], {})[path[1]] = value
    for name, inner in groups.items():
        own[name] = replace(getattr(record, name), **inner)
    new: R = replace(record, **own)  # type: ignore[type-var]
    return new


def unknown_field(name: str, specs: Iterable[str], what: str) -> Fault:
    """The fault of a name that is no field, with the names near it."""
    names = list(specs)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        mend = f"did you mean {' or '.join(near)}?"
    elif len(names) > _MANY:
        mend = f"the nearest to it is {difflib.get_close_matches(name, names, n=1, cutoff=0)[0]}"
    else:
        mend = f"fields are {', '.join(names)}"
    return Fault(name, f"is not a field of an {what}", mend)


def parse_fields(
    fields: Mapping[str, object],
    specs: Mapping[str, FieldSpec],
    what: str,
    standard: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The values of `fields` by name; null is read as the one in `standard`, the defaults.

    Raises:
        InvalidInput: a fault for every field that is unknown (with the names near it) or has a bad value.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, value in fields.items():
        spec = specs.get(name)
        if spec is None:
            faults.append(unknown_field(name, specs, what))
            continue
        if value is None and standard is not None and name in standard:
            values[name] = standard[name]
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
    if not isinstance(value, str) or len(value) > 1024 or re.search(r"[\0\r\n\ud800-\udfff]", value):
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


def size(least: int, most: int) -> Callable[[object], int]:
    """A size in octets between two bounds, written as in `25MiB`."""

    def parse(value: object) -> int:
        result = parse_size(value)
        if not least <= result <= most:
            mend = f"write {format_size(least)} to {format_size(most)}"
            raise FieldFault(f"{format_size(result)} is out of range", mend)
        return result

    return parse


def optional(parse: Callable[[object], Any], none: Sequence[str] = ("none",)) -> Callable[[object], Any]:
    """What `parse` reads, or one of the words `none`, or nothing: None."""

    def parse_or_none(value: object) -> Any:
        if value is None or (isinstance(value, str) and value.strip().lower() in ("", *none)):
            return None
        try:
            return parse(value)
        except (FieldFault, QuantityFault) as error:
            raise FieldFault(error.fault, f"{error.mend}; or {none[0]}") from None

    return parse_or_none


def zone(value: object) -> str:
    """The name of a time zone that this machine knows."""
    text = line(64)(value)
    if text.upper() == "UTC":
        return "UTC"
    try:
        return zoneinfo.ZoneInfo(text).key
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        near = difflib.get_close_matches(text, zoneinfo.available_timezones(), n=3, cutoff=0.5)
        mend = f"did you mean {' or '.join(near)}?" if near else "write a name as in Europe/Berlin, or UTC"
        raise FieldFault(f"{text!r} is not a time zone that this machine knows", mend) from None


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
