"""What to do about a failed stage: by the rules of `policy/classify.toml`, with what the test has found filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..accounts.fields import ACCOUNT_FIELDS
from ..model.account import Account, Authentication
from ..model.reply import Reply
from ..net.stream import ConnectFailed
from ..policy import classify as rules
from ..policy.findings import findings
from .stages import Advice


@dataclass(slots=True)
class Known:
    """What is known of an account and of this test, for the changes that rules propose.

    `certificate_name` and `fingerprint` are of the certificate that the relay showed, `hostname` is this machine's.
    """

    account: Account
    hostname: str = ""
    certificate_name: str = ""
    fingerprint: str = ""
    port: int = field(default=0)

    def values(self) -> dict[str, str]:
        """What stands for the names in braces; what is empty is not known, and the change is not proposed."""
        account = self.account
        mailbox = account.username if "@" in account.username else ""
        login = Authentication.PASSWORD.value if account.username and account.password else ""
        return {
            "mailbox": mailbox,
            "login": login,
            "hostname": self.hostname if "." in self.hostname else "",
            "certificate_name": self.certificate_name,
            "fingerprint": self.fingerprint,
        }

    def change(self, proposed: Mapping[str, str]) -> dict[str, str]:
        """`proposed` with its values filled in; nothing where one is not known, or all of it is so already."""
        values = self.values()
        if any(text[1:-1] in values and not values[text[1:-1]] for text in proposed.values() if text[:1] == "{"):
            return {}
        filled = {name: values[text[1:-1]] if text[:1] == "{" else text for name, text in proposed.items()}
        same = [name for name, text in filled.items() if _is_so(self.account, name, text)]
        return {} if len(same) == len(filled) else {name: text for name, text in filled.items() if name not in same}


def _is_so(account: Account, name: str, text: str) -> bool:
    spec = ACCOUNT_FIELDS[name]
    return bool(spec.parse(text) == spec.of(account))


def of_failure(error: ConnectFailed, known: Known) -> Advice:
    """What to do where no connection could be had."""
    if error.reply is not None and not error.reply.is_positive:
        stages = {stage.value for stage in rules.Stage}
        return of_reply(rules.Stage(error.stage if error.stage in stages else "ehlo"), error.reply, known)
    account = known.account
    rule = rules.classify_failure(
        error.kind, error.stage, error.reason, host=account.host, port=known.port or account.port
    )
    if rule is None:
        return finding("unknown-failure")
    return Advice(rule.cause, rule.advice, rule.name, known.change(rule.change))


def of_reply(stage: rules.Stage, reply: Reply, known: Known) -> Advice:
    """What to do about a refusal."""
    verdict = rules.classify(stage, reply)
    rule = rules.rules_by_name().get(verdict.rule)
    if rule is not None:
        return Advice(rule.cause, rule.advice, rule.name, known.change(rule.change))
    if verdict.nobody:
        return finding("no-such-mailbox")
    if reply.is_transient:
        return finding("refused-for-now")
    return finding(_REFUSED.get(stage, "account-refused"), known)


_REFUSED = {
    rules.Stage.RCPT: "recipient-refused",
    rules.Stage.MAIL: "sender-refused",
    rules.Stage.DATA: "message-refused",
    rules.Stage.CONTENT: "message-refused",
}


def finding(name: str, known: Known | None = None, *, record: str = "", **found: str) -> Advice:
    """The entry `name` of `policy/findings.toml`, with `found` in the place of its words in braces."""
    entry = findings()[name]
    change = known.change(entry.change) if known is not None else {}
    cause, advice = entry.cause.format_map(found), entry.advice.format_map(found)
    return Advice(cause, advice, name, change, record)
