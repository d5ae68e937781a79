"""Stages of an account that logs in by tokens: what its server publishes, a token, and what the token allows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trustme

from postroom.model.account import Authentication, Cloud, OAuth, OAuthFlow, OAuthProvider, Security
from postroom.net.stream import ConnectFailed
from postroom.oauth.service import Told
from tests.flow.connection_test.microsoft import by_smtp, microsoft
from tests.flow.connection_test.trying import Tried, to, tried
from tests.flow.smtp_client.talk import Line, Relay
from tests.tls_relay import pem, served
from tests.token_desk import TokenDesk, jwt
from tests.web_server import HANG_UP, answer

AUTHORITY = trustme.CA()
BUNDLE = pem(AUTHORITY)
EXCHANGE = "https://outlook.office365.com"
ALL = ["metadata", "token", "claims", "resolve", "connect", "tls", "greeting", "ehlo", "auth", "sender", "recipient"]


async def taking(line: Line) -> None:
    """A relay that takes any token."""
    line.say("220 relay.test")
    while command := (await line.line()).decode().strip():
        if command.startswith("EHLO"):
            line.offer("AUTH XOAUTH2")
        else:
            line.say("235 in" if command.startswith("AUTH") else "250 ok")


def relay() -> Relay:
    """One that speaks TLS."""
    return Relay(taking, served(AUTHORITY.issue_cert("relay.test")))


def custom(desk: TokenDesk, **oauth: Any) -> dict[str, Any]:
    """The fields of an account whose tokens come from a server of its own."""
    own = {
        "provider": OAuthProvider.CUSTOM, "flow": OAuthFlow.CLIENT_CREDENTIALS, "client_id": "app-1",
        "client_secret": "hunter2", "token_url": f"{desk.server.url}/token", "scopes": ("mail.send", "offline_access"),
    }  # fmt: skip
    return {
        "authentication": Authentication.OAUTH2, "username": "ann@x.test", "oauth": OAuth(**own | oauth),
        "security": Security.TLS, "ca_bundle": BUNDLE,
    }  # fmt: skip


def told(found: Tried, name: str) -> tuple[str, str]:
    """How a stage went."""
    stage = found.stage(name)
    return stage.outcome.value, stage.detail


async def test_an_application_of_microsoft_goes_through_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there, relay() as mail:
        there.gives(aud=EXCHANGE, roles=["SMTP.SendAsApp"])
        found = await tried(to(mail.port), **by_smtp(BUNDLE))
        url = there.desk.server.url
        token = there.desk.made(1)
    assert [stage.name for stage in found.result.stages] == ALL
    assert found.result.passed
    facts = found.stage("metadata").facts
    assert (facts["issuer"], facts["cloud"]) == (f"{url}/11111111-aaaa-bbbb-cccc-222222222222/v2.0", "global")
    assert facts["address"] == "127.0.0.1"
    assert found.stage("token").facts["flow"] == "client-credentials"
    assert found.stage("claims").facts == {
        "audience": EXCHANGE, "tenant": "11111111-aaaa-bbbb-cccc-222222222222", "application": "app-1",
        "roles": ["SMTP.SendAsApp"], "expires": "2027-01-15T08:00:00Z",
    }  # fmt: skip
    assert found.result.transcript[:4] == [
        f">>> GET {url}/x.test/v2.0/.well-known/openid-configuration",
        f"<<< 200, the metadata of {facts['issuer']}",
        f">>> POST {url}/x.test/oauth2/v2.0/token (client-credentials)",
        "<<< an access token",
    ]
    everything = json.dumps([found.events, found.result.show()])
    assert token not in everything and "hunter2" not in everything


# What the server publishes


@pytest.mark.parametrize(("where", "cloud"), [("/us", "us-government"), ("/cn", "china")])
async def test_a_tenant_of_another_cloud(
    where: str, cloud: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.flow.connection_test.microsoft import NO_SUCH_TENANT, WELL_KNOWN

    async with microsoft(monkeypatch) as there:
        there.desk.documents[WELL_KNOWN] = answer(NO_SUCH_TENANT, 400)
        there.publish(where, {"/us": "graph.microsoft.us", "/cn": "microsoftgraph.chinacloudapi.cn"}[where])
        there.desk.misbehaviours.append(lambda asked: answer(NO_SUCH_TENANT, 400))
        found = await tried(to(1), **by_smtp(BUNDLE))
    assert found.failed == ["metadata", "token"]
    assert told(found, "metadata") == ("failed", f"the tenant is in the cloud {cloud}")
    found.print()
    assert f"run:   postroom accounts edit relay --oauth-cloud {cloud}" in capsys.readouterr().out
    assert [advice.change for advice in found.stage("token").advice] == [{"oauth_cloud": cloud}]


async def test_a_document_that_names_another_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there, relay() as mail:
        there.publish(graph_host="dod-graph.microsoft.us")
        there.gives(aud=EXCHANGE, roles=["SMTP.SendAsApp"])
        found = await tried(to(mail.port), **by_smtp(BUNDLE))
    assert found.failed == ["metadata"]
    assert found.stage("metadata").advice[0].change == {"oauth_cloud": Cloud.US_DOD.value}


async def test_a_tenant_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.flow.connection_test.microsoft import NO_SUCH_TENANT, WELL_KNOWN

    async with microsoft(monkeypatch) as there:
        there.desk.documents[WELL_KNOWN] = answer(NO_SUCH_TENANT, 400)
        there.desk.misbehaviours.append(lambda asked: answer(NO_SUCH_TENANT, 400))
        found = await tried(to(1), **by_smtp(BUNDLE))
    assert found.failed == ["metadata", "token"]
    assert found.rules == ["microsoft-no-such-tenant"] * 2
    assert found.stage("metadata").advice[0].change == {}


@pytest.mark.parametrize(
    "at", ["/.well-known/oauth-authorization-server/mail", "/mail/.well-known/openid-configuration"]
)
async def test_a_server_of_its_own_is_asked_at_both_places(at: str) -> None:
    async with TokenDesk() as desk, relay() as mail:
        issuer = f"{desk.server.url}/mail"
        desk.documents[at] = answer({"issuer": issuer, "token_endpoint": f"{desk.server.url}/token"})
        found = await tried(to(mail.port), **custom(desk, issuer=issuer))
    assert told(found, "metadata") == ("passed", "")
    assert found.result.passed


async def test_a_server_of_its_own_that_says_otherwise() -> None:
    async with TokenDesk() as desk, relay() as mail:
        issuer = desk.server.url
        document = answer({"issuer": f"{issuer}/", "token_endpoint": f"{issuer}/other"})
        desk.documents["/.well-known/oauth-authorization-server"] = document
        found = await tried(to(mail.port), **custom(desk, issuer=issuer))
    assert found.stage("metadata").outcome == "warning"
    changes = [dict(advice.change) for advice in found.stage("metadata").advice]
    assert changes == [{"oauth_issuer": f"{issuer}/"}, {"oauth_token_url": f"{issuer}/other"}]
    assert found.result.passed


async def test_a_server_of_its_own_that_publishes_nothing() -> None:
    async with TokenDesk() as desk, relay() as mail:
        unnamed = await tried(to(mail.port), **custom(desk))
        none = await tried(to(mail.port), **custom(desk, issuer=desk.server.url))
    assert told(unnamed, "metadata")[0] == "skipped" and "oauth_issuer" in told(unnamed, "metadata")[1]
    assert told(none, "metadata") == ("skipped", "the server publishes none: 404 not_found")
    assert unnamed.result.passed and none.result.passed


# A token


async def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    async with TokenDesk() as desk:
        fields = custom(desk, issuer=desk.server.url)
    found = await tried(to(1), **fields)
    assert told(found, "metadata")[0] == "warning", "mail does not need it"
    assert found.failed == ["token"]
    assert found.rules == ["web-unreachable"] * 2
    found.print()
    assert "set the account's proxy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("misbehaviour", "rule"),
    [
        (lambda asked: HANG_UP, "web-hangs-up"),
        (lambda asked: answer(b"<html>Sign in to this network</html>"), "web-not-spoken"),
        (lambda asked: answer(b"", 503), "service-busy"),
        (lambda asked: answer({"error": "temporarily_unavailable"}, 429), "service-busy"),
        (lambda asked: answer(b"", 302, Location="https://elsewhere.test/"), "token-refused-unknown"),
        (lambda asked: answer({"error": "moon_phase"}, 400), "token-refused-unknown"),
    ],
)  # fmt: skip
async def test_answers_that_are_no_token(misbehaviour: Any, rule: str) -> None:
    async with TokenDesk() as desk:
        desk.misbehaviours.append(misbehaviour)
        found = await tried(to(1), **custom(desk))
    assert found.failed == ["token"]
    assert found.rules == [rule]


class Failing:
    """Gives none."""

    def __init__(self, kind: str, reason: str) -> None:
        self.failure = ConnectFailed("token", kind, reason)

    async def token(self, account: object, rejected: str = "") -> str:
        """See `Tokens`."""
        raise self.failure

    def told(self, token: str) -> Told:
        """See `Tokens`."""
        return Told()


@pytest.mark.parametrize(
    "rule",
    [
        "web-certificate",
        "web-name",
        "web-unreachable",
        "web-silent",
        "web-tls",
        "token-key",
        "web-hangs-up",
        "web-not-spoken",
    ],
)
async def test_each_rule_about_web_services_has_its_advice(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    from postroom.policy.classify import failure_rules

    entry = next(one for one in failure_rules() if one.name == rule)
    async with TokenDesk() as desk:
        found = await tried(to(1), tokens=Failing(entry.kind, entry.error), **custom(desk))
    assert found.failed == ["token"] and found.rules == [rule]
    found.print()
    printed = capsys.readouterr().out
    assert entry.cause in printed and entry.advice in printed


# What it allows

LACKING: list[tuple[dict[str, Any], str, str]] = [
    ({"aud": EXCHANGE}, "warning", "token-lacks-send-as-app-role"),
    ({"aud": "00000002-0000-0ff1-ce00-000000000000", "roles": ["IMAP.AccessAsApp"]}, "warning",
     "token-lacks-send-as-app-role"),
    ({"aud": "https://graph.microsoft.com", "roles": ["Mail.Send"]}, "failed", "token-audience"),
]  # fmt: skip


@pytest.mark.parametrize(("claims", "outcome", "rule"), LACKING)
async def test_a_token_that_does_not_allow_it(
    claims: dict[str, Any], outcome: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with microsoft(monkeypatch) as there, relay() as mail:
        there.gives(**claims)
        found = await tried(to(mail.port), **by_smtp(BUNDLE))
    assert found.stage("claims").outcome == outcome
    assert [advice.rule for advice in found.stage("claims").advice] == [rule]


async def test_scopes_of_another_service_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with microsoft(monkeypatch) as there, relay() as mail:
        there.gives(aud="https://graph.microsoft.com", roles=["Mail.Send"])
        found = await tried(to(mail.port), **by_smtp(BUNDLE, scopes=("https://graph.microsoft.com/.default",)))
    assert found.stage("claims").advice[0].change == {"oauth_scopes": ""}


class Consented:
    """Tokens that a person's consent gives: `token`, of which the server said `scope`."""

    def __init__(self, token: str, scope: str = "") -> None:
        self.given = token
        self.scope = scope

    async def token(self, account: object, rejected: str = "") -> str:
        """See `Tokens`."""
        return self.given

    def told(self, token: str) -> Told:
        """See `Tokens`."""
        return Told(self.scope)


PERSON = {"flow": OAuthFlow.AUTHORIZATION_CODE}
GOOGLE = {"provider": OAuthProvider.GOOGLE, **PERSON}
UNREADABLE = "nobody but the service can read this token, and its scopes were not told"


@pytest.mark.parametrize(
    ("oauth", "token", "scope", "outcome", "rules"),
    [
        (PERSON, jwt(aud="https://outlook.office.com", scp="SMTP.Send", upn="Ann@x.test"), "", "passed", []),
        (PERSON, jwt(aud="https://outlook.office.com", scp="IMAP.AccessAsUser.All"), "", "failed",
         ["token-lacks-smtp-send"]),
        (PERSON, jwt(aud="https://outlook.office.com", scp="SMTP.Send", upn="bob@x.test"), "", "warning",
         ["token-of-another"]),
        (PERSON, "EwBopaque", "https://outlook.office.com/SMTP.Send", "passed", []),
        (PERSON, "EwBopaque", "https://outlook.office.com/IMAP.AccessAsUser.All", "failed", ["token-lacks-smtp-send"]),
        (PERSON, "a.b.c", "", "passed", []),
        (GOOGLE, "ya29.opaque", "https://mail.google.com/", "passed", []),
        (GOOGLE, "ya29.opaque", "https://www.googleapis.com/auth/gmail.send", "failed", ["token-lacks-gmail"]),
        (GOOGLE, "ya29.opaque", "", "passed", []),
        (PERSON, jwt(aud="https://outlook.office.com", scp=f"{'Other.Right ' * 60}SMTP.Send"), "", "passed", []),
    ],
)  # fmt: skip
async def test_what_a_person_has_consented_to(
    oauth: dict[str, Any], token: str, scope: str, outcome: str, rules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from postroom.oauth import endpoints

    async with microsoft(monkeypatch) as there, relay() as mail:
        monkeypatch.setitem(endpoints.GOOGLE, "issuer", there.desk.server.url)
        found = await tried(to(mail.port), tokens=Consented(token, scope), **by_smtp(BUNDLE, **oauth))
    stage = found.stage("claims")
    assert stage.outcome == outcome
    assert [advice.rule for advice in stage.advice] == rules
    if not scope and not token.startswith("ey"):
        assert stage.detail == UNREADABLE
    assert token not in json.dumps(found.result.show())


@pytest.mark.parametrize(("scope", "rules"), [("mail.send", []), ("openid", ["token-lacks-scope"])])
async def test_what_a_server_of_its_own_left_out(scope: str, rules: list[str]) -> None:
    async with TokenDesk() as desk, relay() as mail:
        desk.beside = {"scope": scope}
        found = await tried(to(mail.port), **custom(desk))
    assert [advice.rule for advice in found.stage("claims").advice] == rules
    assert found.result.passed


async def test_a_scope_that_stands_for_all_rights_is_named_by_no_token() -> None:
    async with TokenDesk() as desk, relay() as mail:
        desk.beside = {"scope": "SMTP.SendAsApp"}
        found = await tried(to(mail.port), **custom(desk, scopes=("https://outlook.example.test/.default",)))
    assert found.stage("claims").outcome == "passed"


# Where Graph would do


async def test_what_smtp_refuses_and_graph_takes_is_one_command_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refusing(line: Line) -> None:
        line.say("220 relay.test")
        await line.line()
        line.offer("AUTH XOAUTH2")
        for _ in range(2):
            await line.line()
            line.say("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.")
        await line.end()

    async with microsoft(monkeypatch) as there, Relay(refusing, served(AUTHORITY.issue_cert("relay.test"))) as mail:
        there.gives(aud=EXCHANGE, roles=["SMTP.SendAsApp"])
        found = await tried(to(mail.port), **by_smtp(BUNDLE))
    assert found.failed == ["auth"] and "microsoft-smtp-auth-disabled" in found.rules
    found.print()
    command = "postroom accounts add relay-graph --preset microsoft-graph --mailbox ann@x.test --oauth-flow "
    command += "client-credentials --oauth-tenant x.test --oauth-client-id app-1 --oauth-client-secret-file SECRET.txt"
    assert f"run:   {command}\n" in capsys.readouterr().out
