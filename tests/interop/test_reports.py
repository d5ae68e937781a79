"""A report about what a real Postfix refused, relayed as a bounce by that Postfix."""

from __future__ import annotations

import os
import shutil
import smtplib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.gateways import Postfix
from tests.conftest import PEERS_MUST_BE_THERE, Served, find_peer
from tests.interop.conftest import AioRelay, Certificates, add_relay, wait_for_rows
from tests.reading_reports import read_report

SENDER = "ann@source.example"
TEXT = f"From: <{SENDER}>\r\nSubject: Grüße\r\n\r\nGrüße aus der Poststelle\r\n.\r\n".encode()


@contextmanager
def postfix(certificates: Certificates, relay_port: int) -> Iterator[Postfix]:
    """A private Postfix that refuses `unknown@sink.example` and relays all else to that port."""
    find_peer("postfix")
    if os.geteuid() != 0:
        if PEERS_MUST_BE_THERE:
            pytest.fail("a private Postfix needs root", pytrace=False)
        pytest.skip("a private Postfix needs root")
    folder = Path(tempfile.mkdtemp(prefix="postroom-postfix-"))
    folder.chmod(0o755)  # Postfix's own user must get through
    shutil.copy(certificates.chain, folder / "chain.pem")
    names = {"chain": str(folder / "chain.pem"), "log": str(folder / "maillog")}
    relay = Postfix(Path(__file__).with_name("postfix.cf"), folder, relay_port, **names)
    relay.start()
    yield relay
    relay.stop()
    shutil.rmtree(folder)


def test_postfix_takes_and_relays_a_report_as_a_bounce(
    serve: Callable[..., Served], aiosmtpd_relay: Callable[..., AioRelay], certificates: Certificates
) -> None:
    beyond = aiosmtpd_relay()
    with postfix(certificates, beyond.port) as relay:
        served = serve()
        add_relay(served, relay.port)
        with smtplib.SMTP("127.0.0.1", served.port, timeout=60) as client:
            options = ["RET=FULL", "ENVID=batch+2B12", "BODY=8BITMIME"]
            wanted = ["NOTIFY=FAILURE", "ORCPT=rfc822;old@z.example"]
            assert client.sendmail(SENDER, ["unknown@sink.example"], TEXT, options, wanted) == {}
        (arrived,) = beyond.arrivals.wait()
        wait_for_rows(served, lambda rows: {row["state"] for row in rows} == {"bounced", "delivered"})
        log = (relay.folder.parent / "maillog").read_text()
    assert (arrived.mail_from, arrived.rcpt_tos) == ("<>", [SENDER])
    assert "from=<>, size=" in log
    assert f"to=<{SENDER}>" in log
    assert log.count("status=sent") == 1
    assert "warning" not in log
    assert isinstance(arrived.content, bytes)
    report = read_report(arrived.content)
    assert report.actions == [("rfc822; unknown@sink.example", "failed", "5.7.1")]
    assert "<unknown@sink.example>: Recipient address rejected: Access denied" in report.words
    assert report.recipients[0]["Diagnostic-Code"].startswith("smtp; 554 5.7.1 <unknown@sink.example>:")
    assert report.recipients[0]["Original-Recipient"] == "rfc822; old@z.example"
    assert report.about["Original-Envelope-Id"] == "batch+12"
    assert TEXT.partition(b"\r\n\r\n")[2] in arrived.content
