"""What to do about a failed stage: by the rules of `policy/classify.toml`, with what the test has found filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..accounts.fields import ACCOUNT_FIELDS, DEFAULTS
from ..model.account import Account, AccountKind, Authentication, OAuthFlow, OAuthProvider
from ..model.reply import Reply
from ..net.stream import ConnectFailed
from ..policy import classify as rules
from ..policy.findings import findings
from .stages import Advice

if TYPE_CHECKING:
    from ..net.http import HttpFailed

#: How the words of rules name the account whose consent is wanted.
_AUTHORIZE = "postroom accounts authorize NAME"


@dataclass(slots=True)
class Known:
    """What is known of an account and of this test, for the changes that rules propose.

    `certificate_name` and `fingerprint` are of the certificate that the relay showed, `hostname` is this machine's;
    `found` is what stages have found besides.
    """

    account: Account
    hostname: str = ""
    certificate_name: str = ""
    fingerprint: str = ""
    port: int = field(default=0)
    found: dict[str, str] = field(default_factory=dict)

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
            "mailbox_itself": account.graph.mailbox,
            "cloud": "",
            "issuer": "",
            "token_endpoint": "",
        } | self.found

    def by_graph(self) -> tuple[str, ...]:
        """The command that adds an account which sends by Graph as this one does by SMTP; nothing where more must be
        known for it. A secret stands in a file."""
        account, oauth = self.account, self.account.oauth
        is_microsoft = account.authentication is Authentication.OAUTH2 and oauth.provider is OAuthProvider.MICROSOFT
        if (
            account.kind is not AccountKind.SMTP
            or not is_microsoft
            or not oauth.client_id
            or "@" not in account.username
        ):
            return ()
        named = {
            "mailbox": account.username, "oauth-flow": oauth.flow.value, "oauth-tenant": oauth.tenant,
            "oauth-client-id": oauth.client_id,
        }  # fmt: skip
        if oauth.cloud is not DEFAULTS["oauth_cloud"]:
            named["oauth-cloud"] = oauth.cloud.value
        if oauth.certificate:
            named |= {"oauth-certificate": "CERTIFICATE.pem", "oauth-certificate-key-file": "KEY.pem"}
        elif oauth.client_secret or oauth.flow is OAuthFlow.CLIENT_CREDENTIALS:
            named["oauth-client-secret-file"] = "SECRET.txt"
        options = [word for name, value in named.items() if value for word in (f"--{name}", value)]
        name = f"{account.name or 'm365'}-graph"
        return ("postroom", "accounts", "add", name, "--preset", "microsoft-graph", *options)

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
    account = known.account
    if error.reply is not None and not error.reply.is_positive:
        stages = {stage.value for stage in rules.Stage}
        stage = rules.Stage(error.stage if error.stage in stages else "ehlo")
        if stage is rules.Stage.AUTH and account.authentication is Authentication.OAUTH2:
            stage = rules.Stage.TOKEN_LOGIN
        return of_reply(stage, error.reply, known)
    rule = rules.classify_failure(
        error.kind, error.stage, error.reason, host=account.host, port=known.port or account.port
    )
    return _of_rule(rule, known) if rule is not None else finding("unknown-failure")


def of_unanswered(failed: HttpFailed, known: Known) -> Advice:
    """What to do where Graph gave no answer."""
    from ..transports.graph_outcomes import failure_rule  # here: it loads what speaks HTTP

    rule = failure_rule(failed)
    return _of_rule(rule, known) if rule is not None else finding("unknown-failure")


def _of_rule(rule: rules.Rule | rules.FailureRule, known: Known) -> Advice:
    advice, name = rule.advice, known.account.name
    command = known.by_graph() if rule.name in _MENDED_BY_GRAPH else ()
    if _AUTHORIZE in advice and known.account.id:
        advice, command = advice.replace("NAME", name), ("postroom", "accounts", "authorize", name)
    return Advice(rule.cause, advice, rule.name, known.change(rule.change), command=command)


def of_graph(reply: Reply, known: Known, mailbox: str, sender: str) -> Advice:
    """What to do about a refusal of Graph, with the addresses to put into commands."""
    from ..transports.graph_outcomes import addressed

    found = of_reply(rules.Stage.GRAPH, reply, known)
    return replace(found, advice=addressed(found.advice, known.account, mailbox, sender))


def of_reply(stage: rules.Stage, reply: Reply, known: Known) -> Advice:
    """What to do about a refusal."""
    verdict = rules.classify(stage, reply)
    rule = rules.rules_by_name().get(verdict.rule)
    if rule is not None:
        return _of_rule(rule, known)
    if stage in (rules.Stage.TOKEN, rules.Stage.GRAPH):  # their codes are HTTP's
        return finding("service-busy" if reply.code >= 500 or reply.code == 429 else f"{stage.value}-refused-unknown")
    if verdict.nobody:
        return finding("no-such-mailbox")
    if reply.is_transient:
        return finding("refused-for-now")
    return finding(_REFUSED.get(stage, "account-refused"), known)


#: Rules of what Microsoft refuses to SMTP and takes by Graph.
_MENDED_BY_GRAPH = frozenset({"microsoft-smtp-auth-disabled", "microsoft-criteria"})

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
