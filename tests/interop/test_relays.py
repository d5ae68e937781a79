"""Relays that we did not write: Postfix, smtp-sink in its moods, aiosmtpd."""

from __future__ import annotations

import json
import os
import re
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.gateways import Postfix
from bench.traffic import answers, wait_until
from tests.conftest import Served
from tests.interop.conftest import AioRelay, Certificates, add_relay, rows_of, wait_for_account, wait_for_rows
from tests.interop.postfix import log_of, running_postfix

SENDER = "sender@source.example"
FINAL = ("delivered", "bounced", "expired", "cancelled", "captured")

Peer = Callable[[str], Path]
Serve = Callable[..., Served]


def submit(served: Served, *recipients: str, body: str = "Text.\r\n.dot\r\n") -> bytes:
    """One message by smtplib; its body as it must arrive."""
    text = f"From: <{SENDER}>\r\nTo: <{recipients[0]}>\r\nSubject: relayed\r\n\r\n{body}"
    with smtplib.SMTP("127.0.0.1", served.port, timeout=60) as client:
        assert client.sendmail(SENDER, recipients, text) == {}
    return body.encode()


def state_of(rows: list[dict[str, Any]]) -> dict[str, str]:
    """State by recipient."""
    return {row["recipient"].partition("@")[0]: row["state"] for row in rows}


def all_ended(rows: list[dict[str, Any]]) -> bool:
    """None waits."""
    return bool(rows) and all(row["state"] in FINAL for row in rows)


def none_moves(rows: list[dict[str, Any]]) -> bool:
    """Each has ended, or was tried and waits."""
    return bool(rows) and all(row["state"] in FINAL or row["state"] == "deferred" for row in rows)


def attempts_of(served: Served) -> list[dict[str, Any]]:
    """The attempts of the newest message."""
    attempts: list[dict[str, Any]] = json.loads(served.run("queue", "show", "last", "--json").stdout)["attempts"]
    return attempts


# Postfix ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def postfix(certificates: Certificates) -> Iterator[Callable[[int], Postfix]]:
    """`postfix(relay_port)` starts a private Postfix that relays to that port."""
    with ExitStack() as running:
        yield lambda relay_port: running.enter_context(running_postfix(certificates, relay_port))


@pytest.mark.parametrize("security", ["none", "starttls"])
def test_postfix_relays_what_we_hand_it(
    serve: Serve,
    postfix: Callable[[int], Postfix],
    aiosmtpd_relay: Callable[..., AioRelay],
    certificates: Certificates,
    security: str,
) -> None:
    beyond = aiosmtpd_relay()
    relay = postfix(beyond.port)
    served = serve()
    tls = ["--ca-bundle", str(certificates.ca)] if security == "starttls" else []
    add_relay(served, relay.port, "--security", security, *tls)
    body = submit(served, "one@sink.example", "two@sink.example", body="Text.\r\n.dot\r\n" * 5000)
    rows = wait_for_rows(served, all_ended)
    assert state_of(rows) == {"one": "delivered", "two": "delivered"}
    assert all("queued as" in row["reply"] for row in rows)
    (content,) = beyond.arrivals.contents()
    assert content.partition(b"\r\n\r\n")[2].rstrip(b"\r\n") == body.rstrip(b"\r\n")
    while (log := log_of(relay)).count("status=sent") < 2:  # written behind the reply of the relay beyond
        assert served.process.poll() is None
    assert log.count("status=sent") == 2
    assert "improper command pipelining" not in log


def test_each_recipient_has_its_own_end_at_postfix(
    serve: Serve, postfix: Callable[[int], Postfix], aiosmtpd_relay: Callable[..., AioRelay]
) -> None:
    beyond = aiosmtpd_relay()
    relay = postfix(beyond.port)
    served = serve()
    add_relay(served, relay.port)
    submit(served, "good@sink.example", "unknown@sink.example", "greylisted@sink.example")
    rows = wait_for_rows(served, none_moves)
    assert state_of(rows) == {"good": "delivered", "unknown": "bounced", "greylisted": "deferred"}
    (envelope,) = beyond.arrivals.wait()
    assert envelope.rcpt_tos == ["good@sink.example"]
    by_state = {row["state"]: row for row in rows}
    assert by_state["bounced"]["status"] == "5.7.1"
    assert "Access denied" in by_state["bounced"]["reply"]


def test_a_load_through_postfix_loses_and_doubles_nothing(
    serve: Serve, postfix: Callable[[int], Postfix], aiosmtpd_relay: Callable[..., AioRelay], peer: Peer
) -> None:
    """Envelope ahead, reuse and many connections against a real Postfix."""
    beyond = aiosmtpd_relay()
    relay = postfix(beyond.port)
    served = serve()
    add_relay(served, relay.port)
    load = ["-d", "-s", "10", "-m", "500", "-N", "-f", SENDER, "-t", "to@sink.example", f"127.0.0.1:{served.port}"]
    subprocess.run([str(peer("smtp-source")), *load], check=True, timeout=60)
    envelopes = beyond.arrivals.wait(500)
    assert len({envelope.rcpt_tos[0] for envelope in envelopes}) == 500
    rows = wait_for_rows(served, all_ended)
    assert [row["recipient"] for row in rows if row["state"] != "delivered"] == []
    assert {row["tries"] for row in rows} == {1}
    assert len(beyond.arrivals.envelopes) == 500
    log = log_of(relay)
    assert re.findall(r"lost connection after (?!CONNECT)\w+", log) == []  # the fixture asked whether it greets
    assert "improper command pipelining" not in log


def test_a_large_message_reaches_postfix_whole(
    serve: Serve, postfix: Callable[[int], Postfix], aiosmtpd_relay: Callable[..., AioRelay]
) -> None:
    beyond = aiosmtpd_relay()
    relay = postfix(beyond.port)
    served = serve()
    add_relay(served, relay.port)
    body = submit(served, "big@sink.example", body="".join(f"line {n}\r\n.\r\n..\r\n" for n in range(400_000)))
    assert len(body) > 7_000_000
    wait_for_rows(served, all_ended)
    (content,) = beyond.arrivals.contents()
    assert content.partition(b"\r\n\r\n")[2] == body


# smtp-sink --------------------------------------------------------------------------------------------------------


@contextmanager
def smtp_sink(program: Path, port: int, *mood: str) -> Iterator[None]:
    """smtp-sink on `port`."""
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([str(program), "-4", *user, *mood, f"127.0.0.1:{port}", "50"])
    try:
        if "CONNECT" not in mood:
            wait_until(lambda: answers(port), 20, "smtp-sink greets")
        yield
    finally:
        process.terminate()
        process.wait()


#: smtp-sink's options; how the delivery stands after the first try, and the command that was answered.
MOODS = {
    "as it is": ((), "delivered", "."),
    "no PIPELINING": (("-p",), "delivered", "."),
    "no ESMTP": (("-e",), "delivered", "."),
    "as behind a PIX": (("-P",), "delivered", "."),
    "no 8BITMIME, no DSN": (("-8", "-N"), "delivered", "."),
    "5xx to RCPT": (("-f", "RCPT", "-B", "550 5.1.1 no such user"), "bounced", "RCPT"),
    "4xx to RCPT": (("-r", "RCPT"), "deferred", "RCPT"),
    "5xx to content": (("-f", ".", "-B", "554 5.6.0 not this"), "bounced", "."),
    "4xx to content": (("-r", "."), "deferred", "."),
}


@pytest.mark.parametrize("mood", MOODS)
def test_smtp_sink_in_its_moods(serve: Serve, peer: Peer, free_port: Callable[[], int], mood: str) -> None:
    options, state, command = MOODS[mood]
    port = free_port()
    with smtp_sink(peer("smtp-sink"), port, *options):
        served = serve(POSTROOM_NOTIFICATIONS__TO="none")
        add_relay(served, port)
        submit(served, "someone@sink.example")
        rows = wait_for_rows(served, none_moves)
    assert state_of(rows) == {"someone": state}
    assert not rows[0]["may_be_sent_twice"]
    assert attempts_of(served)[0]["command"].startswith(command)


@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
def test_smtp_sink_that_hangs_up_costs_the_message_a_try(
    serve: Serve, peer: Peer, free_port: Callable[[], int], verb: str
) -> None:
    """Before the end of data nothing can have arrived; whether the message is to blame is not known: it is a try."""
    port = free_port()
    with smtp_sink(peer("smtp-sink"), port, "-q", verb):
        served = serve()
        add_relay(served, port)
        submit(served, "someone@sink.example")
        (row,) = wait_for_rows(served, none_moves)
    assert (row["state"], row["tries"], row["may_be_sent_twice"]) == ("deferred", 1, False)
    assert (row["status"], "closed" in row["reply"]) == ("4.4.2", True)


def test_smtp_sink_that_takes_nothing_slows_the_account_or_puts_it_to_sleep(
    serve: Serve, peer: Peer, free_port: Callable[[], int]
) -> None:
    """A 421 is about the account: the message waits, and no try of it is used up."""
    port = free_port()
    with smtp_sink(peer("smtp-sink"), port, "-Q", "MAIL"):
        served = serve()
        add_relay(served, port)
        submit(served, "someone@sink.example")
        account = wait_for_account(served, lambda account: account["health"] != "healthy")
        (row,) = rows_of(served)
    assert account["health"] in ("slowed", "sleeping")
    assert row["state"] in ("queued", "deferred")
    assert (row["tries"], row["may_be_sent_twice"]) == (0, False)


# aiosmtpd ---------------------------------------------------------------------------------------------------------


def test_aiosmtpd_with_starttls_and_login(
    serve: Serve, aiosmtpd_relay: Callable[..., AioRelay], certificates: Certificates
) -> None:
    relay = aiosmtpd_relay(
        login=("mailbox", "correct horse"),
        tls_context=certificates.context(),
        require_starttls=True,
        auth_require_tls=True,
    )
    served = serve()
    options = ["--security", "starttls", "--ca-bundle", str(certificates.ca), "--username", "mailbox"]
    where = ["--host", "127.0.0.1", "--port", str(relay.port), "--for", "local", "--allow-sender", "*"]
    served.run("accounts", "add", "relay", *where, *options, "--password-stdin", stdin="correct horse\n")
    body = submit(served, "someone@sink.example")
    assert relay.arrivals.contents()[0].partition(b"\r\n\r\n")[2] == body
    assert relay.arrivals.logins == ["PLAIN mailbox"]
    assert state_of(wait_for_rows(served, all_ended)) == {"someone": "delivered"}


def test_a_certificate_of_a_stranger_stops_the_account(
    serve: Serve, aiosmtpd_relay: Callable[..., AioRelay], certificates: Certificates
) -> None:
    relay = aiosmtpd_relay(tls_context=certificates.context())
    served = serve()
    add_relay(served, relay.port, "--security", "starttls")
    submit(served, "someone@sink.example")
    account = wait_for_account(served, lambda account: account["health"] != "healthy")
    assert account["health"] == "needs attention"
    assert relay.arrivals.envelopes == []
    assert [row["tries"] for row in rows_of(served)] == [0]
