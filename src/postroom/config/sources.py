"""Where settings come from, and their faults in words: environment, then TOML file, then what is stored."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from ..errors import Fault, InvalidInput
from .describe import inner_model
from .origin import Origin

if TYPE_CHECKING:
    from . import Settings

FILE_NAME = "postroom.toml"

S = TypeVar("S", bound="Settings")


def settings_file(data: Path) -> Path | None:
    """The TOML file that counts, or None when there is none.

    Raises:
        InvalidInput: POSTROOM_CONFIG names a file that is not there.
    """
    named = os.environ.get("POSTROOM_CONFIG", "")
    if not named:
        default = data / FILE_NAME
        return default if default.is_file() else None
    if not Path(named).is_file():
        raise InvalidInput(Fault("POSTROOM_CONFIG", f"{named} is not a file", "name a TOML file that can be read"))
    return Path(named)


def read_file(data: Path) -> dict[str, Any]:
    """What the TOML file says, as it stands there.

    Raises:
        InvalidInput: it can't be read, or is no TOML.
    """
    path = settings_file(data)
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(Fault(str(path), f"can't be read: {error}", "check its rights and encoding")) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(Fault(str(path), f"is not TOML: {error}", "mend that line")) from None


def load(cls: type[S], data: Path | None, overrides: Mapping[str, Any]) -> S:
    """Build `cls` from all sources; see `Settings.load`."""
    given = dict(overrides)
    if data is not None:
        given["data"] = data
    try:
        environment = EnvSettingsSource(cls)()
    except SettingsError as error:
        mend = """write lists as JSON, as in POSTROOM_SMTP__LISTENERS='[{"port": 2525}]'"""
        raise InvalidInput(Fault("environment", str(error), mend)) from None
    file = read_file(Path(given.get("data") or environment.get("data") or "data"))
    layers = ((Origin.FILE, file), (Origin.ENVIRONMENT, environment), (Origin.GIVEN, given))
    values: dict[str, Any] = {}
    for _, layer in layers:
        values = _over(values, layer)
    settings = _validated(cls, values)
    settings._origins = {name: origin for origin, layer in layers for name in _leaves(cls, layer)}
    return settings


def with_stored(base: S, stored: Mapping[str, object]) -> S:
    """See `Settings.with_stored`; `base` has no stored values yet."""
    used = {name: value for name, value in stored.items() if not base.origin(name).is_locked}
    values: dict[str, Any] = {}
    for name, value in used.items():
        values = _over(values, _nested(name, value))
    settings = _validated(type(base), _over(values, base.model_dump(exclude_unset=True)))
    settings._origins = dict.fromkeys(used, Origin.STORED) | base._origins
    return settings


def keeping(fresh: S, names: Collection[str], old: S) -> S:
    """See `Settings.keeping`."""
    origins: dict[str, Origin] = {}
    values: dict[str, Any] = {}
    for settings in (fresh, old):
        dumped = settings.model_dump(exclude_unset=True)
        for name, origin in settings._origins.items():
            if (settings is old) == (name in names):
                values = _over(values, _nested(name, _at(dumped, name)))
                origins[name] = origin
    kept = _validated(type(fresh), values)
    kept._origins = origins
    return kept


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def _validated(cls: type[S], values: Mapping[str, Any]) -> S:
    try:
        return cls(**values)
    except ValidationError as error:
        raise InvalidInput([_fault(cls, entry) for entry in error.errors()]) from None


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, table by table; what `above` says wins."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[name] = _over(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _nested(name: str, value: object) -> dict[str, Any]:
    first, _, rest = name.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _leaves(model: type[BaseModel], layer: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The names of the settings that `layer` gives."""
    for name, value in layer.items():
        inner = inner_model(model.model_fields[name].annotation)
        if inner is not None and isinstance(value, dict):
            yield from _leaves(inner, value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _fault(cls: type[BaseSettings], entry: Any) -> Fault:
    name = ".".join(str(part) for part in entry["loc"])
    context = entry.get("ctx") or {}
    if entry["type"] == "extra_forbidden":
        leaf = str(entry["loc"][-1])
        near = difflib.get_close_matches(leaf, _names(cls, entry["loc"][:-1]), n=3)
        return Fault(name, "is not a setting", f"did you mean {' or '.join(near)}?" if near else _LIST)
    message = str(entry["msg"])
    mend = str(context.get("mend", "")) or _MENDS.get(entry["type"], "")
    return Fault(name, message[0].lower() + message[1:], mend)


_LIST = "`postroom docs settings` lists them all"
_MENDS = {
    "bool_parsing": "write true or false",
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "string_type": "write text in quotation marks",
}


def _names(model: Any, location: tuple[Any, ...]) -> list[str]:
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = next((arg for arg in getattr(annotation, "__args__", ()) if hasattr(arg, "model_fields")), annotation)
    return list(model.model_fields)
