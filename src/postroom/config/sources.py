"""Where settings come from, and their faults in words: environment, then TOML file, then default."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

from ..errors import Fault, InvalidInput

FILE_NAME = "postroom.toml"

S = TypeVar("S", bound=BaseSettings)


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


class TomlFile(PydanticBaseSettingsSource):
    """The TOML file as a source; its place depends on the data folder, which the sources above it may name."""

    def __init__(self, settings_cls: type[BaseSettings], given: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._given = given

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        data = self._given().get("data") or os.environ.get("POSTROOM_DATA") or "data"
        return read_file(Path(data))


def load(cls: type[S], data: Path | None, overrides: Mapping[str, Any]) -> S:
    """Build `cls` from all sources; see `Settings.load`."""
    given = dict(overrides)
    if data is not None:
        given["data"] = data
    try:
        return cls(**given)
    except ValidationError as error:
        raise InvalidInput([_fault(cls, entry) for entry in error.errors()]) from None
    except SettingsError as error:
        mend = """write lists as JSON, as in POSTROOM_SMTP__LISTENERS='[{"port": 2525}]'"""
        raise InvalidInput(Fault("environment", str(error), mend)) from None


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
