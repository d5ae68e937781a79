"""What Graph's answers, and the lack of one, mean for each recipient of a message (SPEC section 2.9)."""

from __future__ import annotations

import re
from dataclasses import replace

from ..model.account import Account
from ..model.outcome import Bounced, Deferred, Delivered, Outcome, Remedy, Scope, Unknown
from ..net.graph import GraphAnswer
from ..net.http import HttpFailed
from ..policy.classify import Action, FailureRule, Stage, Verdict, classify, classify_failure

#: A server in between answers for one that may have done what it was asked (RFC 9110 sections 15.6.3 and 15.6.5).
_IN_BETWEEN = frozenset({502, 504})

#: What may stand between double quotes of PowerShell and means itself.
_HARMLESS = re.compile(r"[\w.!#%&'*+/=?^{|}~@-]+")

_REMEDIES = {Action.STOP: Remedy.STOP, Action.FEWER: Remedy.FEWER, Action.SLOWER: Remedy.SLOWER}


class Judge:
    """Judges answers for one transaction: `mailbox` sends it, `author` is the address in its From ("": unclear)."""

    def __init__(self, account: Account, mailbox: str, host: str, author: str) -> None:
        self._account = account
        self._mailbox = mailbox
        self._host = host
        self._author = author

    def of_sending(self, answer: GraphAnswer, note: str) -> Outcome:
        """What the answer to the request that sends means: 202 and nothing else is success."""
        if answer.status == 202:
            return Delivered(reply=answer.reply, remote_host=self._host, note=note)
        if answer.status in _IN_BETWEEN or answer.status < 300:
            reason = f"Graph answered {answer.reply.text} where 202 means that it was sent"
            return Unknown(status="4.4.2", reason=reason, remote_host=self._host)
        return self.refusal(answer)

    def refusal(self, answer: GraphAnswer) -> Bounced | Deferred:
        """What a refusal means, by the rules; an answer that is none is tried again."""
        reply = answer.reply
        if answer.status < 400:
            reason = f"Graph answered {reply.text} to {answer.command}"
            return Deferred(status="4.5.0", reason=reason, reply=reply, remote_host=self._host)
        verdict = classify(Stage.GRAPH, reply)
        advice = self._addressed(verdict)
        if verdict.action is Action.BOUNCE:
            return Bounced(
                status=verdict.status, reason=reply.text, advice=advice, scope=verdict.scope, reply=reply,
                remote_host=self._host,
            )  # fmt: skip
        return Deferred(
            status=verdict.status, reason=reply.text, advice=advice, scope=verdict.scope, reply=reply,
            remote_host=self._host, retry_after=answer.retry_after or verdict.wait,
            remedy=_REMEDIES.get(verdict.action, Remedy.SLEEP),
        )  # fmt: skip

    def no_answer(self, failed: HttpFailed, *, sends: bool) -> Unknown | Deferred:
        """What it means that no answer came. `sends`: to the request after which the message is sent."""
        reason = f"{failed.stage}: {failed.reason}"
        if sends and failed.may_have_arrived:
            reason = f"it was handed over and no answer came: {failed.reason}"
            return Unknown(status="4.4.2", reason=reason, remote_host=self._host)
        if failed.may_have_arrived:
            return Deferred(status="4.4.2", reason=reason, remote_host=self._host)
        rule = failure_rule(failed)
        return Deferred(
            status="4.7.5" if failed.kind == "certificate" else "4.4.1",
            reason=reason,
            advice=rule.advice if rule is not None else "",
            scope=Scope.ACCOUNT,
            remote_host=self._host,
            remedy=Remedy.STOP if rule is not None and rule.action is Action.STOP else Remedy.SLEEP,
        )

    def _addressed(self, verdict: Verdict) -> str:
        return addressed(verdict.advice, self._account, self._mailbox, self._author)


def addressed(advice: str, account: Account, mailbox: str, author: str) -> str:
    """`advice` of a rule, with the addresses to put into commands."""
    for name, value, otherwise in (
        ("{sender}", author, "the address in From"),
        ("{mailbox}", mailbox, "the mailbox"),
        ("{client}", account.oauth.client_id, "the client id"),
    ):
        advice = advice.replace(name, harmless(value, otherwise))
    return advice


def harmless(value: str, otherwise: str) -> str:
    """`value`, where it may stand between double quotes of a shell."""
    return value if _HARMLESS.fullmatch(value) else otherwise


def failure_rule(failed: HttpFailed) -> FailureRule | None:
    """The rule for an answer that did not come."""
    if failed.stage == "proxy":
        return classify_failure(failed.kind, "proxy", failed.reason, host="", port=443)
    return classify_failure(failed.kind, "graph", f"{failed.stage}: {failed.reason}", host="", port=443)


def with_transcript(outcome: Outcome, said: str) -> Outcome:
    """`outcome`, with what was said where it is a failure."""
    return replace(outcome, transcript=said) if isinstance(outcome, Bounced | Deferred | Unknown) else outcome
