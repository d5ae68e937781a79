"""Connection tests for people who ask for them: with what a gateway knows, of accounts stored or not (SPEC 7)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..accounts.presets import find
from ..config import Settings
from ..errors import Fault, InvalidInput
from ..mime.address import Mailbox
from ..mime.compose import ComposedMessage, compose
from ..mime.head import split
from ..mime.typed import typed_mailbox
from ..model.account import Account, AccountKind, Cloud
from ..model.circuit import Circuit, Health
from ..model.clock import Clock
from ..model.content import Content
from ..model.envelope import Envelope
from ..model.queue import DueMessage, LaneId, MessageId, PriorityClass
from ..net.stream import Resolver
from ..policy.rewriting import fixed_sender
from ..queue.limiter import AccountLimit, Limiter
from ..queue.outgoing import Outgoing
from ..queue.rules import staging_guard
from ..settings.service import SettingsService
from ..store import QueueStore
from ..transports.by_kind import Transports
from ..transports.direct import MOST_TRIED, towards
from ..transports.mail_route import Misses, NoRoute, not_tried
from .advice import finding
from .connection_test import Result, run
from .order import House, NoMessage, Order, RealMessage, Tokens
from .sender_domain import SenderDomainTest
from .stages import Outcome, Recorder, Tell


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a test: addresses as typed, "" where none is named; `send`: one real message as well."""

    recipient: str = ""
    sender: str = ""
    send: bool = False


@dataclass(frozen=True, slots=True)
class Trials:
    """Makes tests as the settings and accounts are now."""

    clock: Clock
    hostname: str
    configuration: SettingsService
    transports: Transports
    limiter: Callable[[], Limiter]
    circuit: Callable[[Account], Circuit]
    outgoing: Callable[[Account], Outgoing | None]
    tokens: Callable[[Account], Tokens]
    store: QueueStore

    @staticmethod
    def require_sound(wanted: Wanted) -> str:
        """The recipient as it stands on the wire.

        Raises:
            InvalidInput: an address can't be read, or a message shall be sent to nobody.
        """
        _typed("from", wanted.sender)
        recipient = _typed("to", wanted.recipient)
        if wanted.send and not recipient:
            raise InvalidInput(Fault("to", "there is none, and a message shall be sent", "name it: --to ADDRESS"))
        return recipient

    async def run(self, account: Account, wanted: Wanted, tell: Tell = lambda event: None) -> Result:
        """Test `account`; each stage is told to `tell` as it comes. Raises as `require_sound`."""
        settings = self.configuration.current
        recipient = self.require_sound(wanted)
        mailbox = _mailbox(account, settings)
        sender = self._sender(account, _typed("from", wanted.sender), settings, mailbox)
        refused = self._no_message(account) if wanted.send else ""
        order = Order(
            account,
            sender,
            recipient,
            message=partial(self._message, account, sender, recipient) if wanted.send and not refused else None,
            no_message=refused,
            needs_attention=account.id != 0 and self.circuit(account).health is Health.NEEDS_ATTENTION,
            hosts=partial(self._hosts, account, recipient) if account.kind is AccountKind.DIRECT else None,
            mailbox=mailbox,
        )
        helo = account.helo_name or self.hostname
        domain = SenderDomainTest(account, self.transports.names, _include(account), helo)
        limits = self.transports.reply_limits
        house = House(
            self.clock, self.hostname, limits, sender_domain=domain, tokens=self.tokens(account),
            places=self.transports.places,
        )  # fmt: skip
        return await run(order, house, tell)

    def _sender(self, account: Account, given: str, settings: Settings, mailbox: str) -> str:
        """As whom mail would leave; of an account of kind graph `mailbox` is the one that it uses."""
        if account.kind is AccountKind.GRAPH and account.graph.draft_only:
            return mailbox
        fixed = fixed_sender(account, settings.forced_postmaster)
        if fixed is not None:
            return fixed.address
        own = mailbox or (account.username if "@" in account.username else "")
        return given or account.sender.address or own

    def _no_message(self, account: Account) -> str:
        """Why no real message may leave now."""
        if not self.configuration.lets_send:
            mend = self.configuration.mend("sending_enabled") or "postroom settings set sending_enabled true"
            return f"none was sent: sending is off ({mend})"
        limit = self.limiter().beside_its_lane(account)
        return _reached(limit) if limit is not None else ""

    async def _message(self, account: Account, sender: str, recipient: str) -> RealMessage:
        """A message as this account sends it: composed, under the staging guard, rewritten, signed, and counted.

        Raises:
            NoMessage: a limit was reached by now.
        """
        now = self.clock.now()
        to = recipient
        message_id = f"<{uuid.uuid4()}@{sender.rpartition('@')[2]}>"
        text = f"This message tests the account {account.name} of Postroom on {self.hostname}.\n"
        composed = ComposedMessage(
            sender=Mailbox(sender, account.sender.full_name), to=(Mailbox(recipient),),
            subject=f"Test of the account {account.name}", text=text,
        )  # fmt: skip
        head, body = split(compose(composed, date=now, message_id=message_id, boundary_seed=os.urandom(16)))
        guard = staging_guard(self.configuration.current)
        if guard is not None and guard.redirects(recipient):
            to = guard.redirect_to
            head = guard.marked(head, [recipient])
        due = DueMessage(
            MessageId(os.urandom(16)), LaneId(account.id), PriorityClass.NORMAL, sender, False,
            not (sender.isascii() and to.isascii()), now, now, (), Content(head, body),
        )  # fmt: skip
        outgoing = self.outgoing(account)
        if outgoing is not None:
            due = await outgoing.alter(due, now)
        await self._count(account)
        assert isinstance(due.content.body, bytes)
        envelope = Envelope(due.reverse_path, (to,), due.eight_bit, due.smtputf8)
        return RealMessage(envelope, due.content.head, due.content.body, to if to != recipient else "")

    async def _count(self, account: Account) -> None:
        """One message more for its limits, on record before its MAIL. Raises as `_message`."""
        limit = self.limiter().beside_its_lane(account)
        if limit is None:
            return
        if limit.reached:
            raise NoMessage(_reached(limit))
        send = limit.reserve(1)  # in the same turn of the loop, so that nobody else takes the room
        send.was_begun()
        await self.store.count(send.end())

    async def _hosts(self, account: Account, recipient: str, recorder: Recorder) -> Sequence[tuple[Account, Resolver]]:
        """Where mail for `recipient` goes, as a stage of its own: each host as an account of its own."""
        if not recipient:
            recorder.skip("mx", "the account delivers to each domain's own hosts: name a recipient with --to")
            return ()
        domain = recipient.rpartition("@")[2]
        recorder.began("mx")
        recorder.found(domain=domain)
        routes = self.transports.routes(account)
        found: list[tuple[Account, Resolver]] = []
        misses = Misses()
        try:
            route = await routes.find(domain)
            recorder.found(hosts=[host for rank in route.ranks for host in rank], mta_sts_enforced=route.enforced)
            async for host in routes.hosts(route, misses):
                found.append((towards(account, route, host), host.resolve))
                if len(found) == MOST_TRIED:
                    break
            failure = None if found else not_tried(route, misses)
        except NoRoute as error:
            failure = error.failure
        if failure is not None:
            advice = finding("no-such-domain", domain=domain, reason=failure.reason)
            recorder.current.worsen(Outcome.FAILED, failure.reason, advice)
        recorder.end()
        return found


def _reached(limit: AccountLimit) -> str:
    """Why its limits let nothing start now; "" if they do."""
    return f"none was sent: the account has reached {limit.reached}" if limit.reached else ""


def _typed(field: str, text: str) -> str:
    if not text:
        return ""
    try:
        return typed_mailbox(text).address
    except ValueError as error:
        raise InvalidInput(Fault(field, str(error), "write it like ann@example.org")) from None


def _mailbox(account: Account, settings: Settings) -> str:
    if account.kind is not AccountKind.GRAPH:
        return ""
    graph = account.graph
    return (graph.draft_mailbox or settings.postmaster) if graph.draft_only else graph.mailbox


#: Which preset tells what mail of each of Microsoft's clouds leaves by; of others it is not known.
_GRAPH_PRESETS = {Cloud.GLOBAL: "microsoft-graph"}


def _include(account: Account) -> str:
    preset = _GRAPH_PRESETS.get(account.oauth.cloud, "") if account.kind is AccountKind.GRAPH else account.preset
    if not preset:
        return ""
    try:
        return find(preset).spf
    except InvalidInput:  # of a release that knew it
        return ""
