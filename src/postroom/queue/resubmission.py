"""Sending again what has ended: a new message for those whom the old one did not reach."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..errors import StateConflict
from ..model.application import Application
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


def resubmission(
    view: MessageView, again: Sequence[DeliveryRow], application: Application, content: Content, now: datetime
) -> Submission:
    """The message of `view` once more, for the recipients of `again`; it names the old one."""
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
    )
