"""`/v1/accounts/{name}/test` and `/v1/accounts/test`: an account's connection tried stage by stage, saved or not.

Who may ask is an administrator: a definition may lead anywhere, and the stored account's secrets go with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ..errors import InvalidInput
from ..gateway import ACCOUNT_DEFAULTS, ACCOUNT_FIELDS, Wanted
from .parts import TheGateway
from .schema import fields_schema

routes = APIRouter(prefix="/v1/accounts", tags=["accounts"])

#: The media type of an answer that comes stage by stage: a JSON object in each line.
LINES = "application/x-ndjson"

_SCHEMA = fields_schema(ACCOUNT_FIELDS, ACCOUNT_DEFAULTS)


class Test(BaseModel):
    """What to test. The envelope is asked about and taken back; only `send` sends a message."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    to: str = Field("", description="a recipient to ask about")
    sender: str = Field("", alias="from", description="the sender; else as whom the account sends")
    send: bool = Field(False, description="send one real message to the recipient")
    fields: dict[str, Any] = Field(
        default_factory=dict,
        description="fields of an account that are not saved",
        json_schema_extra=lambda schema: schema.update(_SCHEMA),
    )

    def wanted(self) -> Wanted:
        """As the gateway takes it."""
        return Wanted(self.to, self.sender, self.send)


Accept = Annotated[str, Header(description=f"`{LINES}`: each stage as it comes, and the result last")]


@routes.post("/test")
async def test_definition(gateway: TheGateway, test: Test, accept: Accept = "") -> Response:
    """Test an account that is not saved, by its fields; nothing is kept."""
    return await _answer(gateway, gateway.accounts.trial(test.fields), test, accept)


@routes.post("/{name}/test")
async def test_account(gateway: TheGateway, name: str, test: Test, accept: Accept = "") -> Response:
    """Test an account as it is, or with `fields` changed; nothing is kept. Its stored secrets are used."""
    return await _answer(gateway, gateway.accounts.trial(test.fields, name), test, accept)


async def _answer(gateway: TheGateway, account: Any, test: Test, accept: str) -> Response:
    gateway.trials.require_sound(test.wanted())
    if LINES in accept:
        return StreamingResponse(_lines(gateway, account, test), media_type=LINES)
    result = await gateway.trials.run(account, test.wanted())
    return Response(json.dumps(result.show(), ensure_ascii=False), media_type="application/json")


async def _lines(gateway: TheGateway, account: Any, test: Test) -> AsyncIterator[str]:
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    running = asyncio.create_task(gateway.trials.run(account, test.wanted(), events.put_nowait))
    running.add_done_callback(lambda task: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield json.dumps(event, ensure_ascii=False) + "\n"
        yield json.dumps({"event": "result"} | (await running).show(), ensure_ascii=False) + "\n"
    finally:  # who asked may have gone
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, InvalidInput):
            await running
