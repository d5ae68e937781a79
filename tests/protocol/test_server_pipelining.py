"""Replies leave in the order of the commands, also when one of them has to wait for a commit."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp import LocalProtocolError
from postroom.protocol.smtp.server import MAX_REPLIES
from tests.submission_door import ACCEPTED, codes, ready

BEGIN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"


def test_a_pipelined_envelope_is_answered_at_once() -> None:
    assert codes(ready().send(BEGIN)) == [250, 250, 354]


def test_replies_to_later_commands_wait_behind_the_commit() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    assert dialogue.send(b"x\r\n.\r\nMAIL FROM:<e@f.test>\r\nRCPT TO:<bad>\r\nRCPT TO:<g@h.test>\r\n") == b""
    assert dialogue.machine.envelope().reverse_path == "e@f.test"
    assert codes(dialogue.commit()) == [250, 250, 501, 250]


def test_content_envelope_ahead_and_go_ahead_leave_in_one_piece() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    assert dialogue.send(b"x\r\n.\r\n" + BEGIN) == b""
    assert dialogue.machine.is_waiting
    assert dialogue.commit().startswith(ACCEPTED + b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 ")
    assert not dialogue.machine.is_waiting


def test_one_message_waits_for_its_commit_at_a_time() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN + b"one\r\n.\r\n" + BEGIN + b"two\r\n.\r\n" + BEGIN + b"three\r\n.\r\nQUIT\r\n")
    for count in (1, 2, 3):
        assert len(dialogue.messages) == count
        assert len(dialogue.open) == 1
        said = dialogue.commit()
    assert codes(said) == [250, 221]
    assert [content for _, _, content in dialogue.messages] == [b"one\r\n", b"two\r\n", b"three\r\n"]
    assert dialogue.machine.is_finished


def test_quit_behind_a_commit_closes_after_its_reply() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    assert dialogue.send(b"x\r\n.\r\nQUIT\r\n") == b""
    assert not dialogue.machine.is_finished
    assert codes(dialogue.commit()) == [250, 221]
    assert dialogue.machine.is_finished


def test_a_refusal_takes_the_place_of_the_reply() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    dialogue.send(b"x\r\n.\r\nNOOP\r\n")
    assert codes(dialogue.commit(b"452 4.3.1 full\r\n")) == [452, 250]


def test_replies_that_pile_up_behind_a_commit_are_bounded() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    dialogue.send(b"x\r\n.\r\n")
    (slot,) = dialogue.open
    for _ in range(10):
        dialogue.send(b"NOOP\r\n" * 1000)
    assert len(slot.behind) == MAX_REPLIES
    assert dialogue.machine.is_waiting
    assert codes(dialogue.commit()) == [250] * 10_001


def test_commands_wait_until_the_replies_before_them_are_taken() -> None:
    machine = ready().machine
    machine.receive(b"NOOP\r\n" * (2 * MAX_REPLIES + 1))
    taken = []
    for _ in range(4):
        assert machine.next_event() is None
        taken.append(len(codes(machine.data_to_send())))
    assert taken == [MAX_REPLIES, MAX_REPLIES, 1, 0]


def test_a_slot_is_filled_once() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    dialogue.send(b"x\r\n.\r\n")
    slot = dialogue.open[0]
    dialogue.commit()
    with pytest.raises(LocalProtocolError):
        dialogue.machine.fill(slot, ACCEPTED)


SCRIPT = (
    b"NOOP\r\n"
    + BEGIN
    + b"one\r\n.\r\nNOOP\r\nFOO\r\n"
    + BEGIN
    + b"two\r\n.\r\nRSET\r\nVRFY x\r\nMAIL FROM:<x>\r\nQUIT\r\n"
)
ORDER = [250, 250, 250, 354, 250, 250, 500, 250, 250, 354, 250, 250, 252, 501, 221]


@given(st.sets(st.integers(1, len(SCRIPT) - 1), max_size=20), st.lists(st.booleans(), max_size=40))
def test_any_pieces_and_any_moment_of_the_commit_give_one_order(cuts: set[int], commits: list[bool]) -> None:
    dialogue = ready(commits=False)
    marks = [0, *sorted(cuts), len(SCRIPT)]
    said = b""
    moments = [*commits, *[False] * len(marks)]
    for start, end in pairwise(marks):
        said += dialogue.send(SCRIPT[start:end])
        if dialogue.open and moments.pop(0):
            said += dialogue.commit()
    while dialogue.open:
        said += dialogue.commit()
    assert codes(said) == ORDER
    assert [content for _, _, content in dialogue.messages] == [b"one\r\n", b"two\r\n"]


def test_draining_lets_the_transaction_end_and_begins_no_other() -> None:
    dialogue = ready(commits=False)
    dialogue.send(BEGIN)
    dialogue.machine.drain()
    assert dialogue.send(b"x\r\n.\r\nMAIL FROM:<e@f.test>\r\n") == b""
    assert codes(dialogue.commit()) == [250, 421]
    assert dialogue.machine.is_finished


def test_draining_ends_an_idle_connection() -> None:
    dialogue = ready()
    dialogue.machine.drain()
    assert codes(dialogue.turn()) == [421]
    assert dialogue.machine.is_finished
