"""`/v1/accounts/{name}/authorization`: the consents that accounts with OAuth 2 rest on. Tokens are never given out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from ..errors import Fault, InvalidInput
from .parts import TheGateway, to_json

routes = APIRouter(prefix="/v1/accounts/{name}/authorization", tags=["accounts"])


class Begin(BaseModel):
    """How a person shall consent: one of these."""

    model_config = ConfigDict(extra="forbid")

    redirect_uri: str = Field("", description="where the browser is sent with the answer: below `public_url`")
    port: int = Field(0, ge=0, le=65535, description="of this machine's loopback address, where a program waits for it")
    device: bool = Field(False, description="by a code that is typed on another device")


class Answer(BaseModel):
    """What the browser brought back: the parameters of the redirect."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, str] = Field(json_schema_extra={"writeOnly": True})


class Poll(BaseModel):
    """Which device code."""

    model_config = ConfigDict(extra="forbid")

    state: str


@routes.get("")
async def get_authorization(gateway: TheGateway, name: str) -> dict[str, Any]:
    """How the account stands: whether somebody has consented, and when tokens, secret and certificate expire."""
    account = gateway.accounts.get(name)
    return {"account": account.name, "authorization": to_json(await gateway.consents.of(account))}


@routes.post("", status_code=201)
async def begin_authorization(gateway: TheGateway, name: str, begin: Begin) -> dict[str, Any]:
    """Ask for a consent: the address that a person opens, or the code to type. It is good once, for some minutes."""
    account = gateway.accounts.get(name)
    if (bool(begin.redirect_uri), bool(begin.port), begin.device).count(True) != 1:
        raise InvalidInput(Fault("redirect_uri", "or port or device: one of them is needed", "give one"))
    found: dict[str, Any]
    if begin.device:
        found = to_json(await gateway.consents.begin_device(account))
    elif begin.port:
        found = to_json(await gateway.consents.begin_on_loopback(account, begin.port))
    else:
        found = to_json(await gateway.consents.begin(account, begin.redirect_uri))
    return found


@routes.post("/answer")
async def answer_authorization(gateway: TheGateway, name: str, answer: Answer) -> dict[str, Any]:
    """Hand in what the browser brought back; from then on the account sends."""
    account = gateway.accounts.get(name)
    given = await gateway.consents.complete(account, answer.parameters)
    return {"account": account.name, "authorization": to_json(given)}


@routes.post("/poll")
async def poll_authorization(gateway: TheGateway, name: str, poll: Poll) -> dict[str, Any]:
    """Whether the code was typed by now; ask no more often than the interval, with `slower` 5 seconds less often."""
    account = gateway.accounts.get(name)
    found = await gateway.consents.poll(account, poll.state)
    slower = getattr(found, "slower", None)
    shown = to_json(found) if slower is None else None
    return {"account": account.name, "waiting": shown is None, "slower": bool(slower), "authorization": shown}


@routes.delete("", status_code=204)
async def forget_authorization(gateway: TheGateway, name: str) -> Response:
    """Forget tokens and consent; a refresh token in the account's own field stays."""
    await gateway.consents.forget(gateway.accounts.get(name))
    return Response(status_code=204)
