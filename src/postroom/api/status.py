"""`/v1/status`, `/v1/check`, `/v1/drain`, `/v1/backup` and `/v1/keys/rotate`: how the gateway is and is kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from ..errors import Fault, InvalidInput, NotRunning
from ..model.quantity import QuantityFault, parse_duration
from .parts import TheGateway, to_json

routes = APIRouter(prefix="/v1", tags=["status"])


@routes.get("/status")
async def get_status(gateway: TheGateway) -> dict[str, Any]:
    """Each account with its health and how many deliveries it has in each state."""
    status: dict[str, Any] = to_json(await gateway.answers.status())
    return status


@routes.get("/check")
async def check_gateway(gateway: TheGateway) -> dict[str, Any]:
    """Findings about settings, folder, keys, database, accounts, applications and listeners."""
    from ..diagnosis.check import check  # here: only this route needs it

    status = await gateway.answers.status()
    findings = await check(
        gateway.settings,
        gateway.accounts.snapshot(),
        gateway.applications.snapshot(),
        {account.id: gateway.answers.circuit(account) for account in gateway.accounts.snapshot()},
        is_running=bool(status.get("running")),
        unusable=gateway.configuration.unusable,
    )
    return {"findings": to_json(findings)}


class BackupOrder(BaseModel):
    """Where to put a backup."""

    model_config = ConfigDict(extra="forbid")

    folder: str = Field(description="absolute path of the folder to make, on the gateway's machine")
    with_keys: bool = Field(False, description="take the keys along, which open every stored secret")


@routes.post("/backup")
async def make_backup(gateway: TheGateway, order: BackupOrder) -> dict[str, Any]:
    """A copy of the data folder as it is at one moment, proved to be whole; mail goes on meanwhile."""
    folder = Path(order.folder)
    if not folder.is_absolute():
        raise InvalidInput(Fault("folder", f"{order.folder!r} is not an absolute path", "begin it with /"))
    made: dict[str, Any] = to_json(await gateway.backup(folder, with_keys=order.with_keys))
    return made


@routes.post("/keys/rotate")
async def rotate_keys(gateway: TheGateway) -> dict[str, Any]:
    """A new key for what is sealed from now on, and everything sealed so far sealed anew under it."""
    done: dict[str, Any] = to_json(await gateway.rotate_keys())
    return done


@routes.post("/drain")
async def drain(
    gateway: TheGateway, patience: Annotated[str, Query(description="how long to wait, as in 30s")] = "30s"
) -> dict[str, Any]:
    """Wait until nothing is queued, being sent or deferred; `drained` says whether that came in time."""
    try:
        longest = min(parse_duration(patience), timedelta(hours=1))
    except QuantityFault as error:
        raise InvalidInput(Fault("patience", error.fault, error.mend)) from None
    if not (await gateway.answers.status()).get("running"):
        raise NotRunning("the gateway is not delivering, so nothing would leave: start it with `postroom serve`")
    return {"drained": await gateway.wait_drained(longest)}
