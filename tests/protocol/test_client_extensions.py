"""What a client asks of a server's extensions: only what is needed and offered; who cannot be asked for is left out."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.model.envelope import DsnRequest, Envelope
from postroom.protocol.smtp.client import SmtpClient
from postroom.protocol.smtp.client_events import ConnectionEnded, ContentWanted, TransactionEnded
from postroom.protocol.smtp.client_limits import OfferedLimits
from postroom.protocol.smtp.transaction import LeftOut, MailTransaction
from tests.protocol.far_side import FarSide, events, greeted

DSN = DsnRequest("HDRS", "QQ314159", ("SUCCESS,FAILURE", ""), ("rfc822;a@x.test", ""))
BOTH = ("a@x.test", "b@x.test")


def written(envelope: Envelope, *offered: str) -> list[str]:
    """MAIL and the RCPTs, as they go out to a server that offers this."""
    client = greeted(FarSide(offered=offered or ("HELP",)))
    client.begin(MailTransaction(envelope, 77))
    lines = b"".join(client.take_output()).decode().split("\r\n")
    return lines[:-2]


@pytest.mark.parametrize(
    ("envelope", "offered", "mail"),
    [
        (Envelope("s@x.test", BOTH, eight_bit=True, dsn=DSN), (), "MAIL FROM:<s@x.test>"),
        (Envelope("s@x.test", BOTH), ("SIZE", "8BITMIME", "SMTPUTF8", "DSN"), "MAIL FROM:<s@x.test> SIZE=77"),
        (Envelope("", BOTH, eight_bit=True), ("8bitmime",), "MAIL FROM:<> BODY=8BITMIME"),
        (Envelope("", BOTH, smtputf8=True), ("smtputf8",), "MAIL FROM:<> SMTPUTF8"),
        (Envelope("ß@x.test", BOTH), ("SMTPUTF8",), "MAIL FROM:<ß@x.test> SMTPUTF8"),
        (Envelope("s@x.test", ("ß@x.test",)), ("SMTPUTF8",), "MAIL FROM:<s@x.test> SMTPUTF8"),
        (Envelope("s@x.test", ('"a > b"@x.test',)), ("SMTPUTF8", "DSN"), "MAIL FROM:<s@x.test>"),
        (Envelope("s@x.test", BOTH, dsn=DSN), ("DSN",), "MAIL FROM:<s@x.test> RET=HDRS ENVID=QQ314159"),
        (Envelope("s@x.test", BOTH, dsn=DsnRequest(ret="FULL")), ("DSN",), "MAIL FROM:<s@x.test> RET=FULL"),
        (
            Envelope("ß@x.test", BOTH, eight_bit=True, dsn=DSN),
            ("SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN"),
            "MAIL FROM:<ß@x.test> SIZE=77 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159",
        ),
    ],
)
def test_parameters_of_mail_are_given_where_needed_and_offered(
    envelope: Envelope, offered: tuple[str, ...], mail: str
) -> None:
    assert written(envelope, *offered)[0] == mail


def test_notification_requests_go_with_their_own_recipients() -> None:
    lines = written(Envelope("s@x.test", BOTH, dsn=DSN), "DSN")
    assert lines[1:] == [
        "RCPT TO:<a@x.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@x.test",
        "RCPT TO:<b@x.test>",
    ]
    assert written(Envelope("s@x.test", BOTH, dsn=DSN), "SIZE")[1:] == ["RCPT TO:<a@x.test>", "RCPT TO:<b@x.test>"]


def test_notification_requests_stay_with_their_recipients_when_others_are_left_out() -> None:
    dsn = DsnRequest(notify=("NEVER", "DELAY", "FAILURE"), orcpt=("", "rfc822;b@x.test", ""))
    lines = written(Envelope("s@x.test", ("ä@x.test", "b@x.test", "c@x.test"), dsn=dsn), "DSN")
    assert lines[1:] == ["RCPT TO:<b@x.test> NOTIFY=DELAY ORCPT=rfc822;b@x.test", "RCPT TO:<c@x.test> NOTIFY=FAILURE"]


def test_a_recipient_that_needs_smtputf8_is_left_out_where_it_is_not_offered_and_the_others_go() -> None:
    far_side = FarSide(lambda line: "550 5.1.1 no" if "<c@" in line else None)
    client = greeted(far_side)
    mixed = MailTransaction(Envelope("s@x.test", ("ä@x.test", "b@x.test", "ö@x.test", "c@x.test", "d@x.test")), 5)
    assert client.begin(mixed)
    assert carried(client, far_side) == []
    assert mixed.left_out == {0: LeftOut.ADDRESS, 2: LeftOut.ADDRESS}
    assert [n for n in range(5) if mixed.is_delivered(n)] == [1, 4]
    assert [reply and reply.code for reply in mixed.rcpt] == [None, 250, None, 550, 250]
    assert [taken.recipients for taken in far_side.taken] == [("b@x.test", "d@x.test")]


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (Envelope("ß@x.test", BOTH), LeftOut.REVERSE_PATH),
        (Envelope("ß@x.test", ("ä@x.test", "b@x.test"), smtputf8=True), LeftOut.REVERSE_PATH),
        (Envelope("s@x.test", BOTH, smtputf8=True), LeftOut.HEADER),
        (Envelope("s@x.test", ("ä@x.test", "ö@x.test")), LeftOut.ADDRESS),
    ],
)
def test_a_transaction_with_nobody_left_to_ask_is_not_begun(envelope: Envelope, why: LeftOut) -> None:
    client = greeted(FarSide())
    none = MailTransaction(envelope, 5)
    assert client.begin(none) is False
    assert none.left_out == {0: why, 1: why}
    assert client.take_output() == []
    assert client.is_idle and client.may_quit
    assert client.begin(MailTransaction(Envelope("s@x.test", BOTH), 5))
    assert client.begin(none) is False
    assert client.may_begin


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ("LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1", OfferedLimits(5, 20, 1)),
        ("limits rcptmax=999999", OfferedLimits(None, 999_999, None)),
        ("LIMITS RCPTMAX=7 RCPTMAX=3 RCPTMAX=9", OfferedLimits(None, 3, None)),
        ("LIMITS  MAILMAX=2  SIZEMAX=3", OfferedLimits(2, None, None)),
        ("LIMITS", OfferedLimits()),
        ("LIMITS RCPTMAX MAILMAX= RCPTDOMAINMAX=x", OfferedLimits()),
        ("LIMITS RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=1000000", OfferedLimits()),
        ("LIMITS RCPTMAX=05 MAILMAX=1_0 RCPTDOMAINMAX=٣", OfferedLimits()),
        ("LIMITS RCPTMAX=3,MAILMAX=4 =5", OfferedLimits()),
        ("XLIMITS RCPTMAX=3", None),
    ],
)
def test_limits_are_read_and_malformed_ones_ignored(said: str, limits: OfferedLimits | None) -> None:
    assert greeted(FarSide(offered=(said, "SIZE"))).limits == limits


def test_limits_are_forgotten_with_the_rest_after_starttls() -> None:
    client = greeted(FarSide(offered=("LIMITS RCPTMAX=1", "STARTTLS")))
    assert client.extensions["LIMITS"] == "RCPTMAX=1"
    client.starttls()
    client.receive(b"220 go\r\n")
    client.next_event()
    client.tls_started()
    assert client.limits is None
    client.ehlo()
    client.receive(b"250-far.test\r\n250 PIPELINING\r\n")
    client.next_event()
    client.take_output()
    client.begin(MailTransaction(Envelope("s@x.test", BOTH), 5))
    assert b"".join(client.take_output()).count(b"RCPT") == 2


def test_recipients_beyond_rcptmax_are_left_out() -> None:
    far_side = FarSide(offered=("LIMITS RCPTMAX=2",))
    client = greeted(far_side)
    many = MailTransaction(Envelope("s@x.test", tuple(f"{n}@x.test" for n in range(5))), 5)
    assert client.begin(many)
    assert carried(client, far_side) == []
    assert many.left_out == dict.fromkeys((2, 3, 4), LeftOut.LIMIT)
    assert far_side.taken[0].recipients == ("0@x.test", "1@x.test")


def test_recipients_of_more_domains_than_rcptdomainmax_are_left_out_and_the_rest_of_a_domain_goes() -> None:
    far_side = FarSide(offered=("LIMITS RCPTDOMAINMAX=2",))
    client = greeted(far_side)
    to = ("a@one.test", "b@two.test", "c@three.test", "d@ONE.test", "e@four.test", "f@two.test")
    many = MailTransaction(Envelope("s@x.test", to), 5)
    assert client.begin(many)
    assert carried(client, far_side) == []
    assert many.left_out == {2: LeftOut.LIMIT, 4: LeftOut.LIMIT}
    assert far_side.taken[0].recipients == ("a@one.test", "b@two.test", "d@ONE.test", "f@two.test")


def test_who_needs_smtputf8_takes_no_place_of_a_limit() -> None:
    far_side = FarSide(offered=("LIMITS RCPTMAX=1",))
    client = greeted(far_side)
    mixed = MailTransaction(Envelope("s@x.test", ("ä@x.test", "b@x.test", "c@x.test")), 5)
    assert client.begin(mixed)
    assert mixed.left_out == {0: LeftOut.ADDRESS, 2: LeftOut.LIMIT}


def test_smtputf8_is_not_asked_for_on_behalf_of_one_who_is_left_out() -> None:
    assert written(Envelope("s@x.test", ("b@x.test", "ä@x.test")), "SMTPUTF8", "LIMITS RCPTMAX=1") == [
        "MAIL FROM:<s@x.test>",
        "RCPT TO:<b@x.test>",
    ]


@pytest.mark.parametrize("pipelining", [True, False])
def test_421_to_a_recipient_behind_one_left_out_is_that_recipients_reply(pipelining: bool) -> None:
    far_side = FarSide(lambda line: "421 4.3.2 going down" if "<c@" in line else None, pipelining=pipelining)
    client = greeted(far_side)
    mixed = MailTransaction(Envelope("s@x.test", ("ä@x.test", "b@x.test", "c@x.test")), 5)
    client.begin(mixed)
    (ended,) = carried(client, far_side)
    assert ended.reply is not None
    assert [reply and reply.code for reply in mixed.rcpt] == [None, 250, 421]


def carried(client: SmtpClient, far_side: FarSide, cuts: tuple[int, ...] = (10_000,)) -> list[ConnectionEnded]:
    """Let both talk until neither has anything to say; how the connection ended, if it did."""
    return _Talk(client, far_side, cuts).run()


@dataclass
class _Talk:
    client: SmtpClient
    far_side: FarSide
    cuts: tuple[int, ...]
    waiting: list[MailTransaction] = field(default_factory=list)
    ended: list[MailTransaction] = field(default_factory=list)

    def run(self) -> list[ConnectionEnded]:
        replies, turn = b"", 0
        while True:
            while self.waiting and self.client.may_begin:
                one = self.waiting.pop(0)
                if not self.client.begin(one):
                    self.ended.append(one)
            output = b"".join(self.client.take_output())
            replies += self.far_side.receive(output) if output else b""
            if not replies:
                return []
            size = self.cuts[turn % len(self.cuts)]
            turn += 1
            self.client.receive(replies[:size])
            replies = replies[size:]
            for event in events(self.client):
                if isinstance(event, ContentWanted):
                    self.client.send_content(b"x\r\n")
                elif isinstance(event, TransactionEnded):
                    self.ended.append(event.transaction)
                elif isinstance(event, ConnectionEnded):
                    return [event]


class _Strict:
    """Answers a parameter that was not offered, or a path that needs one that was not given, with 555 or 553."""

    def __init__(self, offered: dict[str, str]) -> None:
        self.offered = offered
        self.recipients: list[str] = []
        self.broken: list[str] = []

    def __call__(self, line: str) -> str | None:
        verb, _, rest = line.partition(" ")
        if verb not in ("MAIL", "RCPT"):
            return None
        path, *parameters = rest.split("> ")[-1].split(" ") if "> " in rest else ("",)
        given = [path, *parameters] if "> " in rest else []
        keywords = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8"}
        for parameter in given:
            if keywords.get(parameter.split("=")[0], "DSN") not in self.offered:
                self.broken.append(line)
        if verb == "MAIL":
            self.recipients, self.utf8 = [], "SMTPUTF8" in given
        else:
            self.recipients.append(rest[rest.index("<") + 1 : rest.index(">")])
        domains = {recipient.partition("@")[2].lower() for recipient in self.recipients}
        limits = dict(one.split("=") for one in self.offered.get("LIMITS", "").split())
        if (
            (not line.isascii() and not self.utf8)
            or len(self.recipients) > int(limits.get("RCPTMAX", 1000))
            or len(domains) > int(limits.get("RCPTDOMAINMAX", 1000))
        ):
            self.broken.append(line)
        return None


NAMES = st.sampled_from(["a", "b", "c", "ä", "ß", '"a b"'])
ADDRESSES = st.builds("{}@{}".format, NAMES, st.sampled_from(["x.test", "X.test", "y.test", "z.test"]))
WISHES = st.sampled_from(["", "", "NEVER", "SUCCESS,DELAY"])


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    to = tuple(draw(st.lists(ADDRESSES, min_size=1, max_size=6)))
    dsn = DsnRequest.of(
        draw(st.sampled_from(["", "FULL"])),
        draw(st.sampled_from(["", "id+2B1"])),
        tuple(draw(WISHES) for _ in to),
        tuple(draw(st.sampled_from(["", "rfc822;o@x.test"])) for _ in to),
    )
    return Envelope(draw(ADDRESSES | st.just("")), to, draw(st.booleans()), draw(st.booleans()), dsn)


OFFERS = st.dictionaries(
    st.sampled_from(["SIZE", "8BITMIME", "SMTPUTF8", "DSN", "LIMITS"]),
    st.sampled_from(["RCPTMAX=1", "RCPTMAX=3", "RCPTDOMAINMAX=1", "RCPTMAX=2 RCPTDOMAINMAX=2"]),
)


@given(
    st.lists(envelopes(), min_size=1, max_size=4),
    OFFERS,
    st.booleans(),
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
)
def test_a_server_is_asked_only_what_it_offered_and_everybody_is_asked_for_or_left_out(
    given_envelopes: list[Envelope], offers: dict[str, str], pipelining: bool, cuts: list[int]
) -> None:
    strict = _Strict({keyword: value if keyword == "LIMITS" else "" for keyword, value in offers.items()})
    far_side = FarSide(
        strict,
        pipelining=pipelining,
        offered=(*(f"{keyword} {value}".strip() for keyword, value in strict.offered.items()), "HELP"),
    )
    waiting = [MailTransaction(envelope, 3) for envelope in given_envelopes]
    talk = _Talk(greeted(far_side), far_side, tuple(cuts), list(waiting))
    assert talk.run() == []

    assert strict.broken == far_side.disorder == []
    assert sorted(map(id, talk.ended)) == sorted(map(id, waiting))
    arrived = [
        tuple(e.recipients[n] for n in range(len(e.recipients)) if t.is_delivered(n)) for t, e in paired(waiting)
    ]
    assert [taken.recipients for taken in far_side.taken] == [recipients for recipients in arrived if recipients]
    for transaction, envelope in paired(waiting):
        for n in range(len(envelope.recipients)):
            assert transaction.is_delivered(n) != (n in transaction.left_out)
        assert ("SMTPUTF8" not in offers) or set(transaction.left_out.values()) <= {LeftOut.LIMIT}
        if LeftOut.LIMIT in transaction.left_out.values():
            assert any(transaction.is_delivered(n) for n in range(len(envelope.recipients)))


def paired(transactions: list[MailTransaction]) -> list[tuple[MailTransaction, Envelope]]:
    """Each with its envelope."""
    return [(transaction, transaction.envelope) for transaction in transactions]
