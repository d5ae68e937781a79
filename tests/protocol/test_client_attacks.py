"""A server that does its worst: what it says never makes a success of none, nor a loss of a success."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp import RemoteProtocolError
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import Answered, ConnectionEnded, ContentWanted, TransactionEnded
from postroom.protocol.smtp.client_states import SessionState, Step
from postroom.protocol.smtp.reply_reader import DEFAULT_LIMITS, ReplyLimits
from postroom.protocol.smtp.transaction import MailTransaction
from tests.protocol.far_side import HEAD, FarSide, content, events, greeted, transaction

CLOSING = b"421 4.3.2 going down\r\n"


def broken_off(client: SmtpClient) -> str:
    """Let `client` go on to its RemoteProtocolError; what it says."""
    with pytest.raises(RemoteProtocolError) as broken:
        events(client)
    assert client.state is SessionState.DEAD
    return str(broken.value)


def unsettled(client: SmtpClient) -> list[MailTransaction]:
    """What had not ended; the last of the connection."""
    unfinished = client.give_up("broken", "protocol")
    assert client.take_output() == []
    return unfinished


def sent() -> tuple[SmtpClient, MailTransaction, MailTransaction]:
    """One content is out, and one envelope behind it; the server is to speak."""
    client = greeted(FarSide())
    one, ahead = transaction(0), transaction(1)
    client.begin(one)
    client.begin(ahead)
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert [type(event) for event in events(client)] == [ContentWanted]
    client.send_content(content(0))
    client.take_output()
    return client, one, ahead


# 421 -------------------------------------------------------------------------------------------------------------


def _greeting(client: SmtpClient) -> None:
    """Nothing was said."""


def _ehlo(client: SmtpClient) -> None:
    client.receive(HEAD)
    events(client)
    client.ehlo()


def _greeted(client: SmtpClient) -> None:
    client.receive(HEAD)
    events(client)


def _helo(client: SmtpClient) -> None:
    _greeted(client)
    client.helo()


def _ready(client: SmtpClient) -> None:
    _ehlo(client)
    client.receive(b"250-x\r\n250 PIPELINING\r\n")
    events(client)


def _starttls(client: SmtpClient) -> None:
    _ready(client)
    client.starttls()


def _auth(client: SmtpClient) -> None:
    _ready(client)
    client.authenticate(b"AUTH PLAIN AHUAcA==")


def _refused(client: SmtpClient) -> None:
    client.receive(b"554 no\r\n")
    events(client)


def _quit(client: SmtpClient) -> None:
    _ready(client)
    client.quit()


SESSION: list[Callable[[SmtpClient], None]] = [
    _greeting, _greeted, _ehlo, _helo, _ready, _starttls, _auth, _refused, _quit,
]  # fmt: skip


@pytest.mark.parametrize("reach", SESSION)
def test_421_in_every_state_of_the_session_ends_the_connection(reach: Callable[[SmtpClient], None]) -> None:
    client = SmtpClient("c.test")
    reach(client)
    client.receive(CLOSING + b"250 too late\r\n")
    (ended,) = events(client)
    assert isinstance(ended, ConnectionEnded)
    assert ended.reply is not None and ended.reply.code == 421
    assert client.state is SessionState.CLOSED


def test_421_behind_the_220_to_starttls_is_in_clear_and_breaks_the_connection() -> None:
    client = SmtpClient("c.test")
    _starttls(client)
    client.receive(b"220 go\r\n" + CLOSING)
    assert "in clear" in broken_off(client)


def test_421_to_rset_ends_the_connection_and_leaves_the_next_untouched() -> None:
    client = greeted(FarSide())
    refused, following = transaction(0), transaction(1)
    client.begin(refused)
    client.receive(b"550 no\r\n503 no\r\n503 no\r\n")
    assert [type(event) for event in events(client)] == [TransactionEnded]
    client.begin(following)
    client.receive(CLOSING)
    assert [type(event) for event in events(client)] == [ConnectionEnded]
    assert client.give_up("x", "closing") == [following]
    assert following.not_started


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (b"", Step.ENVELOPE),
        (b"250 ok\r\n", Step.ENVELOPE),
        (b"250 ok\r\n250 ok\r\n", Step.DATA),
        (b"250 ok\r\n250 ok\r\n354 go\r\n", Step.GO),
        (b"250 ok\r\n550 no\r\n354 go\r\n", Step.DOT),
    ],
)
def test_421_in_every_step_before_the_content_ends_the_connection_and_nothing_is_delivered(
    said: bytes, step: Step
) -> None:
    client = greeted(FarSide())
    one = transaction(0)
    client.begin(one)
    client.receive(said)
    events(client)
    assert one.step is step
    client.receive(CLOSING)
    told = events(client)
    assert isinstance(told[-1], ConnectionEnded)
    assert [one] == [event.transaction for event in told[:-1] if isinstance(event, TransactionEnded)] + (
        client.give_up("x", "closing")
    )
    assert not one.is_delivered(0) and not one.content_written and one.final is None


@pytest.mark.parametrize("whole", [False, True])
def test_421_to_the_content_is_its_reply_whether_or_not_it_is_whole(whole: bool) -> None:
    client = greeted(FarSide())
    one = transaction(0)
    client.begin(one)
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    events(client)
    client.begin_content()
    client.send_chunk(b"x\r\n")
    if whole:
        client.end_content()
    client.receive(CLOSING)
    ended, closed = events(client)
    assert isinstance(ended, TransactionEnded) and isinstance(closed, ConnectionEnded)
    assert one.final is not None and one.final.code == 421
    assert one.content_written == whole
    assert client.give_up("x", "closing") == []


# Out of step -----------------------------------------------------------------------------------------------------


def test_data_answered_before_the_recipients_sends_no_content() -> None:
    client = greeted(FarSide())
    one = transaction(0)
    client.begin(one)
    client.take_output()
    client.receive(b"250 ok\r\n354 go on\r\n250 ok\r\n")
    assert "354 go on" in broken_off(client)
    assert unsettled(client) == [one]
    assert not one.content_written


def test_a_missing_reply_to_a_recipient_is_out_of_step_and_sends_no_content() -> None:
    client = greeted(FarSide())
    one = transaction(0, recipients=3)
    client.begin(one)
    client.take_output()
    client.receive(b"250 mail\r\n250 first\r\n250 second\r\n354 go\r\n")
    broken_off(client)
    assert unsettled(client) == [one]


def test_a_reply_too_many_behind_a_content_never_counts_for_the_next_message() -> None:
    client, one, ahead = sent()
    client.receive(b"250 taken\r\n250 taken\r\n250 mail\r\n250 rcpt\r\n354 go\r\n")
    assert isinstance(client.next_event(), TransactionEnded) and one.is_delivered(0)
    broken_off(client)
    assert unsettled(client) == [ahead]
    assert not ahead.content_written and not ahead.is_delivered(0)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("rcpt", [b"250 ok\r\n", b"550 no\r\n"])
@pytest.mark.parametrize("early", [b"250 2.0.0 taken\r\n", b"2"])
def test_a_reply_to_the_content_before_the_content_delivers_nothing(together: bool, rcpt: bytes, early: bytes) -> None:
    client = greeted(FarSide())
    one = transaction(0)
    client.begin(one)
    client.take_output()
    client.receive(b"250 ok\r\n" + rcpt + b"354 go\r\n" + (early if together else b""))
    if not together:
        client.next_event()
        client.receive(early + b"50 x\r\n" if early == b"2" else early)
    if together or rcpt.startswith(b"2"):
        broken_off(client)
        assert unsettled(client) == [one]
    assert one.final is None and not one.is_delivered(0) and not one.content_written


def test_421_with_the_354_closes_before_the_content_and_leaves_all_but_the_first_message_untouched() -> None:
    client, one, ahead = sent()
    client.receive(b"250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n" + CLOSING)
    told, ended = events(client)
    assert isinstance(told, TransactionEnded) and one.is_delivered(0)
    assert isinstance(ended, ConnectionEnded) and ended.reply is not None
    assert client.give_up("x", "closing") == [ahead]
    assert ahead.not_started
    client = greeted(FarSide())
    first = transaction(0)
    client.begin(first)
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n" + CLOSING)
    assert [type(event) for event in events(client)] == [ConnectionEnded]
    assert client.give_up("x", "closing") == [first]
    assert not first.not_started and not first.content_written


def test_a_250_in_the_middle_of_the_content_delivers_nothing() -> None:
    client = greeted(FarSide())
    one = transaction(0)
    client.begin(one)
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    events(client)
    client.begin_content()
    client.send_chunk(b"half")
    client.receive(b"250 2.0.0 taken\r\n")
    broken_off(client)
    assert unsettled(client) == [one]
    assert one.final is None and not one.content_written


def test_a_late_reply_to_a_connection_given_up_changes_nothing() -> None:
    client, one, ahead = sent()
    assert client.give_up("no reply within 600 s", "timeout") == [one, ahead]
    client.receive(b"250 2.0.0 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert events(client) == []
    assert one.final is None and not one.is_delivered(0)
    assert (one.content_written, ahead.not_started) == (True, True)


def test_a_reply_behind_the_one_to_quit_is_not_read() -> None:
    client = greeted(FarSide())
    client.quit()
    client.receive(b"221 bye\r\nrubbish\r\n250 ok\r\n")
    (answered,) = events(client)
    assert isinstance(answered, Answered) and answered.reply.code == 221
    assert client.state is SessionState.CLOSED


def test_two_greetings_end_the_connection() -> None:
    client = SmtpClient("c.test")
    client.receive(HEAD + HEAD)
    assert isinstance(client.next_event(), Answered)
    broken_off(client)


# Contradictory ---------------------------------------------------------------------------------------------------


def test_354_though_every_recipient_was_refused_sends_nothing_but_the_dot_and_its_250_is_no_success() -> None:
    client = greeted(FarSide())
    one = transaction(0, recipients=2)
    client.begin(one)
    client.take_output()
    client.receive(b"250 ok\r\n550 5.1.1 no\r\n451 4.2.0 later\r\n354 go\r\n")
    assert events(client) == []
    assert client.take_output() == [b".\r\n"]
    client.receive(b"250 2.0.0 taken\r\n")
    assert [type(event) for event in events(client)] == [TransactionEnded]
    assert [one.is_delivered(n) for n in range(2)] == [False, False]
    assert (one.final, one.content_written) == (None, False)


def test_an_enhanced_status_that_contradicts_its_code_does_not_decide() -> None:
    client, one, _ = sent()
    client.receive(b"250 5.7.1 rejected\r\n")
    assert [type(event) for event in events(client)] == [TransactionEnded]
    assert one.is_delivered(0)
    client, one, _ = sent()
    client.receive(b"550 2.0.0 taken\r\n")
    assert [type(event) for event in events(client)] == [TransactionEnded]
    assert not one.is_delivered(0)


@pytest.mark.parametrize("replies", [b"250-ok\r\n550 no\r\n", b"550-no\r\n250 ok\r\n", b"250-a\r\n251-b\r\n250 c\r\n"])
def test_a_reply_whose_lines_have_different_codes_is_none(replies: bytes) -> None:
    client, one, ahead = sent()
    client.receive(replies)
    assert "two codes" in broken_off(client)
    assert unsettled(client) == [one, ahead]
    assert one.content_written and one.final is None


def test_codes_that_nobody_registered_are_decided_on_by_their_first_digit() -> None:
    client = greeted(FarSide())
    one = transaction(0, recipients=3)
    client.begin(one)
    client.receive(b"299 a\r\n298 b\r\n499 c\r\n599 d\r\n399 e\r\n")
    assert [type(event) for event in events(client)] == [ContentWanted]
    client.send_content(content(0))
    client.receive(b"277 f\r\n")
    assert [type(event) for event in events(client)] == [TransactionEnded]
    assert [one.is_delivered(n) for n in range(3)] == [True, False, False]


# Too much, and odd octets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        b"250 " + b"x" * 1_000_000 + b"\r\n",
        b"250-" + b"x" * 1_000_000,
        b"".join(b"250-%d\r\n" % n for n in range(120_000)) + b"250 end\r\n",
        b"\0" * 1_000_000,
    ],
)
def test_a_reply_of_a_megabyte_breaks_the_connection_and_is_not_kept(reply: bytes) -> None:
    client, one, ahead = sent()
    taken = 0
    with pytest.raises(RemoteProtocolError):
        for start in range(0, len(reply), 4096):
            client.receive(reply[start : start + 4096])
            taken += 4096
            assert events(client) == []
    assert taken <= DEFAULT_LIMITS.reply_bytes + 2 * 4096
    assert unsettled(client) == [one, ahead]
    assert one.content_written and one.final is None


def test_a_reply_of_a_megabyte_behind_a_good_one_leaves_the_good_one() -> None:
    client, one, _ = sent()
    client.receive(b"250 2.0.0 taken\r\n250 " + b"x" * 1_000_000 + b"\r\n")
    assert isinstance(client.next_event(), TransactionEnded)
    assert one.is_delivered(0)
    broken_off(client)


def test_an_endless_reply_ends_at_the_limit_however_it_comes() -> None:
    client = SmtpClient("c.test", ReplyLimits(line_bytes=512, reply_bytes=2000))
    client.receive(HEAD)
    events(client)
    client.ehlo()
    lines = 0
    with pytest.raises(RemoteProtocolError, match="more than 2000 octets"):
        while lines < 1000:
            client.receive(b"250-X%d\r\n" % lines)
            assert events(client) == []
            lines += 1
    assert 100 < lines < 300


def test_endless_challenges_break_the_connection() -> None:
    client = SmtpClient("c.test")
    _auth(client)
    client.receive(b"334 \r\n" * 1000)
    broken_off(client)


@pytest.mark.parametrize(
    "text", [b"\0\0\0", b"taken\0 and \x7f", bytes(range(128, 256)), "é € \u202e".encode(), b"\x1b[2J"]
)
def test_nul_and_8_bit_octets_in_a_reply_neither_hide_it_nor_reach_a_terminal(text: bytes) -> None:
    client, one, _ = sent()
    client.receive(b"250 2.0.0 " + text + b"\r\n")
    assert [type(event) for event in events(client)] == [TransactionEnded]
    assert one.is_delivered(0) and one.final is not None
    assert all(line.isprintable() for line in one.final.lines)


@pytest.mark.parametrize("reply", [b"\x0050 no\r\n", b"25\xb0 ok\r\n", b"\xef\xbb\xbf250 ok\r\n", b"250\0ok\r\n"])
def test_nul_and_8_bit_octets_in_a_code_make_it_no_reply(reply: bytes) -> None:
    client, one, _ = sent()
    client.receive(reply)
    assert "not a reply" in broken_off(client)
    assert not one.is_delivered(0)


@pytest.mark.parametrize("behind", [b"rubbish\r\n", b"\0\r\n", b"999 x\r\n", b"250-a\r\n550 b\r\n", b"x" * 9000])
def test_rubbish_behind_a_good_reply_in_the_same_read_leaves_the_good_reply(behind: bytes) -> None:
    client, one, ahead = sent()
    client.receive(b"250 2.0.0 taken\r\n" + behind)
    assert isinstance(client.next_event(), TransactionEnded)
    assert one.is_delivered(0)
    broken_off(client)
    assert unsettled(client) == [ahead]
    assert ahead.not_started


# Cut -------------------------------------------------------------------------------------------------------------

SAID = b"250 2.1.0 ok\r\n250-2.1.5 well\r\n250 2.1.5 ok\r\n354 go on\r\n"
FINAL = b"250-2.0.0 taken\r\n250 2.0.0 for good\r\n"


@pytest.mark.parametrize("at", range(len(SAID)))
def test_replies_to_an_envelope_cut_at_any_octet_send_no_content(at: int) -> None:
    client = greeted(FarSide())
    one = transaction(0)
    client.begin(one)
    client.take_output()
    client.receive(SAID[:at])
    assert events(client) == []
    client.receive_eof()
    assert [type(event) for event in events(client)] == [ConnectionEnded]
    assert client.give_up("gone", "network") == [one]
    assert not one.content_written and client.take_output() == []


@pytest.mark.parametrize("at", range(len(FINAL)))
def test_a_final_reply_cut_at_any_octet_is_none(at: int) -> None:
    client, one, ahead = sent()
    client.receive(FINAL[:at])
    assert events(client) == []
    client.receive_eof()
    events(client)
    assert client.give_up("gone", "network") == [one, ahead]
    assert one.content_written and one.final is None and ahead.not_started
    client, one, _ = sent()
    for octets in (FINAL[:at], FINAL[at:]):
        client.receive(octets)
        told = events(client)
    assert [type(event) for event in told] == [TransactionEnded]
    assert one.is_delivered(0)


USUAL = [b"250 ok\r\n"] * 3 + [b"354 go\r\n"] * 2
ODD = [b"550 no\r\n", b"451 wait\r\n", b"250-a\r\n", b"421 bye\r\n", b"junk\r\n", b"299 x\n", b"250"]
REPLIES = st.sampled_from(USUAL + ODD)


@given(st.lists(REPLIES, max_size=24), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_whatever_is_said_nothing_is_delivered_but_by_a_2yz_to_each_of_mail_rcpt_and_a_whole_content(
    said: list[bytes], cuts: list[int]
) -> None:
    """Whatever the server says, what counts as delivered had its content written whole, once, and all three 2yz."""
    client = greeted(FarSide())
    waiting = [transaction(n) for n in range(6)]
    every = list(waiting)
    written: list[MailTransaction] = []
    data, turn = b"".join(said), 0
    try:
        while data or waiting:
            while waiting and client.may_begin:
                client.begin(waiting.pop(0))
            if not data:
                break
            size = cuts[turn % len(cuts)]
            turn += 1
            client.receive(data[:size])
            data = data[size:]
            for event in events(client):
                if isinstance(event, ContentWanted):
                    written.append(event.transaction)
                    client.send_content(b"x\r\n")
                    assert sum(one.content_written and one.final is None for one in every) == 1
    except RemoteProtocolError:
        pass
    client.give_up("x", "network")
    assert len(written) == len({id(one) for one in written})
    for one in every:
        replies = (one.mail, one.rcpt[0], one.final)
        if one.is_delivered(0):
            assert one.content_written and all(reply is not None and reply.is_positive for reply in replies)
        if one.not_started:
            assert not one.content_written
        assert one.content_written == (one in written)
