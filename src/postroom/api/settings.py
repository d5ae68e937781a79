"""`/v1/settings`: every setting with its value and where that comes from; changes take effect without a restart."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from .parts import TheGateway, to_json

routes = APIRouter(prefix="/v1/settings", tags=["settings"])

Values = Annotated[dict[str, Any], Body(description="values by the settings' names; null goes back to the default")]


@routes.get("")
async def list_settings(gateway: TheGateway) -> dict[str, Any]:
    """All settings: value, where it comes from, whether it is locked, when a change takes effect."""
    return {"settings": to_json(gateway.configuration.snapshot())}


@routes.patch("")
async def change_settings(gateway: TheGateway, values: Values) -> dict[str, Any]:
    """Change settings: all that are named, or none."""
    await gateway.configuration.change(values)
    return {"settings": to_json([gateway.configuration.get(name) for name in values])}


@routes.get("/{name}")
async def get_setting(gateway: TheGateway, name: str) -> dict[str, Any]:
    """One setting."""
    shown: dict[str, Any] = to_json(gateway.configuration.get(name))
    return shown


@routes.delete("/{name}")
async def reset_setting(gateway: TheGateway, name: str) -> dict[str, Any]:
    """Forget what is stored for a setting; what it is then."""
    await gateway.configuration.change({name: None})
    shown: dict[str, Any] = to_json(gateway.configuration.get(name))
    return shown
