"""Paths and parameters of MAIL and RCPT: what the grammar allows is taken as it stands, all else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp.path import ArgumentError, parse_mail, parse_rcpt

GOOD = [
    "a@b.test",
    "a.b+c@sub.b-c.test",
    "!#$%&'*+/=?^_`{|}~-@b.test",
    '"a b"@b.test',
    '"a@b>c"@d.test',
    r'"a\"b\\"@d.test',
    '""@d.test',
    "a@localhost",
    "a@1.test",
    "a@[127.0.0.1]",
    "a@[IPv6:2001:db8::1]",
    "a@[ipv6:::ffff:192.0.2.1]",
    "a" * 64 + "@b.test",
    "a@" + "b" * 63 + ".test",
]

BAD = [
    "a",
    "a@",
    "@b.test",
    "a@b@c.test",
    "a..b@c.test",
    ".a@c.test",
    "a.@c.test",
    "a b@c.test",
    "a@b..test",
    "a@.test",
    "a@b.test.",
    "a@-b.test",
    "a@b-.test",
    "a@b_c.test",
    "a@" + "b" * 64 + ".test",
    "a" * 65 + "@b.test",
    "a@" + ".".join(["b" * 50] * 6),
    "a(comment)@b.test",
    "a@b.test(comment)",
    "a@(comment)b.test",
    '"a"b@c.test',
    'a"b"@c.test',
    '"a@c.test',
    '"a\tb"@c.test',
    "a@[127.0.0.256]",
    "a@[127.0.0]",
    "a@[1.2.3.4.5]",
    "a@[IPv6:2001:db8::1%eth0]",
    "a@[IPv6:1.2.3.4]",
    "a@[2001:db8::1]",
    "a@[x:y]",
    "a@[127.0.0.1",
    "<a@b.test",
    "a\x00@b.test",
    "a@b.test\r",
    "a@b.te\nst",
    "a\x7f@b.test",
]


@pytest.mark.parametrize("address", GOOD)
def test_a_good_address_is_returned_as_it_stands(address: str) -> None:
    assert parse_rcpt(f"TO:<{address}>".encode()) == address
    assert parse_mail(f"FROM:<{address}>".encode()).path == address


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(f"TO:<{address}>".encode())
    with pytest.raises(ArgumentError):
        parse_mail(f"FROM:<{address}>".encode())


@pytest.mark.parametrize(
    "octets", ["é@b.test".encode(), "a@é.test".encode(), b"\xff@b.test", "a@b.test\u0661".encode()]
)
def test_eight_bit_octets_are_refused(octets: bytes) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(b"TO:<" + octets + b">")


def test_the_status_names_which_address_is_bad() -> None:
    with pytest.raises(ArgumentError) as sender:
        parse_mail(b"FROM:<a..b@c.test>")
    with pytest.raises(ArgumentError) as recipient:
        parse_rcpt(b"TO:<a..b@c.test>")
    assert (sender.value.reply_code, sender.value.enhanced) == (501, "5.1.7")
    assert (recipient.value.reply_code, recipient.value.enhanced) == (501, "5.1.3")


def test_the_null_path_is_for_mail_only() -> None:
    assert parse_mail(b"FROM:<>").path == ""
    with pytest.raises(ArgumentError):
        parse_rcpt(b"TO:<>")


def test_postmaster_needs_no_domain_in_rcpt_only() -> None:
    assert parse_rcpt(b"TO:<Postmaster>") == "postmaster"
    with pytest.raises(ArgumentError):
        parse_mail(b"FROM:<postmaster>")


@pytest.mark.parametrize("route", ["@a.test:", "@a.test,@b.test:", "@[192.0.2.1]:"])
def test_a_source_route_is_dropped(route: str) -> None:
    assert parse_rcpt(f"TO:<{route}user@c.test>".encode()) == "user@c.test"


@pytest.mark.parametrize("route", ["@:", "@a.test", "@a.test,b.test:", "@a..test:", "@a.test::", "a.test:"])
def test_a_malformed_source_route_is_refused(route: str) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(f"TO:<{route}user@c.test>".encode())


@pytest.mark.parametrize(
    "argument", [b"", b"TO", b"TO:", b"TO:a@b.test", b"TO <a@b.test>", b"FROM:<a@b.test>", b"TO:<"]
)
def test_what_is_no_path_is_refused(argument: bytes) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(argument)


def test_the_keyword_has_no_case_and_a_space_may_follow_it() -> None:
    assert parse_rcpt(b"to:<a@b.test>") == "a@b.test"
    assert parse_rcpt(b"TO: <a@b.test>") == "a@b.test"


def test_parameters_of_mail() -> None:
    mail = parse_mail(b"FROM:<a@b.test> size=1000 BODY=8BITMIME AUTH=<>")
    assert (mail.path, mail.size_bytes, mail.eight_bit) == ("a@b.test", 1000, True)
    plain = parse_mail(b"FROM:<a@b.test> BODY=7bit")
    assert (plain.size_bytes, plain.eight_bit) == (None, False)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("SIZE", 501),
        ("SIZE=", 501),
        ("SIZE=-1", 501),
        ("SIZE=+1", 501),
        ("SIZE=1_0", 501),
        ("SIZE=\u0661\u0662", 501),
        ("SIZE=" + "9" * 21, 501),
        ("SIZE=1 SIZE=2", 501),
        ("SIZE=1 size=1", 501),
        ("BODY=BINARYMIME", 501),
        ("BODY", 501),
        ("AUTH", 501),
        ("SMTPUTF8", 555),
        ("RET=HDRS", 555),
        ("X=a=b", 501),
        ("=1", 501),
        ("SIZE=1\t", 501),
    ],
)
def test_bad_parameters_are_refused(parameters: str, code: int) -> None:
    with pytest.raises(ArgumentError) as refused:
        parse_mail(b"FROM:<a@b.test> " + parameters.encode())
    assert (refused.value.reply_code, refused.value.enhanced) == (code, "5.5.4")


def test_parameters_need_a_space_before_them() -> None:
    with pytest.raises(ArgumentError):
        parse_mail(b"FROM:<a@b.test>SIZE=1")


def test_rcpt_takes_no_parameter() -> None:
    with pytest.raises(ArgumentError) as refused:
        parse_rcpt(b"TO:<a@b.test> NOTIFY=NEVER")
    assert refused.value.reply_code == 555


@given(st.binary(max_size=400))
def test_any_octets_are_parsed_or_refused_and_nothing_else(octets: bytes) -> None:
    for parse, argument in ((parse_mail, b"FROM:<" + octets), (parse_rcpt, b"TO:<" + octets), (parse_rcpt, octets)):
        try:
            found = parse(argument)
        except ArgumentError:
            continue
        address = found if isinstance(found, str) else found.path
        assert address.isascii() and address.isprintable()
        assert not address or address == "postmaster" or "@" in address


@pytest.mark.parametrize("argument", [b"TO:<" + b"a." * 2000, b"TO:<@" + b"a.b," * 1000, b'TO:<"' + b"\\\\" * 2000])
def test_long_arguments_end(argument: bytes) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(argument)
