"""Sending again what has ended: a new message for those whom the old one did not reach."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..errors import StateConflict
from ..model.application import Application
from ..model.connection import OwnConnection
from ..model.content import Content
from ..model.envelope import DsnRequest, Envelope
from ..model.queue import DeliveryState
from ..model.submission import Door, Submission
from ..store import DeliveryRow, MessageView


def unreached(view: MessageView) -> Sequence[DeliveryRow]:
    """The deliveries that ended without being delivered.

    Raises:
        StateConflict: there is none.
    """
    again = [row for row in view.deliveries if row.state.is_final and row.state is not DeliveryState.DELIVERED]
    if not again:
        raise StateConflict("no recipient of this message ended without delivery")
    return again


def own_connection(view: MessageView) -> OwnConnection | None:
    """The connection that the message of `view` brought, to be brought again.

    Raises:
        StateConflict: it had secrets, which ended with it.
    """
    if view.connection is None:
        return None
    fields = {name: value for name, value in view.connection.items() if name not in ("target", "secrets")}
    if secrets := view.connection.get("secrets"):
        what = f"the message brought a connection of its own, whose {' and '.join(secrets)} ended with it"
        raise StateConflict(f"{what}: send it anew with its connection")
    return OwnConnection(fields)


def resubmission(
    view: MessageView, again: Sequence[DeliveryRow], application: Application, content: Content, now: datetime
) -> Submission:
    """The message of `view` once more, for the recipients of `again`; it names the old one. Raises as
    `own_connection` does."""
    dsn = DsnRequest.of(view.ret, view.envid, tuple(row.notify for row in again), tuple(row.orcpt for row in again))
    return Submission(
        door=Door(view.door),
        application=application,
        envelope=Envelope(view.reverse_path, tuple(row.recipient for row in again), view.eight_bit, view.smtputf8, dsn),
        content=content,
        received=now,
        priority=view.priority,
        resubmits=view.id,
        tag=view.tag,
        connection=own_connection(view),
    )
