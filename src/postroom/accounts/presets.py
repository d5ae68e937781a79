"""Presets: what is known of a provider's relay, as data in `presets.toml` (SPEC section 2.1)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import Fault, InvalidInput

#: What `Preset.user` says where the user name is the address of the mailbox.
ITS_ADDRESS = "the e-mail address"


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider. `fields` are an account's, for `region` where hosts differ by region (empty: a person must say).

    `user` says what the user name is; `domains` are those of its mailboxes, `mx` the ends of its MX hosts' names,
    `region_of` the regions that such names belong to. `spf` is what SPF records of domains that it sends for include.
    """

    name: str
    title: str
    fields: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    user: str = ""
    regions: Mapping[str, str] | None = None
    region: str = ""
    region_of: Mapping[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    at: str = ""
    spf: str = ""

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
        return domain in self.domains or any(_ends(host, end) for host in exchangers for end in self.mx)

    def region_by(self, names: Sequence[str]) -> str:
        """The region of the first of `names` (a domain, MX hosts) that it knows, by the longest end; or nothing."""
        for name in names:
            ends = [end for end in self.region_of if _ends(name, end)]
            if ends:
                return self.region_of[max(ends, key=len)]
        return ""


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


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
    of |= {name: entry.get(name, "") for name in ("user", "region", "at", "spf")}
    of["region_of"] = entry.get("region_of", {})
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
