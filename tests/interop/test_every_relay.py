"""One gateway, five relays that we did not write: the same is asked of each, and what arrives is looked at octet by
octet. Behind Postfix, Exim and Dovecot stands npm's smtp-server, which keeps the envelope as they hand it on."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.traffic import free_port
from tests.interop import aio_relay, dovecot, node_relay
from tests.interop.aio_relay import running_aio_relay
from tests.interop.conftest import Certificates
from tests.interop.dovecot import running_dovecot
from tests.interop.exim import private_exims
from tests.interop.gateway import SENDER, Gateway, a_message, a_recipient, running_gateway
from tests.interop.node_relay import NodeRelay, running_node_relay
from tests.interop.postfix import log_of, running_postfix
from tests.interop.witness import Taken, Witness

RELAYS = ("postfix", "exim", "dovecot", "smtp-server", "aiosmtpd")


@dataclass(frozen=True)
class Judge:
    """A relay: where what it took is seen, how many connections it has had, what it offers beside 8BITMIME; and the
    mechanism, the user and whether TLS was on when it took a message, if it is one to log in at."""

    witness: Witness
    connections: Callable[[], int]
    offers: frozenset[str]
    login: Callable[[Taken], tuple[str, bool]] = lambda taken: (taken.login, taken.encrypted)


@dataclass
class Court:
    """The gateway, and the relays that were started so far; each is an account that is called as it."""

    gateway: Gateway
    certificates: Certificates
    folder: Path
    at_end: ExitStack
    judges: dict[str, Judge]
    beyond: NodeRelay | None = None

    def judge(self, name: str) -> Judge:
        """The relay of that name, started when it is first asked for."""
        if name not in self.judges:
            start = {
                "postfix": self._postfix,
                "exim": self._exim,
                "dovecot": self._dovecot,
                "smtp-server": self._smtp_server,
                "aiosmtpd": self._aiosmtpd,
            }[name]
            self.judges[name] = start(name)
        return self.judges[name]

    def sink(self) -> NodeRelay:
        """npm's smtp-server, behind others and by itself."""
        if self.beyond is None:
            self.beyond = self.at_end.enter_context(running_node_relay(self.folder, self.certificates))
        return self.beyond

    def _account(self, name: str, port: int, security: str, login: tuple[str, str] | None = None) -> None:
        options = ["--security", security, "--ca-bundle", str(self.certificates.ca)]
        options += ["--username", login[0]] if login else []
        self.gateway.add_account(name, port, *options, password=login[1] if login else None)

    def _both(self, name: str, starttls_port: int, tls_port: int, login: tuple[str, str]) -> None:
        self._account(name, starttls_port, "starttls", login)
        self._account(f"{name}-tls", tls_port, "tls", login)

    def _postfix(self, name: str) -> Judge:
        postfix = self.at_end.enter_context(running_postfix(self.certificates, self.sink().plain_port))
        self._account(name, postfix.port, "starttls")
        connections = lambda: len(re.findall(r" connect from ", log_of(postfix)))  # noqa: E731
        return Judge(self.sink().witness, connections, frozenset({"SMTPUTF8", "DSN"}))

    def _exim(self, name: str) -> Judge:
        make = self.at_end.enter_context(private_exims())
        folder = Path(self.at_end.enter_context(tempfile.TemporaryDirectory(prefix="postroom-chain-")))
        folder.chmod(0o755)  # Exim's own user must get through; pytest's folders are closed
        chain = shutil.copyfile(self.certificates.chain, folder / "chain.pem")
        options = [f"tls_certificate = {chain}", f"tls_privatekey = {chain}", "tls_advertise_hosts = *"]
        exim = make(self.sink().plain_port, *options)
        exim.start()
        self._account(name, exim.port, "starttls")
        connections = lambda: len(re.findall(r"SMTP connection from .* count = ", exim.log()))  # noqa: E731
        return Judge(self.sink().witness, connections, frozenset({"SMTPUTF8", "DSN"}))

    def _dovecot(self, name: str) -> Judge:
        running = self.at_end.enter_context(running_dovecot(self.certificates, self.sink().plain_port))
        self._both(name, running.starttls_port, running.tls_port, dovecot.LOGIN)

        def last_login(taken: Taken) -> tuple[str, bool]:
            user, method, tls = re.findall(r" Login: user=<(.*?)>, method=(\w+)(, TLS)?", running.log())[-1]
            return f"{method} {user}", bool(tls)

        connections = lambda: running.log().count(" Login: ")  # noqa: E731
        return Judge(self.sink().witness, connections, frozenset({"DSN"}), last_login)

    def _smtp_server(self, name: str) -> Judge:
        relay = self.sink()
        self._both(name, relay.starttls_port, relay.tls_port, node_relay.LOGIN)
        return Judge(relay.witness, relay.witness.connections, frozenset({"SMTPUTF8", "DSN"}))

    def _aiosmtpd(self, name: str) -> Judge:
        context = self.certificates.context()
        starttls = {"tls_context": context, "require_starttls": True, "auth_require_tls": True}
        tls = {"ssl_context": context, "auth_required": False, "auth_require_tls": False}
        witness = Witness()
        first = self.at_end.enter_context(running_aio_relay(free_port(), witness, **starttls))
        second = self.at_end.enter_context(running_aio_relay(free_port(), witness, **tls))
        self._both(name, first, second, aio_relay.LOGIN)
        return Judge(witness, witness.connections, frozenset({"SMTPUTF8"}))


@pytest.fixture(scope="module")
def court(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    """Shared by all of this module; each test has recipients of its own."""
    folder = tmp_path_factory.mktemp("court")
    with ExitStack() as relays, running_gateway(folder / "data") as gateway:
        yield Court(gateway, certificates, folder, relays, {})


@pytest.mark.parametrize("name", RELAYS)
def test_what_is_handed_to_it_arrives_octet_by_octet(court: Court, name: str) -> None:
    """Also octets over 127, lines that begin with dots, no line end at the end."""
    judge, recipient = court.judge(name), a_recipient()
    content = a_message(recipient, body=bytes(range(128, 256)) + b"\r\n.\r\n..\r\n.dot\r\n\t \r\nno end")
    message = court.gateway.submit(name, [recipient], content, ["BODY=8BITMIME"])
    (taken,) = judge.witness.to(recipient)
    assert taken.content.endswith(b"\r\n" + content + b"\r\n")
    assert (taken.reverse_path, taken.recipients) == (SENDER, (recipient,))
    assert ("BODY=8BITMIME" in taken.mail_parameters) != (name == "exim")  # Exim never declares it
    assert list(court.gateway.states(message).values()) == ["delivered"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("name", ["dovecot", "smtp-server", "aiosmtpd"])
def test_login(court: Court, name: str, security: str) -> None:
    judge, recipient = court.judge(name), a_recipient()
    account = name if security == "starttls" else f"{name}-tls"
    content = a_message(recipient)
    message = court.gateway.submit(account, [recipient], content)
    (taken,) = judge.witness.to(recipient)
    assert taken.content.endswith(content)
    assert list(court.gateway.states(message).values()) == ["delivered"]
    assert judge.login(taken) == ("PLAIN mailbox", True)


@pytest.mark.parametrize("name", RELAYS)
def test_messages_follow_each_other_on_one_connection(court: Court, name: str) -> None:
    """Envelope ahead, too: each message comes once, to its own recipient."""
    judge = court.judge(name)
    before = judge.connections()
    contents: dict[str, bytes] = {}
    for n in range(20):
        recipient = a_recipient()
        contents[recipient] = a_message(recipient, subject=f"number {n}")
    messages = court.gateway.submit_each(name, contents)
    taken = judge.witness.to(*contents, count=20)
    assert sorted(one.recipients for one in taken) == sorted((recipient,) for recipient in contents)
    assert all(one.content.endswith(contents[one.recipients[0]]) for one in taken)
    assert judge.connections() - before <= 1
    assert {state for message in messages[-2:] for state in court.gateway.states(message).values()} == {"delivered"}


@pytest.mark.parametrize("name", RELAYS)
def test_a_refused_recipient_costs_the_others_nothing(court: Court, name: str) -> None:
    judge, good = court.judge(name), a_recipient("good")
    recipients = ["unknown@sink.example", good, "greylisted@sink.example"]
    message = court.gateway.submit(name, recipients, a_message(good))
    (taken,) = judge.witness.to(good)
    assert taken.recipients == (good,)
    rows = court.gateway.rows(message)
    states = {local.partition(".")[0]: row["state"] for local, row in rows.items()}
    assert states == {"good": "delivered", "unknown": "bounced", "greylisted": "deferred"}
    assert rows["unknown"]["reply"].startswith(("550 ", "554 "))
    assert rows["greylisted"]["reply"].startswith("45")


@pytest.mark.parametrize("name", RELAYS)
def test_an_address_beyond_ascii(court: Court, name: str) -> None:
    """Where SMTPUTF8 is not offered, that recipient bounces by 5.6.7 and the other gets the message."""
    judge, plain, beyond = court.judge(name), a_recipient(), a_recipient("jörg")
    content = a_message(plain)
    message = court.gateway.submit(name, [beyond, plain], content, ["SMTPUTF8"])
    rows = court.gateway.rows(message)
    taken = judge.witness.to(plain)
    assert all(one.content.endswith(content) for one in taken)
    assert rows[plain.partition("@")[0]]["state"] == "delivered"
    row = rows[beyond.partition("@")[0]]
    if "SMTPUTF8" in judge.offers:
        (to_beyond,) = judge.witness.to(beyond)
        assert "SMTPUTF8" in to_beyond.mail_parameters
        assert row["state"] == "delivered"
    else:
        assert (row["state"], row["status"]) == ("bounced", "5.6.7")
        assert [one.recipients for one in taken] == [(plain,)]
        assert "SMTPUTF8" not in taken[0].mail_parameters


@pytest.mark.parametrize("name", RELAYS)
def test_a_header_beyond_ascii(court: Court, name: str) -> None:
    """It goes as it is, to none but a relay that offers SMTPUTF8."""
    judge, recipient = court.judge(name), a_recipient()
    content = a_message(recipient, subject="Grüße")
    message = court.gateway.submit(name, [recipient], content, ["SMTPUTF8", "BODY=8BITMIME"])
    ((_, row),) = court.gateway.rows(message).items()
    if "SMTPUTF8" in judge.offers:
        (taken,) = judge.witness.to(recipient)
        assert taken.content.endswith(content)
        assert "SMTPUTF8" in taken.mail_parameters
        assert row["state"] == "delivered"
    else:
        assert (row["state"], row["status"]) == ("bounced", "5.6.9")


@pytest.mark.parametrize("name", RELAYS)
def test_what_was_asked_about_notifications_goes_along(court: Court, name: str) -> None:
    """RFC 3461, to a relay that offers DSN; elsewhere the message goes without."""
    judge, recipient = court.judge(name), a_recipient()
    asked = ["RET=HDRS", "ENVID=QQ+2B314159"]
    about_recipient = ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first+2Bchoice@source.example"]
    content = a_message(recipient)
    message = court.gateway.submit(name, [recipient], content, asked, about_recipient)
    (taken,) = judge.witness.to(recipient)
    assert taken.content.endswith(content)
    given = taken.mail_parameters | taken.rcpt_parameters(recipient)
    if "DSN" in judge.offers:
        assert given >= {*asked, *about_recipient}
    else:
        assert given & {"RET", "ENVID", "NOTIFY", "ORCPT"} == set()
    assert list(court.gateway.states(message).values()) == ["delivered"]


@pytest.mark.parametrize("name", RELAYS)
def test_what_nobody_asked_for_is_not_said(court: Court, name: str) -> None:
    judge, recipient = court.judge(name), a_recipient()
    court.gateway.submit(name, [recipient], a_message(recipient))
    (taken,) = judge.witness.to(recipient)
    assert taken.mail_parameters <= {"BODY=7BIT"}
    assert taken.rcpt_parameters(recipient) <= {f"ORCPT=rfc822;{recipient}"}  # Postfix and Exim add it


@pytest.mark.parametrize("name", RELAYS)
def test_some_mebioctets_arrive_whole(court: Court, name: str) -> None:
    judge, recipient = court.judge(name), a_recipient()
    body = b"".join(b"line %d\r\n.\r\n..\r\n" % n for n in range(250_000))
    content = a_message(recipient, body=body)
    assert len(content) > 4 << 20
    message = court.gateway.submit(name, [recipient], content)
    (taken,) = judge.witness.to(recipient)
    assert taken.content.endswith(content)
    assert list(court.gateway.states(message).values()) == ["delivered"]
