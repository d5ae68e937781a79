"""Events: in their order from a cursor, filtered, of what people change too, and gone with retention."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from postroom.errors import StateConflict
from postroom.model.account import Account, AccountKind, Authentication, Proxy
from postroom.model.application import Application
from postroom.model.queue import DeliveryState, LaneId
from postroom.store import EventFilter, EventRow, Selection, event_list
from postroom.store.database import Database
from tests.contract.store.conftest import Opener
from tests.contract.store.examples import NOON, Hour, ask, begin, make_message, result_of, sent

S = DeliveryState
RELAY = Account(
    id=0,
    name="Relay",
    kind=AccountKind.SMTP,
    host="relay.example",
    authentication=Authentication.PASSWORD,
    username="me",
    password="marked-secret",
)
LATER = NOON + timedelta(days=31)


async def told(store: Database, **wanted: object) -> list[tuple[str, str, str]]:
    """Kind, account and detail of the newest events."""
    page = await store.events(EventFilter(**wanted))  # type: ignore[arg-type]
    return [(one.kind, one.account, one.detail) for one in page.events]


async def everything(store: Database, wanted: EventFilter) -> list[EventRow]:
    """All pages from the beginning."""
    found: list[EventRow] = []
    wanted = replace(wanted, after=0)
    while True:
        page = await store.events(wanted)
        assert page.cursor > (wanted.after or 0) or page.at_end
        found += page.events
        if page.at_end:
            return found
        wanted = replace(wanted, after=page.cursor)


async def test_events_are_read_on_from_a_cursor(store: Database, hour: Hour) -> None:
    message = make_message()
    await store.enqueue(message)
    hour.at = NOON + timedelta(hours=1)
    await store.record("account.asleep", account="relay", detail="451 busy")
    page = await store.events(EventFilter())
    first, second = page.events
    assert (first.kind, first.message_id, first.n, first.at) == ("accepted", message.id, None, NOON)
    assert (second.kind, second.message_id, second.account, second.detail) == (
        "account.asleep", None, "relay", "451 busy",
    )  # fmt: skip
    assert second.at == hour.at
    assert (page.cursor, page.at_end) == (second.id, True)
    assert (await store.events(EventFilter(limit=1))).events == (second,)
    page = await store.events(EventFilter(after=0, limit=1))
    assert (page.events, page.cursor, page.at_end) == ((first,), first.id, False)
    page = await store.events(EventFilter(after=first.id, limit=2))
    assert (page.events, page.cursor, page.at_end) == ((second,), second.id, True)
    page = await store.events(EventFilter(after=second.id))
    assert (page.events, page.cursor, page.at_end) == ((), second.id, True)
    assert await store.last_event() == second.id


async def test_there_are_none_at_first(store: Database) -> None:
    page = await store.events(EventFilter())
    assert (page.events, page.cursor, page.at_end, await store.last_event()) == ((), 0, True, 0)


@pytest.mark.parametrize(("look", "windows"), [(1, 2), (3, 2), (100_000, 5)])
async def test_filters_hold_page_by_page(
    store: Database, monkeypatch: pytest.MonkeyPatch, look: int, windows: int
) -> None:
    monkeypatch.setattr(event_list, "LOOK", look)
    monkeypatch.setattr(event_list, "WINDOWS", windows)
    token = await begin(store)
    bounced, other = make_message(), make_message()
    await store.enqueue(other)
    await sent(store, token, bounced, result_of(0, S.BOUNCED))
    await store.record("account.asleep", account="relay")
    await store.record("account.awake", account="relay")
    await store.record("accounting", account="relay")
    await store.hold(Selection(message_id=other.id), NOON)
    for limit in (1, 2, 50):
        every = EventFilter(limit=limit)
        assert [one.kind for one in await everything(store, every)] == [
            "accepted", "accepted", "bounced", "account.asleep", "account.awake", "accounting", "held",
        ]  # fmt: skip
        for wanted, kinds in (
            (replace(every, message_id=bounced.id), ["accepted", "bounced"]),
            (replace(every, account="relay"), ["bounced", "account.asleep", "account.awake", "accounting"]),
            (replace(every, kinds=("account",)), ["account.asleep", "account.awake"]),
            (replace(every, kinds=("account.awake", "held")), ["account.awake", "held"]),
            (replace(every, kinds=("account", "bounced"), account="relay", message_id=bounced.id), ["bounced"]),
            (replace(every, kinds=("a_counting",)), []),
        ):
            assert [one.kind for one in await everything(store, wanted)] == kinds


@pytest.mark.postgresql
async def test_nothing_is_told_beyond_a_gap_that_may_be_filled(store: Database, hour: Hour) -> None:
    await store.record("account.asleep", account="first")
    cursor = (await store.events(EventFilter())).cursor
    await store.write(ask("SELECT nextval('event_id_seq')"))  # as a connection that has not committed yet
    await store.record("account.asleep", account="last")
    page = await store.events(EventFilter(after=cursor))
    assert (page.events, page.cursor, page.at_end) == ((), cursor, True)
    assert await told(store) == [("account.asleep", "first", "")]
    hour.at += timedelta(minutes=1)  # whatever it was, it was rolled back
    assert [one.account for one in (await store.events(EventFilter(after=cursor))).events] == ["last"]


async def test_every_move_of_a_delivery_is_told(store: Database) -> None:
    token = await begin(store)
    message = make_message()
    only = Selection(message_id=message.id)
    await sent(store, token, message, result_of(0, S.DEFERRED, due=NOON))
    await store.retry(only, NOON)
    await store.hold(only, NOON, "because")
    await store.release(only, NOON)
    await store.cancel(only, NOON)
    assert await told(store) == [
        ("accepted", "", ""), ("deferred", "relay", "2.0.0 250 Ok"), ("queued", "", ""), ("held", "", "because"),
        ("queued", "", ""), ("cancelled", "", ""),
    ]  # fmt: skip


# --- what people change ---


async def test_changes_of_accounts_are_told_by_the_names_of_fields(store: Database) -> None:
    saved = await store.save_account(RELAY)
    other = await store.save_account(replace(RELAY, name="other", position=1))
    saved = await store.save_account(
        replace(saved, host="new.example", proxy=Proxy(host="proxy.example"), password="another-secret")
    )
    saved = await store.save_account(replace(saved, enabled=False))
    saved = await store.save_account(replace(saved, enabled=True, name="relay"))
    saved = await store.save_account(replace(saved, position=1))
    await store.save_account(saved)
    await store.remove_account(other.id)
    await store.enqueue(make_message(lane=LaneId(saved.id)))
    with pytest.raises(StateConflict):
        await store.remove_account(saved.id)
    assert await told(store, kinds=("account",)) == [
        ("account.added", "Relay", ""),
        ("account.added", "other", ""),
        ("account.edited", "Relay", "host, password, proxy.host"),
        ("account.disabled", "Relay", ""),
        ("account.enabled", "relay", ""),
        ("account.edited", "relay", "name"),
        ("account.moved", "relay", "from place 0 to 1"),
        ("account.removed", "other", ""),
    ]


async def test_several_accounts_saved_together_are_told_each(store: Database) -> None:
    first = await store.save_account(RELAY)
    second = await store.save_account(replace(RELAY, name="second", position=1))
    new = replace(RELAY, name="new")
    await store.save_accounts([replace(first, port=2525), second, new], ["second", "new", "relay"])
    assert sorted((await told(store))[2:]) == [
        ("account.added", "new", ""),
        ("account.edited", "Relay", "port"),
        ("account.moved", "Relay", "from place 0 to 2"),
        ("account.moved", "second", "from place 1 to 0"),
    ]


async def test_changes_of_applications_are_told(store: Database) -> None:
    saved = await store.save_application(Application(id=0, name="shop", credential=b"hash"))
    saved = await store.save_application(replace(saved, senders=("*@example.org",), enabled=False))
    saved = await store.save_application(replace(saved, credential=b"another"))
    await store.save_application(saved)
    assert await told(store, kinds=("application",)) == [
        ("application.added", "", "shop"),
        ("application.edited", "", "shop: enabled, senders"),
        ("application.edited", "", "shop: password"),
    ]


# --- retention ---


async def test_events_of_no_message_go_when_they_are_old(store: Database, hour: Hour) -> None:
    for n in range(3):
        hour.at = NOON + timedelta(days=n)
        await store.record("account.asleep", account=str(n))
    await store.reap(NOON + timedelta(days=1), NOON)
    assert await told(store) == [("account.asleep", "1", ""), ("account.asleep", "2", "")]
    await store.reap(LATER, NOON)
    assert await told(store) == [("account.asleep", "2", "")]


async def test_a_cursor_holds_when_everything_that_it_saw_is_removed(store: Database, open_again: Opener) -> None:
    token = await begin(store)
    await sent(store, token, make_message())
    cursor = (await store.events(EventFilter())).cursor
    assert await store.reap(LATER, NOON) == 1
    await store.close()
    store = await open_again()
    await store.record("account.asleep", account="relay")
    page = await store.events(EventFilter(after=cursor))
    assert [one.kind for one in page.events] == ["account.asleep"]
    assert [one.message_id for one in await everything(store, EventFilter())] == [None, None]
    await store.reap(LATER, NOON)
    assert await told(store) == [("account.asleep", "relay", "")]
