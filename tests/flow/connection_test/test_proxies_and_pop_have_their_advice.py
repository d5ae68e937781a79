"""A proxy and a POP3 login are stages of their own; each way in which they fail has its advice."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

import pytest

from postroom.diagnosis import connection_test
from postroom.model.account import Authentication, PopLogin, Proxy, ProxyType
from postroom.net.stream import Address, ConnectFailed
from postroom.policy.classify import FailureRule, failure_rules
from tests.flow.connection_test.trying import Server, Tried, to, tried
from tests.flow.smtp_client.talk import Line, Relay

RULES = [rule for rule in failure_rules() if rule.stages in ({"proxy"}, {"pop"})]
NAMED = {rule.name: rule for rule in RULES}


def is_told(found: Tried, rule: FailureRule, capsys: pytest.CaptureFixture[str]) -> None:
    """The stage failed, and the command prints the rule's advice."""
    assert found.failed == list(rule.stages)
    assert rule.name in found.rules
    found.print()
    printed = capsys.readouterr().out
    assert rule.cause in printed and rule.advice in printed
    assert "hunter2" not in printed


def http(*lines: str) -> Callable[[Line], Awaitable[None]]:
    """A proxy that answers each CONNECT so."""

    async def talk(line: Line) -> None:
        while (await line.line()).strip():
            pass
        line.say(*lines, "Content-Length: 0", "")
        line.close()

    return talk


def proxied(port: int, **fields: Any) -> dict[str, Any]:
    """An account behind the proxy at that port of this machine."""
    given: dict[str, Any] = {"type": ProxyType.HTTP_CONNECT, "host": "127.0.0.1", "port": port} | fields
    return {"proxy": Proxy(**given)}


async def test_a_proxy_that_lets_through_is_a_stage_that_passes() -> None:
    server = Server()

    async def talk(line: Line) -> None:
        assert (await line.line()) == b"CONNECT relay.test:587 HTTP/1.1\r\n"
        while (await line.line()).strip():
            pass
        line.say("HTTP/1.1 200 Connection established", "")
        await server(line)

    async with Relay(talk) as proxy:
        found = await tried(to(proxy.port), **proxied(proxy.port))
    names = [stage.name for stage in found.result.stages]
    assert found.result.passed
    assert names[:2] == ["proxy", "greeting"], "the name is resolved there"
    assert "RCPT TO:<b@y.test>" in server.commands


@pytest.mark.parametrize(
    ("lines", "fields", "rule"),
    [
        (["HTTP/1.1 403 Forbidden", "X-Squid-Error: ERR_ACCESS_DENIED 0"], {}, "proxy-rules"),
        (["HTTP/1.1 503 Service Unavailable", "X-Squid-Error: ERR_DNS_FAIL 0"], {}, "proxy-does-not-know-the-name"),
        (
            ["HTTP/1.1 407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="x"'],
            {},
            "proxy-wants-login",
        ),
    ],
)
async def test_what_a_proxy_answers(
    lines: list[str], fields: dict[str, Any], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Relay(http(*lines)) as proxy:
        found = await tried(to(proxy.port), **proxied(proxy.port, **fields))
    is_told(found, NAMED[rule], capsys)


async def test_a_proxy_that_is_not_there(free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    found = await tried(to(port), **proxied(port))
    is_told(found, NAMED["proxy-fails"], capsys)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
async def test_the_advice_of_each_rule_about_the_way_reaches_the_user(
    rule: FailureRule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing(account: Any, **given: Any) -> NoReturn:
        (stage,) = rule.stages
        given["observer"].began(stage)
        raise ConnectFailed(stage, rule.kind, rule.error)

    monkeypatch.setattr(connection_test, "connect", failing)
    is_told(await tried(to(1)), rule, capsys)


def pop3(verdict: str) -> Callable[[Line], Awaitable[None]]:
    """A server that answers a login by APOP so."""

    async def talk(line: Line) -> None:
        line.say("+OK ready <1896.697170952@pop.test>")
        while command := (await line.line()).decode().strip():
            verb = command[:4].upper()
            line.say(verdict if verb == "APOP" else "-ERR what?" if verb == "CAPA" else "+OK")
            if verb == "QUIT":
                return

    return talk


def by_pop(port: int) -> dict[str, Any]:
    """An account that logs in there first."""
    login = PopLogin(host="127.0.0.1", port=port, username="erp", password="hunter2")
    return {"authentication": Authentication.POP, "pop": login}


async def local(host: str, port: int) -> Sequence[Address]:
    """This machine, at the port asked for."""
    return [(socket.AF_INET, ("127.0.0.1", port))]


async def test_a_pop3_login_is_a_stage_before_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    async with Relay(pop3("+OK maildrop ready")) as pop, Relay(Server()) as relay:
        found = await tried(local, port=relay.port, **by_pop(pop.port))
    assert found.result.passed
    assert [stage.name for stage in found.result.stages][:3] == ["pop", "resolve", "connect"]
    async with Relay(pop3("-ERR [AUTH] Authentication failed.")) as pop:
        refused = await tried(local, **by_pop(pop.port))
    is_told(refused, NAMED["pop-wrong-password"], capsys)
    assert "hunter2" not in "".join(refused.result.transcript)
