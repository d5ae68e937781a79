"""Every pair of a client's state and a cause: what the tables allow happens, what they do not is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postroom.protocol.smtp import LocalProtocolError, RemoteProtocolError
from postroom.protocol.smtp import client as machine
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_states import ALLOWED, SESSION_MOVES, TRANSACTION_MOVES, Cause, SessionState, Step
from postroom.protocol.smtp.transaction import MailTransaction
from tests.protocol.far_side import HEAD, FarSide, events, greeted, transaction

REPLIES = {
    Cause.REPLY_2: b"250 x\r\n",
    Cause.REPLY_3: b"354 x\r\n",
    Cause.REPLY_4: b"450 x\r\n",
    Cause.REPLY_5: b"550 x\r\n",
}
COMMANDS: dict[Cause, Callable[[SmtpClient], object]] = {
    Cause.EHLO: SmtpClient.ehlo,
    Cause.HELO: SmtpClient.helo,
    Cause.STARTTLS: SmtpClient.starttls,
    Cause.TLS_STARTED: SmtpClient.tls_started,
    Cause.AUTH: lambda client: client.authenticate(b"AUTH LOGIN"),
    Cause.RESPONSE: lambda client: client.respond(b"dQ=="),
    Cause.QUIT: SmtpClient.quit,
    Cause.QUESTION: lambda client: client.ask(b"MAIL FROM:<a@x.test>"),
    Cause.ENVELOPE: lambda client: client.begin(transaction(0)),
}


def at(state: SessionState) -> SmtpClient:
    """A client in `state`."""
    client = greeted(FarSide())
    match state:
        case SessionState.GREETING:
            return SmtpClient("c.test")
        case SessionState.GREETED | SessionState.EHLO | SessionState.HELO | SessionState.REFUSED:
            client = SmtpClient("c.test")
            client.receive(HEAD if state is not SessionState.REFUSED else b"554 no\r\n")
            client.next_event()
            if state in (SessionState.EHLO, SessionState.HELO):
                COMMANDS[Cause[state.name]](client)
        case SessionState.STARTTLS | SessionState.HANDSHAKE:
            client.starttls()
            if state is SessionState.HANDSHAKE:
                client.receive(b"220 go\r\n")
                client.next_event()
        case SessionState.CHALLENGED:
            client.authenticate(b"AUTH LOGIN")
            client.receive(b"334 VXNlcm5hbWU6\r\n")
            client.next_event()
        case SessionState.AUTH | SessionState.QUIT:
            COMMANDS[Cause[state.name]](client)
        case SessionState.ASKED:
            client.ask(b"MAIL FROM:<a@x.test>")
        case SessionState.RESET:
            client.begin(transaction(0))
            client.receive(b"550 x\r\n503 x\r\n503 x\r\n")
            client.next_event()
        case SessionState.CLOSED:
            client.receive_eof()
            client.next_event()
        case SessionState.DEAD:
            client.give_up("x", "network")
    client.take_output()
    assert client.state is state
    return client


STATES = list(SessionState)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("cause", COMMANDS)
def test_a_command_is_written_where_the_table_allows_it(state: SessionState, cause: Cause) -> None:
    client = at(state)
    # A transaction may wait for the reply to RSET.
    if cause in ALLOWED[state] or (cause is Cause.ENVELOPE and state is SessionState.RESET):
        COMMANDS[cause](client)
        assert client.state is SESSION_MOVES.get((state, cause), state)
    else:
        with pytest.raises(LocalProtocolError):
            COMMANDS[cause](client)
        assert client.take_output() == []
        assert client.state is state


@pytest.mark.parametrize("state", [state for state in STATES if state < SessionState.CLOSED])
@pytest.mark.parametrize("cause", REPLIES)
def test_a_reply_moves_the_session_as_the_table_says(state: SessionState, cause: Cause) -> None:
    client = at(state)
    client.receive(REPLIES[cause])
    expected = SESSION_MOVES.get((state, cause))
    if expected is None:
        with pytest.raises(RemoteProtocolError):
            events(client)
        assert client.state is SessionState.DEAD
    else:
        events(client)
        assert client.state is expected


def transaction_at(step: Step) -> tuple[SmtpClient, MailTransaction]:
    """A client whose transaction is at `step`."""
    client = greeted(FarSide())
    one = transaction(0)
    if step is Step.WAITING:
        first = transaction(1)
        client.begin(first)
        client.begin(one)
        client.give_up("x", "network")
        return client, one
    client.begin(one)
    said = {Step.ENVELOPE: b"", Step.DATA: b"250 x\r\n250 x\r\n", Step.DOT: b"250 x\r\n550 x\r\n354 x\r\n"}
    client.receive(said.get(step, b"250 x\r\n250 x\r\n354 x\r\n"))
    events(client)
    if step >= Step.CONTENT and step is not Step.DOT:
        client.begin_content()
        client.send_chunk(b"x")
    if step >= Step.SENT and step is not Step.DOT:
        client.end_content()
    assert one.step is step
    return client, one


@pytest.mark.parametrize("step", [Step.ENVELOPE, Step.DATA, Step.GO, Step.CONTENT, Step.SENT, Step.DOT])
@pytest.mark.parametrize("cause", REPLIES)
def test_a_reply_moves_the_transaction_as_the_table_says(step: Step, cause: Cause) -> None:
    client, one = transaction_at(step)
    client.receive(REPLIES[cause])
    expected = TRANSACTION_MOVES.get((step, cause))
    if expected is None:
        with pytest.raises(RemoteProtocolError):
            events(client)
        assert client.give_up("x", "protocol") == [one]
    else:
        events(client)
        assert one.step is expected


@pytest.mark.parametrize("step", [Step.WAITING, Step.ENVELOPE, Step.DATA, Step.GO, Step.CONTENT, Step.SENT, Step.DOT])
def test_content_is_written_after_354_alone(step: Step) -> None:
    client, _ = transaction_at(step)
    client.take_output()
    if (step, Cause.CONTENT) in TRANSACTION_MOVES:
        client.send_content(b"x\r\n")
        assert client.take_output() == [b"x\r\n.\r\n"]
    else:
        with pytest.raises(LocalProtocolError):
            client.send_content(b"x\r\n")
        assert client.take_output() == []


class _Visited(dict[Any, Any]):
    """A table of moves that knows which of them were made."""

    def __init__(self, moves: dict[Any, Any]) -> None:
        super().__init__(moves)
        self.made: set[Any] = set()

    def __getitem__(self, move: Any) -> Any:
        self.made.add(move)
        return super().__getitem__(move)

    def get(self, move: Any, default: Any = None) -> Any:
        """See dict."""
        self.made.add(move)
        return super().get(move, default)


def _visit_sessions() -> None:
    for state in STATES:
        for cause, command in COMMANDS.items():
            if cause in ALLOWED[state] or (cause is Cause.ENVELOPE and state is SessionState.RESET):
                command(at(state))
        for reply in REPLIES.values():
            client = at(state)
            client.receive(reply)
            try:
                events(client)
            except RemoteProtocolError:
                assert client.state is SessionState.DEAD


def _visit_transactions() -> None:
    for step in (step for step in Step if step not in (Step.WAITING, Step.DONE)):
        for reply in REPLIES.values():
            client, _ = transaction_at(step)
            client.receive(reply)
            try:
                events(client)
            except RemoteProtocolError:
                assert client.state is SessionState.DEAD
    client = greeted(FarSide(pipelining=False))
    client.begin(transaction(0))
    client.receive(b"550 no\r\n")
    assert len(events(client)) == 1


def test_every_move_of_both_tables_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    session, mail = _Visited(SESSION_MOVES), _Visited(TRANSACTION_MOVES)
    monkeypatch.setattr(machine, "SESSION_MOVES", session)
    monkeypatch.setattr(machine, "TRANSACTION_MOVES", mail)
    _visit_sessions()
    _visit_transactions()
    assert set(SESSION_MOVES) - session.made == set()
    assert set(TRANSACTION_MOVES) - mail.made == set()
