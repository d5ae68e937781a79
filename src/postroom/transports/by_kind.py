"""Makes the transport of each kind of account: the one table of implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..accounts.own_connections import OwnConnections
from ..accounts.unbuilt import refusal
from ..config import Settings
from ..model.account import Account, AccountKind
from ..model.clock import Clock
from ..net.stream import Resolver, resolve
from ..net.token_login import TokenSource
from ..protocol.smtp.reply_reader import ReplyLimits
from . import ChunkReader, Transport
from .budget import ConnectionBudget
from .mail_route import MailRoutes, Names, Policies
from .refusing import RefusingTransport
from .sandbox import SandboxTransport
from .smtp import SmtpTransport

if TYPE_CHECKING:
    from ..net.dns import Dns
    from .graph import Places


class Transports:
    """Transports as the settings are now, which share the node's connections and what was asked of the DNS."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        random: Callable[[], float],
        chunks: ChunkReader,
        hostname: str,
        own: OwnConnections | None = None,
        tokens: TokenSource | None = None,
    ) -> None:
        self._own = own
        #: Resolves the hosts of connections that messages bring.
        self.resolver: Resolver = resolve
        self._clock = clock
        self._random = random
        self._chunks = chunks
        self._hostname = hostname
        self._tokens = tokens
        self._places: dict[str, Places] = {}
        self._budget = ConnectionBudget(settings.max_connections_in_all)
        self._names: Dns | None = None
        self._lookups: tuple[Names, Policies] | None = None
        self._settings = settings
        self._made: WeakValueDictionary[int, SmtpTransport] = WeakValueDictionary()  # the last one of each account

    def change(self, settings: Settings) -> bool:
        """Go by these from now on. Whether transports must be made anew for it."""
        before, self._settings = self._settings, settings
        self._budget.change(settings.max_connections_in_all)
        if settings.dns != before.dns:
            self._names = self._lookups = None
        is_other = settings.relay != before.relay or settings.dns != before.dns
        return is_other or settings.postmaster != before.postmaster

    def make(self, account: Account) -> Transport:
        """The transport of `account`."""
        refused = refusal(account)
        if refused is not None:
            return RefusingTransport(*refused)
        if account.kind is AccountKind.SANDBOX:
            return SandboxTransport(account.name)
        if account.kind is AccountKind.GRAPH:
            return self._graph(account)
        limits = self.reply_limits
        name = self._hostname if "." in self._hostname else ""
        if account.kind is AccountKind.DIRECT:
            from .direct import DirectTransport

            return DirectTransport(
                account, clock=self._clock, budget=self._budget, helo_name=name, chunks=self._chunks,
                routes=self.routes(account), reply_limits=limits,
            )  # fmt: skip
        made = SmtpTransport(
            account, clock=self._clock, budget=self._budget, helo_name=name, chunks=self._chunks, reply_limits=limits,
            own=self._own, resolver=self.resolver,
            tokens=self._tokens,
        )  # fmt: skip
        former = self._made.get(account.id)
        if former is not None:
            made.succeed(former)
        self._made[account.id] = made
        return made

    def _graph(self, account: Account) -> Transport:
        from .graph import GraphTransport

        if self._tokens is None:
            return RefusingTransport(
                "nobody gives tokens for Microsoft Graph here", "send by an SMTP account meanwhile"
            )
        return GraphTransport(
            account, clock=self._clock, budget=self._budget, chunks=self._chunks, tokens=self._tokens,
            places=self.places, postmaster=self._settings.postmaster,
        )  # fmt: skip

    def places(self, name: str) -> Places:
        """Those of one mailbox (see `graph.place_of`), which transports and tests share."""
        from .graph import Places

        return self._places.setdefault(name, Places())

    @property
    def names(self) -> Dns:
        """The DNS as the settings name it."""
        if self._names is None:
            from ..net.dns import Dns

            self._names = Dns(self._clock, self._settings.dns.addresses)
        return self._names

    @property
    def reply_limits(self) -> ReplyLimits:
        """How much of a reply is read."""
        relay = self._settings.relay
        return ReplyLimits(relay.max_reply_line_bytes, relay.max_reply_bytes)

    def routes(self, account: Account) -> MailRoutes:
        """Where the direct account's mail goes."""
        if self._lookups is None:
            from ..net.mta_sts import StsPolicies

            self._lookups = self.names, StsPolicies(self.names, self._clock)
        own = self._own_names((self._hostname, self._settings.smtp.hostname, account.helo_name))
        return MailRoutes(
            *self._lookups, self._random, own_names=own, port=account.mx_port, family=account.address_family
        )

    @staticmethod
    def _own_names(names: Iterable[str]) -> frozenset[str]:
        return frozenset(name.lower().rstrip(".") for name in names if "." in name)
