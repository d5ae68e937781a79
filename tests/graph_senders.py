"""Accounts that send by the Graph of a test, and their transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from postroom.model.account import Account, AccountKind, Graph, OAuth, OAuthFlow
from postroom.model.clock import Clock
from postroom.model.content import StagedBody
from postroom.model.envelope import Envelope
from postroom.model.outcome import Outcome
from postroom.net.stream import ConnectFailed
from postroom.net.system_clock import SystemClock
from postroom.transports import ChunkReader, Transaction
from postroom.transports.budget import ConnectionBudget
from postroom.transports.graph import GraphTransport, Places
from tests.graph_peer import GraphPeer

MAILBOX = "box@x.test"


@dataclass
class GivenTokens:
    """Tokens in the order given; the last one stays. `failure` is raised instead, where there is one."""

    tokens: list[str] = field(default_factory=lambda: ["token-1"])
    asked: list[str] = field(default_factory=list)
    failure: ConnectFailed | None = None

    async def token(self, account: Account, rejected: str = "") -> str:
        """See `Tokens`."""
        self.asked.append(rejected)
        if self.failure is not None:
            raise self.failure
        if rejected and rejected == self.tokens[0] and len(self.tokens) > 1:
            self.tokens.pop(0)
        return self.tokens[0]


def account(changes: dict[str, Any] | None = None, **graph: Any) -> Account:
    """An account of an application with rights of its own; `graph` are fields of its group."""
    oauth = OAuth(flow=OAuthFlow.CLIENT_CREDENTIALS, tenant="x.test", client_id="app-1", client_secret="s")
    found = Graph(**{"mailbox": MAILBOX, **graph})
    return Account(id=1, name="graph", kind=AccountKind.GRAPH, oauth=oauth, graph=found, **(changes or {}))


async def no_chunks(body: StagedBody) -> AsyncIterator[bytes]:
    """For messages that lie in one piece."""
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


def transport(
    peer: GraphPeer,
    sender: Account | None = None,
    *,
    chunks: ChunkReader = no_chunks,
    tokens: GivenTokens | None = None,
    places: Places | None = None,
    budget: ConnectionBudget | None = None,
    clock: Clock | None = None,
    postmaster: str = "",
) -> GraphTransport:
    """The transport of `sender`, to `peer`."""
    one = places or Places()
    return GraphTransport(
        sender or account(),
        clock=clock or SystemClock(),
        budget=budget or ConnectionBudget(10),
        chunks=chunks,
        tokens=tokens or GivenTokens(),
        places=lambda name: one,
        postmaster=postmaster,
        root=peer.url,
    )


HEAD = b"From: Box <box@x.test>\r\nTo: b@y.test\r\nMessage-ID: <1@x.test>\r\nSubject: hi\r\n\r\n"


def transaction(
    *recipients: str, head: bytes = HEAD, body: bytes | StagedBody = b"hello\r\n", **rest: Any
) -> Transaction:
    """A message to be sent."""
    size = len(head) + (len(body) if isinstance(body, bytes) else body.size_bytes)
    return Transaction(Envelope("box@x.test", recipients or ("b@y.test",)), head, body, size, **rest)


async def send(graph: GraphTransport, message: Transaction) -> Sequence[Outcome]:
    """The outcomes of one message."""
    slot = await graph.reserve()
    outcomes = await slot.deliver(message)
    slot.settle()
    slot.durable()
    return outcomes


async def to_each(
    peer: GraphPeer, message: Transaction, changes: dict[str, Any] | None = None, **fields: Any
) -> Sequence[Outcome]:
    """The outcomes of one message of an account with these fields."""
    graph = transport(peer, account(changes, **fields))
    outcomes = await send(graph, message)
    await graph.close()
    return outcomes


async def sent(
    peer: GraphPeer, message: Transaction | None = None, changes: dict[str, Any] | None = None, **fields: Any
) -> Outcome:
    """The outcome that is that of all."""
    outcomes = await to_each(peer, message or transaction(), changes, **fields)
    assert len(set(map(repr, outcomes))) == 1
    return outcomes[0]
