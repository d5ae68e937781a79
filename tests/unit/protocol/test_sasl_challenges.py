"""SCRAM and CRAM-MD5 as a client: the examples of their RFCs, the server's proof, and what is never answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.protocol.sasl import SaslError
from postroom.protocol.sasl.choice import client_stepper, left_after, mechanisms
from postroom.protocol.sasl.cram_md5 import CramMd5Client
from postroom.protocol.sasl.scram import ScramClient

SHA_1 = ("SCRAM-SHA-1", "fyko+d2lbbFgONRv9qkxdawL")  # RFC 5802 section 5
SHA_1_SAID = (
    "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
SHA_256 = ("SCRAM-SHA-256", "rOprNGfwEbeRWgbNEkqO")  # RFC 7677 section 3
SHA_256_SAID = (
    "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)
EXAMPLES = [(SHA_1, SHA_1_SAID), (SHA_256, SHA_256_SAID)]


def example(which: tuple[str, str] = SHA_256) -> ScramClient:
    """The client of the example, after its first message."""
    client = ScramClient(which[0], "user", "pencil", which[1])
    client.initial_response()
    return client


@pytest.mark.parametrize(("which", "said"), EXAMPLES)
def test_scram_is_the_dialogue_of_its_rfc(which: tuple[str, str], said: tuple[str, ...]) -> None:
    client = ScramClient(which[0], "user", "pencil", which[1])
    assert client.initial_response() == said[0].encode()
    assert client.respond(said[1].encode()) == said[2].encode()
    assert client.secrets == (said[2].rpartition("p=")[2],)
    assert client.respond(said[3].encode()) == b""
    client.accepted()
    with pytest.raises(SaslError, match="asks for more"):
        client.respond(b"")


@pytest.mark.parametrize(("which", "said"), EXAMPLES)
def test_a_server_without_the_right_signature_is_not_believed(which: tuple[str, str], said: tuple[str, ...]) -> None:
    client = example(which)
    with pytest.raises(SaslError, match="signature"):
        client.accepted()
    client.respond(said[1].encode())
    with pytest.raises(SaslError, match="signature"):
        client.accepted()
    wrong = ScramClient(which[0], "user", "another", which[1])
    wrong.initial_response()
    wrong.respond(said[1].encode())
    with pytest.raises(SaslError, match="signature doesn't match"):
        wrong.respond(said[3].encode())
    with pytest.raises(SaslError, match="signature"):
        wrong.accepted()


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
        (b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1", "4096"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=999999999", "10000000"),
        (b"m=x,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "'m'"),
        (b"e=unknown-user", "refused the login: unknown-user"),
        (b"", "SCRAM-SHA-256: Malformed"),
        (b"\xff", "not UTF-8"),
        (b"hello", "SCRAM-SHA-256: Malformed"),
    ],
)
def test_scram_answers_nothing_that_its_rfc_forbids(message: bytes, fault: str) -> None:
    client = example()
    with pytest.raises(SaslError, match=fault):
        client.respond(message)
    assert client.secrets == ()


def test_a_refusal_in_the_last_message_is_told() -> None:
    client = example()
    client.respond(SHA_256_SAID[1].encode())
    with pytest.raises(SaslError, match="refused the login: invalid-proof"):
        client.respond(b"e=invalid-proof")


TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=20)


@settings(max_examples=20)
@given(st.sampled_from(["SCRAM-SHA-1", "SCRAM-SHA-256"]), TEXT, TEXT)
def test_another_implementation_of_the_server_takes_it(mechanism: str, login: str, password: str) -> None:
    """User names with commas and equals signs, too."""
    kept = scramp.ScramMechanism(mechanism).make_auth_info(password)
    server = scramp.ScramMechanism(mechanism).make_server({login: kept}.__getitem__)
    client = client_stepper(mechanism, login, password, "nonce")
    server.set_client_first((client.initial_response() or b"").decode())
    server.set_client_final(client.respond(server.get_server_first().encode()).decode())
    assert client.respond(server.get_server_final().encode()) == b""
    client.accepted()


def test_names_and_passwords_are_prepared_by_saslprep() -> None:
    plain, prepared = (ScramClient(SHA_256[0], login, "pencil", SHA_256[1]) for login in ("u\u00adser", "user"))
    assert plain.initial_response() == prepared.initial_response()  # RFC 4013 section 3, example 1
    first, second = (ScramClient(SHA_256[0], "user", password, SHA_256[1]) for password in ("pen\u2168", "penIX"))
    for client in (first, second):
        client.initial_response()
    assert first.respond(SHA_256_SAID[1].encode()) == second.respond(SHA_256_SAID[1].encode())


@pytest.mark.parametrize(("login", "password"), [("us\ner", "p"), ("", "p"), ("user", "p\N{GRINNING FACE}")])
def test_scram_refuses_what_saslprep_refuses(login: str, password: str) -> None:
    with pytest.raises(SaslError, match="SCRAM-SHA-256: "):
        ScramClient("SCRAM-SHA-256", login, password, "nonce")


def test_cram_md5_is_the_dialogue_of_its_rfc() -> None:
    client = CramMd5Client("tim", "tanstaaftanstaaf")  # RFC 2195 section 2
    assert client.initial_response() is None
    answer = client.respond(b"<1896.697170952@postoffice.reston.mci.net>")
    assert answer == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert client.secrets == ("b913a602c7eda7a495b4e6e7334d3890",)
    client.accepted()


@pytest.mark.parametrize("challenges", [[b""], [b"<1@x>", b"<2@x>"]])
def test_cram_md5_answers_one_challenge(challenges: list[bytes]) -> None:
    client = CramMd5Client("tim", "secret")
    for challenge in challenges[:-1]:
        client.respond(challenge)
    with pytest.raises(SaslError):
        client.respond(challenges[-1])


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: example().__dict__, "pencil"),
        (lambda: repr(example()) + repr(CramMd5Client("tim", "hunter2")), "hunter2"),
    ],
)
def test_a_stepper_does_not_show_the_password(make: Callable[[], object], shown: str) -> None:
    assert shown not in str(make())


ALL = ["LOGIN", "plain", "CRAM-MD5", "scram-sha-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "GSSAPI"]


def test_the_order_of_mechanisms() -> None:
    assert mechanisms(ALL, is_verified=True) == ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5"]
    assert mechanisms(ALL) == ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"]
    assert mechanisms(ALL, only="CRAM-MD5", is_verified=True) == ["CRAM-MD5"]
    assert mechanisms(["PLAIN"], only="LOGIN") == []
    assert mechanisms(["GSSAPI", "XOAUTH2"]) == mechanisms([]) == []


@pytest.mark.parametrize(
    ("refused", "code", "verified", "left"),
    [
        ("SCRAM-SHA-256", 535, True, ["PLAIN"]),
        ("SCRAM-SHA-256", 534, True, ["PLAIN"]),
        ("SCRAM-SHA-256", 535, False, []),
        ("SCRAM-SHA-256", 504, False, ["SCRAM-SHA-1", "PLAIN", "LOGIN"]),
        ("SCRAM-SHA-256", 454, True, []),
        ("SCRAM-SHA-256", 501, True, []),
    ],
)
def test_what_is_tried_after_a_refusal(refused: str, code: int, verified: bool, left: list[str]) -> None:
    rest = ["SCRAM-SHA-1", "PLAIN", "LOGIN"]
    assert left_after(refused, code, rest, is_verified=verified) == left


def test_a_refused_password_is_never_said_again() -> None:
    assert left_after("PLAIN", 535, ["LOGIN", "CRAM-MD5"], is_verified=True) == []
    assert left_after("PLAIN", 504, ["LOGIN", "CRAM-MD5"], is_verified=True) == ["LOGIN", "CRAM-MD5"]
