"""A running gateway tells its administrator of an account whose password is refused, and that it is well again."""

from __future__ import annotations

import json
from collections.abc import Callable
from email import message_from_bytes, policy

from tests.conftest import Served, run_postroom
from tests.e2e.attackers import Api
from tests.e2e.scripted_relay import Background, ScriptedRelay, Talk


async def knows_nobody(talk: Talk) -> None:
    """A relay that refuses every login."""
    await talk.normally("AUTH", ("PIPELINING", "AUTH PLAIN", "ENHANCEDSTATUSCODES"))
    await talk.say(b"535 5.7.8 Error: authentication failed\r\n")
    await talk.go_on()


async def takes(talk: Talk) -> None:
    """A relay that takes everything."""
    await talk.normally(ehlo=("PIPELINING", "8BITMIME"))


def test_a_refused_password_is_told_through_another_account_and_so_is_its_end(serve: Callable[..., Served]) -> None:
    background = Background()
    refusing, taking = ScriptedRelay(background, knows_nobody), ScriptedRelay(background, takes)
    served = serve(POSTROOM_HOSTNAME="gate.example", POSTROOM_ALERTS__TO="admin@source.example")
    api = Api(served.data / "control.sock")
    try:
        grant = {"grant": {"application": "local", "senders": ["*"]}}
        login = {"username": "ann", "password": "wrong", "authentication": "password", "allow_clear_password": True}
        relay = {"name": "relay", "host": "127.0.0.1", "port": refusing.port, "security": "none"}
        api.ask("POST", "accounts", relay | login | grant)
        api.ask("POST", "accounts", relay | {"name": "other", "port": taking.port})
        run_postroom(served.environment, "send", "--from", "a@x.example", "--to", "b@y.example", "--text", "hi")
        events = run_postroom(served.environment, "events", "--kind", "alert", "--json").stdout
        assert "Traceback" not in events
        api.wait_for("status", lambda found: _health(found, "relay") == "needs attention")
        api.wait_for("events", lambda found: _kinds(found) == ["alert.raised"])
        logins = len([line for line in refusing.commands if line.startswith("AUTH")])
        listed = json.loads(run_postroom(served.environment, "accounts", "show", "relay", "--json").stdout)
        assert "authentication failed" in listed["circuit"]["reason"]
        without = {"authentication": "none", "username": "", "password": ""}
        api.ask("PATCH", "accounts/relay", {"port": taking.port} | without)
        api.wait_for("events", lambda found: _kinds(found) == ["alert.raised", "alert.cleared"])
        assert api.ask("POST", "drain")["drained"]
        assert len([line for line in refusing.commands if line.startswith("AUTH")]) == logins
    finally:
        refusing.stop()
        taking.stop()
        background.close()
    told = [message_from_bytes(one.content, policy=policy.default) for one in taking.taken if not one.reverse_path]
    assert sorted(str(one["Subject"]).partition(":")[0] for one in told) == ["Alert", "All clear"]
    assert {one["To"] for one in told} == {"admin@source.example"}
    assert [one.recipients for one in taking.taken if one.reverse_path] == [["b@y.example"]]


def _health(status: dict[str, list[dict[str, str]]], name: str) -> str:
    return next(one["health"] for one in status["accounts"] if one["account"] == name)


def _kinds(found: dict[str, list[dict[str, str]]]) -> list[str]:
    return [one["kind"] for one in found["events"] if one["kind"].startswith("alert.")]
