"""Presets: what is known of a provider's relay, as data in `presets.toml` (SPEC section 2.1)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import Fault, InvalidInput
from ..model.account import Account

#: What `Preset.user` says where the user name is the address of the mailbox.
ITS_ADDRESS = "the e-mail address"


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider. `fields` are an account's, for `region` where hosts differ by region (empty: a person must say).

    `user` says what the user name is; `domains` are those of its mailboxes, `mx` the ends of its MX hosts' names.
    """

    name: str
    title: str
    fields: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    user: str = ""
    regions: Mapping[str, str] | None = None
    region: str = ""
    domains: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    at: str = ""

    def filled(self, region: str = "") -> dict[str, Any]:
        """The fields that it gives an account.

        Raises:
            InvalidInput: it has regions and `region` is none of them, or it has none.
        """
        given = dict(self.fields)
        if not self.regions:
            if region:
                raise InvalidInput(Fault("preset_region", f"preset {self.name} has no regions", "leave it out"))
            return given
        chosen = region.lower() or self.region
        if chosen not in self.regions:
            fault = f"{region!r} is none of preset {self.name}" if region else f"preset {self.name} needs one"
            raise InvalidInput(Fault("preset_region", fault, f"write one of {', '.join(self.regions)}"))
        return given | {"host": self.regions[chosen], "preset_region": chosen}

    def takes(self, domain: str, exchangers: tuple[str, ...] = ()) -> bool:
        """Whether mailboxes of `domain`, or whose mail these hosts take, are its."""
        return domain in self.domains or any(
            host == end or host.endswith(f".{end}") for host in exchangers for end in self.mx
        )


@cache
def presets() -> tuple[Preset, ...]:
    """All presets, in the order of the file."""
    text = files(__package__).joinpath("presets.toml").read_text("utf-8")
    return tuple(_preset(entry) for entry in tomllib.loads(text)["preset"])


def _preset(entry: dict[str, Any]) -> Preset:
    fields = dict(entry["fields"])
    regions = entry.get("regions")
    if isinstance(regions, list):
        regions = {region: fields["host"].replace("{region}", region) for region in regions}
    of: dict[str, Any] = {name: tuple(entry.get(name, ())) for name in ("aliases", "domains", "mx", "notes")}
    of |= {name: entry.get(name, "") for name in ("user", "region", "at")}
    return Preset(entry["name"], entry["title"], fields, regions=regions, **of)


@cache
def _by_name() -> dict[str, Preset]:
    return {name: preset for preset in presets() for name in (preset.name, *preset.aliases)}


def find(name: str) -> Preset:
    """The preset called `name`, by one of its names, without regard to case.

    Raises:
        InvalidInput: there is none.
    """
    found = _by_name().get(name.strip().lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), _by_name(), n=3)
        mend = f"did you mean {' or '.join(near)}?" if near else "`postroom accounts presets` lists them"
        raise InvalidInput(Fault("preset", f"there is none called {name!r}", mend))
    return found


def with_preset(fields: Mapping[str, object], current: Account | None = None) -> dict[str, object]:
    """`fields` of an account, and what their preset knows in the place of those not given; what a person gives stays.

    Of an account that has the preset already, only another region is filled in.

    Raises:
        InvalidInput: there is no such preset, or no such region of it.
    """
    name, region = fields.get("preset"), fields.get("preset_region")
    if name is None and region and current is not None:
        name = current.preset
    if not isinstance(name, str) or not name:
        return dict(fields)
    preset = find(name)
    filled = preset.filled(region if isinstance(region, str) else "")
    if current is not None and current.preset == preset.name:
        filled = {key: value for key, value in filled.items() if key in ("host", "preset_region") and region}
    if current is not None:
        filled.pop("kind", None)
    region_too = {name: filled[name] for name in ("preset_region",) if name in filled}
    return {**filled, **fields, "preset": preset.name, **region_too}


def show_preset(preset: Preset) -> dict[str, object]:
    """As doors show it."""
    return {
        "name": preset.name,
        "title": preset.title,
        "aliases": list(preset.aliases),
        "fields": dict(preset.fields),
        "regions": dict(preset.regions or {}),
        "region": preset.region,
        "user": preset.user,
        "domains": list(preset.domains),
        "notes": list(preset.notes),
        "at": preset.at,
    }
