"""What is noted for the sender's sake until a report tells of it (RFC 3464; SPEC section 3, notifications)."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from .content import Content
from .envelope import Address
from .queue import DeliveryState, LaneId, MessageId
from .record import record


class NoticeKind(StrEnum):
    """What happened to a delivery; the value is the `Action` of a report (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"  # delivered to a relay that makes no reports of success (RFC 3461 section 5.2.2)


#: The word of NOTIFY that asks for each (RFC 3461 section 4.1).
ASKED_BY = {NoticeKind.FAILED: "FAILURE", NoticeKind.DELAYED: "DELAY", NoticeKind.RELAYED: "SUCCESS"}


def is_asked(kind: NoticeKind, notify: str) -> bool:
    """Whether a recipient's NOTIFY asks for it; without one, failures and delays are told (RFC 3461 section 4.1)."""
    return ASKED_BY[kind] in notify.split(",") if notify else kind is not NoticeKind.RELAYED


@record
class Notice:
    """One delivery of which a report shall tell: its recipient, where it is now, and how its last attempt ended.

    `status` is an enhanced status code, `reply` the words of the other side or of Postroom: of the other side where
    `command` names what they answered. `remote_host` is empty where no other side was reached. `window_from` starts the
    retry window.
    """

    n: int
    kind: NoticeKind
    recipient: Address
    orcpt: str
    state: DeliveryState
    window_from: datetime
    status: str
    reply: str
    command: str
    advice: str
    remote_host: str
    last_attempt: datetime | None
    lane: LaneId = LaneId(0)
    own_window: timedelta | None = None

    @property
    def is_moot(self) -> bool:
        """A delay of what has ended since: there is nothing to tell any more."""
        return self.kind is NoticeKind.DELAYED and self.state.is_final


@record
class NoticedMessage:
    """A message with what is to be told of it. `content` has its head, and its body only where RET asks for it."""

    id: MessageId
    door: str
    application: str
    reverse_path: Address
    eight_bit: bool
    accepted: datetime
    subject: str
    header_message_id: str
    ret: str
    envid: str
    content: Content
    notices: tuple[Notice, ...]
