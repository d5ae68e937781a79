"""An account's fields filled in by its preset, and taken back when another preset comes (SPEC section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Fault, InvalidInput
from ..model.account import Account
from .fields import ACCOUNT_FIELDS
from .presets import Preset, find, presets


def with_preset(fields: Mapping[str, object], current: Account | None = None) -> dict[str, object]:
    """`fields` of an account, and what their preset knows in the place of those not given; what a person gives stays.

    Of an account that has the preset already, only another region is filled in. What another preset filled in before,
    and nobody changed since, goes back to its default.

    Raises:
        InvalidInput: there is no such preset, or no such region of it, or the user name was that of another preset.
    """
    name, region = fields.get("preset"), fields.get("preset_region")
    if name is None and region and current is not None:
        name = current.preset
    if not isinstance(name, str) or not name:
        return dict(fields)
    preset = find(name)
    again = current is not None and current.preset == preset.name
    if again and "preset_region" not in fields:
        return {**fields, "preset": preset.name}
    filled = preset.filled(region if isinstance(region, str) else "")
    if again:
        filled = {key: value for key, value in filled.items() if key in ("host", "preset_region") and region}
    elif current is not None:
        filled = _taken_back(current, preset, fields) | filled
        filled.pop("kind", None)
    region_too = {name: filled[name] for name in ("preset_region",) if name in filled}
    return {**filled, **fields, "preset": preset.name, **region_too}


def _taken_back(current: Account, preset: Preset, given: Mapping[str, object]) -> dict[str, Any]:
    """Nulls for the fields that hold what the account's present preset filled in, now that `preset` takes its place."""
    old = next((one for one in presets() if one.name == current.preset), None)
    if old is None:
        return {}
    filled = dict(old.fields)
    if old.regions:
        region = current.preset_region
        filled |= {"host": old.regions.get(region, ""), "preset_region": region}
    specs = [ACCOUNT_FIELDS[name] for name in filled if name != "kind"]
    back: dict[str, Any] = {spec.name: None for spec in specs if spec.parse(filled[spec.name]) == spec.of(current)}
    if "username" in back and preset.user and not {"username", "authentication"} & {*given, *preset.fields}:
        fault = f"{current.username!r} is that of preset {old.name}"
        raise InvalidInput(Fault("username", fault, f"give that of preset {preset.name}: {preset.user}"))
    if "authentication" in back and preset.user:
        back["authentication"] = "password"
    return back
