"""Client and server machine joined in memory: what one sends, the other takes, under any cutting of the bytes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from postroom.model.envelope import DsnRequest, Envelope
from postroom.protocol.sasl.choice import client_stepper
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import Answered, ContentWanted, TransactionEnded
from postroom.protocol.smtp.client_login import ClientLogin
from postroom.protocol.smtp.client_states import SessionState
from postroom.protocol.smtp.server import ServerLimits, ServerMachine
from postroom.protocol.smtp.server_events import Content, Login, MailFrom, RcptTo
from postroom.protocol.smtp.transaction import MailTransaction

LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"hello", b"\xe2\x82\xac"]), max_size=8)
CONTENTS = LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines))
PATHS = st.sampled_from(
    ["a@x.test", '"a b"@x.test', "a+b@[192.0.2.1]", "very.long" * 4 + "@sub.x.test", "jörg@x.test", '"jö rg"@x.test']
)
REFUSED = "refused@x.test"
NOTIFY = st.sampled_from(["", "", "NEVER", "SUCCESS,DELAY", "SUCCESS,FAILURE,DELAY"])
ORCPT = st.sampled_from(["", "", "rfc822;a+40x.test", "utf-8;j\\x{F6}rg@x.test"])


@st.composite
def envelopes(draw: st.DrawFn, recipients: st.SearchStrategy[str] = PATHS) -> Envelope:
    """Any that both sides can say."""
    to = tuple(draw(st.lists(recipients, min_size=1, max_size=3)))
    dsn = DsnRequest.of(
        draw(st.sampled_from(["", "FULL", "HDRS"])),
        draw(st.sampled_from(["", "order+2B7"])),
        tuple(draw(NOTIFY) for _ in to),
        tuple(draw(ORCPT) for _ in to),
    )
    return Envelope(draw(PATHS | st.just("")), to, draw(st.booleans()), draw(st.booleans()), dsn)


def as_said(envelope: Envelope) -> Envelope:
    """`envelope` as the wire has it: SMTPUTF8 is there for its addresses too."""
    needs_utf8 = not all(map(str.isascii, (envelope.reverse_path, *envelope.recipients)))
    return dataclasses.replace(envelope, smtputf8=envelope.smtputf8 or needs_utf8)


@dataclass
class Pair:
    """Both ends and the wires between them; `cuts` are the sizes in which bytes arrive, `refused` who is not taken
    (a path, or the content)."""

    client: SmtpClient
    server: ServerMachine
    cuts: list[int]
    refused: set[str | bytes] = field(default_factory=set)
    taken: list[tuple[Envelope, bytes]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    ended: list[MailTransaction] = field(default_factory=list)
    waiting: list[tuple[MailTransaction, bytes]] = field(default_factory=list)
    login: ClientLogin | None = None
    flights: int = 0
    _contents: dict[int, bytes] = field(default_factory=dict)
    _content: bytes = b""
    _turns: int = 0

    def run(self) -> None:
        """Until neither has anything to say."""
        self._begin()
        to_server = to_client = b""
        while True:
            written = b"".join(self.client.take_output())
            self.flights += bool(written)
            to_server += written
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
                    content, self._content = self._content, b""
                    is_refused = content in self.refused
                    if not is_refused:
                        self.taken.append((self.server.envelope(), content))
                    self.server.fill(event.slot, b"554 5.6.0 no\r\n" if is_refused else b"250 2.0.0 taken\r\n")
            elif isinstance(event, MailFrom | RcptTo):
                if (event.path if isinstance(event, MailFrom) else event.address) in self.refused:
                    self.server.refuse(550, "5.7.1", "no")
                else:
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
                assert isinstance(event, Answered)
                if event.reply.is_intermediate and self.login is not None:
                    self.client.respond(self.login.answer(event.reply))
                else:
                    assert event.reply.is_positive
            self._begin()

    def _begin(self) -> None:
        if self.client.state is SessionState.GREETED:
            self.client.ehlo()
        while self.waiting and self.client.may_begin:
            transaction, content = self.waiting.pop(0)
            self._contents[id(transaction)] = content
            assert self.client.begin(transaction)


def joined(cuts: list[int]) -> Pair:
    """A pair at its greeting."""
    server = ServerMachine(ServerLimits(max_errors=1000), "mx.test", clear_login=True)
    return Pair(SmtpClient("client.test"), server, cuts)


CUTS = st.lists(st.integers(1, 300), min_size=1, max_size=6)


@given(st.lists(st.tuples(envelopes(), CONTENTS), max_size=5), CUTS)
def test_messages_arrive_as_they_were_sent(messages: list[tuple[Envelope, bytes]], cuts: list[int]) -> None:
    pair = joined(cuts)
    pair.waiting += [(MailTransaction(envelope, len(content)), content) for envelope, content in messages]
    pair.run()
    assert pair.taken == [(as_said(envelope), content) for envelope, content in messages]
    assert [ended.is_delivered(0) for ended in pair.ended] == [True] * len(messages)
    pair.client.quit()
    pair.run()
    assert pair.client.state is SessionState.CLOSED
    assert pair.server.is_finished


def test_the_next_envelope_goes_with_the_content() -> None:
    pair = joined([10_000])
    envelope = Envelope("jörg@x.test", ("a@x.test",), dsn=DsnRequest("HDRS", "", ("NEVER",), ("",)))
    pair.waiting += [(MailTransaction(envelope, 7), b"hello\r\n") for _ in range(10)]
    pair.run()
    assert len(pair.taken) == 10
    assert pair.flights == 12  # EHLO, the first envelope, and one for each content


@given(st.lists(st.tuples(envelopes(PATHS | st.just(REFUSED)), CONTENTS), max_size=6), CUTS, st.data())
def test_what_counts_as_delivered_is_what_was_taken(
    messages: list[tuple[Envelope, bytes]], cuts: list[int], data: st.DataObject
) -> None:
    pair = joined(cuts)
    senders = sorted({envelope.reverse_path for envelope, _ in messages})
    contents = sorted({content for _, content in messages})
    pair.refused = {REFUSED}
    if messages:
        pair.refused |= data.draw(st.sets(st.sampled_from(senders), max_size=1))
        pair.refused |= data.draw(st.sets(st.sampled_from(contents), max_size=1))
    pair.waiting += [(MailTransaction(envelope, len(content)), content) for envelope, content in messages]
    pair.run()
    delivered = [
        (ended.envelope.reverse_path, [to for n, to in enumerate(ended.envelope.recipients) if ended.is_delivered(n)])
        for ended in pair.ended
    ]
    assert [one for one in delivered if one[1]] == [
        (envelope.reverse_path, list(envelope.recipients)) for envelope, _ in pair.taken
    ]
    assert [ended.envelope for ended in pair.ended] == [envelope for envelope, _ in messages]
    assert all(to != REFUSED for envelope, _ in pair.taken for to in envelope.recipients)
    assert pair.client.is_idle


@given(st.sampled_from(["PLAIN", "LOGIN"]), CUTS)
def test_logins_arrive_as_they_were_sent(mechanism: str, cuts: list[int]) -> None:
    pair = joined(cuts)
    pair.run()
    offered = pair.client.extensions["AUTH"].split()
    assert mechanism in offered
    pair.login = ClientLogin(client_stepper(mechanism, "erp", "geheim €", "nonce"))
    pair.client.authenticate(pair.login.command())
    pair.run()
    assert pair.logins == [("erp", "geheim €")]
    assert pair.server.logged_in and pair.client.is_idle
