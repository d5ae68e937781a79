"""Options that commands share, and options made from the fields of accounts and applications."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..model.fields import FieldSpec, switch

if TYPE_CHECKING:
    from ..config import Settings

Data = Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="The data folder; else POSTROOM_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings(data: Path | None) -> Settings:
    """The settings of this command.

    Raises:
        InvalidInput: a setting can't be read.
    """
    from ..config import Settings  # here: heavy, and `--help` needs none

    return Settings.load(data)


def with_fields(
    specs: Mapping[str, FieldSpec], leave_out: set[str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of `specs`; it gets those that were used as its argument `fields`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "fields"
        ]
        made = [_option(spec) for spec in specs.values() if not spec.secret and spec.name not in leave_out]

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            fields = {one.name: given.pop(one.name) for one in made}
            command(**given, fields={name: value for name, value in fields.items() if value is not None})

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *made)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del wrapper.__wrapped__  # typer would ask the original for its hints
        return wrapper

    return decorate


def _option(spec: FieldSpec) -> inspect.Parameter:
    word = spec.name.replace("_", "-")
    text = f"{spec.description[0].upper()}{spec.description[1:]}."
    if spec.parse is switch:
        annotation: Any = Annotated[bool | None, typer.Option(f"--{word}/--no-{word}", help=text)]
    else:
        annotation = Annotated[str | None, typer.Option(f"--{word}", metavar=_metavar(spec), help=text)]
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _metavar(spec: FieldSpec) -> str:
    return "|".join(spec.form.split(", ")) if ", " in spec.form else spec.form.upper()
