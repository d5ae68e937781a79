"""`/v1/events`: what happened, page by page from a cursor, or waited for."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from ..errors import Fault, InvalidInput
from ..model.ids import parse_message_id
from ..model.quantity import QuantityFault, parse_duration
from ..store import EventFilter
from .parts import TheGateway, to_json

routes = APIRouter(prefix="/v1", tags=["events"])

#: The longest that a request waits for an event.
LONGEST_WAIT = timedelta(minutes=1)


@routes.get("/events")
async def list_events(
    gateway: TheGateway,
    request: Request,
    message: Annotated[str, Query(description="of this message")] = "",
    account: Annotated[str, Query(description="of this account")] = "",
    kind: Annotated[list[str] | None, Query(description="exact, or its first word as `account`; any of these")] = None,
    after: Annotated[str, Query(description="`next` of the page before; without it the newest events")] = "",
    wait: Annotated[str, Query(description="how long to wait where there is none yet, as in 30s; at most 1m")] = "0s",
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> dict[str, Any]:
    """Events, oldest first. `next` goes on behind all that was looked at; with `at_end` there is nothing behind it yet.
    A page may be empty before the end, where few events match: go on with `next`."""
    wanted = EventFilter(
        after=_cursor(after) if after else None,
        message_id=parse_message_id(message) if message else None,
        account=(gateway.accounts.spelling(account) or account) if account else "",
        kinds=tuple(kind or ()),
        limit=limit,
    )
    page = await gateway.events(wanted, _patience(wait), request.app.state.is_ending)
    return {"events": to_json(page.events), "next": str(page.cursor), "at_end": page.at_end}


def _cursor(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise InvalidInput(Fault("after", f"{text!r} is no cursor", "take `next` of the page before"))
    return int(text)


def _patience(text: str) -> timedelta:
    try:
        return min(parse_duration(text), LONGEST_WAIT)
    except QuantityFault as error:
        raise InvalidInput(Fault("wait", error.fault, error.mend)) from None
