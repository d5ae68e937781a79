"""Client and server machine joined in memory: what one sends, the other takes, under any cutting of the bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from postroom.model.envelope import Envelope
from postroom.protocol.sasl import client_stepper
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import Answered, ContentWanted, TransactionEnded
from postroom.protocol.smtp.client_states import SessionState
from postroom.protocol.smtp.server import ServerLimits, ServerMachine
from postroom.protocol.smtp.server_events import Content, Login, MailFrom, RcptTo
from postroom.protocol.smtp.transaction import MailTransaction

LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"hello", b"\xe2\x82\xac"]), max_size=8)
CONTENTS = LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines))
PATHS = st.sampled_from(["a@x.test", '"a b"@x.test', "a+b@[192.0.2.1]", "very.long" * 4 + "@sub.x.test"])


@dataclass
class Pair:
    """Both ends and the wires between them; `cuts` are the sizes in which bytes arrive."""

    client: SmtpClient
    server: ServerMachine
    cuts: list[int]
    taken: list[tuple[str, tuple[str, ...], bytes]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    ended: list[MailTransaction] = field(default_factory=list)
    waiting: list[tuple[MailTransaction, bytes]] = field(default_factory=list)
    _contents: dict[int, bytes] = field(default_factory=dict)
    _content: bytes = b""
    _turns: int = 0

    def run(self) -> None:
        """Until neither has anything to say."""
        self._begin()
        to_server = to_client = b""
        while True:
            to_server += b"".join(self.client.take_output())
            to_client += self.server.data_to_send()
            if not to_server and not to_client:
                return
            self._turns += 1
            size = self.cuts[self._turns % len(self.cuts)]
            self.server.receive(to_server[:size])
            to_server = to_server[size:]
            self._serve()
            self.client.receive(to_client[:size])
            to_client = to_client[size:]
            self._listen()

    def _serve(self) -> None:
        while (event := self.server.next_event()) is not None:
            if isinstance(event, Content):
                self._content += event.data
                if event.slot is not None:
                    self.taken.append((self.server.reverse_path, tuple(self.server.recipients), self._content))
                    self._content = b""
                    self.server.fill(event.slot, b"250 2.0.0 taken\r\n")
            elif isinstance(event, MailFrom | RcptTo):
                self.server.accept()
            else:
                assert isinstance(event, Login)
                self.logins.append((event.login, event.password))
                self.server.accept()

    def _listen(self) -> None:
        while (event := self.client.next_event()) is not None:
            if isinstance(event, ContentWanted):
                self.client.send_content(self._contents[id(event.transaction)])
            elif isinstance(event, TransactionEnded):
                self.ended.append(event.transaction)
            else:
                assert isinstance(event, Answered) and event.reply.is_positive
            self._begin()

    def _begin(self) -> None:
        if self.client.state is SessionState.GREETED:
            self.client.ehlo()
        while self.waiting and self.client.may_begin:
            transaction, content = self.waiting.pop(0)
            self._contents[id(transaction)] = content
            self.client.begin(transaction)


def joined(cuts: list[int]) -> Pair:
    """A pair at its greeting."""
    return Pair(SmtpClient("client.test"), ServerMachine(ServerLimits(), "mx.test", clear_login=True), cuts)


CUTS = st.lists(st.integers(1, 300), min_size=1, max_size=6)


@given(st.lists(st.tuples(PATHS | st.just(""), st.lists(PATHS, min_size=1, max_size=3), CONTENTS), max_size=5), CUTS)
def test_messages_arrive_as_they_were_sent(messages: list[tuple[str, list[str], bytes]], cuts: list[int]) -> None:
    pair = joined(cuts)
    for path, recipients, content in messages:
        pair.waiting.append((MailTransaction(Envelope(path, tuple(recipients), eight_bit=True), len(content)), content))
    pair.run()
    assert pair.taken == [(path, tuple(recipients), content) for path, recipients, content in messages]
    assert [ended.is_delivered(0) for ended in pair.ended] == [True] * len(messages)
    pair.client.quit()
    pair.run()
    assert pair.client.state is SessionState.CLOSED
    assert pair.server.is_finished


@given(st.sampled_from(["PLAIN", "LOGIN"]), CUTS)
def test_logins_arrive_as_they_were_sent(mechanism: str, cuts: list[int]) -> None:
    pair = joined(cuts)
    pair.run()
    offered = pair.client.extensions["AUTH"].split()
    assert mechanism in offered
    stepper = client_stepper([mechanism], "erp", "geheim €")
    assert stepper is not None
    pair.client.authenticate(stepper)
    pair.run()
    assert pair.logins == [("erp", "geheim €")]
    assert pair.server.logged_in and pair.client.is_idle
