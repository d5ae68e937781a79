"""XOAUTH2 and OAUTHBEARER: the messages of their documents, and what a refusal is answered with."""

from __future__ import annotations

import base64

import pytest

from postroom.model.reply import Reply
from postroom.protocol.sasl import SaslError
from postroom.protocol.sasl.bearer import OAUTHBEARER, XOAUTH2, BearerClient
from postroom.protocol.sasl.choice import token_mechanisms
from postroom.protocol.smtp.client_login import ClientLogin

TOKEN = "vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="

#: What Google's document shows, and RFC 7628 section 4.1 with its answer of section 4.3.
GOOGLES = (
    "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZG"
    "OWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
)
RFC_7628 = (
    "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbG"
    "NrQmhkSFJoZG1semRHRXVZMjl0Q2c9PQEB"
)
RFC_7628_ERROR = b'{"status":"invalid_token","scope":"example_scope","openid-configuration":"https://x.test/c"}'


def test_the_message_of_googles_document() -> None:
    token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
    client = BearerClient(XOAUTH2, "someuser@example.com", token)
    assert base64.b64encode(client.initial_response() or b"").decode() == GOOGLES


def test_the_message_of_rfc_7628() -> None:
    client = BearerClient(OAUTHBEARER, "user@example.com", TOKEN, "server.example.com", 143)
    assert base64.b64encode(client.initial_response() or b"").decode() == RFC_7628


def test_a_name_that_gs2_would_misread_is_escaped() -> None:
    client = BearerClient(OAUTHBEARER, "a,b=c", TOKEN, "h", 1)
    assert (client.initial_response() or b"").startswith(b"n,a=a=2Cb=3Dc,\x01")


@pytest.mark.parametrize(("mechanism", "answered"), [(XOAUTH2, b""), (OAUTHBEARER, base64.b64encode(b"\x01"))])
def test_an_error_is_answered_and_told(mechanism: str, answered: bytes) -> None:
    stepper = BearerClient(mechanism, "ann@x.test", TOKEN)
    login = ClientLogin(stepper)
    assert login.command().startswith(f"AUTH {mechanism} ".encode())
    challenge = Reply(334, (base64.b64encode(RFC_7628_ERROR).decode(),))
    assert login.answer(challenge) == answered
    assert stepper.problem == "invalid_token (the server wants a token for example_scope)"
    assert login.answer(challenge) == b"*" and "asks for more" in login.fault  # once is enough
    login.fault = ""
    login.accept()
    assert "after it had refused" in login.fault


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b'{"status":"400","schemes":"Bearer"}', "400"),
        (b"a\x1b[31m\r\nb", "a [31m  b"),
        (b"[]", "[]"),
        (b"{}", "the token was refused"),
        (b"\xff", "�"),
    ],
)
def test_errors_of_other_forms(said: bytes, problem: str) -> None:
    stepper = BearerClient(XOAUTH2, "ann@x.test", TOKEN)
    stepper.initial_response()
    stepper.respond(said)
    assert stepper.problem == problem


def test_a_long_token_goes_behind_the_command() -> None:
    stepper = BearerClient(XOAUTH2, "ann@x.test", "t" * 2000)
    login = ClientLogin(stepper)
    assert login.command() == b"AUTH XOAUTH2"
    assert b"Bearer " + b"t" * 2000 in base64.b64decode(login.answer(Reply(334, ("",))))
    assert not login.fault and not stepper.problem


@pytest.mark.parametrize(
    ("login", "token"), [("", TOKEN), ("a\x01b", TOKEN), ("a", ""), ("a", "x\x01auth=y"), ("a", "x y"), ("a", "x\r\n")]
)
def test_what_cannot_be_carried(login: str, token: str) -> None:
    with pytest.raises(SaslError):
        BearerClient(XOAUTH2, login, token)


def test_the_order_of_mechanisms() -> None:
    assert token_mechanisms(["plain", "oauthbearer", "XOAUTH2"]) == [XOAUTH2, OAUTHBEARER]
    assert token_mechanisms(["OAUTHBEARER"], only=XOAUTH2) == []
    assert token_mechanisms(["PLAIN", "LOGIN"]) == []


def test_the_token_is_a_secret_of_the_exchange() -> None:
    stepper = BearerClient(XOAUTH2, "ann@x.test", TOKEN)
    assert stepper.secrets == (TOKEN,) and stepper.sends_clear_password
