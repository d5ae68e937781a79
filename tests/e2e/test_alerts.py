"""A running gateway tells its administrator of an account whose password is refused, and that it is well again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path

import trustme

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


def test_a_full_disk_a_certificate_that_expires_and_a_program_in_circles_are_told_of(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    background = Background()
    relay = ScriptedRelay(background, takes)
    issued = trustme.CA().issue_cert("gate.example", not_after=datetime.now(UTC) + timedelta(days=5))
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    listener = {"address": "127.0.0.1", "port": 0, "tls": "starttls", "certificate": str(tmp_path / "certificate.pem")}
    served = serve()
    settings = {
        "POSTROOM_HOSTNAME": "gate.example",
        "POSTROOM_ALERTS__TO": "admin@source.example",
        "POSTROOM_ALERTS__FREE_BYTES": "1000000GiB",
        "POSTROOM_SMTP__LISTENERS": json.dumps([listener | {"key": str(tmp_path / "key.pem")}]),
    }
    try:
        account = {"name": "relay", "host": "127.0.0.1", "port": relay.port, "security": "none"}
        grant = {"grant": {"application": "local", "senders": ["*"]}}
        Api(served.data / "control.sock").ask("POST", "accounts", account | grant)
        served.run("applications", "edit", "local", "--repeat-guard", "2")
        for _ in range(2):
            served.run("send", "--from", "a@x.example", "--to", "b@y.example", "--text", "again")
        served.stop()
        served = serve(data=served.data, **settings)
        api = Api(served.data / "control.sock")
        api.wait_for("events", lambda found: len(_kinds(found)) == 3)
        assert api.ask("POST", "drain")["drained"]
    finally:
        relay.stop()
        background.close()
    told = [message_from_bytes(one.content, policy=policy.default) for one in relay.taken if not one.reverse_path]
    subjects = sorted(str(one["Subject"]) for one in told)
    assert [one.partition(" ")[0] for one in subjects] == ["Alert:"] * 3
    assert subjects[0].startswith("Alert: application local sends the same again and again")
    assert subjects[1].startswith(f"Alert: the certificate {tmp_path / 'certificate.pem'} of the listeners expires on ")
    assert subjects[2] == "Alert: the disk of the data folder has less than 1000000GiB free"


def _health(status: dict[str, list[dict[str, str]]], name: str) -> str:
    return next(one["health"] for one in status["accounts"] if one["account"] == name)


def _kinds(found: dict[str, list[dict[str, str]]]) -> list[str]:
    return [one["kind"] for one in found["events"] if one["kind"].startswith("alert.")]
