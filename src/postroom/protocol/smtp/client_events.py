"""What an SMTP client machine tells, one event at a time."""

from __future__ import annotations

from dataclasses import dataclass

from ...model.reply import Reply
from .transaction import MailTransaction


@dataclass(slots=True, eq=False)
class Answered:
    """The greeting (`reply.command` is "") or a command outside transactions was answered."""

    reply: Reply


@dataclass(slots=True, eq=False)
class MailAnswered:
    """The MAIL of `transaction`, which is watched, was answered."""

    transaction: MailTransaction


@dataclass(slots=True, eq=False)
class ContentWanted:
    """354, and at least one recipient was accepted: write the content of `transaction`."""

    transaction: MailTransaction


@dataclass(slots=True, eq=False)
class TransactionEnded:
    """The last reply of `transaction` is there; it has no error."""

    transaction: MailTransaction


@dataclass(slots=True, eq=False)
class ConnectionEnded:
    """Nothing more will come. `reply` is the 421 that said so, if one did; call `give_up` for what had not ended."""

    reason: str
    reply: Reply | None = None


Event = Answered | MailAnswered | ContentWanted | TransactionEnded | ConnectionEnded
