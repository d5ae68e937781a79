"""The messages of a lane that delivers directly: each is cut by the domains of its recipients (SPEC section 2.10).

A domain has half of the lane's connections at most, so that one that is slow or dead leaves the others theirs. Within a
flow its domains take turns; for classes and flows see `queue.ready`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator

from ..model.queue import DueMessage, FlowId, MessageId, PriorityClass
from .ready import NORMAL_PER_BULK, Ready

_URGENT, _NORMAL, _BULK = PriorityClass

#: What waits of one flow, by domain.
_Domains = OrderedDict[str, deque[DueMessage]]


class ReadyByDomain(Ready):
    """A queue whose messages have recipients of one domain each; `connections` says how many the lane may have."""

    def __init__(self, connections: Callable[[], int]) -> None:
        super().__init__()
        self._connections = connections
        self._by_flow: dict[PriorityClass, OrderedDict[FlowId, _Domains]] = {
            priority: OrderedDict() for priority in PriorityClass
        }
        self._waiting: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self._taken: dict[tuple[MessageId, int], str] = {}

    def add(self, message: DueMessage) -> None:
        """See `Ready.add`."""
        by_domain: dict[str, list[int]] = {}
        for at, delivery in enumerate(message.deliveries):
            by_domain.setdefault(self._place(message, delivery.recipient), []).append(at)
        for domain, places in by_domain.items():
            part = message
            if len(by_domain) > 1:
                part = dataclasses.replace(message, deliveries=tuple([message.deliveries[at] for at in places]))
            self._enter(part)
            domains = self._by_flow[message.priority].setdefault(message.flow, OrderedDict())
            domains.setdefault(domain, deque()).append(part)
            self._waiting[domain] += 1

    def clear(self) -> None:
        """See `Ready.clear`."""
        for flows in self._by_flow.values():
            for message in [one for domains in flows.values() for queue in domains.values() for one in queue]:
                super().leave(message)
            flows.clear()
        self._waiting.clear()
        super().clear()

    def next(self, most: int) -> DueMessage | None:
        """See `Ready.next`; None also while all that waits is for domains that have their share."""
        for priority in self._order():
            flows = self._by_flow[priority]
            for flow, domains in flows.items():
                domain = next((domain for domain in domains if not self._has_its_share(domain)), None)
                if domain is None:
                    continue
                message = self._take(domains, domain, most)
                if domains:
                    flows.move_to_end(flow)
                else:
                    del flows[flow]
                if priority is not _URGENT:
                    self._since_bulk = 0 if priority is _BULK else self._since_bulk + 1
                return message
        return None

    def _order(self) -> Iterator[PriorityClass]:
        yield _URGENT
        yield from (_BULK, _NORMAL) if self._since_bulk >= NORMAL_PER_BULK else (_NORMAL, _BULK)

    def _take(self, domains: _Domains, domain: str, most: int) -> DueMessage:
        queue = domains[domain]
        waiting = len(queue)
        message = self.foremost_of(queue, most)
        if len(queue) < waiting:
            self._waiting[domain] -= 1
            if not self._waiting[domain]:
                del self._waiting[domain]
        if queue:
            domains.move_to_end(domain)
        else:
            del domains[domain]
        self._under_way[domain] += 1
        self._taken[message.id, message.deliveries[0].n] = domain
        return message

    def _place(self, message: DueMessage, recipient: str) -> str:
        """The domain that its copy goes to; redirected copies have a share of their own there."""
        if self.guard is not None and self.guard.redirects(recipient):
            return f"@{_domain(self.guard.redirect_to)}"
        return _domain(recipient)

    def _has_its_share(self, domain: str) -> bool:
        return self._under_way[domain] >= max(1, self._connections() // 2)

    def leave(self, message: DueMessage) -> bool:
        """See `Ready.leave`."""
        super().leave(message)
        domain = self._taken.pop((message.id, message.deliveries[0].n))
        self._under_way[domain] -= 1
        if not self._under_way[domain]:
            del self._under_way[domain]
        return domain in self._waiting

    @property
    def may_go(self) -> bool:
        """See `Ready.may_go`."""
        return any(not self._has_its_share(domain) for domain in self._waiting)

    @property
    def foremost(self) -> PriorityClass:
        """See `Ready.foremost`."""
        return next((priority for priority in PriorityClass if self._by_flow[priority]), _BULK)

    def waits(self, strand: tuple[PriorityClass, FlowId]) -> bool:
        """See `Ready.waits`."""
        priority, flow = strand
        return flow in self._by_flow[priority]


def _domain(recipient: str) -> str:
    return recipient.rpartition("@")[2].lower().rstrip(".")
