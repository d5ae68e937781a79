"""Writes the little of TOML 1.0 that a file of accounts needs; `tomllib` reads it back."""

from __future__ import annotations

import json
from collections.abc import Mapping

#: Writes as in a JSON string all that TOML wants escaped, but for DEL.
_DEL = "\x7f"


def value(given: object) -> str:
    """A text, number, truth value or list of texts as TOML; text with lines keeps them.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int):
        return str(given)
    if isinstance(given, str):
        return _lines(given) if "\n" in given else _quoted(given)
    if isinstance(given, list | tuple):
        return f"[{', '.join(map(value, given))}]"
    raise TypeError(f"{type(given).__name__} has no form here")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace(_DEL, "\\u007f")


def _lines(text: str) -> str:
    # The line end behind the opening quotes is not part of the text.
    return '"""\n' + "\n".join(_quoted(part)[1:-1] for part in text.split("\n")) + '"""'


def table(entries: Mapping[str, object]) -> str:
    """Keys and values, one under the other; keys are bare."""
    return "".join(f"{key} = {value(entry)}\n" for key, entry in entries.items())
