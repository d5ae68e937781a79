"""Paths and parameters of MAIL and RCPT: what the grammar allows is taken as it stands, all else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.smtp.path import ArgumentError, parse_mail, parse_rcpt
from postroom.protocol.smtp.server_events import MailFrom

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
    assert parse_rcpt(f"TO:<{address}>".encode()).address == address
    assert parse_mail(f"FROM:<{address}>".encode()).path == address


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(f"TO:<{address}>".encode())
    with pytest.raises(ArgumentError):
        parse_mail(f"FROM:<{address}>".encode())


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("é@b.test", "é@b.test"),
        ("用户.名@例え.テスト", "用户.名@xn--r8jz45g.xn--zckzah"),
        ("a@BÜCHER.test", "a@xn--bcher-kva.test"),
        ("a@bu\u0308cher.test", "a@xn--bcher-kva.test"),
        ("a@ｂ．ｔｅｓｔ", "a@b.test"),
        ('"é b"@b.test', '"é b"@b.test'),
        ("é@[192.0.2.1]", "é@[192.0.2.1]"),
        ("\U00010400@b.test", "\U00010400@b.test"),
        ("é" * 32 + "@b.test", "é" * 32 + "@b.test"),
        ("a@xn--bcher-kva.test", "a@xn--bcher-kva.test"),
    ],
)
def test_an_international_address_keeps_its_local_part_and_has_its_domain_in_ascii(address: str, taken: str) -> None:
    rcpt = parse_rcpt(f"TO:<{address}>".encode())
    assert (rcpt.address, rcpt.needs_smtputf8) == (taken, not address.isascii())
    assert parse_mail(f"FROM:<{address}> SMTPUTF8".encode()).path == taken


@pytest.mark.parametrize("address", ["é@b.test", "a@bücher.test"])
def test_an_international_sender_needs_smtputf8_in_its_own_command(address: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        parse_mail(f"FROM:<{address}>".encode())
    assert (refused.value.reply_code, refused.value.enhanced) == (553, "5.6.7")


@pytest.mark.parametrize(
    "address",
    [
        "\x85@b.test",  # a control
        "\u200e@b.test",  # direction marks show another order than there is
        "a\u202eb@b.test",
        "\ue000@b.test",  # private
        "\u0378@b.test",  # unassigned
        "\ufeffa@b.test",
        "a\u2028b@b.test",
        "a\u00a0b@b.test",
        "a＠evil.test@b.test",  # what turns into a mark of syntax for another reader
        "a﹫b@b.test",
        "a＜b@b.test",
        "a…b@b.test",
        "\u037e@b.test",
        "\u00a8@b.test",
        "é..a@b.test",
        ".é@b.test",
        "é(x)@b.test",
        "é@b..test",
        "é@b.test.",
        "é@-b.test",
        "a@bücher..test",
        "a@bü＠cher.test",
        "a@℀ü.test",
        "a@ü_b.test",
        "a@é。",
        "a@\u200dü.test",
        "a@[é]",
        "é@[300.1.1.1]",
        "é" * 33 + "@b.test",
        "é@" + ".".join(["b" * 50] * 5),
        "a@" + "ü" * 60 + ".test",
        "a@" + ".".join(["ü" * 20] * 12),
        "@é.test:a@b.test",
    ],
)
def test_an_international_address_that_could_be_read_otherwise_is_refused(address: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        parse_rcpt(f"TO:<{address}>".encode())
    assert (refused.value.reply_code, refused.value.enhanced) == (501, "5.1.3")


@pytest.mark.parametrize(
    "octets", [b"\xff@b.test", b"a@\xff.test", b"a\xc3@b.test", b"\xed\xa0\x80@b.test", b"\xc0\xae@b.test"]
)
def test_what_is_not_utf8_is_refused(octets: bytes) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(b"TO:<" + octets + b">")
    with pytest.raises(ArgumentError):
        parse_mail(b"FROM:<" + octets + b"> SMTPUTF8")


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
    assert parse_rcpt(b"TO:<Postmaster>").address == "postmaster"
    with pytest.raises(ArgumentError):
        parse_mail(b"FROM:<postmaster>")


@pytest.mark.parametrize("route", ["@a.test:", "@a.test,@b.test:", "@[192.0.2.1]:"])
def test_a_source_route_is_dropped(route: str) -> None:
    assert parse_rcpt(f"TO:<{route}user@c.test>".encode()).address == "user@c.test"


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
    assert parse_rcpt(b"to:<a@b.test>").address == "a@b.test"
    assert parse_rcpt(b"TO: <a@b.test>").address == "a@b.test"


def test_parameters_of_mail() -> None:
    mail = parse_mail(b"FROM:<a@b.test> size=1000 BODY=8BITMIME AUTH=<> smtputf8 ret=hdrs ENVID=QQ+2B1")
    assert (mail.path, mail.size_bytes, mail.eight_bit, mail.smtputf8) == ("a@b.test", 1000, True, True)
    assert (mail.ret, mail.envid) == ("HDRS", "QQ+2B1")
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
        ("SMTPUTF8=", 501),
        ("SMTPUTF8=1", 501),
        ("SMTPUTF8 SMTPUTF8", 501),
        ("RET=HDRS RET=FULL", 501),
        ("RET=ALL", 501),
        ("ENVID=" + "x" * 101, 501),
        ("BODY=é", 501),
        ("ENVID=é SMTPUTF8", 501),
        ("NOTIFY=NEVER", 555),
        ("BY=120;R", 555),
        ("HOLDFOR=60", 555),
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


def test_parameters_of_rcpt() -> None:
    rcpt = parse_rcpt(b"TO:<a@b.test> NOTIFY=delay,SUCCESS orcpt=rfc822;Bob+2Bx@b.test")
    assert (rcpt.address, rcpt.notify, rcpt.orcpt) == ("a@b.test", "SUCCESS,DELAY", "rfc822;Bob+2Bx@b.test")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("NOTIFY=NEVER NOTIFY=NEVER", 501),
        ("NOTIFY=NEVER,FAILURE", 501),
        ("ORCPT=a@b.test", 501),
        ("SIZE=1", 555),
        ("SMTPUTF8", 555),
        ("RET=FULL", 555),
        ("RRVS=2014-04-03T23:01:00Z", 555),
    ],
)
def test_bad_parameters_of_rcpt_are_refused(parameters: str, code: int) -> None:
    with pytest.raises(ArgumentError) as refused:
        parse_rcpt(b"TO:<a@b.test> " + parameters.encode())
    assert (refused.value.reply_code, refused.value.enhanced) == (code, "5.5.4")


@given(st.binary(max_size=400))
def test_any_octets_are_parsed_or_refused_and_nothing_else(octets: bytes) -> None:
    for parse, argument in (
        (parse_mail, b"FROM:<" + octets),
        (parse_mail, b"FROM:<" + octets + b"> SMTPUTF8"),
        (parse_rcpt, b"TO:<" + octets + b">"),
        (parse_rcpt, octets),
    ):
        try:
            found = parse(argument)
        except ArgumentError:
            continue
        address = found.path if isinstance(found, MailFrom) else found.address
        assert address.isprintable() and address.rpartition("@")[2].isascii()
        assert not address or address == "postmaster" or "@" in address


@pytest.mark.parametrize("argument", [b"TO:<" + b"a." * 2000, b"TO:<@" + b"a.b," * 1000, b'TO:<"' + b"\\\\" * 2000])
def test_long_arguments_end(argument: bytes) -> None:
    with pytest.raises(ArgumentError):
        parse_rcpt(argument)


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_any_text_is_parsed_or_refused_and_nothing_else(local: str, domain: str) -> None:
    try:
        address = parse_rcpt(f"TO:<{local}@{domain}>".encode("utf-8", "surrogatepass")).address
    except ArgumentError:
        return
    assert address.rpartition("@")[2].isascii()
    assert address.isprintable() and len(address.encode()) <= 254
    assert parse_rcpt(f"TO:<{address}>".encode()).address == address
