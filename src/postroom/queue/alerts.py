"""Alerts: what is wrong with the gateway itself, told by mail, once for each cause, with an all-clear (SPEC section 3).

An alert goes through the intake like any message, under the null reverse-path, and through another account than the
one that it is about. Alerts that wait are no cause of an alert.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from ..errors import GatewayError
from ..mime.address import Mailbox
from ..mime.compose import ComposedMessage, compose
from ..model.account import Account, AccountKind
from ..model.application import ALL_ACCOUNTS, Application
from ..model.circuit import Circuit, Health
from ..model.clock import Clock
from ..model.content import Content
from ..model.envelope import Address, Envelope
from ..model.quantity import format_duration, format_size
from ..model.queue import LaneId
from ..model.submission import Door, Submission
from ..store import QueueStore
from .intake import Intake
from .repeat_guard import Watched

_log = structlog.get_logger()

#: How often causes are looked for.
INTERVAL = timedelta(minutes=1)

#: The time over which the bounce rate is reckoned, and the deliveries that must have ended in it.
RATE_OVER = timedelta(hours=1)
RATE_OF = 20

#: Days before an expiry at which it is told.
EXPIRY_DAYS = (30, 7, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRules:
    """To whom alerts go ("": there are none), by whom and through which account ("": by routing); and from when on
    something is a cause (zero: never): the age of the oldest mail that waits, percent bounced, octets left on disk."""

    to: Address
    sender: Address
    account: str
    hostname: str
    oldest: timedelta
    bounce_percent: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Expiry:
    """Something that expires: what it is, and what to do before."""

    what: str
    at: datetime
    mend: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Why there is an alert: `key` stays while the cause does, and it is told again when its `step` has grown.
    `account` is the one that it is about, if any."""

    key: str
    what: str
    mend: str = ""
    account: str = ""
    step: int = 0


@dataclass(slots=True)
class House:
    """What is looked at: accounts and how they are, what was delivered and bounced by each since the start, what
    expires, octets free on disk, repeat guards that may be holding mail."""

    accounts: Callable[[], Sequence[Account]]
    circuit: Callable[[LaneId], Circuit]
    ended: Callable[[], Mapping[LaneId, tuple[int, int]]]
    expiries: Callable[[], Awaitable[Sequence[Expiry]]]
    free_bytes: Callable[[], int]
    guards: Callable[[], Sequence[Watched]]


@dataclass(slots=True)
class _Samples:
    """Totals of delivered and bounced, minute by minute, over the time of the rate."""

    totals: deque[tuple[float, int, int]] = field(default_factory=deque)

    def percent(self, now: float, delivered: int, bounced: int) -> int:
        """Percent bounced since the oldest sample; 0 where too little has ended."""
        self.totals.append((now, delivered, bounced))
        while now - self.totals[0][0] > RATE_OVER.total_seconds():
            self.totals.popleft()
        _, first_delivered, first_bounced = self.totals[0]
        of_these = delivered - first_delivered + bounced - first_bounced
        return 100 * (bounced - first_bounced) // of_these if of_these >= RATE_OF else 0


class Alerts:
    """Looks for causes and tells of them until stopped. `keep` stores the text that the next start is given as `kept`,
    so that nothing is told twice."""

    def __init__(
        self,
        store: QueueStore,
        clock: Clock,
        intake: Intake,
        rules: Callable[[], AlertRules],
        house: House,
        entropy: Callable[[int], bytes],
        keep: Callable[[str], asyncio.Future[None]],
        kept: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._intake = intake
        self._rules = rules
        self._house = house
        self._entropy = entropy
        self._keep = keep
        # What was told and at which step, by the keys of causes.
        self._open: dict[str, tuple[str, int]] = {key: (what, step) for key, what, step in json.loads(kept or "[]")}
        self._samples: dict[LaneId, _Samples] = {}
        self._noticed = asyncio.Event()

    def notice(self) -> None:
        """An account is in another state: look at once."""
        self._noticed.set()

    async def run(self) -> None:
        """Look until cancelled; what fails is logged and tried again at the next turn."""
        while True:
            self._noticed.clear()
            try:
                await self.look()
            except (GatewayError, OSError) as error:
                _log.warning("alerts_failed", reason=str(error))
            timer = self._clock.call_later(INTERVAL.total_seconds(), self._noticed.set)
            try:
                await self._noticed.wait()
            finally:
                timer.cancel()

    async def look(self) -> None:
        """One turn: tell of what is new, and of what is over."""
        rules = self._rules()
        causes = {cause.key: cause async for cause in self._causes(rules)}
        if not rules.to:
            return
        before = dict(self._open)
        for key, cause in causes.items():
            is_new = key not in self._open or cause.step > self._open[key][1]
            if is_new and await self._tell(rules, cause, "Alert"):
                self._open[key] = cause.what, cause.step
        for key in [key for key in self._open if key not in causes]:
            if await self._tell(rules, Cause(key, self._open[key][0]), "All clear"):
                del self._open[key]
        if self._open != before:
            await self._keep(json.dumps([[key, what, step] for key, (what, step) in self._open.items()]))

    # Causes -------------------------------------------------------------------------------------------------------

    async def _causes(self, rules: AlertRules) -> AsyncIterator[Cause]:
        async for cause in self._of_accounts(rules):
            yield cause
        free = self._house.free_bytes()
        if free < rules.free_bytes:
            what = f"the disk of the data folder has less than {format_size(rules.free_bytes)} free"
            yield Cause("disk", what, "make room: mail is refused when it is full")
        for one in self._house.guards():
            if one.guard.count and await self._store.repeats(one.application_id, one.guard.count, one.now):
                over = f"{one.guard.count} or more within {format_duration(one.guard.within)}"
                what = f"application {one.application} sends the same again and again, and its repeat guard holds it"
                mend = f"stop it; postroom queue list --application {one.application} --state held shows what is held"
                yield Cause(f"repeats {one.application}", f"{what} ({over})", mend)
        now = self._clock.now()
        for expiry in await self._house.expiries():
            left = expiry.at - now
            days = min((days for days in EXPIRY_DAYS if left <= timedelta(days=days)), default=None)
            if days is not None:
                verb = "has expired" if left <= timedelta(0) else "expires"
                what = f"{expiry.what} {verb} on {expiry.at.date().isoformat()}"
                yield Cause(f"expiry {expiry.what}", what, expiry.mend, step=-days)

    async def _of_accounts(self, rules: AlertRules) -> AsyncIterator[Cause]:
        now = self._clock.now()
        ended = self._house.ended()
        for account in self._house.accounts():
            lane = LaneId(account.id)
            circuit = self._house.circuit(lane)
            rate = self._rate(lane, *ended.get(lane, (0, 0)))
            if circuit.health is Health.NEEDS_ATTENTION:
                mend = f"{circuit.advice}; then postroom accounts edit {account.name}, or accounts wake {account.name}"
                what = f"account {account.name} needs attention and sends nothing: {circuit.reason}"
                yield Cause(f"account {account.name}", what, mend.removeprefix("; then "), account.name)
            elif rules.oldest and (since := await self._store.waiting_since(lane)) and now - since > rules.oldest:
                what = f"mail has waited on account {account.name} since {since.isoformat(timespec='minutes')}"
                mend = f"postroom queue list --account {account.name} shows it, postroom why ID says what it waits for"
                yield Cause(f"oldest {account.name}", what, mend, account.name)
            if rules.bounce_percent and rate >= rules.bounce_percent:
                over = format_duration(RATE_OVER)
                what = f"{rate} % of what account {account.name} sent within {over} was refused for good"
                mend = f"postroom queue list --state bounced --account {account.name} shows what the relays said"
                yield Cause(f"bounces {account.name}", what, mend, account.name)

    def _rate(self, lane: LaneId, delivered: int, bounced: int) -> int:
        samples = self._samples.setdefault(lane, _Samples())
        return samples.percent(self._clock.monotonic(), delivered, bounced)

    # Telling ------------------------------------------------------------------------------------------------------

    async def _tell(self, rules: AlertRules, cause: Cause, word: str) -> bool:
        """Whether it could be told, or never can be."""
        kind = "alert.raised" if word == "Alert" else "alert.cleared"
        account = self._another(rules, cause)
        if account is None:
            through = "told nobody: there is no other account"
        else:
            try:
                accepted = await self._intake.submit(self._submission(rules, cause, word, account))
            except GatewayError as error:
                _log.error("alert_not_told", cause=cause.what, reason=str(error))
                return False
            through = f"told through {', '.join(sorted(set(accepted.accounts)))}"
        await self._store.record(kind, account=cause.account, detail=f"{cause.what} ({through})")
        _log.warning(kind.replace(".", "_"), cause=cause.what, to=rules.to, how=through)
        return True

    def _another(self, rules: AlertRules, cause: Cause) -> str | None:
        """The account to go through, never the one that is the cause: the one that is set if it can send, else one that
        can, else one for which it waits. "": by routing, where all are sandboxes; None: there is no other."""
        accounts = [one for one in self._house.accounts() if one.kind is not AccountKind.SANDBOX]
        others = [one for one in accounts if one.name != cause.account]
        others.sort(key=lambda one: one.name.lower() != rules.account.lower())
        for one in others:
            if one.enabled and self._house.circuit(LaneId(one.id)).may_send:
                return one.name
        if others:
            return next((one.name for one in others if one.enabled), others[0].name)
        return None if accounts else ""

    def _submission(self, rules: AlertRules, cause: Cause, word: str, account: str) -> Submission:
        now = self._clock.now()
        over = "This is over" if word == "All clear" else "Since now"
        lines = [f"{word} of the mail gateway {rules.hostname}", "", f"  {cause.what}"]
        lines += ["", f"What to do: {cause.mend}"] if cause.mend else []
        lines += ["", f"{over}: {now.isoformat(timespec='seconds')}. It is told once; an all-clear follows."]
        message = ComposedMessage(
            sender=Mailbox(rules.sender or f"MAILER-DAEMON@{rules.hostname}", "Mail gateway"),
            to=(Mailbox(rules.to),),
            subject=f"{word}: {cause.what}"[:200],
            text="\n".join(lines[:-1] if word == "All clear" else lines) + "\n",
            headers=(("Auto-Submitted", "auto-generated"),),
        )
        message_id = f"<{self._entropy(12).hex()}@{rules.hostname}>"
        raw = compose(message, date=now, message_id=message_id, boundary_seed=self._entropy(16))
        head, _, body = raw.partition(b"\r\n\r\n")
        submission = Submission(
            door=Door.NOTIFICATION,
            application=Application(id=0, name="alerts", senders=("*",), accounts=(ALL_ACCOUNTS,)),
            envelope=Envelope("", (rules.to,), eight_bit=not body.isascii(), smtputf8=not head.isascii()),
            content=Content(head + b"\r\n\r\n", body),
            received=now,
        )
        return replace(submission, account=account) if account else submission
