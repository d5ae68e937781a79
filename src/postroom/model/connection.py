"""A connection that a message brings, which overrides its account's for itself alone (SPEC section 2.1, `dynamic`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .record import record


@dataclass(frozen=True, slots=True)
class OwnConnection:
    """What a message overrides: fields of the account by their names, as JSON has them; each was read and is good."""

    fields: Mapping[str, object] = field(repr=False)


@record
class SealedConnection:
    """A message's own connection as it is stored until the message has ended.

    `target` is the host and port that it leads to, `shown` (JSON) what people may see of it, `sealed` all of it, bound
    to the message.
    """

    message_id: bytes
    application_id: int
    target: str
    shown: str
    sealed: bytes = field(repr=False)


def share(connections: int) -> int:
    """How many of an account's `connections` those that messages bring may be."""
    return max(1, connections // 2)
