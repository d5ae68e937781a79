"""Explain: which account a message would take, as whom and within which limits, and why no other (SPEC section 2.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import Fault, InvalidInput, Refused
from ..mime.address import is_address
from ..mime.head import scan
from ..model.account import Account
from ..model.application import Application
from ..model.circuit import Circuit
from ..model.envelope import Envelope
from ..model.quantity import duration_in_words
from ..policy.fallback import successor
from ..policy.limits import metered
from ..policy.patterns import matches_any
from ..policy.rewriting import Change, rewrites
from ..policy.routing import PassedOver, RoutingTable, passed_over
from ..policy.signing import Signature, signed_with
from .intake import senders_of

#: A field on one line (RFC 5322 section 2.2).
_FIELD = re.compile(r"[!-9;-~]+:[^\x00-\x08\x0a-\x1f\x7f]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A message that might be sent: from whom, to whom, with which header (may be empty), and the account it names."""

    application: Application
    sender: str
    recipient: str
    head: bytes = b""
    account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteExplanation:
    """What would become of it. `account` is empty where it is refused, and `reason` says why.

    `waits` says why the account sends nothing now and `until` when, `takes_over` who does that then; `redirected_to`
    gets it in the recipient's place (the staging guard); `limits` are those of the account; `passed_over` tells why
    each other account is not the one.
    """

    recipient: str
    account: str
    reason: str
    waits: str = ""
    until: datetime | None = None
    takes_over: str = ""
    rewrites: tuple[Change, ...] = ()
    signatures: tuple[Signature, ...] = ()
    limits: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    redirected_to: str = ""


def questions(
    application: Application, sender: str, recipients: Sequence[str], header: Sequence[str], account: str
) -> list[Question]:
    """A question for each recipient. Without From in `header` it is the sender's address; without a sender it is the
    application's own.

    Raises:
        InvalidInput: an address or a field can't be read.
    """
    sender = sender or application.address
    faults = [
        Fault("recipients" if address != sender else "sender", f"{address!r} is no address", "write user@example.org")
        for address in (*([sender] if sender else []), *recipients)
        if not is_address(address)
    ]
    faults += [
        Fault("header", f"{line!r} is no field", "write fields as in `Sensitivity: Private`")
        for line in header
        if not _FIELD.match(line)
    ]
    if faults:
        raise InvalidInput(faults)
    lines = list(header)
    if sender and not any(line.lower().startswith("from:") for line in lines):
        lines.insert(0, f"From: {sender}")
    head = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
    return [
        Question(application=application, sender=sender, recipient=recipient, head=head, account=account)
        for recipient in recipients
    ]


def explain_route(
    question: Question,
    table: RoutingTable,
    circuit_of: Callable[[Account], Circuit],
    postmaster: str,
    redirected_to: Callable[[Account, str], str] = lambda account, recipient: "",
) -> RouteExplanation:
    """The explanation for one recipient; `postmaster` is the sender that all mail is forced to have, if any, and
    `redirected_to` says who gets mail in a recipient's place."""
    application, recipient = question.application, question.recipient
    senders = senders_of(question.sender, scan(question.head))
    refused = _refused(application, senders)
    if refused:
        return RouteExplanation(recipient=recipient, account="", reason=refused)
    try:
        account = table.route(application, senders, recipient, question.account)
    except Refused as error:
        others = _others(table, question, senders, None)
        return RouteExplanation(recipient=recipient, account="", reason=str(error), passed_over=others)
    waits, until = _waits(account, circuit_of(account))
    follower = None
    if not question.account:
        follower = successor(
            table, account, application, senders, recipient, lambda one: not _waits(one, circuit_of(one))[0]
        )
    return RouteExplanation(
        recipient=recipient,
        account=account.name,
        reason="the message names it" if question.account else "it is the topmost match",
        waits=waits,
        until=until,
        takes_over=follower.name if follower is not None else "",
        rewrites=rewrites(account, postmaster, Envelope(question.sender, (recipient,)), question.head),
        signatures=signed_with(account),
        limits=_limits(account),
        passed_over=_others(table, question, senders, account),
        redirected_to=redirected_to(account, recipient),
    )


def _refused(application: Application, senders: Sequence[str]) -> str:
    if not application.enabled:
        return f"application {application.name!r} is switched off"
    for sender in senders:
        allowed = matches_any(application.senders, sender) if sender else "*" in application.senders
        if not allowed:
            who = f"application {application.name!r}"
            return f"{who} may not send as <{sender}>: add it to the application's allowed senders"
    return ""


def _others(
    table: RoutingTable, question: Question, senders: Sequence[str], chosen: Account | None
) -> tuple[PassedOver, ...]:
    found = []
    for account in table.accounts:
        if chosen is not None and account.id == chosen.id:
            continue
        over = passed_over(account, question.application, senders, question.recipient, question.account)
        found.append(over or PassedOver(account.name, "it matches as well, and stands below"))
    return tuple(found)


def _waits(account: Account, circuit: Circuit) -> tuple[str, datetime | None]:
    if not account.enabled:
        return "it is off", None
    if not circuit.may_send:
        return f"{circuit.health.value}: {circuit.reason}", circuit.until
    if circuit.limit:
        return f"it has reached {circuit.limit}", circuit.limit_until
    return "", None


def _limits(account: Account) -> tuple[str, ...]:
    limits = metered(account.limits)
    shown = [str(limit) for limit in limits.limits]
    if limits.interval:
        shown.append(f"{duration_in_words(timedelta(microseconds=limits.interval))} between two messages")
    if shown and account.quota_group:
        shown.append(f"shared in quota group {account.quota_group}")
    return tuple(shown)
