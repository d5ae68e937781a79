"""`/v1/suppressions`: addresses and domains that mail is not sent to."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from ..errors import Fault, InvalidInput
from ..gateway import GivenSuppression
from ..model.suppression import Suppression
from .parts import TheGateway, to_json

routes = APIRouter(prefix="/v1/suppressions", tags=["suppressions"])

_EXPIRES = "a duration from now, as in 90d, or a date in ISO 8601; empty: never"


class NewEntry(BaseModel):
    """An entry to put on the list."""

    model_config = ConfigDict(extra="forbid")

    entry: str = Field(description="an address, or a domain for every address at it")
    reason: str = Field("", description="one line, shown with the messages that end by it")
    expires: str = Field("", description=_EXPIRES)


class Import(BaseModel):
    """Entries to put on the list, all of them or none; `reason` and `expires` where an entry has none of its own."""

    model_config = ConfigDict(extra="forbid")

    entries: list[NewEntry] = Field(description="at most 10,000 at a time")
    reason: str = ""
    expires: str = Field("", description=_EXPIRES)


def _shown(gateway: TheGateway, entry: Suppression) -> dict[str, Any]:
    shown: dict[str, Any] = to_json(entry)
    kind = "domain" if entry.is_domain else "address"
    return {"entry": shown.pop("key"), "kind": kind} | shown | {"expired": not gateway.suppressions.holds(entry)}


@routes.get("")
async def list_suppressions(
    gateway: TheGateway,
    prefix: Annotated[str, Query(description="what entries begin with")] = "",
    cursor: Annotated[str, Query(description="`next` of the page before")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> dict[str, Any]:
    """The list in order, with what has expired; `next` is the cursor of the page after, empty at the end."""
    page = await gateway.suppressions.page(prefix, _read_cursor(cursor), limit)
    following = _cursor(page[-1].key) if len(page) == limit else ""
    return {"suppressions": [_shown(gateway, entry) for entry in page], "next": following}


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _read_cursor(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        raise InvalidInput(Fault("cursor", f"{text!r} is no cursor", "take `next` of the page before")) from None


@routes.post("", status_code=201)
async def add_suppression(gateway: TheGateway, new: NewEntry) -> dict[str, Any]:
    """Put an entry on the list, in the place of the one that is there; it applies to the next message."""
    return _shown(gateway, await gateway.suppressions.add(GivenSuppression(new.entry, new.reason, new.expires)))


@routes.post("/import")
async def import_suppressions(gateway: TheGateway, given: Import) -> dict[str, Any]:
    """Put many entries on the list, all of them or none; `new` of them were not on it."""
    entries = [
        GivenSuppression(one.entry, one.reason or given.reason, one.expires or given.expires) for one in given.entries
    ]
    imported: dict[str, Any] = to_json(await gateway.suppressions.import_(entries))
    return imported


@routes.get("/{entry:path}")
async def get_suppression(gateway: TheGateway, entry: str) -> dict[str, Any]:
    """One entry, that of an address or of a domain."""
    return _shown(gateway, await gateway.suppressions.get(entry))


@routes.delete("/{entry:path}", status_code=204)
async def remove_suppression(gateway: TheGateway, entry: str) -> Response:
    """Take an entry off the list; mail that ended by it stays ended."""
    await gateway.suppressions.remove(entry)
    return Response(status_code=204)
