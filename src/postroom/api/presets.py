"""`/v1/presets`: what is known of providers, and which of them an address most likely sends by."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from .parts import TheGateway, to_json

routes = APIRouter(prefix="/v1", tags=["accounts"])


@routes.get("/presets")
async def list_presets(gateway: TheGateway) -> dict[str, Any]:
    """All presets: the fields that each fills in, its regions, what its user name is, and what to heed."""
    return {"presets": gateway.accounts.presets()}


@routes.get("/presets/{name}")
async def get_preset(gateway: TheGateway, name: str) -> dict[str, Any]:
    """One preset, by any of its names."""
    return gateway.accounts.preset(name)


@routes.get("/proposals")
async def propose_account(
    gateway: TheGateway, address: Annotated[str, Query(description="the e-mail address that is to send")]
) -> dict[str, Any]:
    """Accounts that the address could send by, the likeliest first; `sure` says whether the first needs no asking."""
    found: dict[str, Any] = to_json(await gateway.accounts.propose(address))
    return found
