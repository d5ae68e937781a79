"""Any sequence of verbs, against a queue of dictionaries: the store moves, refuses and counts the same."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroom.model.queue import TRANSITIONS, DeliveryState, FencingToken, NewMessage
from postroom.pending import Pending
from postroom.store import Selection
from postroom.store.database import Database, open_store
from tests.contract.store.examples import (
    LANE,
    NOON,
    OTHER_LANE,
    Hour,
    attempt_of,
    claim_of,
    counted,
    make_message,
    result_of,
    states,
    told,
)

S = DeliveryState
RECIPIENTS = 2
COMPLETED = [after for (before, after), who in TRANSITIONS.items() if before is S.SENDING and "complete" in who]
MADE_BY = {"hold": "hold", "release": "release", "retry": "retry now", "cancel": "cancel"}

number = st.integers(0, RECIPIENTS - 1)
which = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("enqueue"), st.booleans()),
    st.tuples(st.just("claim"), which, st.sets(number, min_size=1)),
    st.tuples(st.just("unclaim"), which, st.sets(number, min_size=1)),
    st.tuples(st.just("complete"), which, st.dictionaries(number, st.sampled_from(COMPLETED), min_size=1)),
    st.tuples(st.sampled_from(sorted(MADE_BY)), which, st.none() | number),
    st.tuples(st.just("recover")),
    st.tuples(st.just("wait")),
)


@dataclass
class Model:
    """What should be so: states and holders of each delivery."""

    messages: list[NewMessage] = field(default_factory=list)
    state: dict[tuple[bytes, int], DeliveryState] = field(default_factory=dict)
    holder: dict[tuple[bytes, int], int] = field(default_factory=dict)
    token: int = 0

    def claim(self, message: NewMessage, numbers: list[int], token: int) -> tuple[int, ...]:
        """The numbers that a claim gets."""
        got = []
        for n in numbers:
            key = message.id, n
            if token == self.token and self.state[key] in (S.QUEUED, S.DEFERRED):
                self.state[key] = S.SENDING
                self.holder[key] = token
                got.append(n)
        return tuple(got)

    def leave(self, message: NewMessage, moves: dict[int, DeliveryState], token: int) -> None:
        """Out of `sending`, for those held under the token."""
        for n, after in moves.items():
            key = message.id, n
            if self.state[key] is S.SENDING and self.holder[key] == token:
                self.state[key] = after

    def move(self, verb: str, message: NewMessage, n: int | None) -> int:
        """A person's verb."""
        moved = 0
        for one in range(RECIPIENTS) if n is None else (n,):
            for (before, after), who in TRANSITIONS.items():
                if who == MADE_BY[verb] and self.state[message.id, one] is before:
                    self.state[message.id, one] = after
                    moved += 1
                    break
        return moved

    def recover(self) -> int:
        """A new token."""
        self.token += 1
        lost = [key for key, state in self.state.items() if state is S.SENDING]
        self.state.update(dict.fromkeys(lost, S.DEFERRED))
        return len(lost)


Answer = tuple[asyncio.Future[Any] | Pending[Any], Any]


def apply(store: Database, model: Model, step: tuple[Any, ...], token: int) -> Answer | None:
    """Call the verb, and say what it should answer."""
    verb, *arguments = step
    if verb == "enqueue":
        message = make_message(*(f"r{n}@x.test" for n in range(RECIPIENTS)), lane=LANE if arguments[0] else OTHER_LANE)
        model.messages.append(message)
        model.state.update({(message.id, n): S.QUEUED for n in range(RECIPIENTS)})
        return store.enqueue(message), None
    if verb == "recover":
        recovered = model.recover()
        return store.recover(NOON), (model.token, recovered)
    if not model.messages or verb == "wait":
        return None
    message = model.messages[arguments[0] % len(model.messages)]
    lane = message.deliveries[0].lane
    fencing = FencingToken(token)
    if verb == "claim":
        numbers = sorted(arguments[1])
        return store.claim(claim_of(message, fencing, *numbers, lane=lane)), model.claim(message, numbers, token)
    if verb == "unclaim":
        model.leave(message, dict.fromkeys(arguments[1], S.QUEUED), token)
        return store.unclaim(claim_of(message, fencing, *arguments[1], lane=lane)), None
    if verb == "complete":
        model.leave(message, arguments[1], token)
        results = [result_of(n, state, NOON if state is S.DEFERRED else None) for n, state in arguments[1].items()]
        return store.complete(attempt_of(message, fencing, *results, lane=lane)), None
    selection = Selection(message_id=message.id, n=arguments[1])
    return getattr(store, verb)(selection, NOON), model.move(verb, message, arguments[1])


async def run(plan: list[tuple[Any, ...]], folder: Path) -> None:
    """Call all verbs, waiting only where the plan says so, and compare."""
    store = await open_store(folder / "postroom.db", None, Hour().now)
    model = Model()
    assert await store.recover(NOON) == (1, 0)
    model.token = 1
    token = 1  # held on to by the caller until it waits, so that some calls come under an old one
    waiting: list[Answer] = []
    for step in [*plan, ("wait",)]:
        called = apply(store, model, step, token)
        if called is not None:
            waiting.append(called)
        if step[0] == "wait":
            for future, expected in waiting:
                assert await future == expected
            waiting.clear()
            token = model.token
    for message in model.messages:
        expected_states = [model.state[message.id, n].value for n in range(RECIPIENTS)]
        assert await states(store, message) == expected_states
    assert await told(store) == await counted(store)
    await store.close()


@settings(max_examples=40)
@given(st.lists(steps, max_size=40))
@example([("enqueue", False), ("claim", 0, {0}), ("recover",), ("unclaim", 0, {0})])  # rolled back and written again
def test_the_store_does_what_the_table_of_moves_says(plan: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(plan, Path(folder)))
