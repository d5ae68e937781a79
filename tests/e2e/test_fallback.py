"""A running gateway with two relays, the first of which fails at each stage in turn: nothing is lost or sent twice.

The second gets mail only where the first can't have it, and the first gets the next mail when it is well.
"""

from __future__ import annotations

import itertools
import json
import smtplib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import Served, end_serving, start_serving
from tests.e2e.attackers import SENDER, Api
from tests.e2e.conftest import LISTENERS
from tests.e2e.scripted_relay import Background, Script, ScriptedRelay, Talk

#: A first failure is followed by the next try within a second, where a test does not ask for it sooner.
QUICK = {"POSTROOM_RETRY_SCHEDULE": "1s", "POSTROOM_ACCOUNT_SLEEP": "1s"}
ACCOUNT = {"fall_back_after": "0s", "connect_retry": "1s", "reconnect_interval": "100ms", "end_of_data_timeout": "1s"}
MESSAGES = 3

#: More than the buffers of a socket take: its end of data is not written when the relay breaks off.
LARGE = b"0123456789\r\n" * 1_000_000

THROTTLED = b"454 Throttling failure: Daily message quota exceeded.\r\n"
NOT_YOURS = b"553 5.7.1 Sender address rejected: not owned by auth user.\r\n"
LOGIN = {"username": "ann", "password": "secret", "allow_clear_password": True}
TLS = {"security": "starttls"}


def says(verb: str, reply: bytes, *ehlo: str) -> Script:
    """A relay that gives this reply to each `verb` (CONTENT: to a whole content), and is good otherwise."""

    async def script(talk: Talk) -> None:
        await talk.normally(verb, ehlo)
        while True:
            if verb == "CONTENT":
                talk.relay.taken.pop()  # it is refused
            await talk.say(reply)
            if verb == "GREETING":
                return
            await talk.go_on(verb, ehlo)

    return script


def leaves(verb: str, *ehlo: str) -> Script:
    """A relay that closes instead of answering."""

    async def script(talk: Talk) -> None:
        await talk.normally(verb, ehlo)

    return script


async def knows_no_smtp(talk: Talk) -> None:
    """A relay that refuses EHLO and HELO."""
    await talk.say(b"220 scripted.example ESMTP\r\n")
    while await talk.line():
        await talk.say(b"502 5.5.1 unknown command\r\n")


async def breaks_tls(talk: Talk) -> None:
    """A relay that closes instead of a handshake."""
    await talk.normally("STARTTLS", ("STARTTLS",))
    await talk.say(b"220 2.0.0 go ahead\r\n")


async def leaves_in_the_content(talk: Talk) -> None:
    """A relay that breaks off while a large content is written."""
    await talk.normally("DATA", ())
    await talk.say(b"354 go on\r\n")
    talk.writer.transport.abort()


async def leaves_in_the_content_for_good(talk: Talk) -> None:
    """The same, and takes no connection any more."""
    if talk.number == 1:
        await leaves_in_the_content(talk)
    else:
        await talk.say(b"421 4.3.2 no more\r\n")


async def is_silent_after_the_content(talk: Talk) -> None:
    """A relay that never answers a content."""
    await talk.normally("CONTENT", ())
    await talk.reader.read()


@dataclass(frozen=True)
class Stage:
    """How the first relay fails (None: nothing listens there), fields of its account for that, and what is sent."""

    script: Script | None
    fields: dict[str, Any] = field(default_factory=dict)
    messages: int = MESSAGES
    body: bytes = b"text\r\n"


#: The account fails: the second takes what waits.
FALLS_BACK = {
    "connection refused": Stage(None),
    "greeting 421": Stage(says("GREETING", b"421 4.3.2 Service not available, closing transmission channel\r\n")),
    "greeting 554": Stage(says("GREETING", b"554 5.3.2 no service here\r\n")),
    "closed at the greeting": Stage(leaves("GREETING")),
    "EHLO refused": Stage(knows_no_smtp),
    "closed at EHLO": Stage(leaves("EHLO")),
    "STARTTLS not offered": Stage(says("NONE", b""), TLS),
    "STARTTLS refused": Stage(says("STARTTLS", b"454 4.7.0 TLS not available\r\n", "STARTTLS"), TLS),
    "TLS handshake broken": Stage(breaks_tls, TLS),
    "login refused": Stage(says("AUTH", b"535 5.7.8 wrong password\r\n", "AUTH PLAIN"), LOGIN),
    "login put off": Stage(says("AUTH", b"454 4.7.0 Temporary authentication failure\r\n", "AUTH PLAIN"), LOGIN),
    "closed at the login": Stage(leaves("AUTH", "AUTH PLAIN"), LOGIN),
    "MAIL put off": Stage(says("MAIL", THROTTLED)),
    "MAIL refused": Stage(says("MAIL", b"530 5.7.0 authentication required\r\n")),
    "RCPT put off": Stage(says("RCPT", THROTTLED)),
    "DATA put off": Stage(says("DATA", THROTTLED)),
    "content put off": Stage(says("CONTENT", THROTTLED)),
    "closed in the content, then gone": Stage(leaves_in_the_content_for_good, messages=1, body=LARGE),
}

#: The account refuses this sender: the second takes that mail at once.
HANDED_OVER = {
    f"sender refused at {verb}": Stage(says(verb, NOT_YOURS)) for verb in ("MAIL", "RCPT", "DATA", "CONTENT")
}

#: The message's own affair: it waits for the first.
WAITS = {
    "recipient put off": Stage(says("RCPT", b"450 4.7.1 greylisted\r\n")),
    "DATA put off once": Stage(says("DATA", b"451 4.3.0 not now\r\n")),
    "content put off once": Stage(says("CONTENT", b"451 4.3.0 disk\r\n")),
    "closed in the content": Stage(leaves_in_the_content, messages=1, body=LARGE),
}

#: No other account would do better.
BOUNCES = {
    "recipient refused": Stage(says("RCPT", b"550 5.1.1 no such user\r\n")),
    "content refused": Stage(says("CONTENT", b"554 5.6.0 not this\r\n")),
}

#: The first may have it.
UNKNOWN = {
    "closed after the end of data": Stage(leaves("CONTENT")),
    "no reply after the end of data": Stage(is_silent_after_the_content),
}


@dataclass
class House:
    """The gateway and its names."""

    served: Served
    api: Api
    background: Background
    port: Callable[[], int]
    numbers: Iterator[int] = field(default_factory=itertools.count)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One gateway for all stages; each has two accounts and a domain of its own."""
    served = start_serving(tmp_path_factory.mktemp("gateway") / "data", LISTENERS, **QUICK)
    background = Background()
    closed = ScriptedRelay(background)
    closed.stop()
    yield House(served, Api(served.data / "control.sock"), background, lambda: closed.port)
    end_serving(served)
    background.close()


class Pair:
    """Two accounts for one domain, the first of which fails."""

    def __init__(self, house: House, stage: Stage) -> None:
        number = next(house.numbers)
        self.house = house
        self.stage = stage
        self.domain = f"d{number}.example"
        self.names = (f"first{number}", f"second{number}")
        self.first = ScriptedRelay(house.background, stage.script or leaves("GREETING"))
        self.second = ScriptedRelay(house.background)
        ports = (self.first.port if stage.script else house.port(), self.second.port)
        for name, port, fields in zip(self.names, ports, (stage.fields, {}), strict=True):
            account = {
                "name": name,
                "host": "127.0.0.1",
                "port": port,
                "security": "none",
                "allow_clear_password": True,
            }
            grant = {"grant": {"application": "local", "senders": ["*"]}}
            house.api.ask(
                "POST", "accounts", account | grant | ACCOUNT | fields | {"recipient_patterns": f"*@{self.domain}"}
            )

    def send(self, *names: str) -> dict[str, str]:
        """Submit a message for each name by SMTP; their ids by recipient."""
        found = {}
        with smtplib.SMTP("127.0.0.1", self.house.served.port) as client:
            client.ehlo("client.example")
            for name in names:
                recipient = f"{name}@{self.domain}"
                assert client.mail(SENDER)[0] == client.rcpt(recipient)[0] == 250
                code, reply = client.data(f"From: {SENDER}\r\nSubject: {name}\r\n\r\n".encode() + self.stage.body)
                assert code == 250
                found[recipient] = reply.decode().split()[-1]
        return found

    def send_all(self) -> dict[str, str]:
        """Submit what the stage asks for."""
        return self.send(*(f"m{n}" for n in range(self.stage.messages)))

    def mend(self) -> None:
        """The first relay is well, and so is its account."""
        self.first.script = leaves("")
        without = {"security": "none", "username": "", "password": "", "authentication": "none"}
        without["helo_name"] = "well.example"  # connections that a former script serves are not used any more
        self.house.api.ask("PATCH", f"accounts/{self.names[0]}", {"port": self.first.port} | without)
        self.house.api.ask("POST", f"accounts/{self.names[0]}/wake")

    def copies(self, relay: ScriptedRelay) -> Counter[str]:
        """How often each message came whole to a relay and was not refused."""
        return Counter(recipient for one in list(relay.taken) for recipient in one.recipients)

    def events(self, kind: str, account: str) -> list[dict[str, Any]]:
        """Events of this kind about an account."""
        found: list[dict[str, Any]] = self.house.api.ask("GET", "events", kind=kind, account=account, limit=1000)[
            "events"
        ]
        return found

    def delivered(self, messages: dict[str, str], account: str) -> None:
        """They were, by that account."""
        for message in messages.values():
            shown = self.house.api.message(message, "delivered")
            assert [row["account"] for row in shown["deliveries"]] == [account]

    def the_next_goes_by_the_first(self) -> None:
        """New mail takes the first account once it is well."""
        self.mend()
        taken = self.copies(self.second)
        later = self.send("later")
        self.delivered(later, self.names[0])
        assert self.copies(self.first)[f"later@{self.domain}"] == 1
        assert self.copies(self.second) == taken


@pytest.fixture
def pair(house: House) -> Iterator[Callable[[Stage], Pair]]:
    """Makes them; they end with the test."""
    made: list[Pair] = []

    def make(stage: Stage) -> Pair:
        made.append(Pair(house, stage))
        return made[-1]

    yield make
    for one in made:
        one.second.stop()
        one.first.stop()


@pytest.mark.parametrize("name", FALLS_BACK)
def test_an_account_that_fails_gives_its_mail_to_the_second_and_gets_the_next_when_it_is_well(
    pair: Callable[[Stage], Pair], name: str
) -> None:
    two = pair(FALLS_BACK[name])
    sent = two.send_all()
    two.delivered(sent, two.names[1])
    assert two.copies(two.second) == dict.fromkeys(sent, 1)
    assert two.copies(two.first) == {}
    told = two.events("rerouted", two.names[1])
    assert {(one["message_id"], one["n"]) for one in told} == {(message, 0) for message in sent.values()}
    assert len(told) == len(sent)
    assert two.events("account.fell_back", two.names[0]) != []
    two.the_next_goes_by_the_first()


@pytest.mark.parametrize("name", HANDED_OVER)
def test_a_sender_that_the_first_refuses_goes_by_the_second_and_the_account_stays_well(
    pair: Callable[[Stage], Pair], name: str
) -> None:
    two = pair(HANDED_OVER[name])
    sent = two.send_all()
    two.delivered(sent, two.names[1])
    assert (two.copies(two.first), two.copies(two.second)) == ({}, dict.fromkeys(sent, 1))
    assert {one["detail"] for one in two.events("rerouted", two.names[1])} == {f"{two.names[0]} refuses this sender"}
    assert two.events("account.asleep", two.names[0]) == two.events("account.fell_back", two.names[0]) == []
    two.the_next_goes_by_the_first()


@pytest.mark.parametrize("name", WAITS)
def test_what_is_the_messages_own_affair_waits_for_the_first(pair: Callable[[Stage], Pair], name: str) -> None:
    two = pair(WAITS[name])
    sent = two.send_all()
    for message in sent.values():
        shown = two.house.api.wait_for(f"messages/{message}", lambda found: len(found["attempts"]) > 0)
        assert shown["deliveries"][0]["marks"] == []
    two.mend()
    two.house.api.ask("POST", "queue/retry", {"account": two.names[0]})
    two.delivered(sent, two.names[0])
    assert two.copies(two.first) == dict.fromkeys(sent, 1)
    assert two.second.connections == 0


@pytest.mark.parametrize("name", BOUNCES)
def test_what_no_account_would_get_rid_of_bounces(pair: Callable[[Stage], Pair], name: str) -> None:
    two = pair(BOUNCES[name])
    sent = two.send("m")
    for message in sent.values():
        two.house.api.message(message, "bounced")
    assert two.copies(two.first) == {}
    assert two.second.connections == 0
    two.the_next_goes_by_the_first()


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_first_may_have_never_goes_to_the_second(pair: Callable[[Stage], Pair], name: str) -> None:
    two = pair(UNKNOWN[name])
    sent = two.send("m")
    (message,) = sent.values()
    two.house.api.wait_for(f"messages/{message}", lambda found: "unknown" in [a["outcome"] for a in found["attempts"]])
    tries = two.copies(two.first)[f"m@{two.domain}"]
    two.first.script = says("GREETING", b"421 4.3.2 Service not available, closing transmission channel\r\n")
    two.house.api.ask("POST", "queue/retry", {"account": two.names[0]})
    two.house.api.wait_for("events", lambda found: found["events"] != [], kind="account.asleep", account=two.names[0])
    other = two.send("other")
    two.delivered(other, two.names[1])  # the first is out, and this one waits for it all the same
    (row,) = two.house.api.ask("GET", f"messages/{message}")["deliveries"]
    assert (row["account"], row["ended"]) == (two.names[0], None)
    two.mend()
    two.house.api.ask("POST", "queue/retry", {"account": two.names[0]})
    two.delivered(sent, two.names[0])
    assert two.copies(two.second) == dict.fromkeys(other, 1)
    shown = json.loads(two.house.served.run("queue", "show", message, "--json").stdout)
    unknown = [one["outcome"] for one in shown["attempts"]].count("unknown")
    # As many copies as tries that were not answered, and the one that was: the command says how many may be too many.
    assert two.copies(two.first) == {f"m@{two.domain}": unknown + 1}
    assert 1 <= tries <= unknown
    assert "the relay may have it more than once" in " ".join(shown["deliveries"][0]["marks"])


def test_what_waits_with_the_second_comes_home_to_the_first(pair: Callable[[Stage], Pair]) -> None:
    two = pair(Stage(None, messages=1))
    two.second.script = says("GREETING", b"421 4.3.2 Service not available, closing transmission channel\r\n")
    sent = two.send_all()
    two.house.api.wait_for("events", lambda found: found["events"] != [], kind="account.asleep", account=two.names[1])
    two.house.api.ask("POST", f"accounts/{two.names[1]}/sleep", {"for": "1h"})
    two.mend()
    later = two.send("later")
    two.delivered(sent | later, two.names[0])
    assert two.copies(two.first) == dict.fromkeys([*sent, *later], 1)
    assert two.copies(two.second) == {}
    assert {one["message_id"] for one in two.events("rerouted", two.names[0])} == set(sent.values())
