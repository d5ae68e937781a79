"""One attempt: what leaves for an account, and what its outcomes do to the deliveries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..model.content import Content
from ..model.envelope import DsnRequest, Envelope
from ..model.notice import NoticeKind, is_asked
from ..model.outcome import Bounced, Captured, Deferred, Delivered, Failure, NotSent, Outcome, Remedy, Scope, Unknown
from ..model.queue import DeliveryResult, DeliveryState, DueDelivery, DueMessage
from ..model.suppression import REASON_CHARACTERS, Suppression, SuppressionSource
from ..model.usage import Usage
from ..pending import Pending
from ..policy.retry import Schedule, jittered, window_has_ended
from ..policy.staging import StagingGuard
from ..policy.suppressions import folded
from ..store import Claim
from ..transports import Slot, Transaction
from .limiter import Send
from .outgoing import KeysUnusable, Outgoing

#: The unknown that puts a delivery on hold: "the relay may have it" (SPEC section 2.8).
UNKNOWNS_UNTIL_HOLD = 3

#: When a delivery is due again that met an account which only goes slower.
SOON = timedelta(seconds=1)


#: Shown where the sender asked for a report of success and the relay took over to make it (RFC 3461 section 5.2.1).
THE_RELAY_REPORTS = (
    "the sender asked for a report of success, and the relay has to make it: where none comes, ask there"
)

_DELIVERED = DeliveryState.DELIVERED

_SUCCESS: dict[type[Outcome], DeliveryState] = {
    Delivered: DeliveryState.DELIVERED,
    Captured: DeliveryState.CAPTURED,
}


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How long and how often one message is tried; nothing ends for its age while not `may_expire` (see ClockWatch).

    `stood_still` says how much of the time between two moments does not count (see `policy.standstill`).
    """

    schedule: Schedule
    window: timedelta
    may_expire: Callable[[], bool] = lambda: True
    stood_still: Callable[[datetime, datetime], timedelta] = lambda start, end: timedelta(0)


class Begun:
    """One transaction from its claim to its durable outcome: `message` as it is sent, `taken` as it was claimed;
    `is_noted`: a report shall tell of it; `send` counts it where the account has limits.

    `altered` is the message as the account sends it, where that is other than what is stored. Under `guard`,
    `redirected_to` is who gets it in place of all its recipients ("": they do).
    """

    __slots__ = (
        "account", "altered", "claim", "guard", "is_noted", "message", "redirected_to", "send", "slot", "started",
        "taken",
    )  # fmt: skip

    def __init__(
        self, slot: Slot, message: DueMessage, claim: Claim, account: str, started: datetime, guard: StagingGuard | None
    ) -> None:
        self.slot = slot
        self.message = self.taken = message
        self.claim = claim
        self.account = account
        self.started = started
        self.altered: Pending[DueMessage] | None = None
        self.guard = guard
        redirects = guard is not None and any(guard.redirects(d.recipient) for d in message.deliveries)
        self.redirected_to = guard.redirect_to if guard is not None and redirects else ""
        self.is_noted = False
        self.send: Send | None = None

    @property
    def recipients(self) -> int:
        """To how many it is sent."""
        return 1 if self.redirected_to else len(self.message.deliveries)

    def redirect(self, outgoing: Outgoing | None) -> Pending[DueMessage]:
        """The copy that goes to `redirected_to`, as the account sends it."""
        assert self.guard is not None
        made: Pending[DueMessage] = Pending()
        try:
            content = self.message.content
            head = self.guard.marked(content.head, [d.recipient for d in self.message.deliveries])
            copy = dataclasses.replace(self.message, content=Content(head, content.body))
        except Exception as error:  # a fault of ours, for which no other message shall wait
            made.set_exception(error)
            return made
        if outgoing is not None:
            return outgoing.alter(copy, self.started)
        made.set_result(copy)
        return made

    def for_each(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """One outcome for each recipient: that of a redirected copy is the same for all, and its relay reports to
        nobody."""
        if not self.redirected_to:
            return outcomes
        return [dataclasses.replace(outcomes[0], reports=False)] * len(self.message.deliveries)

    def usage(self) -> tuple[Usage, ...]:
        """The transaction is over, or never was: what it adds to limits, to be stored with its outcome."""
        return () if self.send is None else self.send.end()

    def keep_only(self, numbers: tuple[int, ...]) -> None:
        """Cut down to what may be sent."""
        kept = frozenset(numbers)
        self.message = dataclasses.replace(
            self.message, deliveries=tuple([d for d in self.message.deliveries if d.n in kept])
        )
        self.claim = dataclasses.replace(self.claim, recipients=numbers)

    def split(self, unsent: frozenset[int], usage: tuple[Usage, ...] = ()) -> Claim:
        """Cut down to what was sent; the claim of the others, of whom `unsent` has the places, with `usage`."""
        numbers = [delivery.n for delivery in self.message.deliveries]  # outcomes are in this order
        rest = dataclasses.replace(self.claim, recipients=tuple([numbers[at] for at in sorted(unsent)]), usage=usage)
        self.keep_only(tuple([n for at, n in enumerate(numbers) if at not in unsent]))
        return rest


def transaction(
    message: DueMessage, begun: Begun | None = None, may_begin: Callable[[], bool] = lambda: True
) -> Transaction:
    """What leaves: the content of `message` for its recipients, or for the one that gets it in their place."""
    recipients = tuple([delivery.recipient for delivery in message.deliveries])
    dsn = _dsn(message)
    if begun is not None and begun.redirected_to:
        recipients, dsn = (begun.redirected_to,), DsnRequest.of("", "", ("NEVER",), ("",))
    envelope = Envelope(message.reverse_path, recipients, message.eight_bit, message.smtputf8, dsn)
    content = message.content
    watch = None if begun is None else begun.send
    in_doubt = any(map(_is_in_doubt, message.deliveries))
    return Transaction(
        envelope, content.head, content.body, content.size_bytes, watch, may_begin, message.connection, in_doubt
    )


def _is_in_doubt(delivery: DueDelivery) -> bool:
    return bool(delivery.unknowns) or delivery.twice


def answered_at_once(outcomes: Sequence[Outcome]) -> Pending[Sequence[Outcome]]:
    """Outcomes of what was not given to the transport."""
    answered: Pending[Sequence[Outcome]] = Pending()
    answered.set_result(outcomes)
    return answered


def was_changed(begun: Begun) -> list[Outcome]:
    """The outcomes where the guard was changed before anything was written."""
    return [NotSent(reason="the staging guard was changed meanwhile")] * begun.recipients


def could_not_be_made(begun: Begun, error: BaseException) -> list[Outcome]:
    """The outcomes where the message could not be made as its account sends it; nothing of it was written."""
    failed = Deferred(status="4.3.0", reason=f"it could not be rewritten or signed: {error}")
    if isinstance(error, KeysUnusable):
        advice = "give the account a DKIM key anew (`postroom accounts dkim`), or none"
        failed = Deferred(status="4.7.0", reason=str(error), advice=advice, scope=Scope.ACCOUNT, remedy=Remedy.STOP)
    return [failed] * begun.recipients


def _dsn(message: DueMessage) -> DsnRequest | None:
    notify = tuple([delivery.notify for delivery in message.deliveries])
    orcpt = tuple([delivery.orcpt for delivery in message.deliveries])
    return DsnRequest.of(message.ret, message.envid, notify, orcpt)


def results(
    message: DueMessage,
    outcomes: Sequence[Outcome],
    rules: RetryRules,
    now: datetime,
    random: Callable[[], float],
    handed_over: Container[int] = (),
) -> tuple[DeliveryResult, ...]:
    """How each delivery of `message` leaves `sending`, in order. None may be NotSent: those go back unclaimed.

    `handed_over` are the recipients whom another account takes at once instead of a bounce.
    """
    return tuple(
        [
            _handed_over(delivery, outcome, now)
            if delivery.n in handed_over
            else _result(message, delivery, outcome, rules, now, random)
            for delivery, outcome in zip(message.deliveries, outcomes, strict=True)
        ]
    )


def with_suppressions(
    message: DueMessage,
    outcomes: Sequence[Outcome],
    results: tuple[DeliveryResult, ...],
    kept_for: timedelta,
    now: datetime,
) -> tuple[DeliveryResult, ...]:
    """The results, where recipients that do not exist go on the suppression list, and stay there so long (zero: until
    somebody takes them off)."""
    expires = now + kept_for if kept_for else None

    def entry(recipient: str, reply: str) -> Suppression:
        return Suppression(
            key=folded(recipient), reason=_in_a_line(reply), source=SuppressionSource.HARD_BOUNCE, created=now,
            expires=expires, message_id=message.id,
        )  # fmt: skip

    return tuple(
        [
            dataclasses.replace(result, suppression=entry(delivery.recipient, result.reply))
            if isinstance(outcome, Bounced)
            and outcome.nobody
            and result.state is DeliveryState.BOUNCED
            and not delivery.recipient.startswith("*@")  # on the list that is the whole domain
            else result
            for delivery, outcome, result in zip(message.deliveries, outcomes, results, strict=True)
        ]
    )


def _in_a_line(reply: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in reply)
    return " ".join(shown.split())[:REASON_CHARACTERS]


def _handed_over(delivery: DueDelivery, outcome: Outcome, now: datetime) -> DeliveryResult:
    assert isinstance(outcome, Failure)
    reply = outcome.reply
    return DeliveryResult(
        n=delivery.n, state=DeliveryState.DEFERRED, outcome="deferred", status=outcome.status,
        reply=reply.text if reply is not None else outcome.reason, command=reply.command if reply is not None else "",
        advice=outcome.advice, due=now, counts=False,
    )  # fmt: skip


def _result(
    message: DueMessage,
    delivery: DueDelivery,
    outcome: Outcome,
    rules: RetryRules,
    now: datetime,
    random: Callable[[], float],
) -> DeliveryResult:
    reply = outcome.reply
    words = reply.text if reply is not None else ""
    command = reply.command if reply is not None else ""
    success = _SUCCESS.get(type(outcome))
    if success is not None:
        status = (reply.enhanced if reply is not None else "") or "2.0.0"
        notice = _notice(message, delivery, NoticeKind.RELAYED) if delivery.notify and success is _DELIVERED else ""
        advice, notice = (THE_RELAY_REPORTS, "") if notice and outcome.reports else (outcome.note, notice)
        return DeliveryResult(
            n=delivery.n, state=success, outcome=success.value, status=status, reply=words, command=command,
            advice=advice, notice=notice,
        )  # fmt: skip
    assert isinstance(outcome, Failure)
    words = words or outcome.reason
    if isinstance(outcome, Bounced):
        return DeliveryResult(
            n=delivery.n, state=DeliveryState.BOUNCED, outcome="bounced", status=outcome.status, reply=words,
            command=command, advice=outcome.advice, notice=_notice(message, delivery, NoticeKind.FAILED),
        )  # fmt: skip
    if isinstance(outcome, Deferred) and outcome.scope is Scope.ACCOUNT:
        # The account's failure is not the message's, and not counted: due as soon as the lane wakes, or, where the lane
        # goes on, when the relay may take it.
        goes_on = outcome.remedy in (Remedy.SLOWER, Remedy.FEWER)
        due = now + (outcome.retry_after or SOON) if goes_on else now
        return DeliveryResult(
            n=delivery.n, state=DeliveryState.DEFERRED, outcome="deferred", status=outcome.status, reply=words,
            command=command, advice=outcome.advice, due=due, counts=False,
        )  # fmt: skip
    if isinstance(outcome, Unknown) and (delivery.unknowns + 1) % UNKNOWNS_UNTIL_HOLD == 0:
        return DeliveryResult(
            n=delivery.n, state=DeliveryState.HELD, outcome="unknown", status=outcome.status, unknown=True,
            reply=f"the relay may have it: {words}", advice="ask the relay's log, then release or cancel",
        )  # fmt: skip
    return _try_again(message, delivery, outcome, rules, now, random(), words)


def _try_again(
    message: DueMessage,
    delivery: DueDelivery,
    outcome: Failure,
    rules: RetryRules,
    now: datetime,
    chance: float,
    words: str,
) -> DeliveryResult:
    own = message.retry
    schedule = Schedule.parse(own.schedule) if own is not None and own.schedule else rules.schedule
    delay = jittered(schedule.delay(delivery.tries + 1), chance)
    if isinstance(outcome, Deferred) and outcome.retry_after is not None:
        delay = outcome.retry_after
    due = now + delay
    is_unknown = isinstance(outcome, Unknown)
    # Asked each time, so that the clock is looked at whenever a time that it tells is kept.
    window = own.window if own is not None and own.window is not None else rules.window
    window += rules.stood_still(message.window_from, due)
    expired = rules.may_expire() and window_has_ended(message.window_from, window, due)
    return DeliveryResult(
        n=delivery.n,
        state=DeliveryState.EXPIRED if expired else DeliveryState.DEFERRED,
        outcome="unknown" if is_unknown else "deferred",
        status=outcome.status,
        reply=words,
        command=outcome.reply.command if outcome.reply is not None else "",
        advice=outcome.advice,
        due=None if expired else due,
        unknown=is_unknown,
        notice=_notice(message, delivery, NoticeKind.FAILED) if expired else "",
    )


def _notice(message: DueMessage, delivery: DueDelivery, kind: NoticeKind) -> str:
    """What is noted for a report: nothing about a notification, and nothing that the sender does not ask for."""
    return kind.value if message.reverse_path and is_asked(kind, delivery.notify) else ""


def all_succeeded(outcomes: Sequence[Outcome]) -> bool:
    """Whether every recipient was delivered to, or captured."""
    for outcome in outcomes:
        if type(outcome) not in _SUCCESS:
            return False
    return True


def not_sent(outcomes: Sequence[Outcome]) -> frozenset[int]:
    """For whom the attempt never began, by index: their claims are given back as if they had not been made."""
    return frozenset(n for n, outcome in enumerate(outcomes) if isinstance(outcome, NotSent))


def was_answered(outcomes: Sequence[Outcome]) -> bool:
    """Whether the other side said anything of anybody: one that breaks off each time has not got well."""
    return any(outcome.reply is not None for outcome in outcomes)


def account_failure(outcomes: Sequence[Outcome]) -> Deferred | None:
    """The outcome that speaks of the account rather than of the message, if there is one."""
    for outcome in outcomes:
        if type(outcome) is Deferred and outcome.scope is Scope.ACCOUNT:
            return outcome
    return None


def transcript(outcomes: Sequence[Outcome]) -> str:
    """What was said in a transaction that failed for somebody."""
    return next((outcome.transcript for outcome in outcomes if isinstance(outcome, Failure)), "")
