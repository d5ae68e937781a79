"""As whom mail arrives at a relay: forced, fixed, private, and none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Served
from tests.interop.conftest import AioRelay, add_relay


@pytest.fixture
def arrived(
    serve: Callable[..., Served], aiosmtpd_relay: Callable[..., AioRelay]
) -> Iterator[Callable[..., list[str]]]:
    """`arrived(*options)` sends a message from Ann: reverse-path, From and Reply-To that the relay got."""
    relay = aiosmtpd_relay()
    served = serve()
    add_relay(served, relay.port)

    def send(*before: str, head: str = "", sender: str = "ann@x.test") -> list[str]:
        if before:
            served.run(*before)
        text = f"From: Ann <ann@x.test>\r\n{head}\r\nhi\r\n"
        served.run("send", "--raw", "-", "--from", sender, "--to", "bob@y.test", stdin=text)
        (envelope,) = relay.arrivals.wait(1)
        relay.arrivals.take()
        assert isinstance(envelope.content, bytes)
        lines = envelope.content.decode().split("\r\n")
        return [envelope.mail_from or "", *(line for line in lines if line.startswith(("From:", "Reply-To:")))]

    yield send
    assert served.stop() == 0


def test_from_whom_mail_comes(arrived: Callable[..., list[str]]) -> None:
    assert arrived() == ["ann@x.test", "From: Ann <ann@x.test>"]
    arrived("settings", "set", "postmaster", "pm@x.test")
    by_postmaster = ["pm@x.test", "From: Ann <pm@x.test>"]
    assert arrived("settings", "set", "force_postmaster", "true") == by_postmaster
    assert arrived(head="Sensitivity: Private\r\n") == by_postmaster
    assert arrived(sender="<>") == ["<>", "From: Ann <pm@x.test>"]
    edit = ("accounts", "edit", "relay")
    by_robot = ["robot@x.test", "From: Ann <robot@x.test>"]
    assert arrived(*edit, "--fixed-sender", "robot@x.test") == by_robot
    assert arrived(*edit, "--fixed-sender-keeps-reply") == [*by_robot, "Reply-To: Ann <ann@x.test>"]
    assert arrived(*edit, "--fixed-sender-not-private", head="Sensitivity: Private\r\n") == [
        "ann@x.test",
        "From: Ann <ann@x.test>",
    ]
    assert arrived(*edit, "--fixed-sender-name", "Robot") == [
        "robot@x.test",
        "From: Robot <robot@x.test>",
        "Reply-To: Ann <ann@x.test>",
    ]
