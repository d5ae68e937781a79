"""Searches: every filter, by every index, before and after what it goes by is written; pages join without a gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.errors import Busy
from postroom.model.ids import message_id_text
from postroom.model.queue import DeliveryState, LaneId, MessageId, NewMessage
from postroom.store import DeliveryFilter, DeliveryRow, Selection, lists, search_index, subjects
from postroom.store.database import Database
from tests.contract.store.examples import LANE, NOON, OTHER_LANE, begin, make_message, result_of, sent

S = DeliveryState
Keys = list[tuple[bytes, int]]


async def found(store: Database, **wanted: Any) -> Keys:
    """The keys of the first page."""
    return [(row.message_id, row.n) for row in await store.deliveries(DeliveryFilter(**wanted))]


async def indexed(store: Database, *, with_subjects: bool = False) -> None:
    """Everything that is to be indexed is."""
    while await store.index(with_subjects):
        pass


def keys_of(*messages: NewMessage) -> Keys:
    """All deliveries of the messages, the last message first."""
    return [(message.id, delivery.n) for message in reversed(messages) for delivery in message.deliveries]


@pytest.fixture(params=["before", "half", "after"])
def when(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Whether messages are searchable when they are looked for."""
    monkeypatch.setattr(search_index, "STEP", 2)
    monkeypatch.setattr(search_index, "_NEXT", search_index._NEXT.replace("1000", "2"))
    yield request.param


async def settle(store: Database, when: str) -> None:
    """Index none, some or all."""
    if when == "half":
        assert await store.index(False)
    elif when == "after":
        await indexed(store)


async def test_each_key_is_found_exactly_and_by_its_beginning(store: Database, when: str) -> None:
    one = make_message("Ann@Example.net", sender="Shop@source.example")
    two = make_message("bob@example.com", "ann@example.org", sender="till@source.example")
    three = make_message('"odd@name"@example.net', sender="", at=NOON + timedelta(days=3))
    for message in (one, two, three):
        await store.enqueue(message)
    await settle(store, when)
    assert await found(store, recipient="ann@example.net") == keys_of(one)
    assert await found(store, recipient="ANN@") == [(two.id, 1), (one.id, 0)]
    assert await found(store, recipient="nn@") == []
    assert await found(store, domain="example.net") == keys_of(one, three)
    assert await found(store, domain="EXAMPLE") == keys_of(one, two, three)
    assert await found(store, domain="name") == []
    assert await found(store, sender="shop@Source.example") == keys_of(one)
    assert await found(store, sender="t") == keys_of(two)
    assert await found(store, message_id=message_id_text(two.id)) == keys_of(two)
    assert await found(store, message_id=message_id_text(three.id)[:8]) == keys_of(three)
    assert await found(store, message_id=three.id.hex().upper()) == keys_of(three)
    assert await found(store, message_id=two.header_message_id) == keys_of(two)
    assert await found(store, message_id=two.header_message_id.strip("<>")) == keys_of(two)
    assert await found(store, message_id="<") == keys_of(one, two, three)
    assert await found(store, message_id="example") == []


async def test_a_beginning_of_an_id_may_be_ours_or_that_of_a_header(store: Database, when: str) -> None:
    ours = make_message()
    beginning = ours.id.hex()[:10]
    theirs = replace(make_message(), header_message_id=f"<{beginning}@source.example>")
    await store.enqueue(ours)
    await store.enqueue(theirs)
    await settle(store, when)
    assert (theirs.id, 0) in await found(store, message_id=beginning)
    assert (ours.id, 0) in await found(store, message_id=beginning)


async def test_application_tag_and_account_are_found_exactly(store: Database, when: str) -> None:
    shop = make_message(lane=OTHER_LANE)
    till = replace(make_message("b@example.net", "c@example.net"), application="till", tag="May 2026")
    for message in (shop, till):
        await store.enqueue(message)
    await settle(store, when)
    assert await found(store, application="till") == keys_of(till)
    assert await found(store, application="til") == []
    assert await found(store, tag="May 2026") == keys_of(till)
    assert await found(store, tag="May") == []
    assert await found(store, lane=OTHER_LANE) == keys_of(shop)
    assert await found(store, lane=LaneId(99)) == []
    (row, _) = await store.deliveries(DeliveryFilter(tag="May 2026"))
    assert (row.application, row.tag) == ("till", "May 2026")
    view = await store.message(till.id)
    assert view is not None
    assert view.tag == "May 2026"


async def test_dates_bound_every_search(store: Database, when: str) -> None:
    days = [make_message(at=NOON + timedelta(days=n)) for n in range(4)]
    for message in days:
        await store.enqueue(message)
    await settle(store, when)
    since, until = NOON + timedelta(days=1), NOON + timedelta(days=3)
    for more in ({}, {"recipient": "b@"}, {"lane": LANE}, {"states": (S.QUEUED,)}, {"message_id": "<"}):
        assert await found(store, since=since, until=until, **more) == keys_of(*days[1:3]), more
        assert await found(store, until=NOON, **more) == []
        assert await found(store, since=NOON + timedelta(days=4), **more) == []


async def test_a_message_of_an_earlier_time_that_comes_late_has_its_place(store: Database) -> None:
    first, late, last = (make_message(at=NOON + timedelta(days=n)) for n in range(3))
    await store.enqueue(first)
    await store.enqueue(last)
    await indexed(store)
    await store.enqueue(late)
    assert await found(store, recipient="b@") == keys_of(first, late, last)
    assert await found(store, recipient="b@", limit=2) == keys_of(late, last)


def _matches(row: DeliveryRow, message: NewMessage, wanted: DeliveryFilter) -> bool:
    domain = row.recipient.rpartition("@")[2]
    return (
        (not wanted.states or row.state in wanted.states)
        and (wanted.lane is None or row.lane == wanted.lane)
        and row.recipient.startswith(wanted.recipient)
        and domain.startswith(wanted.domain)
        and row.reverse_path.startswith(wanted.sender)
        and message.application.startswith(wanted.application)
        and (not wanted.tag or message.tag == wanted.tag)
        and (wanted.since is None or message.accepted >= wanted.since)
        and (wanted.until is None or message.accepted < wanted.until)
    )


_TEXTS = st.sampled_from(["", "a", "b", "ab", "zz"])
_FILTERS = st.builds(
    DeliveryFilter,
    states=st.lists(st.sampled_from([S.QUEUED, S.DELIVERED, S.BOUNCED, S.HELD]), max_size=2, unique=True).map(tuple),
    lane=st.sampled_from([None, None, LANE, OTHER_LANE]),
    recipient=_TEXTS,
    domain=_TEXTS,
    sender=_TEXTS,
    application=st.sampled_from(["", "", "a", "b"]),
    tag=st.sampled_from(["", "", "a"]),
    since=st.sampled_from([None, None, NOON + timedelta(hours=9)]),
    until=st.sampled_from([None, None, NOON + timedelta(hours=30)]),
    limit=st.sampled_from([1, 3, 50]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=_FILTERS)
async def test_pages_of_any_filter_hold_what_matches_and_nothing_twice(
    store: Database, many: dict[bytes, NewMessage], wanted: DeliveryFilter
) -> None:
    every = await store.deliveries(DeliveryFilter(limit=10_000))
    expected = [(row.message_id, row.n) for row in every if _matches(row, many[row.message_id], wanted)]
    seen: Keys = []
    page = wanted
    while keys := [(row.message_id, row.n) for row in await store.deliveries(page)]:
        assert len(keys) <= wanted.limit
        seen += keys
        page = replace(wanted, after=keys[-1])
    assert seen == expected


@pytest.fixture
async def many(store: Database) -> dict[bytes, NewMessage]:
    """Messages of three days with all that filters ask for; the newer half is not searchable yet."""
    token = await begin(store)
    made: dict[bytes, NewMessage] = {}
    for n in range(48):
        letter, other = "ab"[n % 2], "ab"[n // 2 % 2]
        message = replace(
            make_message(
                f"{letter}{other}@{other}{letter}.example",
                f"{other}@a.example",
                sender=f"{'ab'[n // 4 % 2]}@source.example",
                at=NOON + timedelta(hours=1.5 * n),
                lane=(LANE, OTHER_LANE)[n // 8 % 2],
            ),
            application="ab"[n // 3 % 2],
            tag="a" if n % 5 == 0 else "",
        )
        made[message.id] = message
        if n % 3:
            await store.enqueue(message)
        else:
            await sent(store, token, message, result_of(0, S.DELIVERED), result_of(1, S.BOUNCED))
        if n % 7 == 1:
            await store.hold(Selection(message_id=message.id, n=0), NOON)
        if n == 24:
            await indexed(store)
    return made


async def test_the_most_selective_condition_leads(store: Database, many: dict[bytes, NewMessage]) -> None:
    rare = replace(make_message("rare@a.example", at=NOON + timedelta(hours=80)), application="seldom")
    await store.enqueue(rare)
    for _ in range(3):
        await store.enqueue(make_message("b@a.example", at=NOON + timedelta(hours=80)))
    await indexed(store)

    def leading(wanted: DeliveryFilter) -> Any:
        return store._readers.read(lambda reader: [access.index for access in lists._accesses(reader, wanted)])

    assert (await leading(DeliveryFilter(domain="a.", application="seldom")))[0] == "message_application"
    assert (await leading(DeliveryFilter(recipient="rare@", application="shop")))[0] == "delivery_recipient"
    assert (await leading(DeliveryFilter(domain="a.", states=(S.HELD,))))[0] == "delivery_aside"


# --- words of subjects ---


async def worded(store: Database, *subjects_given: str) -> list[NewMessage]:
    """Messages with these subjects."""
    messages = [
        replace(make_message(at=NOON + timedelta(days=n)), subject=subject) for n, subject in enumerate(subjects_given)
    ]
    for message in messages:
        await store.enqueue(message)
    return messages


async def test_words_of_subjects_are_found_wherever_they_stand(store: Database) -> None:
    first, second, third = await worded(store, "Invoice 4711 for Jörg", "Re: your e-mail, INVOICE", "Newsletter")
    await indexed(store, with_subjects=True)
    assert await found(store, subject=("invoice",)) == keys_of(first, second)
    assert await found(store, subject=("jorg", "4711")) == keys_of(first)
    assert await found(store, subject=("e-mail",)) == keys_of(second)
    assert await found(store, subject=("invoi",)) == []
    assert await found(store, subject=("invoi*",)) == keys_of(first, second)
    assert await found(store, subject=('"news*',)) == keys_of(third)
    assert await found(store, subject=("invoice",), limit=1) == keys_of(second)
    assert await found(store, subject=("invoice",), limit=1, after=(second.id, 0)) == keys_of(first)
    assert await found(store, subject=("invoice",), until=NOON + timedelta(hours=1)) == keys_of(first)
    assert await found(store, subject=("invoice",), recipient="nobody@") == []


async def test_words_of_all_go_with_a_state_of_few_page_by_page(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever leads, the words or the state, and in pages of any size: the same deliveries, each once."""
    monkeypatch.setattr(lists, "_WORDED", 3)
    messages = await worded(store, *("Rare things" if n % 10 == 4 else "Things" for n in range(30)))
    for message in messages[::4]:
        await store.hold(Selection(message_id=message.id), NOON)
    await indexed(store, with_subjects=True)
    for words, which in {
        ("things",): slice(0, 30),
        ("rare",): slice(4, 30, 10),
        ("th*", "rare"): slice(4, 30, 10),
    }.items():
        held = [one for one in messages[::4] if one in messages[which]]
        for limit in (1, 2, 50):
            pages, after = [], None
            while page := await found(store, subject=words, states=(DeliveryState.HELD,), limit=limit, after=after):
                pages += page
                after = page[-1]
            assert pages == keys_of(*held)


async def test_what_is_there_is_indexed_when_words_are_switched_on_and_goes_when_they_are_switched_off(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "STEP", 2)
    monkeypatch.setattr(subjects, "LOOK", 3)
    messages = await worded(store, *(f"Word {n}" for n in range(7)))
    await indexed(store)
    assert await found(store, subject=("word",)) == []
    await indexed(store, with_subjects=True)
    assert await found(store, subject=("word",)) == keys_of(*messages)
    newer = await worded(store, "A word more")
    await indexed(store, with_subjects=True)
    assert set(await found(store, subject=("word",))) == set(keys_of(*messages, *newer))
    await indexed(store)
    assert await found(store, subject=("word",)) == []
    assert not await store._readers.read(lambda reader: subjects.exist(reader.raw))
    await indexed(store, with_subjects=True)
    assert len(await found(store, subject=("word",))) == 8


async def test_the_words_of_a_message_go_with_it(store: Database) -> None:
    token = await begin(store)
    gone = replace(make_message(), subject="Gone away")
    await sent(store, token, gone)
    (kept,) = await worded(store, "Gone tomorrow")
    await indexed(store, with_subjects=True)
    assert await store.reap(NOON + timedelta(hours=1), NOON) == 1
    rows = await store._readers.read(
        lambda reader: reader.raw.execute("SELECT message_id FROM subject_words").fetchall()
    )
    assert rows == [(kept.id,)]


async def test_subjects_of_one_millisecond_are_all_found(store: Database) -> None:
    first = replace(make_message(), subject="same")
    for n in range(5):
        await store.enqueue(replace(first, id=MessageId(first.id[:9] + bytes([n]) * 7)))
    await indexed(store, with_subjects=True)
    assert len(await found(store, subject=("same",))) == 5


async def test_a_search_that_takes_too_long_says_what_would_help(store: Database) -> None:
    def endless(reader: Any) -> Any:
        reader.raw.execute("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n")

    store._readers._seconds = 0.01
    with pytest.raises(Busy, match="narrow it, by dates"):
        await store._readers.read(endless)
