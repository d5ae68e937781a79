"""`/v1/explain`: what would become of a message, without sending it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from .parts import TheGateway, to_json

routes = APIRouter(prefix="/v1", tags=["messages"])


class ExplainOrder(BaseModel):
    """A message that might be sent."""

    model_config = ConfigDict(extra="forbid")

    application: str = Field("local", description="who sends it")
    sender: str = Field("", description="reverse-path; empty: the application's own address, if it has one")
    recipients: list[str] = Field(min_length=1, max_length=1000, description="to whom")
    header: str = Field("", description="fields of its header, one a line; without From: the sender's address")
    account: str = Field("", description="the account that it names")


@routes.post("/explain")
async def explain_message(gateway: TheGateway, order: ExplainOrder) -> dict[str, Any]:
    """For each recipient: which account, each rewrite, which limits, and why each other account was passed over."""
    found = gateway.answers.explain_route(
        order.application, order.sender, order.recipients, order.header.splitlines(), order.account
    )
    return {"recipients": to_json(found)}
