"""How accounts are and what is on them, for `status` and the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..model.account import Account
from ..model.circuit import Circuit
from ..model.queue import DeliveryState, LaneId


def overview(
    accounts: Sequence[Account],
    circuit_of: Callable[[Account], Circuit],
    counts: Mapping[tuple[LaneId, DeliveryState], int],
) -> list[dict[str, object]]:
    """A row for each account, in list order."""
    rows: list[dict[str, object]] = []
    for account in accounts:
        circuit = circuit_of(account)
        rows.append(
            {
                "account": account.name,
                "kind": account.kind.value,
                "enabled": account.enabled,
                "health": circuit.health.value,
                "reason": circuit.reason,
                "advice": circuit.advice,
                "since": circuit.since.isoformat() if circuit.since else None,
                "until": circuit.until.isoformat() if circuit.until else None,
                "by_hand": circuit.by_hand,
                "limit": circuit.limit,
                "limit_until": circuit.limit_until.isoformat() if circuit.limit_until else None,
                "transcript": circuit.transcript,
                "counts": {state.value: n for (lane, state), n in counts.items() if lane == account.id},
            }
        )
    return rows
