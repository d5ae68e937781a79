"""`/v1/deliveries`, the queue page by page, and `/v1/queue/{verb}` for many deliveries at once."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from ..errors import Fault, InvalidInput, NotFound
from ..model.queue import DeliveryState, LaneId, MessageId
from ..store import DeliveryFilter, Selection
from .parts import TheGateway, moment_given, show_delivery

routes = APIRouter(prefix="/v1", tags=["queue"])


class Choice(BaseModel):
    """Deliveries of one account (or of all) in some states (or in all that the verb may move)."""

    model_config = ConfigDict(extra="forbid")

    account: str = ""
    states: list[DeliveryState] = Field(default_factory=list)


@routes.get("/deliveries")
async def list_deliveries(
    gateway: TheGateway,
    state: Annotated[list[DeliveryState] | None, Query(description="any of these")] = None,
    account: str = "",
    recipient: Annotated[str, Query(description="exact, or the beginning of it")] = "",
    domain: Annotated[str, Query(description="of the recipient: exact, or the beginning of it")] = "",
    sender: Annotated[str, Query(description="reverse-path: exact, or the beginning of it")] = "",
    message_id: Annotated[str, Query(description="ours or that of the header: exact, or the beginning of it")] = "",
    application: str = "",
    tag: str = "",
    since: Annotated[str, Query(description="accepted then (ISO 8601) or later; 2d: two days ago")] = "",
    until: Annotated[str, Query(description="accepted before")] = "",
    subject: Annotated[str, Query(description="words that are all in the subject; inv*: a beginning")] = "",
    cursor: Annotated[str, Query(description="`next` of the page before")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> dict[str, Any]:
    """Deliveries, newest message first; `next` is the cursor of the page after, empty at the end. All conditions hold.
    One that takes longer than two seconds is cut (503): dates narrow it."""
    now = gateway.clock.now()
    wanted = DeliveryFilter(
        states=tuple(state or ()),
        lane=LaneId(gateway.accounts.get(account).id) if account else None,
        recipient=recipient.strip(),
        domain=domain.strip().removeprefix("@"),
        sender=sender.strip(),
        message_id=message_id.strip(),
        application=_spelled(gateway, application),
        tag=tag,
        since=moment_given("since", since, now) if since else None,
        until=moment_given("until", until, now) if until else None,
        subject=_words(gateway, subject),
        after=_read_cursor(cursor) if cursor else None,
        limit=limit,
    )
    rows = await gateway.store.deliveries(wanted)
    following = _cursor(rows[-1].message_id, rows[-1].n) if len(rows) == limit else ""
    return {"deliveries": [show_delivery(gateway, row) for row in rows], "next": following}


def _spelled(gateway: TheGateway, application: str) -> str:
    """The application's name as it is written; one that is gone as it is given."""
    try:
        return gateway.applications.get(application).name if application else ""
    except NotFound:
        return application


def _words(gateway: TheGateway, text: str) -> tuple[str, ...]:
    if text and not gateway.settings.subject_search:
        mend = "postroom settings set subject_search on; what is there is then indexed in the background"
        raise InvalidInput(Fault("subject", "words of subjects are not indexed here", mend))
    words = tuple(word for word in text.split() if any(letter.isalnum() for letter in word))
    if text and not words:
        raise InvalidInput(Fault("subject", f"there is no word in {text!r}", "give words that stand in the subject"))
    return words


def _cursor(message_id: MessageId, n: int) -> str:
    return base64.urlsafe_b64encode(message_id + n.to_bytes(4, "big")).decode().rstrip("=")


def _read_cursor(text: str) -> tuple[MessageId, int]:
    try:
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if len(octets) != 20:
            raise ValueError
    except (binascii.Error, ValueError):
        raise InvalidInput(Fault("cursor", f"{text!r} is no cursor", "take `next` of the page before")) from None
    return MessageId(octets[:16]), int.from_bytes(octets[16:], "big")


@routes.post("/queue/{verb}")
async def change_queue(
    gateway: TheGateway, verb: Literal["hold", "release", "retry", "cancel"], choice: Choice
) -> dict[str, Any]:
    """Hold, release, retry or cancel all deliveries of the choice; `moved` says how many."""
    lane = LaneId(gateway.accounts.get(choice.account).id) if choice.account else None
    moved = await getattr(gateway, verb)(Selection(lane=lane, states=tuple(choice.states)))
    return {"moved": moved}
