"""What breaks a client's connection, and what becomes of the transactions on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.model.envelope import DsnRequest, Envelope
from postroom.protocol.sasl.clear import LoginClient
from postroom.protocol.smtp import LocalProtocolError, RemoteProtocolError
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import Answered, ConnectionEnded, ContentWanted, TransactionEnded
from postroom.protocol.smtp.client_login import ClientLogin
from postroom.protocol.smtp.client_states import SessionState, Step
from postroom.protocol.smtp.transaction import MailTransaction
from tests.protocol.far_side import HEAD, FarSide, content, events, greeted, transaction


def with_one_ahead() -> tuple[SmtpClient, MailTransaction, MailTransaction]:
    """A client with one content out and one envelope behind it, both unanswered."""
    client = greeted(FarSide())
    current, ahead = transaction(0), transaction(1)
    client.begin(current)
    client.begin(ahead)
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert [type(event) for event in events(client)] == [ContentWanted]
    client.send_content(content(0))
    assert b"".join(client.take_output()).endswith(
        b".\r\nMAIL FROM:<s1@x.test> SIZE=10\r\nRCPT TO:<r0@m1.test>\r\nDATA\r\n"
    )
    return client, current, ahead


def test_a_good_reply_before_rubbish_counts() -> None:
    client, current, ahead = with_one_ahead()
    client.receive(b"250 2.0.0 taken\r\nrubbish\r\n")
    assert isinstance(client.next_event(), TransactionEnded)
    assert current.is_delivered(0)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            client.next_event()
    assert client.give_up("rubbish", "protocol") == [ahead]
    assert (ahead.error, ahead.error_kind, ahead.not_started) == ("rubbish", "protocol", True)
    with pytest.raises(LocalProtocolError):
        client.begin(transaction(2))


def test_no_reply_to_the_end_of_data_leaves_it_unknown_and_the_one_ahead_untouched() -> None:
    client, current, ahead = with_one_ahead()
    client.receive_eof()
    assert isinstance(client.next_event(), ConnectionEnded)
    assert client.give_up("gone", "network") == [current, ahead]
    assert (current.content_written, current.final, current.not_started) == (True, None, False)
    assert (ahead.content_written, ahead.not_started) == (False, True)


@pytest.mark.parametrize(
    ("replies", "not_started"),
    [
        (b"", True),
        (b"421 4.7.0 enough for now\r\n", True),
        (b"250 ok\r\n421 4.3.2 going down\r\n", False),
        (b"250 ok\r\n250 ok\r\n421 4.3.2 going down\r\n", False),
        (b"250 ok\r\n250 ok\r\n", False),
    ],
)
def test_what_breaks_under_its_own_commands_is_not_untouched(replies: bytes, not_started: bool) -> None:
    client, current, ahead = with_one_ahead()
    client.receive(b"250 2.0.0 taken\r\n" + replies)
    client.receive_eof()
    first, last = events(client)
    assert isinstance(first, TransactionEnded) and first.transaction is current and current.is_delivered(0)
    assert isinstance(last, ConnectionEnded)
    assert (last.reply is not None) == (b"421" in replies)
    assert client.give_up(last.reason, "closing") == [ahead]
    assert ahead.not_started is not_started


def test_421_to_the_end_of_data_is_its_reply() -> None:
    client, current, ahead = with_one_ahead()
    client.receive(b"421 4.3.2 going down\r\n250 2.1.0 too late\r\n")
    ended, closed = events(client)
    assert isinstance(ended, TransactionEnded) and current.final is not None and current.final.code == 421
    assert isinstance(closed, ConnectionEnded)
    assert client.state is SessionState.CLOSED
    assert client.give_up(closed.reason, "closing") == [ahead]
    assert ahead.not_started


def test_the_first_transaction_of_a_connection_that_breaks_it_is_not_untouched() -> None:
    client = greeted(FarSide())
    only = transaction(0)
    client.begin(only)
    client.receive(b"421 4.7.0 not you\r\n")
    assert [type(event) for event in events(client)] == [ConnectionEnded]
    assert client.give_up("x", "closing") == [only]
    assert only.mail is not None and only.mail.command == "MAIL"
    assert not only.not_started


def test_a_transaction_that_waits_with_its_354_is_untouched_when_the_connection_breaks() -> None:
    client, _, ahead = with_one_ahead()
    client.receive(b"250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert len(events(client)) == 2
    assert ahead.step is Step.GO
    client.receive_eof()
    events(client)
    assert client.give_up("gone", "network") == [ahead]
    assert ahead.not_started and not ahead.content_written


def test_a_refusal_in_the_middle_of_the_content_ends_the_connection() -> None:
    client = greeted(FarSide())
    current, ahead = transaction(0), transaction(1)
    client.begin(current)
    client.begin(ahead)
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    events(client)
    client.begin_content()
    client.send_chunk(b"half a li")
    client.take_output()
    client.receive(b"552 5.3.4 too large\r\n")
    ended, closed = events(client)
    assert isinstance(ended, TransactionEnded) and isinstance(closed, ConnectionEnded)
    assert (current.final and current.final.code, current.content_written) == (552, False)
    assert client.take_output() == []
    with pytest.raises(LocalProtocolError):
        client.send_chunk(b"the rest")
    assert client.give_up("x", "network") == [ahead]


@pytest.mark.parametrize(
    "replies",
    [
        b"354 go\r\n",  # to MAIL
        b"250 ok\r\n334 what\r\n",  # to RCPT
        b"250 ok\r\n250 ok\r\n250 ok\r\n",  # to DATA
        b"250 ok\r\n250 ok\r\n354 go\r\n250 already\r\n",  # to no content
        b"250 ok\r\n550-one\r\n250 two\r\n",
    ],
)
def test_replies_out_of_step_end_the_connection(replies: bytes) -> None:
    client = greeted(FarSide())
    client.begin(transaction(0))
    client.receive(replies)
    with pytest.raises(RemoteProtocolError):
        events(client)
    assert client.state is SessionState.DEAD


def test_a_354_to_the_end_of_data_ends_the_connection() -> None:
    client, current, _ = with_one_ahead()
    client.receive(b"354 go on\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    assert client.give_up("x", "protocol")[0] is current
    assert current.content_written and current.final is None


def test_an_idle_connection_takes_no_unasked_reply_but_421() -> None:
    client = greeted(FarSide())
    client.receive(b"250 late\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    client = greeted(FarSide())
    client.receive(b"421 4.4.2 idle for too long\r\n")
    assert isinstance(client.next_event(), ConnectionEnded)
    assert client.next_event() is None


def test_rset_that_is_refused_ends_the_connection() -> None:
    client = greeted(FarSide())
    client.begin(transaction(0))
    client.receive(b"550 no\r\n503 no\r\n503 no\r\n500 what is RSET\r\n")
    assert isinstance(client.next_event(), TransactionEnded)
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.parametrize("behind", [b"250 injected\r\n", b"2"])
def test_octets_behind_the_220_to_starttls_end_the_connection(behind: bytes) -> None:
    for together in (True, False):
        client = greeted(FarSide())
        client.starttls()
        client.receive(b"220 go\r\n" + behind if together else b"220 go\r\n")
        if not together:
            assert isinstance(client.next_event(), Answered)
            client.receive(behind)
        with pytest.raises(RemoteProtocolError):
            client.next_event()


def test_what_was_offered_in_clear_is_forgotten_after_starttls() -> None:
    client = greeted(FarSide())
    assert client.extensions["SIZE"] == "1000"
    client.starttls()
    client.receive(b"220 go\r\n")
    client.next_event()
    client.tls_started()
    assert client.extensions == {}
    assert not client.pipelining
    assert client.size_limit is None
    with pytest.raises(LocalProtocolError):
        client.begin(transaction(0))
    client.ehlo()
    client.receive(b"250-far.test\r\n250 AUTH PLAIN\r\n")
    client.next_event()
    assert client.extensions == {"AUTH": "PLAIN"}


def test_auth_goes_on_with_each_challenge_and_ends_when_there_is_no_answer() -> None:
    client = greeted(FarSide())
    client.take_output()
    login = ClientLogin(LoginClient("u", "p"))
    client.authenticate(login.command())
    for challenge in (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"334 \r\n"):
        client.receive(challenge)
        (asked,) = events(client)
        assert isinstance(asked, Answered) and not client.may_quit
        client.respond(login.answer(asked.reply))
    assert client.take_output() == [b"AUTH LOGIN\r\n", b"dQ==\r\n", b"cA==\r\n", b"*\r\n"]
    client.receive(b"501 5.7.0 cancelled\r\n")
    (answered,) = events(client)
    assert isinstance(answered, Answered) and answered.reply.command == "AUTH"
    assert client.is_idle
    assert login.fault == "the server asks for more than LOGIN has"


def test_a_challenge_before_the_answer_to_the_last_one_ends_the_connection() -> None:
    client = greeted(FarSide())
    client.authenticate(b"AUTH PLAIN AHUAcA==")
    client.receive(b"334 \r\n" * 2)
    with pytest.raises(RemoteProtocolError):
        events(client)


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope("a@x.test", ("b@x.test\r\nRSET",)),
        Envelope("a@x.test> SIZE=1", ("b@x.test",)),
        Envelope("a@x.test", ("b@x.test\0",)),
        Envelope("a@x.test", ("<b@x.test>",)),
        Envelope("a b@x.test", ("b@x.test",)),
        Envelope("a@x.test", ('"b\n"@x.test',)),
        Envelope("a@x.test", ('"b" @x.test',)),
        Envelope("a@x.test", ('"b"@x.test> NOTIFY=NEVER',)),
        Envelope("a@x.test", ("",)),
        Envelope("a@x.test", ()),
        Envelope("a@x.test", ("é@x.test", "b\x85@x.test")),
        Envelope("a@x.test", ("b@x.test",), dsn=DsnRequest(envid="a b")),
        Envelope("a@x.test", ("b@x.test",), dsn=DsnRequest(notify=("NEVER\r\nRSET",), orcpt=("",))),
        Envelope("a@x.test", ("b@x.test",), dsn=DsnRequest(notify=("",), orcpt=("rfc822;é",))),
    ],
)
def test_an_envelope_that_could_break_a_command_is_not_written(envelope: Envelope) -> None:
    client = greeted(FarSide())
    with pytest.raises(LocalProtocolError):
        client.begin(MailTransaction(envelope, 1))
    assert client.take_output() == []
    client.begin(transaction(0))  # nothing was begun


@pytest.mark.parametrize("name", ["", "a b", "a\r\nQUIT", "a\0", "é.test"])
def test_a_name_that_cannot_stand_in_ehlo_is_not_written(name: str) -> None:
    client = SmtpClient(name)
    client.receive(HEAD)
    client.next_event()
    with pytest.raises(LocalProtocolError):
        client.ehlo()
    assert client.take_output() == []


def test_content_with_a_bare_line_end_is_not_written() -> None:
    client = greeted(FarSide())
    client.begin(transaction(0))
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    client.next_event()
    client.take_output()
    with pytest.raises(LocalProtocolError):
        client.send_content(b"a\n.\r\nMAIL FROM:<evil@x.test>\r\n")
    assert client.take_output() == []


SAID = [HEAD, b"250 x\r\n", b"250-a\r\n", b"354 \r\n", b"421 x\r\n", b"550 x\r\n", b"334 !\r\n"]


@given(st.lists(st.sampled_from(SAID) | st.binary(max_size=20), max_size=8), st.integers(0, 4))
def test_whatever_a_server_says_is_events_or_a_remote_protocol_error(said: list[bytes], depth: int) -> None:
    client = SmtpClient("client.test")
    if depth:
        client = greeted(FarSide())
    steps: list[Callable[[], object]] = [
        client.starttls,
        lambda: client.authenticate(b"AUTH PLAIN AHUAcA=="),
        lambda: client.begin(transaction(0)),
    ]
    if depth > 1:
        steps[depth - 2]()
    try:
        for data in said:
            client.receive(data)
            for event in events(client):
                if isinstance(event, ContentWanted):
                    client.send_content(b"x\r\n")
        client.receive_eof()
        events(client)
    except RemoteProtocolError:
        assert client.state is SessionState.DEAD
    for given_up in client.give_up("x", "network"):
        assert given_up.error == "x"
