"""Reports as they are written: kept whole in dsn/*.eml, and read by others whatever is put into them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mime.address import Mailbox
from postroom.mime.dsn import Report, ReportedRecipient, compose_report
from tests.reading_reports import read_report

GOLDEN = Path(__file__).with_name("dsn")
NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HEAD = (
    b"Received: from localhost ([127.0.0.1])\r\n\tby gate.example.org (Postroom) with ESMTP id 1\r\n"
    b"From: Ann <ann@example.org>\r\nSubject: Order 4711\r\n\r\n"
)
REFUSED = ReportedRecipient(
    address="bob@example.net",
    action="failed",
    status="5.1.1",
    reply="550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown in local recipient table",
    is_quoted=True,
    advice="check the address",
    remote_host="mx.example.net [192.0.2.25]",
    last_attempt=NOON,
)
GIVEN_UP = ReportedRecipient(
    address="full@example.net",
    action="failed",
    status="4.4.2",
    reply="the end of data was written and no reply came",
    is_given_up=True,
    remote_host="2001:db8::25 [2001:db8::25]",
    last_attempt=NOON,
)
LATE = ReportedRecipient(
    address="carl@example.net", action="delayed", status="4.0.0", retried_until=NOON + timedelta(days=2)
)
PASSED_ON = ReportedRecipient(
    address="dora@example.net", action="relayed", status="2.0.0", reply="250 2.0.0 Ok: queued as 7F2A", is_quoted=True,
    remote_host="mx.example.net [192.0.2.25]", last_attempt=NOON, orcpt="rfc822;dora+2Bx@example.net",
)  # fmt: skip
BEYOND_ASCII = ReportedRecipient(
    address="jürgen@example.net", action="failed", status="5.6.7", orcpt="utf-8;j\\x{FC}rgen@example.net",
    reply="the recipient's address is not ASCII, and the relay does not offer SMTPUTF8",
)  # fmt: skip


def report(*recipients: ReportedRecipient, **fields: object) -> Report:
    """A report about one message."""
    given: dict[str, object] = {
        "hostname": "gate.example.org",
        "sender": Mailbox("MAILER-DAEMON@gate.example.org", "Mail delivery"),
        "to": ("ann@example.org",),
        "number": "019a9f2e-0c00-7000-8000-000000000001",
        "accepted": NOON - timedelta(hours=4),
        "subject": "Order 4711",
        "header_message_id": "<4711@erp.example.org>",
        "envid": "",
        "recipients": recipients,
        "head": HEAD,
    }
    return Report(**(given | fields))  # type: ignore[arg-type]


def composed(about: Report, body: bytes = b"") -> bytes:
    """The whole of it."""
    made = compose_report(about, date=NOON, message_id="<r1@gate.example.org>", boundary_seed=b"seed")
    return made.head + made.opening + body + made.closing


REPORTS = {
    "failed": (report(REFUSED, GIVEN_UP), b""),
    "delayed": (report(LATE, envid="batch+2B12"), b""),
    "relayed": (report(PASSED_ON), b""),
    "all_kinds": (report(PASSED_ON, LATE, REFUSED, subject=""), b""),
    "whole_message": (report(REFUSED, returns_body=True), b"Hello Bob,\r\n.\r\nyour order\r\n"),
    "eight_bit_message": (report(REFUSED, returns_body=True, is_eight_bit=True), "Grüße\r\n".encode()),
    "international": (
        report(BEYOND_ASCII, to=("ännchen@example.org",), subject="Grüße", head="Subject: Grüße\r\n\r\n".encode()),
        b"",
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_written_as_it_is_kept(name: str) -> None:
    """`{*}` in a kept report stands for anything within its line."""
    about, body = REPORTS[name]
    raw = composed(about, body)
    read_report(raw)
    kept = (GOLDEN / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n")
    pattern = b"[^\r\n]*".join(re.escape(part) for part in kept.split(b"{*}"))
    assert re.fullmatch(pattern, raw), raw.decode()


def test_no_kept_report_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.eml")} == set(REPORTS)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(
    "\r\n\t -:;<>@=+.xX\x00\u2028é", max_size=80
)
recipients = st.builds(
    ReportedRecipient,
    address=st.sampled_from(["b@y.test", '"a b"@y.test', "jürgen@y.test", "x@[192.0.2.1]"]),
    action=st.sampled_from(["failed", "delayed", "relayed"]),
    status=st.just("4.0.0"),
    reply=words | st.text("ab ", min_size=900, max_size=1500),
    is_quoted=st.booleans(),
    is_given_up=st.booleans(),
    advice=words,
    remote_host=words,
)


@given(
    st.lists(recipients, min_size=1, max_size=3), words, words, st.binary(max_size=60), st.booleans(),
    st.sampled_from(["<a@b>", "", "<a@b> <c@d>", "no id", "<\r\nBcc: x@y.test>"]),
)  # fmt: skip
def test_whatever_is_quoted_a_report_stays_a_report(
    told: list[ReportedRecipient], subject: str, hostname: str, head: bytes, whole: bool, message_id: str
) -> None:
    lines = re.sub(rb"[\r\n]", b"", head) + b"\r\n\r\n"
    about = report(
        *told, subject=subject, hostname=hostname, head=lines, returns_body=whole, is_eight_bit=True,
        header_message_id=message_id,
    )  # fmt: skip
    read = read_report(composed(about, b"body\xff\r\n"))
    assert {"Bcc", "bcc"} & set(read.message.keys()) == set()
    assert [block["Action"] for block in read.recipients] == [one.action for one in told]
    assert len(read.message.get_payload()) == 3


def test_a_report_of_very_long_words_has_no_line_that_is_too_long() -> None:
    about = report(
        ReportedRecipient(address="b@y.test", action="failed", status="5.0.0", reply="x" * 5000, is_quoted=True),
        envid="e" * 100, subject="s" * 500, header_message_id="<" + "i" * 995 + ">",
    )  # fmt: skip
    read = read_report(composed(about))
    assert read.recipients[0]["Diagnostic-Code"].startswith("smtp;")
    assert "In-Reply-To" not in read.message
