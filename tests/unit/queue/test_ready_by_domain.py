"""Messages of a lane that delivers directly: one domain at a time, each with its share of the connections."""

from __future__ import annotations

import dataclasses
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from postroom.model.queue import DueDelivery, DueMessage, FlowId, PriorityClass
from postroom.queue.ready_by_domain import ReadyByDomain
from postroom.store import InHand
from tests.unit.queue.test_ready import message

URGENT, NORMAL, BULK = PriorityClass


def to(n: int, *domains: str, priority: PriorityClass = NORMAL, flow: int = 1) -> DueMessage:
    """A message with number `n` and a recipient in each of `domains`."""
    deliveries = tuple(DueDelivery(i, f"r{i}@{domain}") for i, domain in enumerate(domains))
    return dataclasses.replace(message(n, priority, flow), deliveries=deliveries)


def domains_of(one: DueMessage) -> set[str]:
    """Of its recipients."""
    return {delivery.recipient.rpartition("@")[2].lower() for delivery in one.deliveries}


def filled(*messages: DueMessage, connections: int = 100) -> ReadyByDomain:
    """With these in it."""
    ready = ReadyByDomain(lambda: connections)
    for one in messages:
        ready.add(one)
    return ready


def test_a_message_is_cut_by_domain() -> None:
    ready = filled(to(1, "a.test", "b.test", "A.test", "c.test"))
    found = []
    while (one := ready.next(100)) is not None:
        found.append([delivery.n for delivery in one.deliveries])
    assert found == [[0, 2], [1], [3]]


def test_one_domain_has_half_of_the_connections_at_most() -> None:
    ready = filled(*[to(n, "slow.test") for n in range(10)], connections=4)
    taken = [ready.next(100), ready.next(100)]
    assert all(taken)
    assert (ready.may_go, ready.next(100)) == (False, None)
    ready.add(to(99, "quick.test"))
    assert ready.may_go
    quick = ready.next(100)
    assert quick is not None
    assert domains_of(quick) == {"quick.test"}
    assert not ready.leave(quick), "nothing more waits for it"
    assert taken[0] is not None
    assert ready.leave(taken[0])
    assert ready.next(100) is not None


def test_one_connection_is_enough() -> None:
    ready = filled(to(1, "a.test"), to(2, "a.test"), connections=1)
    first = ready.next(100)
    assert first is not None
    assert not ready.may_go
    ready.leave(first)
    assert ready.may_go


def test_urgent_mail_for_a_domain_that_has_its_share_holds_up_nobody() -> None:
    ready = filled(to(1, "a.test", priority=URGENT), to(2, "a.test", priority=URGENT), to(3, "b.test"), connections=1)
    assert [one.id[-1] for one in (ready.next(9), ready.next(9)) if one is not None] == [1, 3]


def test_domains_of_one_flow_take_turns_and_flows_do_whatever_their_domains() -> None:
    ready = filled(*[to(n, "big.test") for n in range(5)], to(10, "small.test"), to(20, "d1.test", flow=2),
                   to(21, "d2.test", flow=2))  # fmt: skip
    found = []
    while (one := ready.next(100)) is not None:
        found.append(one.id[-1])
    assert found == [0, 20, 10, 21, 1, 2, 3, 4]


def test_bulk_goes_one_for_four() -> None:
    ready = filled(*[to(n, f"d{n}.test") for n in range(8)], *[to(n, f"d{n}.test", priority=BULK) for n in (50, 51)])
    order = [one.priority for one in iter(lambda: ready.next(9), None) if one is not None]
    assert order == [*[NORMAL] * 4, BULK, *[NORMAL] * 4, BULK]


def test_what_waits_is_forgotten_and_what_was_taken_out_stays_in_hand() -> None:
    ready = filled(to(1, "a.test", "b.test"), to(2, "b.test", flow=2), connections=2)
    taken = ready.next(100)
    assert taken is not None
    ready.clear()
    assert (ready.count, ready.may_go, ready.next(100)) == (0, False, None)
    assert ready.in_hand() == InHand(deliveries=frozenset({(taken.id, 0)}), counts={(NORMAL, FlowId(1)): 1})
    ready.add(to(3, "a.test"))
    assert not ready.may_go, "a.test has its share"
    assert ready.leave(taken)
    assert ready.may_go


messages = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a.test", "b.test", "C.test", "c.test"]), min_size=1, max_size=5),
        st.sampled_from(list(PriorityClass)),
        st.integers(1, 3),
    ),
    max_size=15,
)


@given(messages, st.integers(1, 6), st.integers(1, 3))
def test_everything_goes_once_to_one_domain_at_a_time_within_its_share(
    given: list[tuple[list[str], PriorityClass, int]], connections: int, most: int
) -> None:
    ready = ReadyByDomain(lambda: connections)
    wanted: Counter[tuple[bytes, int]] = Counter()
    for n, (domains, priority, flow) in enumerate(given):
        one = to(n, *domains, priority=priority, flow=flow)
        ready.add(one)
        wanted.update((one.id, delivery.n) for delivery in one.deliveries)
    gone: Counter[tuple[bytes, int]] = Counter()
    under_way: list[DueMessage] = []
    while ready.count or under_way:
        assert ready.foremost in PriorityClass
        taken = ready.next(most)
        if taken is None:
            assert not ready.may_go
            assert under_way
            ready.leave(under_way.pop())
            continue
        assert len(domains_of(taken)) == 1
        assert len(taken.deliveries) <= most
        gone.update((taken.id, delivery.n) for delivery in taken.deliveries)
        under_way.append(taken)
        shares = Counter(domain for one in under_way for domain in domains_of(one))
        assert max(shares.values()) <= max(1, connections // 2)
    assert gone == wanted
    assert not ready.may_go
    assert ready.in_hand() == InHand(deliveries=frozenset(), counts={})
    assert not any(ready.waits((priority, FlowId(flow))) for priority in PriorityClass for flow in (1, 2, 3))
    assert ready._bytes == 0
