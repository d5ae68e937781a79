"""Who a message is from that Postroom composes, and where its answers go (SPEC section 2.5)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Fault, InvalidInput
from ..mime.address import Mailbox
from ..model.account import Account
from ..model.application import Application
from ..model.envelope import Address
from .routing import RoutingTable


@dataclass(frozen=True, slots=True)
class ComposedSender:
    """From and Reply-To of a composed message; no Reply-To where answers go to From."""

    sender: Mailbox
    reply_to: tuple[Mailbox, ...]


@dataclass(frozen=True, slots=True)
class Composing:
    """What decides it: the message's own sender and Reply-To, its first recipient, and the account that it names."""

    application: Application
    recipient: Address
    sender: Mailbox | None = None
    reply_to: tuple[Mailbox, ...] = ()
    account: str = ""


def composed_sender(message: Composing, routes: RoutingTable, postmaster: str) -> ComposedSender:
    """What the message says itself, else the application's address, else the fields of the account that it goes by.

    It is routed first, by its sender as far as that is known. `postmaster` is "" unless it is forced: it stands in
    where there is nobody else.

    Raises:
        Refused: no account takes it.
        InvalidInput: there is no sender.
    """
    application, sender = message.application, message.sender
    if sender is None and application.address:
        sender = Mailbox(application.address)
    known = sender.address if sender is not None else ""
    account = routes.route(application, (known,), message.recipient, message.account)
    fields = account.sender
    if sender is None and fields.address:
        sender = Mailbox(fields.address, fields.full_name)
    if sender is None and postmaster:
        sender = Mailbox(postmaster)
    if sender is None:
        given = f"give application {application.name} an --address, or account {account.name} an --email-address"
        raise InvalidInput(Fault("from", "there is no sender", f"name one, or {given}"))
    return ComposedSender(sender, message.reply_to or _reply_to(sender, account))


def _reply_to(sender: Mailbox, account: Account) -> tuple[Mailbox, ...]:
    fields = account.sender
    answers = Mailbox(fields.reply_address) if fields.reply_address else Mailbox(fields.address, fields.full_name)
    return (answers,) if answers.address and answers.address.lower() != sender.address.lower() else ()
