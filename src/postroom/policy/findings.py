"""What a connection test finds beside replies and failures, as data in `findings.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Finding:
    """One entry; in `cause` and `advice` words in braces stand for what was found, `change` is as that of a rule."""

    name: str
    cause: str
    advice: str
    change: Mapping[str, str]
    source: str


@cache
def findings() -> Mapping[str, Finding]:
    """All of them by name, in the order of the file."""
    text = files(__package__).joinpath("findings.toml").read_text("utf-8")
    entries = tomllib.loads(text)["finding"]
    return {
        one["name"]: Finding(one["name"], one["cause"], one["advice"], one.get("change", {}), one["source"])
        for one in entries
    }
