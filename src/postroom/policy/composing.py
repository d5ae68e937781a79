"""Who a message is from that Postroom composes, and where its answers go (SPEC section 2.5)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Fault, InvalidInput
from ..mime.address import Mailbox
from ..model.account import Account
from ..model.application import Application


@dataclass(frozen=True, slots=True)
class ComposedSender:
    """From and Reply-To of a composed message; no Reply-To where answers go to From."""

    sender: Mailbox
    reply_to: tuple[Mailbox, ...]


def composed_sender(
    own: Mailbox | None,
    reply_to: tuple[Mailbox, ...],
    application: Application,
    account: Account,
    postmaster: str,
) -> ComposedSender:
    """What the message says itself (`own`, `reply_to`), else the application's address, else the account's fields.

    `account` is the first recipient's. `postmaster` is "" unless it is forced: it stands in where there is nobody else.

    Raises:
        InvalidInput: there is nobody.
    """
    fields = account.sender
    sender = own
    if sender is None and application.address:
        sender = Mailbox(application.address)
    if sender is None and fields.address:
        sender = Mailbox(fields.address, fields.full_name)
    if sender is None and postmaster:
        sender = Mailbox(postmaster)
    if sender is None:
        mend = (
            f"name one, or give application {application.name} an --address, or account {account.name} "
            "an --email-address"
        )
        raise InvalidInput(Fault("from", "there is no sender", mend))
    if not reply_to:
        answers = Mailbox(fields.reply_address) if fields.reply_address else Mailbox(fields.address, fields.full_name)
        if answers.address and answers.address.lower() != sender.address.lower():
            reply_to = (answers,)
    return ComposedSender(sender, reply_to)
