"""What was said in an attempt that failed is kept with it, once; a success keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence

from postroom.model.circuit import Health
from postroom.model.outcome import Bounced, Deferred, Outcome, Scope
from postroom.transports import AccountUnavailable, Transaction

from .conftest import OK, Room

SAID = "S: 220 relay.test\nC: MAIL FROM:<a@x.test>\nS: 550 no"
NO = Bounced(status="5.1.1", reason="550 no", remote_host="relay.test", transcript=SAID)


async def test_it_is_kept_once_for_all_recipients_of_a_transaction(room: Room) -> None:
    async def refuse_two(_: Transaction) -> Sequence[Outcome]:
        return [OK, NO, NO]

    room.transports["relay1"].answers.append(refuse_two)
    message = await room.submit("a@y.test", "b@y.test", "c@y.test")
    await room.until(message, "delivered", "bounced", "bounced")
    view = await room.store.message(message)
    assert [attempt.transcript for attempt in view.attempts] == [SAID, "", ""]


async def test_a_success_keeps_none(room: Room) -> None:
    message = await room.submit("a@y.test")
    await room.until(message, "delivered")
    view = await room.store.message(message)
    assert [attempt.transcript for attempt in view.attempts] == [""]


async def test_that_of_a_failed_connection_stays_with_the_account_until_it_is_well(room: Room) -> None:
    down = Deferred(status="4.4.1", reason="greeting: 554 no", scope=Scope.ACCOUNT, transcript="S: 554 no")
    room.transports["relay1"].answers.append(AccountUnavailable(down))
    message = await room.submit()
    await room.until_event("account.asleep")
    circuit = room.scheduler.circuit(1)  # type: ignore[arg-type]
    assert (circuit.health, circuit.transcript) == (Health.SLEEPING, "S: 554 no")
    await room.scheduler.wake(room.accounts[0])
    await room.until(message, "delivered")
    assert room.scheduler.circuit(1).transcript == ""  # type: ignore[arg-type]
