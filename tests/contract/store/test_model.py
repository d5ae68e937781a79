"""Any sequence of verbs, waits and crashes, against a queue of dictionaries: the store does, counts and keeps the same.

A crash is what the disk has at that moment: calls whose results nobody had seen yet may have happened or not, but only
as many as came first, in the order of the calls.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroom.model.envelope import DsnRequest
from postroom.model.notice import NoticedMessage
from postroom.model.queue import NOTHING_ASIDE, TRANSITIONS, DeliveryState, FencingToken, NewMessage
from postroom.store import DeliveryFilter, Selection
from postroom.store.database import Database, open_store
from tests.contract.store.crashes import copy_as_it_is
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
    told,
)
from tests.contract.store.queue_model import Model, as_completed
from tests.waited_too_long import ends

S = DeliveryState
RECIPIENTS = 2
FOREVER = NOON + timedelta(days=36500)
COMPLETED = [after for (before, after), who in TRANSITIONS.items() if before is S.SENDING and "complete" in who]

End = tuple[DeliveryState, bool, bool]
Answer = tuple[Awaitable[Any], Any, Model]


class StoreAgainstModel:
    """The store and the model side by side. Verbs are called and not waited for, unless they read first; `settle` and
    `crash` compare."""

    def __init__(self, store: Database, database: Path, clock: Hour) -> None:
        self.store = store
        self.database = database
        self.clock = clock
        self.model = Model()
        self.settled = Model()  # as of the last call whose result was seen
        self.waiting: list[Answer] = []
        self.noticed: list[NoticedMessage] = []

    def call(self, verb: str, *arguments: Any, expected: Any = None) -> None:
        """Call a verb whose effect `self.model` shows already."""
        self.waiting.append((getattr(self.store, verb)(*arguments), expected, self.model.copy()))

    @property
    def now(self) -> datetime:
        return self.clock.at

    def message(self, at: int) -> NewMessage:
        return self.model.messages[-1 - at % len(self.model.messages)]

    # Verbs ------------------------------------------------------------------------------------------------------------

    async def enqueue(self, lane_too: bool, notify: tuple[str, str], is_null: bool) -> None:
        recipients = [f"r{n}@x.test" for n in range(RECIPIENTS)]
        message = make_message(
            *recipients,
            lane=OTHER_LANE if lane_too else LANE,
            dsn=DsnRequest.of("", "", notify, ("", "")),
            at=self.now,
            sender="" if is_null else "a@example.org",
        )
        self.model.enqueue(message)
        self.call("enqueue", message, expected=NOTHING_ASIDE)

    async def claim(self, at: int, numbers: list[int], age: int = 0) -> None:
        message, token = self.message(at), self.model.token - age
        wanted = claim_of(message, FencingToken(token), *numbers, lane=message.deliveries[0].lane)
        self.call("claim", wanted, expected=self.model.claim(message, numbers, token))

    async def unclaim(self, at: int, numbers: list[int], age: int = 0) -> None:
        message, token = self.message(at), self.model.token - age
        self.model.unclaim(message, numbers, token)
        self.call("unclaim", claim_of(message, FencingToken(token), *numbers, lane=message.deliveries[0].lane))

    async def complete(self, at: int, ends: dict[int, End], age: int = 0) -> None:
        message, token = self.message(at), self.model.token - age
        results = []
        for n, (state, unknown, counts) in ends.items():
            due = self.now + timedelta(minutes=1) if state is S.DEFERRED else None
            one = self.model.deliveries.get((message.id, n))
            result = result_of(n, state, due, unknown=unknown, counts=counts)
            results.append(as_completed(message, result, one.notify if one is not None else ""))
        self.model.complete(message, results, token, self.now)
        lane = message.deliveries[0].lane
        self.call("complete", attempt_of(message, FencingToken(token), *results, lane=lane, at=self.now))

    async def send(self, at: int, first: End, second: End) -> None:
        await self.claim(at, [0, 1])
        await self.complete(at, {0: first, 1: second})

    async def move(self, verb: str, at: int, n: int | None) -> None:
        message = self.message(at)
        moved = self.model.move(verb, message, n, self.now)
        self.call(verb, Selection(message_id=message.id, n=n), self.now, expected=moved)

    async def recover(self) -> None:
        self.call("recover", self.now, expected=self.model.recover(self.now))

    async def pass_time(self, by: timedelta) -> None:
        self.clock.at += by

    async def maintain(self, verb: str, age: timedelta, give_up: timedelta) -> None:
        """These read before they write: nothing else may be under way."""
        await self.settle()
        then = self.now - age
        if verb == "expire":
            limits = (then, self.now - give_up)
            self.call("expire", ends(*limits), self.now, expected=self.model.expire(*limits, self.now))
        elif verb == "warn":
            looked_at = sum(message.accepted < then for message in self.model.messages)
            self.call("warn", then, self.now, expected=self.model.warn(looked_at, self.now))
        else:
            self.call("reap", then, then, expected=self.model.reap(then))
        await self.settle()

    async def gather(self, waited: timedelta) -> None:
        """Read what is to be reported; a report may come later, when it was told since or by another process."""
        await self.settle()
        self.noticed = list(await self.store.noticed(self.now - waited))
        assert [found.id for found in self.noticed] == self.model.due_for_report(self.now - waited)

    async def report(self, at: int, is_told: bool) -> None:
        if not self.noticed:
            return
        found = self.noticed[at % len(self.noticed)]
        message = make_message("a@example.org", at=self.now, sender="") if is_told else None
        expected = self.model.report([(found.id, one.n, one.kind.value) for one in found.notices], message)
        self.call("report", found, message, expected=expected)

    # Looking, and crashes ---------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait for all results, and look at everything."""
        assert [await answer for answer, _, _ in self.waiting] == [expected for _, expected, _ in self.waiting]
        self.waiting.clear()
        self.settled = self.model.copy()
        assert await self.look(self.model.last_token) == self.model.shown

    async def crash(self, turns: int, starts: bool) -> None:
        """What is under way is cut off; another process finds what the disk has."""
        for _ in range(turns):
            await asyncio.sleep(0)
        seen = [at for at, (answer, _, _) in enumerate(self.waiting) if answer.done()]  # type: ignore[attr-defined]
        copied = copy_as_it_is(self.database, self.database.parent / "crashed")
        possible = [self.settled, *(model for _, _, model in self.waiting)][seen[-1] + 1 if seen else 0 :]
        await self.store.close()
        self.waiting.clear()
        self.database = copied
        self.store = await open_store(copied, None, self.clock.now)
        found = await self.look(await self.store.write(_last_token))
        assert found in [model.shown for model in possible]
        self.model = next(model for model in reversed(possible) if model.shown == found).copy()
        self.model.crash()
        self.settled = self.model.copy()
        if starts:
            await self.recover()

    async def look(self, token: int) -> tuple[object, ...]:
        """Everything that `Model.shown` tells."""
        rows = await self.store.deliveries(DeliveryFilter(limit=1000))
        deliveries = {
            (bytes(row.message_id), row.n): (
                row.state, row.due, row.window_from, row.tries, row.unknowns, row.may_be_sent_twice, row.ended,
                row.notify,
            )
            for row in rows
        }  # fmt: skip
        notices = {
            bytes(found.id): sorted((one.n, one.kind.value) for one in found.notices)
            for found in await self.store.noticed(FOREVER)
        }
        assert await told(self.store) == await counted(self.store)
        return deliveries, notices, token


def _last_token(connection: Any) -> int:
    found = connection.exec_driver_sql("SELECT last FROM sequence WHERE name = 'token'").scalar()
    return int(found or 0)


which = st.integers(0, 2)
number = st.integers(0, RECIPIENTS - 1)
numbers = st.sets(number, min_size=1).map(sorted)
#: How old the token is that a caller holds on to.
stale = st.sampled_from([0, 0, 0, 0, 1])
end = st.tuples(st.sampled_from(COMPLETED), st.booleans(), st.booleans())
notify = st.sampled_from(["", "", "NEVER", "FAILURE", "SUCCESS,FAILURE,DELAY"])
ages = st.sampled_from([timedelta(0), timedelta(hours=2), timedelta(days=1)])
people = st.sampled_from(["hold", "release", "release", "retry", "cancel"])
often = [
    st.tuples(st.just("enqueue"), st.booleans(), st.tuples(notify, notify), st.sampled_from([False, False, True])),
    st.tuples(st.just("send"), which, end, end),
    st.tuples(st.just("crash"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("gather"), st.sampled_from([timedelta(0), timedelta(seconds=30)])),
    st.tuples(st.just("report"), which, st.booleans()),
    st.tuples(st.just("move"), people, which, st.none() | number),
]
seldom = [
    st.tuples(st.just("claim"), which, numbers, stale),
    st.tuples(st.just("unclaim"), which, numbers, stale),
    st.tuples(st.just("complete"), which, st.dictionaries(number, end, min_size=1), stale),
    st.tuples(st.just("recover")),
    st.tuples(st.just("maintain"), st.sampled_from(["expire", "warn", "reap"]), ages, ages),
    st.tuples(st.just("pass_time"), st.sampled_from([timedelta(seconds=20), timedelta(hours=5), timedelta(days=2)])),
    st.tuples(st.just("settle")),
]
plans = st.lists(st.one_of(*often, *often, *seldom), min_size=5, max_size=30)

Plan = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store in which nothing is yet: to make one takes longer than a plan."""
    path = tmp_path_factory.mktemp("empty") / "postroom.db"

    async def make() -> None:
        await (await open_store(path, None, Hour().now)).close()

    asyncio.run(make())
    yield path


async def run(plan: Plan, database: Path) -> None:
    """A process starts as the gateway does, with two messages; then as the plan says."""
    clock = Hour()
    both = StoreAgainstModel(await open_store(database, None, clock.now), database, clock)
    try:
        await both.enqueue(False, ("", ""), False)
        await both.enqueue(True, ("FAILURE", "SUCCESS,FAILURE,DELAY"), False)
        await both.recover()
        await both.settle()
        for verb, *arguments in plan:
            await getattr(both, verb)(*arguments)
        await both.settle()
    finally:
        await both.store.close()


@settings(max_examples=80)
@given(plans)
@example([("settle",), ("claim", 0, [0]), ("recover",), ("unclaim", 0, [0], 1)])  # rolled back and written again
@example([("send", 1, (S.HELD, True, True), (S.HELD, True, True)), ("move", "release", 1, None)])
@example(
    [
        ("send", 1, (S.BOUNCED, False, True), (S.BOUNCED, False, True)),
        ("gather", timedelta(0)),
        ("report", 0, True),
        ("crash", 1, True),
        ("report", 0, True),
        ("pass_time", timedelta(days=2)),
        ("maintain", "reap", timedelta(days=1), timedelta(0)),
    ]
)
@example([("claim", 0, [0]), ("recover",), ("claim", 0, [0]), ("complete", 0, {0: (S.DELIVERED, False, True)}, 1)])
@example(
    [
        ("send", 1, (S.BOUNCED, False, True), (S.BOUNCED, False, True)),
        ("pass_time", timedelta(days=2)),
        ("maintain", "reap", timedelta(days=1), timedelta(0)),
    ]
)
@example([("claim", 1, [0]), ("pass_time", timedelta(hours=5)), ("maintain", "warn", timedelta(hours=2), timedelta(0))])
def test_the_store_does_what_the_table_of_moves_says(empty: Path, plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "postroom.db"
        shutil.copy(empty, database)
        asyncio.run(run(plan, database))
