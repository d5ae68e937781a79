"""Why a delivery is where it is: what it waits for, until when, and the command that would release it."""

from __future__ import annotations

from datetime import datetime

from ..model.account import Account
from ..model.explanation import Explanation
from ..model.ids import message_id_text
from ..model.queue import DeliveryState
from ..store import DeliveryRow
from .lane import Circuit, Health


def explain(
    row: DeliveryRow, account: Account | None, circuit: Circuit, *, sending: bool, running: bool, now: datetime
) -> Explanation:
    """The explanation of one delivery.

    `sending` is the master switch; `running` whether this process (or the one asked) delivers at all.
    """
    name = account.name if account is not None else f"account {row.lane} (removed)"
    reason, until, advice, command = _cause(row, account, circuit, sending=sending, running=running, now=now)
    return Explanation(
        n=row.n, recipient=row.recipient, state=row.state, account=name, reason=reason, until=until, advice=advice,
        command=command,
    )  # fmt: skip


_Cause = tuple[str, datetime | None, str, str]


def _cause(
    row: DeliveryRow, account: Account | None, circuit: Circuit, *, sending: bool, running: bool, now: datetime
) -> _Cause:
    message = message_id_text(row.message_id)
    if row.state.is_final:
        return _ended(row, message)
    if row.state is DeliveryState.HELD:
        return row.reply or "it is held until someone releases it", None, "", f"postroom queue release {message}"
    if row.state is DeliveryState.SENDING:
        return "it is being sent now", None, "", ""
    if not running:
        return "the gateway is not running", None, "", "postroom serve"
    if account is None:
        return "its account was removed", None, "", f"postroom queue cancel {message}"
    if not sending:
        return "sending is switched off", None, "set `sending_enabled` to true", ""
    if not account.enabled:
        return f"account {account.name} is off", None, "", f"postroom accounts edit {account.name} --enabled"
    if circuit.health is Health.NEEDS_ATTENTION:
        return (
            f"account {account.name} needs attention: {circuit.reason}", None, circuit.advice,
            f"postroom accounts edit {account.name}",
        )  # fmt: skip
    if circuit.health is Health.SLEEPING:
        reason = f"account {account.name} sleeps after a failure: {circuit.reason}"
        return reason, circuit.until, circuit.advice, ""
    if row.state is DeliveryState.DEFERRED and row.due is not None and row.due > now:
        reason = f"it waits for its next try after: {row.reply}" if row.reply else "it waits for its next try"
        return reason, row.due, "", f"postroom queue retry {message}"
    return f"it waits for a free connection of account {account.name}", None, "", ""


def _ended(row: DeliveryRow, message: str) -> _Cause:
    if row.state is DeliveryState.CAPTURED:
        return "a sandbox captured it; nothing was sent", row.ended, "", f"postroom queue retry {message}"
    if row.state is DeliveryState.DELIVERED:
        return f"the relay took it: {row.reply}", row.ended, "", ""
    words = {"bounced": "refused for good", "expired": "given up", "cancelled": "cancelled by a person"}[row.state]
    reason = f"{words}: {row.reply}" if row.reply else words
    return reason, row.ended, "", f"postroom queue retry {message}"
