"""Envelope ahead (RFC 2920 section 3.1): whatever a server answers, each message arrives once, as itself, or not."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import ConnectionEnded, ContentWanted, TransactionEnded
from postroom.protocol.smtp.transaction import MailTransaction
from tests.protocol.far_side import Arrived, FarSide, content, events, greeted, transaction


@dataclass
class Message:
    """What the far side will answer to it."""

    mail: str
    rcpt: list[str]
    data: str
    final: str

    @property
    def arrives(self) -> list[int]:
        """The recipients for whom it is taken."""
        answers = (self.mail, self.data, self.final)
        if any(answer.startswith(("4", "5")) for answer in answers):
            return []
        return [n for n, answer in enumerate(self.rcpt) if not answer or answer.startswith("2")]


ANSWERS = st.sampled_from(["", "", "", "251 2.1.5 odd", "550 5.1.1 no", "451 4.3.0 later"])
MESSAGES = st.lists(
    st.builds(
        Message,
        mail=ANSWERS,
        rcpt=st.lists(ANSWERS, min_size=1, max_size=3),
        data=st.sampled_from(["", "", "451 4.3.0 not now"]),
        final=ANSWERS,
    ),
    min_size=1,
    max_size=6,
)


@dataclass
class Sender:
    """Sends messages over a client, each as early as may be, and keeps their results in order."""

    client: SmtpClient
    far_side: FarSide
    waiting: list[MailTransaction]
    ended: list[MailTransaction] = field(default_factory=list)
    closed: ConnectionEnded | None = None

    def run(self, cuts: list[int]) -> None:
        """Until nothing moves; what the far side says comes in pieces of the sizes in `cuts`."""
        self._begin()
        replies = b""
        turn = 0
        while self.closed is None:
            written = b"".join(self.client.take_output())
            if written:
                replies += self.far_side.receive(written)
            if not replies:
                return
            size = cuts[turn % len(cuts)]
            turn += 1
            self.client.receive(replies[:size])
            replies = replies[size:]
            for event in events(self.client):
                self._handle(event)

    def _begin(self) -> None:
        while self.waiting and self.client.may_begin:
            self.client.begin(self.waiting.pop(0))

    def _handle(self, event: object) -> None:
        if isinstance(event, ContentWanted):
            number = int(event.transaction.envelope.reverse_path[1:].split("@")[0])
            self.client.send_content(content(number))
        elif isinstance(event, TransactionEnded):
            self.ended.append(event.transaction)
            self._begin()
        elif isinstance(event, ConnectionEnded):
            self.closed = event


def answering(messages: list[Message]) -> FarSide:
    """A far side that answers each message as it says."""

    def answer(line: str) -> str | None:
        verb, _, rest = line.partition(" ")
        if verb == "MAIL":
            answer.current = int(rest.split("<s")[1].split("@")[0])  # type: ignore[attr-defined]
            return messages[answer.current].mail or None  # type: ignore[attr-defined]
        if verb == "RCPT":
            n, _, number = rest.split("<r")[1].split(".")[0].partition("@m")
            return messages[int(number)].rcpt[int(n)] or None
        if verb == "DATA":
            return messages[answer.current].data or None  # type: ignore[attr-defined]
        if verb == "." and rest:
            return messages[int(rest.split(" ")[1])].final or None
        return None

    return FarSide(answer)


@given(MESSAGES, st.booleans(), st.booleans(), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_each_message_arrives_as_itself_or_not_at_all(
    messages: list[Message], pipelining: bool, lax: bool, cuts: list[int]
) -> None:
    far_side = answering(messages)
    far_side.pipelining, far_side.lax = pipelining, lax
    sender = Sender(greeted(far_side), far_side, [transaction(n, len(m.rcpt)) for n, m in enumerate(messages)])
    sender.run(cuts)

    assert sender.closed is None
    assert far_side.disorder == []
    assert [ended.envelope.reverse_path for ended in sender.ended] == [f"s{n}@x.test" for n in range(len(messages))]
    assert far_side.taken == [
        Arrived(f"s{n}@x.test", tuple(f"r{r}@m{n}.test" for r in message.arrives), content(n))
        for n, message in enumerate(messages)
        if message.arrives
    ]
    for message, ended in zip(messages, sender.ended, strict=True):
        assert [n for n in range(len(message.rcpt)) if ended.is_delivered(n)] == message.arrives
        assert ended.error == ""
        assert ended.content_written == (ended.final is not None)


def test_one_flight_a_message() -> None:
    far_side = FarSide()
    client = greeted(far_side)
    far_side.flights = 0
    sender = Sender(client, far_side, [transaction(n) for n in range(50)])
    sender.run([10_000])
    assert len(far_side.taken) == 50
    assert far_side.flights == 51


def test_none_goes_ahead_to_dovecot_which_would_die_of_it() -> None:
    far_side = FarSide(offered=("BURL imap", "SIZE 1000"))
    sender = Sender(greeted(far_side), far_side, [transaction(n) for n in range(3)])
    far_side.flights = 0
    sender.run([10_000])
    assert len(far_side.taken) == 3
    assert far_side.flights == 3 * 2  # envelope, content


def test_without_pipelining_each_command_waits_for_the_reply_before() -> None:
    far_side = FarSide(pipelining=False)
    sender = Sender(greeted(far_side), far_side, [transaction(n, 2) for n in range(3)])
    far_side.flights = 0
    sender.run([10_000])
    assert len(far_side.taken) == 3
    assert far_side.flights == 3 * 5  # MAIL, RCPT, RCPT, DATA, content


def test_all_refused_and_still_354_gets_nothing_but_the_dot() -> None:
    far_side = FarSide(lambda line: "550 5.1.1 no" if line.startswith("RCPT") else None, lax=True)
    client = greeted(far_side)
    client.begin(transaction(0))
    client.receive(far_side.receive(b"".join(client.take_output())))
    assert events(client) == []
    assert client.take_output() == [b".\r\n"]


def test_a_refused_mail_is_followed_by_rset_and_its_reply() -> None:
    far_side = FarSide(lambda line: "550 5.7.1 not you" if line.startswith("MAIL FROM:<s0") else None)
    client = greeted(far_side)
    first, second = transaction(0), transaction(1)
    client.begin(first)
    client.begin(second)
    client.receive(far_side.receive(b"".join(client.take_output())))
    assert [type(event) for event in events(client)] == [TransactionEnded]
    rset = client.take_output()
    assert rset == [b"RSET\r\n"]
    client.receive(far_side.receive(rset[0]))
    assert events(client) == []
    assert client.take_output()[0].startswith(b"MAIL FROM:<s1@x.test>")


def test_a_transaction_abandoned_before_data_is_followed_by_rset_and_its_reply() -> None:
    far_side = FarSide(lambda line: "550 5.1.1 no" if line.startswith("RCPT") else None, pipelining=False)
    client = greeted(far_side)
    first, second = transaction(0), transaction(1)
    client.begin(first)
    client.begin(second)
    for written in (b"MAIL FROM:<s0@x.test> SIZE=10\r\n", b"RCPT TO:<r0@m0.test>\r\n"):
        assert b"".join(client.take_output()) == written
        client.receive(far_side.receive(written))
        ended = events(client)
    assert [type(event) for event in ended] == [TransactionEnded]
    assert client.take_output() == [b"RSET\r\n"]
    assert events(client) == []
    assert client.take_output() == []
    client.receive(far_side.receive(b"RSET\r\n"))
    assert events(client) == []
    assert client.take_output()[0].startswith(b"MAIL FROM:<s1@x.test>")


def test_a_2yz_behind_a_refused_mail_is_no_success() -> None:
    client = greeted(FarSide())
    refused = transaction(0)
    client.begin(refused)
    client.take_output()
    client.receive(b"550 5.7.1 not you\r\n250 2.1.5 ok\r\n354 go on\r\n")
    assert events(client) == []
    assert client.take_output() == [b".\r\n"]
    client.receive(b"250 2.0.0 taken\r\n")
    assert [type(event) for event in events(client)] == [TransactionEnded]
    assert not refused.is_delivered(0)
    assert refused.final is None
    assert client.take_output() == [b"RSET\r\n"]
