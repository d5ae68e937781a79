"""`/v1/.../reroute`: moving mail to another account by a person's hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from ..errors import Fault, NotFound, StateConflict
from ..gateway import Covering, Rerouted
from ..model.queue import LaneId
from ..store import Selection
from .deliveries import Choice
from .parts import TheGateway, message_of

routes = APIRouter(prefix="/v1", tags=["queue"])

_MAY_DUPLICATE = "also what a relay may have already: it may arrive twice"


class ReroutedChoice(Choice):
    """Deliveries of one account (or of all), which move to the account `to`, or go by the routes of today."""

    to: str = ""
    senders: str = Field("", description="patterns that cover the reverse-path; empty: all")
    recipients: str = Field("", description="patterns that cover the recipient; empty: all")
    may_duplicate: bool = Field(False, description=_MAY_DUPLICATE)


@routes.post("/messages/{message_id}/reroute")
async def reroute_message(
    gateway: TheGateway,
    message_id: str,
    n: int | None = None,
    to: Annotated[str, Query(description="the account; empty: by the routes of today")] = "",
    may_duplicate: Annotated[bool, Query(description=_MAY_DUPLICATE)] = False,
) -> dict[str, Any]:
    """Move the deliveries of a message (or its delivery `n` alone) that wait or are held to another account.

    Without `to` they go where they would go if they came today. `moved` says how many, `accounts` where to, `left` how
    many stay, and why.
    """
    view = await message_of(gateway, message_id)
    rows = [row for row in view.deliveries if n is None or row.n == n]
    done = await gateway.reroute(Selection(message_id=view.id, n=n), to, may_duplicate=may_duplicate)
    if not rows:
        raise NotFound(Fault("n", f"message {message_id} has no delivery {n}", "`postroom queue show` lists them"))
    if not any(done.moved.values()):
        states = ", ".join(sorted({row.state.value for row in rows}))
        raise StateConflict("; ".join([f"there is nothing to reroute: {states}", *sorted(done.left)]))
    return {"id": message_id} | _shown(gateway, done)


@routes.post("/queue/reroute")
async def reroute_queue(gateway: TheGateway, choice: ReroutedChoice) -> dict[str, Any]:
    """Move all deliveries of the choice that wait or are held to another account; the answer as for a message."""
    lane = LaneId(gateway.accounts.get(choice.account).id) if choice.account else None
    selection = Selection(lane=lane, states=tuple(choice.states))
    covering = Covering.read(choice.senders, choice.recipients)
    done = await gateway.reroute(selection, choice.to, may_duplicate=choice.may_duplicate, only=covering)
    return _shown(gateway, done)


def _shown(gateway: TheGateway, done: Rerouted) -> dict[str, Any]:
    moved = {name: count for name, count in done.moved.items() if count}
    return {
        "moved": sum(moved.values()),
        "accounts": moved,
        "left": dict(done.left),
        "warnings": list(_warnings(gateway, moved)),
    }


def _warnings(gateway: TheGateway, names: Iterable[str]) -> Iterable[str]:
    """What keeps each account from sending now."""
    for name in names:
        account = gateway.accounts.get(name)
        circuit = gateway.answers.circuit(account)
        if not account.enabled:
            yield f"account {name} is off: it waits there, or falls back; postroom accounts edit {name} --enabled"
        elif not circuit.may_send:
            yield f"account {name} sends nothing now ({circuit.health.value}: {circuit.reason})"
