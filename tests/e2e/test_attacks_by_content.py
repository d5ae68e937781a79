"""Attacks by the content of mail, and by its envelope, on a running gateway: nothing is smuggled, memory stays flat."""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from tests.e2e.attackers import (
    EVIL,
    SENDER,
    SMUGGLED,
    VICTIM,
    Client,
    Target,
    codes,
    ends_in_a_reply,
    envelope,
    is_bare,
    standing,
)

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One gateway for all attacks."""
    with standing(tmp_path_factory.mktemp("gateway")) as target:
        yield target


@pytest.fixture
def clear(gateway: Target) -> Iterator[Client]:
    """A client that has said EHLO."""
    with Client(gateway.ports[0]) as client:
        assert client.ask(b"EHLO client.example").startswith(b"250-")
        yield client


# The end of data --------------------------------------------------------------------------------------------------

#: Every mix of CR, LF and dots of up to five octets that has a dot in it and is not the end of data.
MIXES = [
    mix
    for size in range(1, 6)
    for letters in itertools.product((b"\r", b"\n", b"."), repeat=size)
    if b"." in (mix := b"".join(letters)) and b"\r\n.\r\n" not in mix
]


def send_all(gateway: Target, mixes: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Send each mix in front of a smuggled transaction; recipient and reply of each, which is one reply alone."""
    said = []
    for mix in mixes:
        recipient = f"{gateway.name()}@mixed.example"
        with Client(gateway.ports[0]) as client:
            client.begin(recipient)
            client.send(b"Subject: x\r\n\r\nfirst" + mix + SMUGGLED)
            said.append((recipient, client.reply()))
            assert client.ask(b"NOOP unmistakable") == b"250 2.0.0 Ok\r\n"
    return said


def test_no_mix_of_lf_and_dots_ends_the_data_and_none_is_relayed_bare(gateway: Target) -> None:
    mixes = [mix for mix in MIXES if b"\r" not in mix.replace(b"\r\n", b"")]
    assert len(mixes) > 50
    with gateway.unharmed():
        for recipient, reply in send_all(gateway, mixes):
            gateway.arrives(reply)
            (taken,) = gateway.healthy.taken_for(recipient)
            assert taken.reverse_path == SENDER
            assert not is_bare(taken.content)
            assert taken.content.endswith(b"evil\r\n")
    gateway.knows_nothing_of_it()


def test_no_mix_with_a_bare_cr_ends_the_data_and_all_are_refused(gateway: Target) -> None:
    mixes = [mix for mix in MIXES if b"\r" in mix.replace(b"\r\n", b"")]
    assert len(mixes) > 100
    with gateway.unharmed():
        for recipient, reply in send_all(gateway, mixes):
            assert reply == b"554 5.6.0 Bare CR in the content\r\n"
            assert gateway.healthy.taken_for(recipient) == []
    gateway.knows_nothing_of_it()


# Size -------------------------------------------------------------------------------------------------------------


def test_of_10000_pipelined_recipients_the_first_1000_are_taken_and_the_flood_ends(gateway: Target) -> None:
    domain = f"{gateway.name()}.example"
    with gateway.unharmed():
        with Client(gateway.ports[0]) as client:
            flood = b"".join(b"RCPT TO:<r%d@%s>\r\n" % (n, domain.encode()) for n in range(10_000))
            said = client.pour(b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\n" + flood + b"DATA\r\nx: y\r\n\r\n.\r\n")
            counted = Counter(codes(said))
            assert counted[250] == 1002
            assert set(counted) == {250, 452, 421}
            assert said.endswith(b"421 4.7.0 Too many errors\r\n")
        assert [row for row in gateway.api.deliveries() if row["recipient"].endswith(domain)] == []


def test_an_honest_client_sends_to_10000_in_ten_messages(gateway: Target) -> None:
    recipients = [f"r{n}@{gateway.name()}.example" for n in range(10_000)]
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.ask(b"EHLO c.example")
        for start in range(0, len(recipients), 1000):
            some = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients[start : start + 1000]).encode()
            said = client.pour(b"MAIL FROM:<a@b.example>\r\n" + some + b"DATA\r\n", lambda said: b"\r\n354 " in said)
            assert Counter(codes(said)) == {250: 1001, 354: 1}
            client.send(b"Subject: many\r\n\r\n.\r\n")
            assert codes(client.reply()) == [250]
        gateway.api.ask("POST", "drain")
    taken = Counter(recipient for one in gateway.healthy.taken for recipient in one.recipients)
    assert {taken[recipient] for recipient in recipients} == {1}


@pytest.mark.parametrize("within", [b"", b"AUTH LOGIN"], ids=["a command", "a login"])
def test_8_megabytes_without_a_line_end_are_one_error(gateway: Target, clear: Client, within: bytes) -> None:
    with gateway.unharmed():
        if within:
            assert clear.ask(within).startswith(b"334 ")
        said = clear.pour(b"x" * (8 * MEBIBYTE) + b"\r\nNOOP\r\n", lambda said: said.endswith(b"250 2.0.0 Ok\r\n"))
        assert said == b"500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"X: " + b"x" * (8 * MEBIBYTE) + b"\r\n",
        b"X: y\r\n" * (MEBIBYTE // 5),
        b"X: y\r\n" + b" folded\r\n" * (MEBIBYTE // 8),
        b"X: y\r\n" * (7 * MEBIBYTE),
    ],
    ids=["8 MB in one field", "many fields", "one folded field", "42 MB of fields"],
)
def test_a_header_section_over_its_limit_is_refused(gateway: Target, head: bytes) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.begin(VICTIM, EVIL)
        said = client.pour(head + b"\r\nbody\r\n.\r\n", ends_in_a_reply)
        assert said == b"552 5.3.4 Message too large\r\n"
        assert client.ask(b"NOOP").startswith(b"250 ")
    gateway.knows_nothing_of_it()


def test_a_header_that_never_ends_is_forgotten_with_its_client(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.begin(VICTIM, EVIL)
        piece = b"X-Endless: yes\r\n" * (MEBIBYTE // 16)
        for _ in range(64):
            client.pour(piece, lambda said: True)
        gateway.serves_others()
    gateway.knows_nothing_of_it()


def test_8_megabytes_of_body_without_a_line_end_arrive_as_they_are(gateway: Target) -> None:
    recipient, body = f"{gateway.name()}@good.example", b"x" * (8 * MEBIBYTE) + b"\r\n"
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.begin(recipient)
        gateway.arrives(client.pour(b"Subject: x\r\n\r\n" + body + b".\r\n", ends_in_a_reply))
        (taken,) = gateway.healthy.taken_for(recipient)
        assert taken.content.endswith(b"\r\n\r\n" + body)


def test_content_over_the_limit_is_refused_and_read_to_its_end(gateway: Target) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.begin(VICTIM, EVIL)
        body = b"0123456789\r\n" * (40 * MEBIBYTE // 12)
        assert client.pour(b"x: y\r\n\r\n" + body + b".\r\n", ends_in_a_reply) == b"552 5.3.4 Message too large\r\n"
        assert client.ask(b"NOOP").startswith(b"250 ")
    gateway.knows_nothing_of_it()


# Chunks -----------------------------------------------------------------------------------------------------------


def test_a_chunk_without_recipients_is_read_as_octets_and_refused(gateway: Target, clear: Client) -> None:
    with gateway.unharmed():
        for before, last in itertools.product((b"", b"MAIL FROM:<a@b.example>\r\n"), (b"", b" LAST")):
            clear.send(before + b"BDAT %d%s\r\n" % (len(SMUGGLED), last) + SMUGGLED + b"RSET\r\n")
            assert codes(clear.reply()) == [250] if before else True
            assert codes(clear.reply())[0] in (503, 554)
            assert clear.reply() == b"250 2.0.0 Ok\r\n"
    gateway.knows_nothing_of_it()


@pytest.mark.parametrize("size", [36 * MEBIBYTE, 2**31, 2**32, 2**63, 2**64, 10**20 - 1])
def test_a_chunk_of_a_huge_size_swallows_what_its_client_sends_and_no_memory(gateway: Target, size: int) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.send(b"EHLO client.example\r\n" + envelope(VICTIM, EVIL) + b"BDAT %d LAST\r\n" % size)
        assert [codes(client.reply()) for _ in range(3)] == [[250]] * 3
        client.pour(SMUGGLED * 100_000, lambda said: True)
        gateway.serves_others()
    gateway.knows_nothing_of_it()


@pytest.mark.parametrize("last", [b"", b" LAST"])
def test_a_chunk_that_is_cut_off_is_nothing(gateway: Target, last: bytes) -> None:
    with gateway.unharmed(), Client(gateway.ports[0]) as client:
        client.send(b"EHLO client.example\r\n" + envelope(VICTIM, EVIL) + b"BDAT 5\r\nx: y\r")
        client.send(b"BDAT 1000%s\r\n\n\r\nhalf" % last)
        assert [codes(client.reply()) for _ in range(4)] == [[250]] * 4
        client.socket.shutdown(socket.SHUT_WR)
        assert client.to_the_end() == b""
    gateway.knows_nothing_of_it()


@pytest.mark.parametrize("argument", [b"", b"-1", b"1x", b"0x10", b"1 FIRST", b"1 LAST LAST", b"9" * 21, "٣".encode()])
def test_a_chunk_of_which_nobody_knows_the_size_ends_the_connection(
    gateway: Target, clear: Client, argument: bytes
) -> None:
    with gateway.unharmed():
        clear.send(envelope(VICTIM, EVIL) + b"BDAT " + argument + b"\r\n" + SMUGGLED)
        replies = codes(clear.to_the_end())
        assert replies[:2] == [250, 250]
        assert len(replies) == 3
        assert replies[2] in (500, 501)
    gateway.knows_nothing_of_it()


def test_an_end_of_data_within_a_chunk_is_content(gateway: Target, clear: Client) -> None:
    recipient, content = f"{gateway.name()}@good.example", b"Subject: x\r\n\r\nfirst\r\n.\r\n" + SMUGGLED
    with gateway.unharmed():
        for cut in (0, 1, content.index(b".\r\n"), content.index(b".\r\n") + 1, len(content)):
            first, second = content[:cut], content[cut:]
            clear.send(envelope(recipient) + b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (cut, first, len(second), second))
            assert [codes(clear.reply()) for _ in range(3)] == [[250]] * 3
            gateway.arrives(clear.reply())
        taken = gateway.healthy.taken_for(recipient)
        assert len(taken) == 5
        assert all(one.content.endswith(content.partition(b"\r\n\r\n")[2]) for one in taken)
    gateway.knows_nothing_of_it()


def test_100000_chunks_of_one_octet_and_of_none_make_one_message(gateway: Target, clear: Client) -> None:
    recipient, body = f"{gateway.name()}@good.example", b"0123456789" * 5000
    with gateway.unharmed():
        chunks = b"".join(b"BDAT 1\r\n%cBDAT 0\r\n" % octet for octet in b"Subject: x\r\n\r\n" + body)
        said = clear.pour(envelope(recipient) + chunks + b"BDAT 2 LAST\r\n\r\n", lambda said: b" queued as " in said)
        assert len(codes(said)) == 2 + 2 * len(b"Subject: x\r\n\r\n" + body) + 1
        gateway.arrives(said.splitlines(keepends=True)[-1])
        (taken,) = gateway.healthy.taken_for(recipient)
        assert taken.content.endswith(b"\r\n\r\n" + body + b"\r\n")
