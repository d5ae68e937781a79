"""What one client may use: lines, sizes, recipients, errors."""

from __future__ import annotations

import pytest

from postroom.protocol.smtp.server import ServerLimits
from tests.submission_door import codes, ready

BEGIN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"


def test_a_command_line_may_be_as_long_as_its_limit() -> None:
    dialogue = ready()
    assert codes(dialogue.send(b"NOOP " + b"x" * 4089 + b"\r\n")) == [250]
    assert codes(dialogue.send(b"NOOP " + b"x" * 4090 + b"\r\nNOOP\r\n")) == [500, 250]


@pytest.mark.parametrize("step", [1, 7, 1000, 100_000])
def test_a_line_without_end_is_refused_once_and_not_kept(step: int) -> None:
    dialogue = ready()
    line = b"NOOP " + b"x" * 50_000
    said = b"".join(dialogue.send(line[at : at + step]) for at in range(0, len(line), step))
    assert codes(said + dialogue.send(b"\r\nNOOP\r\n")) == [500, 250]
    assert not dialogue.machine.is_finished


def test_auth_lines_may_be_longer() -> None:
    dialogue = ready(clear_login=True)
    assert codes(dialogue.send(b"AUTH PLAIN " + b"A" * 8000 + b"\r\n")) == [501]
    assert codes(dialogue.send(b"AUTH PLAIN " + b"A" * 12300 + b"\r\n")) == [500]
    assert codes(dialogue.send(b"AUTH LOGIN\r\n" + b"QUFB" * 2000 + b"\r\n")) == [334, 334]
    assert codes(dialogue.send(b"A" * 12300 + b"\r\nNOOP\r\n")) == [500, 250]


def test_recipients_over_the_limit_wait_for_another_message() -> None:
    dialogue = ready(limits=ServerLimits(max_recipients=3))
    dialogue.send(b"MAIL FROM:<a@b.test>\r\n")
    said = b"".join(dialogue.send(f"RCPT TO:<r{n}@d.test>\r\n".encode()) for n in range(5))
    assert codes(said) == [250, 250, 250, 452, 452]
    assert b"452 4.5.3 " in said
    dialogue.send(b"DATA\r\n")
    assert codes(dialogue.send(b"x\r\n.\r\n")) == [250]
    assert len(dialogue.messages[0][1]) == 3


def test_an_honest_excess_of_recipients_is_no_error_an_endless_one_is() -> None:
    dialogue = ready(limits=ServerLimits(max_recipients=100))
    dialogue.send(b"MAIL FROM:<a@b.test>\r\n")
    assert codes(dialogue.send(b"RCPT TO:<r@d.test>\r\n" * 200)) == [250] * 100 + [452] * 100
    assert codes(dialogue.send(b"RCPT TO:<r@d.test>\r\n" * 50)) == [452] * 20 + [421]
    assert dialogue.machine.is_finished


def test_a_declared_size_over_the_limit_is_refused_at_mail() -> None:
    dialogue = ready(limits=ServerLimits(max_size_bytes=1000))
    assert codes(dialogue.send(b"MAIL FROM:<a@b.test> SIZE=1001\r\nMAIL FROM:<a@b.test> SIZE=1000\r\n")) == [552, 250]


@pytest.mark.parametrize("step", [1, 100, 10_000])
def test_content_over_the_limit_is_refused_at_its_end(step: int) -> None:
    dialogue = ready(limits=ServerLimits(max_size_bytes=1000))
    dialogue.send(BEGIN)
    content = b"x" * 999 + b"\r\n.\r\n"
    said = b"".join(dialogue.send(content[at : at + step]) for at in range(0, len(content), step))
    assert said == b"552 5.3.4 Message too large\r\n"
    assert dialogue.messages == []
    assert dialogue.content_refusals >= 1
    dialogue.send(BEGIN)
    assert codes(dialogue.send(b"x" * 998 + b"\r\n.\r\n")) == [250]


def test_content_that_is_refused_is_not_handed_on_meanwhile() -> None:
    dialogue = ready(limits=ServerLimits(max_size_bytes=1000))
    dialogue.send(BEGIN)
    machine = dialogue.machine
    machine.receive(b"x" * 2000)
    assert type(machine.next_event()).__name__ == "ContentRefused"
    machine.receive(b"y" * 2000)
    assert type(machine.next_event()).__name__ == "ContentRefused"


def test_too_many_errors_end_the_connection() -> None:
    dialogue = ready()
    assert codes(dialogue.send(b"FOO\r\n" * 30)) == [500] * 20 + [421]
    assert dialogue.machine.is_finished


def test_a_message_that_was_taken_sets_errors_back() -> None:
    dialogue = ready()
    for _ in range(3):
        assert 421 not in codes(dialogue.send(b"FOO\r\n" * 15))
        dialogue.send(BEGIN)
        assert codes(dialogue.send(b"x\r\n.\r\n")) == [250]


def test_messages_that_are_refused_count_as_errors() -> None:
    dialogue = ready(commits=False)
    said = b""
    for _ in range(20):
        dialogue.send(BEGIN)
        dialogue.send(b"x\r\n.\r\n")
        said += dialogue.commit(b"550 5.7.1 no\r\n")
    assert codes(said) == [550] * 20 + [421]
    assert dialogue.machine.is_finished


def test_the_gateways_own_trouble_is_nobodys_error() -> None:
    dialogue = ready(commits=False)
    for _ in range(30):
        dialogue.send(BEGIN)
        dialogue.send(b"x\r\n.\r\n")
        assert codes(dialogue.commit(b"451 4.3.0 later\r\n")) == [451]
