"""How a message leaves, or left: what its account changes in it, and with what it signs it (SPEC section 2.6).

Nothing is kept about it when a message is sent: of what was tried it is told from the account as it is now, where no
event says that it was another at that time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from ..model.account import Account
from ..model.envelope import Envelope
from ..policy.rewriting import Change, rewrites
from ..policy.signing import Signature, signed_with
from ..store import DeliveryRow, EventFilter, EventRow, MessageView, Store

#: Changes that are looked at; behind more of them it is not known any more how an account was.
CHANGES = 1000

#: Fields of an account by which it changes what it sends, those of DKIM apart.
_ALTERING = frozenset(
    {"sender.fixed", "sender.fixed_name", "sender.keep_original_as_reply", "sender.private_keeps_sender"}
)


class Tense(StrEnum):
    """Whether it is yet to be sent."""

    WOULD = "would"
    WAS = "was"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AsSent:
    """One delivery as `account` sends it, or sent it last; `why` says what is not known."""

    tense: Tense
    account: str
    rewrites: tuple[Change, ...] = ()
    signatures: tuple[Signature, ...] = ()
    why: str = ""


async def as_sent(
    view: MessageView, accounts: Sequence[Account], postmaster: str, store: Store, known_from: datetime
) -> list[AsSent | None]:
    """For each delivery of `view`; None where there is nothing to tell. Events are kept from `known_from` on."""
    head = await store.head(view.id)
    by_lane = {account.id: account for account in accounts}
    last_tries = _last_tries(view)
    changes: Sequence[EventRow] = ()
    if any(row.state.is_final and row.n in last_tries for row in view.deliveries):
        wanted = EventFilter(kinds=("account.added", "account.edited", "settings.changed"), limit=CHANGES)
        changes = (await store.events(wanted)).events
        if len(changes) == CHANGES:
            known_from = max(known_from, changes[0].at)
    made: dict[str, AsSent] = {}

    def now(account: Account, row: DeliveryRow) -> AsSent:
        """As the account is; worked out once for all of the message's deliveries."""
        if account.name not in made:
            envelope = Envelope(view.reverse_path, (row.recipient,), view.eight_bit, view.smtputf8)
            changed = rewrites(account, postmaster, envelope, head)
            made[account.name] = AsSent(Tense.WOULD, account.name, changed, signed_with(account))
        return made[account.name]

    found: list[AsSent | None] = []
    for row in view.deliveries:
        account = by_lane.get(row.lane)
        if not row.state.is_final:
            found.append(now(account, row) if account is not None and head else None)
        elif row.n not in last_tries:
            found.append(None)
        else:
            name, at = last_tries[row.n]
            why = _not_known(name, at, account, changes, known_from) or ("" if head else "its content was removed")
            if why or account is None:
                found.append(AsSent(Tense.UNKNOWN, name, why=why))
            else:
                found.append(replace(now(account, row), tense=Tense.WAS))
    return found


def _last_tries(view: MessageView) -> Mapping[int, tuple[str, datetime]]:
    """By which account each delivery was tried last, and when."""
    found: dict[int, tuple[str, datetime]] = {}
    for attempt in view.attempts:
        if attempt.n not in found or attempt.started >= found[attempt.n][1]:
            found[attempt.n] = attempt.account, attempt.started
    return found


def _not_known(
    name: str, at: datetime, account: Account | None, changes: Sequence[EventRow], known_from: datetime
) -> str:
    """Why it is not known how the account called `name` was at that time; "" where it was as `account` is."""
    if account is None or account.name != name:
        return f"account {name} was removed, renamed, or it moved on"
    if at < known_from:
        return "events of that time are not kept any more"
    for change in changes:
        if change.at >= at and _alters(change, name):
            return f"account {name} sends otherwise since {change.at.isoformat(timespec='seconds')}"
    return ""


def _alters(change: EventRow, name: str) -> bool:
    if change.kind == "settings.changed":
        return change.detail.startswith(("postmaster:", "force_postmaster:"))
    if change.account != name:
        return False
    fields = change.detail.split(", ")
    return change.kind == "account.added" or any(one in _ALTERING or one.startswith("dkim") for one in fields)
