"""Why a delivery is where it is: what it waits for, until when, and the command that would release it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime

from ..model.account import Account
from ..model.circuit import Circuit, Health
from ..model.explanation import NOTHING_AHEAD, Explanation, Times
from ..model.ids import message_id_text
from ..model.queue import DeliveryState
from ..store import DeliveryRow, MessageView


@dataclass(frozen=True, slots=True)
class Sending:
    """The master switch; `mend` says where it is turned on if not by the command."""

    is_on: bool = True
    mend: str = ""


def explain(
    view: MessageView,
    row: DeliveryRow,
    account: Account | None,
    circuit: Circuit,
    *,
    sending: Sending,
    running: bool,
    now: datetime,
    next_beat: datetime | None = None,
    times: Times = NOTHING_AHEAD,
    redirected_to: str = "",
) -> Explanation:
    """The explanation of one delivery of `view`.

    `running` says whether this process (or the one asked) delivers at all; `next_beat` is the beat of the batch
    interval that the delivery waits for; `times` are what is ahead of it, `redirected_to` whom it will go to instead.
    """
    name = account.name if account is not None else f"account {row.lane} (removed)"
    if row.state is DeliveryState.HELD:
        reason, until, advice, command = _held(view, row)
    else:
        cause = _cause(view, row, account, circuit, sending, next_beat, running=running, now=now)
        reason, until, advice, command = cause
    return Explanation(
        n=row.n, recipient=row.recipient, state=row.state, account=name, reason=reason, until=until, advice=advice,
        command=command, marks=marks(view, row, redirected_to), times=times,
    )  # fmt: skip


def marks(view: MessageView, row: DeliveryRow, redirected_to: str = "") -> tuple[str, ...]:
    """What is not known of one delivery of `view`: tries whose outcome nobody knows, and whether it went twice; and to
    whom it went, or will go, in its recipient's place."""
    state, found = row.state, []
    if state is DeliveryState.CAPTURED:  # nothing was sent
        return ()
    unknown = sum(attempt.n == row.n and attempt.outcome == "unknown" for attempt in view.attempts)
    if unknown:
        tries = "1 try" if unknown == 1 else f"{unknown} tries"
        more = " more than once" if state is DeliveryState.DELIVERED else " all the same" if state.is_final else ""
        found.append(f"the outcome of {tries} is unknown: the relay may have it{more}")
    if row.may_be_sent_twice:
        if state.is_final:
            may = "may have been sent twice" if state is DeliveryState.DELIVERED else "may have been sent all the same"
        else:
            may = "may be sent twice"
        found.append(f"it {may}: the gateway stopped while it was being sent")
    for address in dict.fromkeys(one.sent_to for one in view.attempts if one.n == row.n and one.sent_to):
        found.append(f"the staging guard redirected it to {address}")
    if redirected_to and not state.is_final:
        found.append(f"the staging guard redirects it to {redirected_to}")
    return tuple(found)


_SET = "postroom settings set"
_Cause = tuple[str, datetime | None, str, str]


def _held(view: MessageView, row: DeliveryRow) -> _Cause:
    """Who holds it: the last event that says so was made by an outcome, or by somebody."""
    release = f"postroom queue release {message_id_text(row.message_id)}"
    event = next((one for one in reversed(view.events) if one.kind == row.state.value and one.n == row.n), None)
    if event is not None and event.account:
        return row.reply, None, "ask the relay's log, then release or cancel", release
    reason = event.detail if event is not None and event.detail else "a person holds it"
    return reason, None, "", release


def _cause(
    view: MessageView,
    row: DeliveryRow,
    account: Account | None,
    circuit: Circuit,
    sending: Sending,
    next_beat: datetime | None,
    *,
    running: bool,
    now: datetime,
) -> _Cause:
    message = message_id_text(row.message_id)
    if row.state.is_final:
        return _ended(view, row, message)
    if row.state is DeliveryState.SENDING:
        return "it is being sent now", None, "", ""
    if not running:
        return "the gateway is not running", None, "", "postroom serve"
    if account is None:
        return "its account was removed", None, "", f"postroom queue cancel {message}"
    if not sending.is_on:
        return "sending is switched off", None, sending.mend, "" if sending.mend else f"{_SET} sending_enabled on"
    if not account.enabled:
        return f"account {account.name} is off", None, "", f"postroom accounts edit {account.name} --enabled"
    if circuit.health is Health.NEEDS_ATTENTION:
        return (
            f"account {account.name} needs attention: {circuit.reason}", None, circuit.advice,
            f"postroom accounts edit {account.name}",
        )  # fmt: skip
    if circuit.health is Health.SLEEPING:
        after = "" if circuit.by_hand else " after a failure"
        reason = f"account {account.name} sleeps{after}: {circuit.reason}"
        return reason, circuit.until, circuit.advice, f"postroom accounts wake {account.name}"
    if row.state is DeliveryState.DEFERRED and row.due is not None and row.due > now:
        reason = f"it waits for its next try after: {row.reply}" if row.reply else "it waits for its next try"
        return reason, next_beat or row.due, "", f"postroom queue retry {message}"
    if next_beat is not None:
        return "it waits for the next batch (setting batch_interval)", next_beat, "", f"{_SET} batch_interval 0s"
    if circuit.limit:
        return f"account {account.name} has reached {circuit.limit}", circuit.limit_until, "", ""
    if circuit.health is Health.SLOWED:
        return f"it waits for account {account.name}, which is slowed: {circuit.reason}", None, circuit.advice, ""
    if view.connection is not None:
        leads = f"its own connection to {view.connection['target']}"
        return f"it waits for {leads}, one of those that account {account.name} may have", None, "", ""
    return f"it waits for a free connection of account {account.name}", None, "", ""


def _ended(view: MessageView, row: DeliveryRow, message: str) -> _Cause:
    if row.state is DeliveryState.CAPTURED:
        return "a sandbox captured it; nothing was sent", row.ended, "", f"postroom queue retry {message}"
    if row.state is DeliveryState.DELIVERED:
        advice = next((attempt.advice for attempt in reversed(view.attempts) if attempt.n == row.n), "")
        return f"the relay took it: {row.reply}", row.ended, advice, ""
    words = {"bounced": "refused for good", "expired": "given up", "cancelled": "cancelled by a person"}[row.state]
    reason = f"{words}: {row.reply}" if row.reply else words
    return reason, row.ended, _freed(view, row), f"postroom queue retry {message}"


def _freed(view: MessageView, row: DeliveryRow) -> str:
    """What must come before a retry of what the suppression list ended, which no attempt did."""
    entry, ended, _ = row.reply.partition(" is on the suppression list")
    if not ended or any(attempt.n == row.n for attempt in view.attempts):
        return ""
    return f"take it off the list first: postroom suppressions remove {shlex.quote(entry)}"
