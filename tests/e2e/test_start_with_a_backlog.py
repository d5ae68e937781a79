"""A start on a long queue: it takes mail before it sends any, and all that waited arrives, once. How long such a start
takes is measured by `make bench PART=start`.
"""

from __future__ import annotations

import json
import smtplib
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Served, run_postroom
from tests.e2e.attackers import Api, Client
from tests.e2e.scripted_relay import Background, ScriptedRelay, Talk

Serve = Callable[..., Served]

WAITING = 1500
SENDER = "app@source.example"


@pytest.fixture
def relay() -> Iterator[ScriptedRelay]:
    """A good relay."""
    background = Background()
    found = ScriptedRelay(background)
    yield found
    found.stop()
    background.close()


@pytest.fixture
def filled(serve: Serve, relay: ScriptedRelay) -> Served:
    """The folder of a gateway that has ended with `WAITING` messages for the relay."""
    served = serve(POSTROOM_SENDING_ENABLED="false")
    account = {"name": "relay", "host": "127.0.0.1", "port": relay.port, "security": "none"}
    grant = {"grant": {"application": "local", "senders": ["*"]}}
    Api(served.data / "control.sock").ask("POST", "accounts", account | grant)
    with smtplib.SMTP("127.0.0.1", served.port, timeout=60) as client:
        for number in range(WAITING):
            client.sendmail(SENDER, [f"r{number}@sink.example"], f"Subject: {number}\r\n\r\nwaits\r\n")
    assert served.stop() == 0
    return served


def test_it_takes_mail_before_the_first_delivery_and_all_arrives_once(
    filled: Served, relay: ScriptedRelay, serve: Serve
) -> None:
    greeted: list[bool] = []

    async def looks_back(talk: Talk) -> None:
        """Before anything is delivered, somebody comes to the gateway's door."""
        greeted.append(False)
        with Client(filled.port):  # it has read a greeting
            greeted[-1] = True
        await talk.normally()

    relay.script = looks_back
    again = serve(data=filled.data, port=filled.port)
    assert Api(again.data / "control.sock").ask("POST", "drain")["drained"]
    assert greeted
    assert all(greeted)
    came = Counter(recipient for one in relay.taken for recipient in one.recipients)
    assert came == {f"r{number}@sink.example": 1 for number in range(WAITING)}


def test_a_start_that_fails_at_a_port_has_sent_nothing(filled: Served, relay: ScriptedRelay) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        listeners = json.dumps([{"port": 0}, {"port": holder.getsockname()[1]}])
        settings = {"POSTROOM_SMTP__LISTENERS": listeners, "POSTROOM_SENDING_ENABLED": "true"}
        done = run_postroom(filled.environment | settings, "serve", check=False)
    assert done.returncode == 69
    assert "is held by" in done.stderr
    assert relay.connections == 0
    assert json.loads(run_postroom(filled.environment, "status", "--json").stdout)["accounts"][0]["counts"] == {
        "queued": WAITING
    }
