"""What every route needs: the gateway it serves, and the model's values as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from ..errors import Fault, InvalidInput, NotFound
from ..model.explanation import Times
from ..model.ids import message_id_text, parse_message_id
from ..model.quantity import QuantityFault, format_duration, parse_duration
from ..model.queue import LaneId, MessageId
from ..store import DeliveryRow, MessageView

if TYPE_CHECKING:
    from ..gateway import Gateway


_SECOND = timedelta(seconds=1)


def _gateway(request: Request) -> Any:
    return request.app.state.gateway


#: A route's parameter of this type is the gateway.
if TYPE_CHECKING:
    TheGateway = Gateway
else:
    TheGateway = Annotated[Any, Depends(_gateway)]


def to_json(value: Any) -> Any:
    """`value` of the model as JSON: times in ISO 8601 (UTC), durations as people write them, ids as UUIDs."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value.value, int) else value.value
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, bytes):
        return message_id_text(MessageId(value)) if len(value) == 16 else ""
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(entry) for entry in value]
    return value


def moment_given(field: str, text: str, now: datetime) -> datetime:
    """The time that a parameter says: in ISO 8601 (UTC where it has no zone), or so long before `now`, as in 2d.

    Raises:
        InvalidInput: it is neither.
    """
    with contextlib.suppress(QuantityFault):
        return now - parse_duration(text)
    try:
        given = datetime.fromisoformat(text)
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        mend = "write 2026-11-20, 2026-11-20T08:30:00Z or, for a time that long ago, 2d"
        raise InvalidInput(Fault(field, f"{text!r} is no time", mend)) from None


async def message_of(gateway: Gateway, message_id: str) -> MessageView:
    """The message of that id.

    Raises:
        NotFound: there is none.
    """
    view = await gateway.store.message(parse_message_id(message_id))
    if view is None:
        raise NotFound(Fault("id", f"there is no message {message_id}", "take it from `postroom queue list`"))
    return view


def account_names(gateway: Gateway) -> dict[LaneId, str]:
    """The account of each lane."""
    return {LaneId(account.id): account.name for account in gateway.accounts.snapshot()}


def show_delivery(gateway: Gateway, row: DeliveryRow) -> dict[str, Any]:
    """A delivery as JSON, with the name of its account instead of the lane."""
    shown: dict[str, Any] = to_json(row)
    lane = shown.pop("lane")
    for name in ("own_window", "own_give_up"):
        del shown[name]
    return shown | {"account": account_names(gateway).get(lane, "")} | show_times(gateway.deadlines.times(row))


def show_times(times: Times) -> dict[str, Any]:
    """What is ahead of a delivery as JSON; what is left of its window to the second."""
    left = times.window_left
    shown: dict[str, Any] = to_json(times)
    return shown | {"window_left": None if left is None else format_duration(timedelta(seconds=left // _SECOND))}
