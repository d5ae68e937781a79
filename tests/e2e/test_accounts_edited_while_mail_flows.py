"""`postroom accounts edit` on a running gateway, between two relays and back while mail flows: each message once."""

from __future__ import annotations

import smtplib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Served
from tests.e2e.counting_sink import CountingSink
from tests.e2e.crash_room import arrived

EDITS = 8
MESSAGES = 120


@pytest.fixture
def sinks() -> Iterator[tuple[CountingSink, CountingSink]]:
    """Two relays."""
    both = CountingSink(), CountingSink()
    yield both
    for one in both:
        one.stop()


def test_each_message_arrives_once(serve: Callable[..., Served], sinks: tuple[CountingSink, CountingSink]) -> None:
    served = serve()
    where = ["--host", "127.0.0.1", "--security", "none", "--port", str(sinks[0].port)]
    served.run("accounts", "add", "relay", *where, "--for", "local", "--allow-sender", "*")
    recipients = [f"r{n}@sink.example" for n in range(MESSAGES)]
    go_on = threading.Semaphore(0)

    def submit() -> None:
        with smtplib.SMTP("127.0.0.1", served.port, timeout=60) as client:
            for n, recipient in enumerate(recipients):
                if n % (MESSAGES // EDITS) == 0:
                    go_on.acquire()
                client.sendmail("a@source.example", [recipient], f"Subject: {n}\r\n\r\nhi\r\n")

    submitting = threading.Thread(target=submit)
    submitting.start()
    for number in range(1, EDITS + 1):
        go_on.release()
        said = served.run("accounts", "edit", "relay", "--port", str(sinks[number % 2].port)).stdout
        assert str(sinks[number % 2].port) in said
    submitting.join()

    def copies() -> Counter[str]:
        return Counter(arrived(sinks[0].seen.copies)) + Counter(arrived(sinks[1].seen.copies))

    while sum(copies().values()) < MESSAGES:
        served.run("status")
    assert served.stop() == 0
    assert copies() == dict.fromkeys(recipients, 1)
    assert all(arrived(sink.seen.copies) for sink in sinks), "mail flowed to both"
