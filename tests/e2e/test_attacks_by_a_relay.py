"""Attacks by a relay on a running gateway: whatever it says, its mail waits with a reason, and others' mail goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.attackers import SENDER, Target, standing
from tests.e2e.scripted_relay import Script, ScriptedRelay, Talk, behaving

BODY = b"A line.\r\n..\r\n"
CONTENT = b"Subject: attacked\r\n\r\n" + BODY
EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 50000000", "ENHANCEDSTATUSCODES")

#: For an account whose relay says nothing.
IMPATIENT = {"connect_timeout": "1s", "command_timeout": "1s", "end_of_data_timeout": "1s"}
PATIENT = {"connect_timeout": "30s", "command_timeout": "60s", "end_of_data_timeout": "10m"}
LOGIN = {"username": "ann", "password": "secret", "allow_clear_password": True}

NO_REPLY = "the end of data was written and no reply came"
MEGABYTE = b"x" * 1_000_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One gateway for all attacks."""
    with standing(tmp_path_factory.mktemp("gateway")) as target:
        yield target


class Attack:
    """A relay with an account of its own."""

    def __init__(self, gateway: Target, script: Script, account: dict[str, Any]) -> None:
        self.gateway = gateway
        self.relay = ScriptedRelay(gateway.background, script)
        self.account = gateway.name()
        gateway.add_account(self.account, self.relay.port, **account)

    def send(self, content: bytes = CONTENT) -> str:
        """Give the gateway a message for this relay; its id."""
        query = {"account": self.account, "from": SENDER, "to": f"{self.gateway.name()}@hostile.example"}
        message_id: str = self.gateway.api.ask("POST", "messages", raw=content, **query)["id"]
        return message_id

    def explained(self, message_id: str, words: str) -> dict[str, Any]:
        """The message as `postroom queue show` has it, once `postroom why` says these words of its delivery."""
        self.gateway.api.wait_for(f"messages/{message_id}/why", lambda told: words in told["deliveries"][0]["reason"])
        shown: dict[str, Any] = self.gateway.api.ask("GET", f"messages/{message_id}")
        return shown

    def mend(self, message_id: str) -> None:
        """The relay behaves from now on, and the message is delivered; the change of the account wakes it."""
        self.relay.script = behaving
        fields = PATIENT | {"security": "none", "username": "", "password": ""}
        self.gateway.api.ask("PATCH", f"accounts/{self.account}", fields)
        told = self.gateway.api.ask("GET", f"messages/{message_id}/why")["deliveries"][0]["reason"]
        if told.startswith("it waits for its next try"):
            self.gateway.api.ask("POST", f"messages/{message_id}/retry")
        self.gateway.api.message(message_id, "delivered")

    @property
    def bodies(self) -> list[bytes]:
        """The bodies that the relay has read to their end."""
        return [one.content.partition(b"\r\n\r\n")[2] for one in list(self.relay.taken)]


@pytest.fixture
def attack(gateway: Target) -> Iterator[Callable[..., Attack]]:
    """`attack(script, command_timeout="300ms")` is one; its relay ends with the test."""
    made: list[Attack] = []

    def make(script: Script, **account: Any) -> Attack:
        made.append(Attack(gateway, script, account))
        return made[-1]

    yield make
    for one in made:
        one.relay.stop()


# Scripts ----------------------------------------------------------------------------------------------------------


def says(at: str, octets: bytes) -> Script:
    """Good until `at`; then it says that and goes on as if nothing were."""

    async def script(talk: Talk) -> None:
        await talk.normally(at, EXTENSIONS)
        await talk.say(octets)
        await talk.go_on("", EXTENSIONS)

    return script


def closes(at: str, octets: bytes = b"") -> Script:
    """Good until `at`; then it says that and closes."""

    async def script(talk: Talk) -> None:
        await talk.normally(at, EXTENSIONS)
        await talk.say(octets)

    return script


def repeats(at: str, octets: bytes) -> Script:
    """Good until `at`; then it says that for ever."""

    async def script(talk: Talk) -> None:
        await talk.normally(at, EXTENSIONS)
        while True:
            await talk.say(octets * 100)

    return script


def falls_silent(at: str) -> Script:
    """Good until `at`; then it says nothing."""

    async def script(talk: Talk) -> None:
        await talk.normally(at, EXTENSIONS)
        await talk.reader.read()

    return script


def offers(*lines: str, until: str = "", then: bytes = b"") -> Script:
    """Good, with these extensions; at `until` it says `then` and no more."""

    async def script(talk: Talk) -> None:
        await talk.normally(until, lines)
        await talk.say(then)
        await talk.reader.read()

    return script


async def octet_by_octet(talk: Talk) -> None:
    """Good, in the smallest pieces."""
    talk.piece_bytes = 1
    await talk.normally()


async def challenges(talk: Talk) -> None:
    """Answers a login with one challenge after the other."""
    await talk.normally("AUTH", ["AUTH LOGIN"])
    while True:
        await talk.say(b"334 VXNlcm5hbWU6\r\n")
        await talk.line()


def bare(*keywords: str) -> list[str]:
    """10,000 lines for EHLO."""
    return [f"X-{n}{''.join(keywords)}" for n in range(10_000)]


# What it comes to -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """What a relay does, what the message is said to wait for, and how many contents the relay has read by then."""

    script: Script
    words: str
    contents: int = 0
    account: dict[str, Any] = field(default_factory=dict)


TOO_MUCH = "a reply of more than 262144 octets"
TOO_LONG = "a reply line of more than 8192 octets"
TWO_CODES = "a reply with two codes: '250-yes' and '550 no'"

WAITS = {
    # One reply without an end, or of one endless line
    "an endless greeting": Wrong(repeats("GREETING", b"220-more\r\n"), f"greeting: {TOO_MUCH}"),
    "an endless reply to EHLO": Wrong(repeats("EHLO", b"250-MORE\r\n"), f"ehlo: {TOO_MUCH}"),
    "an endless reply to MAIL": Wrong(repeats("MAIL", b"250-more\r\n"), TOO_MUCH),
    "an endless reply to RCPT": Wrong(repeats("RCPT", b"550-more\r\n"), TOO_MUCH),
    "an endless reply to DATA": Wrong(repeats("DATA", b"354-more\r\n"), TOO_MUCH),
    "an endless reply to the content": Wrong(repeats("CONTENT", b"250-more\r\n"), f"{NO_REPLY}: {TOO_MUCH}", 1),
    "a greeting of 1 MB": Wrong(says("GREETING", b"220 " + MEGABYTE + b"\r\n"), f"greeting: {TOO_LONG}"),
    "1 MB to EHLO": Wrong(says("EHLO", b"250 " + MEGABYTE + b"\r\n"), f"ehlo: {TOO_LONG}"),
    "1 MB to MAIL": Wrong(says("MAIL", b"250 " + MEGABYTE + b"\r\n"), TOO_LONG),
    "1 MB to RCPT": Wrong(says("RCPT", b"550 " + MEGABYTE + b"\r\n"), TOO_LONG),
    "1 MB to DATA": Wrong(says("DATA", b"354 " + MEGABYTE + b"\r\n"), TOO_LONG),
    "1 MB to the content": Wrong(says("CONTENT", b"250 " + MEGABYTE + b"\r\n"), f"{NO_REPLY}: {TOO_LONG}", 1),
    "1 MB without a line end": Wrong(repeats("MAIL", b"2" * 10_000), TOO_LONG),
    "10,000 long lines to EHLO": Wrong(offers(*bare("x" * 30)), f"ehlo: {TOO_MUCH}"),
    # Replies out of step
    "two replies to MAIL": Wrong(says("MAIL", b"250 yes\r\n250 late\r\n"), "out of step at DATA"),
    "two replies to RCPT": Wrong(says("RCPT", b"250 yes\r\n250 late\r\n"), "out of step at DATA"),
    "354 to MAIL": Wrong(says("MAIL", b"354 go on\r\n"), "out of step at ENVELOPE"),
    "354 twice": Wrong(says("DATA", b"354 go on\r\n354 go on\r\n"), "a reply before the content"),
    "250 right behind 354": Wrong(says("DATA", b"354 go on\r\n250 taken\r\n"), "a reply before the content"),
    "250 to DATA": Wrong(says("DATA", b"250 taken\r\n"), "out of step at DATA"),
    "220 to the content": Wrong(closes("CONTENT", b"354 more\r\n"), NO_REPLY, 1),
    "a greeting of 250": Wrong(says("GREETING", b"350 scripted.example\r\n"), "out of step at GREETING"),
    "two greetings": Wrong(says("GREETING", b"220 one\r\n550 two\r\n"), "two"),
    # Contradictions and rubbish
    "two codes to EHLO": Wrong(says("EHLO", b"250-yes\r\n550 no\r\n"), f"ehlo: {TWO_CODES}"),
    "two codes to MAIL": Wrong(says("MAIL", b"250-yes\r\n550 no\r\n"), TWO_CODES),
    "two codes to RCPT": Wrong(says("RCPT", b"250-yes\r\n550 no\r\n"), TWO_CODES),
    "two codes to the content": Wrong(says("CONTENT", b"250-yes\r\n550 no\r\n"), f"{NO_REPLY}: {TWO_CODES}", 1),
    "no SMTP at all": Wrong(closes("GREETING", b"HTTP/1.1 400 Bad Request\r\n\r\n"), "greeting: not a reply"),
    "TLS where none was asked": Wrong(closes("GREETING", b"\x15\x03\x01\x00\x02\x02\x0a\r\n"), "greeting: not a reply"),
    "NUL in a code": Wrong(says("RCPT", b"25\0 yes\r\n"), "not a reply"),
    "digits of elsewhere in a code": Wrong(says("RCPT", "٢٥٠ yes\r\n".encode()), "not a reply"),
    "a code of 999": Wrong(says("RCPT", b"999 yes\r\n"), "not a reply"),
    # Missing replies
    "no greeting": Wrong(falls_silent("GREETING"), "greeting: no reply within 1 s", account=IMPATIENT),
    "no reply to EHLO": Wrong(falls_silent("EHLO"), "ehlo: no reply within 1 s", account=IMPATIENT),
    "no reply to MAIL": Wrong(falls_silent("MAIL"), "no reply within 1 s", account=IMPATIENT),
    "no reply to RCPT": Wrong(falls_silent("RCPT"), "no reply within 1 s", account=IMPATIENT),
    "no reply to DATA": Wrong(falls_silent("DATA"), "no reply within 1 s", account=IMPATIENT),
    "no reply to the content": Wrong(falls_silent("CONTENT"), f"{NO_REPLY}: no reply within 1 s", 1, IMPATIENT),
    "closed at once": Wrong(closes("GREETING"), "greeting: "),
    "closed at EHLO": Wrong(closes("EHLO"), "ehlo: "),
    "closed at MAIL": Wrong(closes("MAIL"), "the server closed the connection"),
    "closed at RCPT": Wrong(closes("RCPT"), "the server closed the connection"),
    "closed at DATA": Wrong(closes("DATA"), "the server closed the connection"),
    "closed within a reply": Wrong(closes("RCPT", b"250"), "the server closed the connection"),
    # Refusals of the whole connection
    "a greeting of 554": Wrong(closes("GREETING", b"554 5.7.1 go away\r\n"), "greeting: 554 5.7.1 go away"),
    "421 for a greeting": Wrong(closes("GREETING", b"421 4.3.2 going down\r\n"), "greeting: 421 4.3.2 going down"),
    "421 to EHLO": Wrong(closes("EHLO", b"421 4.3.2 going down\r\n"), "ehlo: 421 4.3.2 going down"),
    "421 to MAIL": Wrong(closes("MAIL", b"421 4.3.2 going down\r\n"), "421 4.3.2 going down"),
    "421 to RCPT": Wrong(closes("RCPT", b"421 4.3.2 going down\r\n"), "421 4.3.2 going down"),
    "421 to DATA": Wrong(closes("DATA", b"421 4.3.2 going down\r\n"), "421 4.3.2 going down"),
    "421 to the content": Wrong(closes("CONTENT", b"421 4.3.2 going down\r\n"), "421 4.3.2 going down", 1),
    # TLS and logins
    "a reply injected behind STARTTLS": Wrong(
        offers("STARTTLS", until="STARTTLS", then=b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n"),
        "octets in clear behind the reply to STARTTLS",
        account=LOGIN | {"security": "starttls"},
    ),
    "STARTTLS taken out": Wrong(
        offers("AUTH PLAIN"), "does not offer STARTTLS", account=LOGIN | {"security": "starttls"}
    ),
    "no TLS behind STARTTLS": Wrong(
        offers("STARTTLS", until="STARTTLS", then=b"220 go\r\n"),
        "no TLS with 127.0.0.1 within 1 s",
        account=LOGIN | IMPATIENT | {"security": "starttls"},
    ),
    "challenges without end": Wrong(challenges, "auth: ", account=LOGIN),
    "a challenge that is not base64": Wrong(
        offers("AUTH LOGIN", until="AUTH", then=b"334 !\r\n501 5.5.2 no\r\n"),
        "auth: what the relay asks is not base64",
        account=LOGIN,
    ),
    "a challenge of 1 MB": Wrong(
        offers("AUTH LOGIN", until="AUTH", then=b"334 " + MEGABYTE + b"\r\n"), f"auth: {TOO_LONG}", account=LOGIN
    ),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_message_waits_with_a_reason_and_is_delivered_once_the_relay_is_mended(
    gateway: Target, attack: Callable[..., Attack], name: str
) -> None:
    wrong = WAITS[name]
    with gateway.unharmed():
        hostile = attack(wrong.script, **wrong.account)
        message_id = hostile.send()
        gateway.serves_others()
        shown = hostile.explained(message_id, wrong.words)
        assert shown["deliveries"][0]["state"] in ("queued", "deferred")
        assert hostile.bodies == [BODY] * wrong.contents
        if "security" in wrong.account:
            assert not [line for line in hostile.relay.commands if line.startswith("AUTH")]
        hostile.mend(message_id)
    assert hostile.bodies == [BODY] * (wrong.contents + 1)


ODD = [
    *("", " ", "\t", "=", "SIZE", "SIZE -1", "SIZE ٣", "SIZE \xff\0", "SIZE 9" + "9" * 99, "8BITMIME 7", "DSN DSN"),
    *("AUTH", "AUTH=", "STARTTLS x", "PIPELINING x y", "LIMITS", "LIMITS RCPTMAX=-1 MAILMAX=x RCPTMAX==", "X" * 8000),
]

TAKEN = {
    "octet by octet": octet_by_octet,
    "garbage in the reply to EHLO": offers(*ODD),
    "10,000 extensions": offers(*bare(" y")),
    "rubbish behind a good reply": says("CONTENT", b"250 2.0.0 taken\r\n\0\xff rubbish\r\n\r\n"),
    "rubbish without an end behind a good reply": says("CONTENT", b"250 2.0.0 taken\r\n" + MEGABYTE),
    "a second reply behind a good one": says("CONTENT", b"250 2.0.0 taken\r\n550 5.0.0 no\r\n"),
    "421 behind a good reply": closes("CONTENT", b"250 2.0.0 taken\r\n421 4.3.2 going down\r\n"),
    "NUL and 8-bit octets in a good reply": says("CONTENT", b"250 2.0.0 t\0ak\xe9n\x1b[2J\r\n"),
    "replies that end in LF": says("MAIL", b"250 ok\n"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_message_is_delivered_once_and_so_is_the_next(
    gateway: Target, attack: Callable[..., Attack], name: str
) -> None:
    with gateway.unharmed():
        hostile = attack(TAKEN[name], reconnect_interval="0s")
        for count in (1, 2):
            message_id = hostile.send()
            shown = gateway.api.message(message_id, "delivered")
            assert [one["outcome"] for one in shown["attempts"]] == ["delivered"]
            assert hostile.bodies == [BODY] * count


def test_connections_that_have_ended_are_forgotten_with_all_that_they_said(
    gateway: Target, attack: Callable[..., Attack]
) -> None:
    with gateway.unharmed():
        hostile = attack(TAKEN["10,000 extensions"], messages_per_connection=1)
        for _ in range(50):
            gateway.api.message(hostile.send(), "delivered")
        assert hostile.relay.connections == 50


def test_a_refusal_with_nul_and_8_bit_octets_bounces_and_is_safe_to_show(
    gateway: Target, attack: Callable[..., Attack]
) -> None:
    with gateway.unharmed():
        hostile = attack(says("RCPT", b"550 5.1.1 no\0 such\r \xff\x1b[2J\x9buser\r\n"))
        message_id = hostile.send()
        shown = gateway.api.message(message_id, "bounced")
        assert shown["deliveries"][0]["reply"].startswith("550 5.1.1 no\ufffd such\ufffd ")
        for command in ("show", "list"):
            printed = gateway.served.run("queue", command, *([message_id] if command == "show" else [])).stdout
            assert "5.1.1" in printed
            assert all(letter.isprintable() or letter == "\n" for letter in printed)


# Outcomes that nobody knows ---------------------------------------------------------------------------------------


def test_content_taken_without_a_reply_is_marked_unknown_and_held_at_the_third_time(
    gateway: Target, attack: Callable[..., Attack]
) -> None:
    with gateway.unharmed():
        hostile = attack(closes("CONTENT"), reconnect_interval="0s")
        message_id = hostile.send()
        for unknowns in (1, 2):
            shown = hostile.explained(message_id, NO_REPLY)
            assert shown["deliveries"][0]["unknowns"] == unknowns
            gateway.serves_others()
            gateway.api.ask("POST", f"messages/{message_id}/retry")
        shown = gateway.api.message(message_id, "held")
        assert [one["outcome"] for one in shown["attempts"]] == ["unknown"] * 3
        assert shown["deliveries"][0]["reply"].startswith(f"the relay may have it: {NO_REPLY}")
        assert len(hostile.bodies) == 3
        # The account is not to blame: the next message goes out.
        hostile.relay.script = behaving
        gateway.api.message(hostile.send(), "delivered")
        assert len(hostile.bodies) == 4


# Large contents ---------------------------------------------------------------------------------------------------

LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 1_000_000


@pytest.mark.parametrize(
    "name", ["stops reading", "refuses in the middle", "closes in the middle", "says 250 too early"]
)
def test_a_large_content_under_way_costs_nobody_anything(
    gateway: Target, attack: Callable[..., Attack], name: str
) -> None:
    said = {"refuses in the middle": b"552 5.2.2 full\r\n", "says 250 too early": b"250 2.0.0 taken\r\n"}.get(name, b"")

    async def script(talk: Talk) -> None:
        await talk.normally("DATA", EXTENSIONS)
        await talk.say(b"354 go on\r\n")
        await talk.reader.readexactly(100_000)
        await talk.say(said)
        if not name.startswith("closes"):
            talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await talk.stopped.wait()

    words = {
        "stops reading": "no progress within 1 s",
        "refuses in the middle": "552 5.2.2 full",
        "closes in the middle": "connection",
        "says 250 too early": "out of step at CONTENT",
    }
    with gateway.unharmed():
        hostile = attack(script, **(IMPATIENT if name == "stops reading" else {}))
        message_id = hostile.send(LARGE)
        gateway.serves_others()
        hostile.explained(message_id, words[name])
        assert hostile.bodies == []
