"""Options that commands share, and options made from the fields of accounts and applications."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..errors import Fault, InvalidInput
from ..model.fields import FieldSpec

if TYPE_CHECKING:
    from ..config import Settings

Data = Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="The data folder; else POSTROOM_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reset = Annotated[
    list[str] | None,
    typer.Option("--reset", metavar="FIELD", help="Take a field back to its default; forgets a secret."),
]


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
    """Give a command an option for each field of `specs`; it gets those that were used as its argument `fields`.

    What has lines, and what is secret, is read from the file named: others see the command line.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "fields"
        ]
        offered = [spec for spec in specs.values() if spec.name not in leave_out]
        made = [_option(spec) for spec in offered]

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            values = {spec.name: given.pop(spec.name) for spec in offered}
            fields = {spec.name: _value(spec, values[spec.name]) for spec in offered if values[spec.name] is not None}
            command(**given, fields=fields)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *made)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del wrapper.__wrapped__  # typer would ask the original for its hints
        return wrapper

    return decorate


def _option(spec: FieldSpec) -> inspect.Parameter:
    word = option_word(spec)
    text = f"{spec.description[0].upper()}{spec.description[1:]}."
    if spec.is_switch:
        annotation: Any = Annotated[bool | None, typer.Option(f"{word}/--no-{word[2:]}", help=text)]
    elif spec.secret or spec.is_text_file:
        annotation = Annotated[Path | None, typer.Option(word, metavar="FILE", help=text)]
    else:
        annotation = Annotated[str | None, typer.Option(word, metavar=_metavar(spec), help=text)]
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def option_word(spec: FieldSpec) -> str:
    """The option that sets a field; that of a secret names a file."""
    word = "--" + spec.name.replace("_", "-")
    return f"{word}-file" if spec.secret else word


def _metavar(spec: FieldSpec) -> str:
    return "|".join(spec.form.split(", ")) if ", " in spec.form else spec.form.upper()


def _value(spec: FieldSpec, given: Any) -> Any:
    if not isinstance(given, Path):
        return given
    text = read_text(given, option_word(spec))
    return text if spec.is_text_file else text.partition("\n")[0].rstrip("\r")


def read_text(path: Path, option: str) -> str:
    """The text of a file that `option` names; `-` is standard input.

    Raises:
        InvalidInput: it can't be read.
    """
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        mend = "name a text file that you may read"
        raise InvalidInput(Fault(option, f"{path} can't be read: {error}", mend)) from None


def reset_to_default(fields: dict[str, Any], reset: list[str] | None) -> None:
    """Add what `--reset` names to the fields that are changed."""
    fields.update({name.strip("-").replace("-", "_"): None for name in reset or ()})


def quoted(name: str) -> str:
    """A name as it stands in a path."""
    from urllib.parse import quote

    return quote(name, safe="")
