"""Reports of a running gateway: a real client asks for them, a relay refuses, and they arrive by another account."""

from __future__ import annotations

import json
import re
import smtplib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served
from tests.e2e.attackers import Api
from tests.e2e.scripted_relay import Background, ScriptedRelay, Talk
from tests.reading_reports import ReadReport, read_report
from tests.smarthost import Taken

Serve = Callable[..., Served]

SENDER = "ann@source.example"
EIGHT_BIT = "Grüße aus der Poststelle\r\n.\r\n"
TEXT = f"From: <{SENDER}>\r\nSubject: Order 4711\r\nMessage-ID: <4711@source.example>\r\n\r\n{EIGHT_BIT}".encode()


@dataclass
class Mail:
    """A gateway whose account `relay` refuses everybody, and whose account `reports` takes everything."""

    served: Served
    refusing: ScriptedRelay
    reports: ScriptedRelay
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(self.served.data / "control.sock")

    def send(self, *recipients: str, rcpt_options: tuple[str, ...] = (), mail_options: tuple[str, ...] = ()) -> str:
        """A message by a real client; its id."""
        with smtplib.SMTP("127.0.0.1", self.served.port, timeout=60) as client:
            client.ehlo()
            assert client.has_extn("dsn")
            assert client.sendmail(SENDER, recipients, TEXT, mail_options, rcpt_options) == {}
        rows = self.api.deliveries(recipient=recipients[0])
        return str(rows[0]["message_id"])

    def reported(self, message_id: str, *, through: str = "reports") -> tuple[Taken, ReadReport]:
        """The one report on it, as the relay of reports took it."""

        def is_told(found: Any) -> bool:
            return any(event["kind"].startswith("report") for event in found["events"])

        found = self.api.wait_for(f"messages/{message_id}", is_told)
        (event,) = [event for event in found["events"] if event["kind"].startswith("report")]
        assert (event["kind"], event["detail"].endswith(f"through {through}")) == ("reported", True)
        self.api.ask("POST", "drain")
        (taken,) = [one for one in self.reports.taken if message_id.encode() in one.content]
        return taken, read_report(taken.content)


async def refuses(talk: Talk) -> None:
    """A relay that knows nobody."""
    await talk.normally("RCPT", ("PIPELINING", "ENHANCEDSTATUSCODES"))
    await talk.say(b"550 5.1.1 no such user here\r\n")
    await talk.go_on()


async def takes(talk: Talk) -> None:
    """A relay that takes everything."""
    await talk.normally(ehlo=("PIPELINING", "8BITMIME", "DSN"))


def closed_up(said: str) -> str:
    """With one space where columns have many."""
    return re.sub(" +", " ", said)


@pytest.fixture
def start(serve: Serve) -> Iterator[Callable[..., Mail]]:
    """`start(postmaster=..., to=...)` starts all three."""
    background = Background()
    relays = [ScriptedRelay(background, refuses), ScriptedRelay(background, takes)]

    def make(accounts: tuple[str, ...] = ("relay", "reports"), **settings: str) -> Mail:
        served = serve(**{"POSTROOM_NOTIFICATIONS__ACCOUNT": "reports"} | settings)
        mail = Mail(served, *relays)
        for name, relay in zip(accounts, relays, strict=False):
            grant = {"grant": {"application": "local", "senders": ["*"]}} if name == "relay" else {}
            account = {"name": name, "host": "127.0.0.1", "port": relay.port, "security": "none"}
            mail.api.ask("POST", "accounts", account | grant)
        return mail

    yield make
    for relay in relays:
        relay.stop()
    background.close()


def test_the_sender_gets_what_the_client_asked_for(start: Callable[..., Mail]) -> None:
    mail = start(POSTROOM_HOSTNAME="gate.example")
    asked = {"mail_options": ("RET=FULL", "ENVID=batch+2B12", "BODY=8BITMIME")}
    message_id = mail.send("gone@sink.example", rcpt_options=("NOTIFY=FAILURE", "ORCPT=rfc822;old@z.example"), **asked)
    taken, report = mail.reported(message_id)
    assert (taken.reverse_path, taken.recipients) == ("", [SENDER])
    assert [line for line in mail.reports.commands if line.startswith("MAIL")] == ["MAIL FROM:<> BODY=8BITMIME"]
    assert report.message["From"] == "Mail delivery <MAILER-DAEMON@gate.example>"
    assert report.message["In-Reply-To"] == "<4711@source.example>"
    assert report.about["Original-Envelope-Id"] == "batch+12"
    assert report.recipients[0]["Original-Recipient"] == "rfc822; old@z.example"
    assert report.actions == [("rfc822; gone@sink.example", "failed", "5.1.1")]
    assert "127.0.0.1 said: 550 5.1.1 no such user here" in report.words
    assert EIGHT_BIT.encode() in taken.content


def test_a_relay_without_8bitmime_gets_the_returned_message_as_it_was(start: Callable[..., Mail]) -> None:
    async def plain(talk: Talk) -> None:
        await talk.normally(ehlo=("PIPELINING",))

    mail = start()
    mail.reports.script = plain
    taken, _ = mail.reported(mail.send("gone@sink.example", mail_options=("RET=FULL", "BODY=8BITMIME")))
    assert EIGHT_BIT.encode() in taken.content
    assert [line for line in mail.reports.commands if line.startswith("MAIL")] == ["MAIL FROM:<>"]


def test_nobody_is_told_of_a_report_that_is_refused(start: Callable[..., Mail]) -> None:
    mail = start()
    mail.reports.script = refuses
    message_id = mail.send("gone@sink.example")
    mail.api.wait_for(
        "deliveries", lambda found: [one["state"] for one in found["deliveries"]] == ["bounced", "bounced"]
    )
    assert mail.api.ask("POST", "drain")["drained"]
    assert len(mail.api.deliveries()) == 2
    assert mail.reports.taken == []
    events = mail.api.ask("GET", f"messages/{message_id}")["events"]
    assert [event["kind"] for event in events] == ["accepted", "bounced", "reported"]


def test_the_postmaster_is_told_too(start: Callable[..., Mail]) -> None:
    mail = start(POSTROOM_POSTMASTER="pm@source.example", POSTROOM_NOTIFICATIONS__TO="both")
    taken, _ = mail.reported(mail.send("gone@sink.example", "away@sink.example"))
    assert taken.recipients == [SENDER, "pm@source.example"]
    assert len(mail.reports.taken) == 1


def test_an_account_of_reports_that_is_not_there_is_told_of_and_another_taken(start: Callable[..., Mail]) -> None:
    mail = start(accounts=("relay",))
    logged = [line for line in mail.served.output if "no_such_account" in line]
    assert len(logged) == 1
    assert "notifications.account" in logged[0]
    checked = mail.served.run("check", check=False)
    assert checked.returncode == 1
    assert "error    notifications: shall go through the account reports, which does not exist" in checked.stdout
    message_id = mail.send("gone@sink.example")
    mail.api.wait_for(f"messages/{message_id}", lambda found: "through relay" in found["events"][-1]["detail"])


def test_an_account_of_reports_is_neither_removed_nor_renamed(start: Callable[..., Mail]) -> None:
    mail = start()
    for command in (("remove", "reports"), ("edit", "reports", "--name", "other")):
        refused = mail.served.run("accounts", *command, check=False)
        assert refused.returncode != 0
        assert "named by: the setting notifications.account" in refused.stderr
    assert "ok       notifications: go through the account reports" in mail.served.run("check", check=False).stdout


# Marks of what is not known -----------------------------------------------------------------------------------------


async def never_answers(talk: Talk) -> None:
    """Takes the content, and closes without a reply."""
    await talk.normally("CONTENT")


async def keeps_silent(talk: Talk) -> None:
    """Takes the content, and says nothing more."""
    await talk.normally("CONTENT")
    await talk.stopped.wait()


def test_what_may_be_sent_twice_is_told_by_show_and_why(
    serve: Serve, tmp_path: Path, start: Callable[..., Mail]
) -> None:
    data = tmp_path / "crashed"
    mail = start(data=data, POSTROOM_CRASH_AT="D4:1")  # behind the end of data, before the reply
    mail.refusing.script = keeps_silent
    with smtplib.SMTP("127.0.0.1", mail.served.port, timeout=60) as client:
        client.sendmail(SENDER, ["b@sink.example"], TEXT)
    assert mail.served.process.wait(60) == 137
    mail.refusing.script = takes
    said = "it may be sent twice: the gateway stopped while it was being sent"
    before = mail.served.run("why", "last").stdout  # no gateway runs
    assert before.startswith("b@sink.example is deferred")
    assert "because the gateway is not running\n" in closed_up(before)
    assert f"note {said}\n" in closed_up(before)
    assert mail.served.run("queue", "hold", "last").stdout == "1 delivery: hold\n"
    assert f"note {said}\n" in closed_up(mail.served.run("why", "last").stdout)
    mail.served.run("queue", "release", "last")
    waiting = serve(data=data, POSTROOM_SENDING_ENABLED="false")
    assert f"b@sink.example: {said}\n" in waiting.run("queue", "show", "last").stdout
    assert f"note {said}\n" in closed_up(waiting.run("why", "last").stdout)
    (shown,) = json.loads(waiting.run("queue", "show", "last", "--json").stdout)["deliveries"]
    assert (shown["may_be_sent_twice"], shown["marks"]) == (True, [said])
    assert waiting.stop() == 0
    again = serve(data=data)
    Api(data / "control.sock").message(shown["message_id"], "delivered")
    assert "it may have been sent twice: the gateway stopped" in again.run("why", "last").stdout


def test_unknown_outcomes_and_the_hold_at_the_third_are_told_by_show_and_why(start: Callable[..., Mail]) -> None:
    mail = start()
    mail.refusing.script = never_answers
    mail.api.ask("PATCH", "accounts/relay", {"reconnect_interval": "0s"})
    message_id = mail.send("b@sink.example")
    for unknowns in (1, 2):
        mail.api.wait_for(
            f"messages/{message_id}",
            lambda found, n=unknowns: found["deliveries"][0]["unknowns"] == n,  # type: ignore[misc]
        )
        tries = "1 try" if unknowns == 1 else "2 tries"
        said = f"the outcome of {tries} is unknown: the relay may have it"
        assert f"b@sink.example: {said}\n" in mail.served.run("queue", "show", message_id).stdout
        assert said in mail.served.run("why", message_id).stdout
        mail.api.ask("POST", f"messages/{message_id}/retry")
    mail.api.message(message_id, "held")
    why = closed_up(mail.served.run("why", message_id).stdout)
    assert "because the relay may have it: the end of data was written and no reply came" in why
    assert "note the outcome of 3 tries is unknown: the relay may have it" in why
    assert "advice ask the relay's log, then release or cancel" in why
    assert f"command postroom queue release {message_id}" in why
    mail.refusing.script = takes
    mail.served.run("queue", "release", message_id)
    mail.api.message(message_id, "delivered")
    assert "the outcome of 3 tries is unknown: the relay may have it more than once" in (
        mail.served.run("queue", "show", message_id).stdout
    )
