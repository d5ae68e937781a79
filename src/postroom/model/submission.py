"""What a door hands to the intake, and what it gets back."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from ..errors import Fault, InvalidInput
from .account import Retry
from .application import Application
from .connection import OwnConnection
from .content import Content
from .envelope import Envelope
from .queue import MessageId, PriorityClass
from .record import record


class Door(StrEnum):
    """A way in."""

    SMTP = "smtp"
    CLI = "cli"
    REST = "rest"
    NOTIFICATION = "notification"  # made by Postroom about another message


@record
class Submission:
    """A message as a door received it.

    `with_protocol` is the keyword of the trace header (RFC 3848: ESMTP, ESMTPS, ESMTPSA, ...), empty where it came by
    none; `peer` the client's address, `helo` what it called itself. `account` names the account to use, if the sender
    chose one; `tag` is a word of the sender's by which messages are found again; `connection` is one that the message
    brings, which overrides its account's.
    """

    door: Door
    application: Application
    envelope: Envelope
    content: Content
    received: datetime
    peer: str = ""
    helo: str = ""
    with_protocol: str = "ESMTP"
    account: str = ""
    priority: PriorityClass = PriorityClass.NORMAL
    resubmits: MessageId | None = None
    tag: str = ""
    retry: Retry | None = None
    connection: OwnConnection | None = None


TAG_CHARACTERS = 100

#: The classes as people write them.
PRIORITIES = "urgent, normal or bulk"


def check_tag(tag: str) -> None:
    """See that `tag` is empty or can be one.

    Raises:
        InvalidInput: it is too long, or has what is not seen.
    """
    mend = f"give 1 to {TAG_CHARACTERS} characters, as in newsletter-2026"
    if len(tag) > TAG_CHARACTERS:
        raise InvalidInput(Fault("tag", f"is {len(tag)} characters long", mend))
    if not tag.isprintable() or tag != tag.strip():
        raise InvalidInput(Fault("tag", "begins or ends with a space, or has a character that is not seen", mend))


def parse_priority(text: str, field: str = "priority") -> PriorityClass:
    """The class that `text` names.

    Raises:
        InvalidInput: there is none of that name.
    """
    try:
        return PriorityClass[text.upper()]
    except KeyError:
        mend = f"write {PRIORITIES}"
        raise InvalidInput(Fault(field, f"{text!r} is no class", mend)) from None


@record
class Accepted:
    """A message that is durable: its id, and the account that each recipient was routed to."""

    id: MessageId
    accounts: tuple[str, ...]
