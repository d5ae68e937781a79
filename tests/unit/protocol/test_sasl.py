"""PLAIN and LOGIN, both sides, and what neither takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.protocol.sasl import ClientStepper, Credentials, SaslError, ServerStepper, from_base64, to_base64
from postroom.protocol.sasl.choice import client_stepper
from postroom.protocol.sasl.clear import LoginClient, LoginServer, PlainClient, PlainServer, server_stepper

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


def log_in(client: ClientStepper, server: ServerStepper, *, initial: bool) -> Credentials:
    """The exchange, over base64."""
    message = client.initial_response() if initial else None
    answer = server.step(None if message is None else from_base64(to_base64(message)))
    while not isinstance(answer, Credentials):
        answer = server.step(from_base64(to_base64(client.respond(from_base64(to_base64(answer))))))
    return answer


@given(TEXT, TEXT, st.sampled_from(["PLAIN", "login"]), st.booleans())
def test_the_server_learns_what_the_client_knows(login: str, password: str, name: str, initial: bool) -> None:
    client, server = client_stepper(name.upper(), login, password, ""), server_stepper(name)
    assert server is not None
    assert log_in(client, server, initial=initial) == Credentials(login, password)


def test_login_takes_the_user_name_with_the_command() -> None:
    server = LoginServer()
    assert server.step(b"erp") == b"Password:"
    assert server.step(b"secret") == Credentials("erp", "secret")


@pytest.mark.parametrize("message", [b"", b"a\0b", b"\0\0p", b"\0u\0", b"\0u\0p\0", b"\0u\xff\0p", b"a" * 100])
def test_plain_refuses_what_it_does_not_know(message: bytes) -> None:
    with pytest.raises(SaslError):
        PlainServer().step(message)


def test_plain_keeps_the_authorization_identity() -> None:
    assert PlainServer().step(b"boss\0erp\0secret") == Credentials("erp", "secret", "boss")


def test_plain_is_the_message_of_its_rfc() -> None:
    assert (
        PlainClient("tim", "tanstaaftanstaaf").initial_response() == b"\0tim\0tanstaaftanstaaf"
    )  # RFC 4616, section 4


def test_a_client_says_nothing_twice() -> None:
    plain = PlainClient("u", "p")
    plain.initial_response()
    with pytest.raises(SaslError):
        plain.respond(b"")
    login = LoginClient("u", "p")
    assert [login.respond(b"?"), login.respond(b"?")] == [b"u", b"p"]
    with pytest.raises(SaslError):
        login.respond(b"?")


@pytest.mark.parametrize(("login", "password"), [("u\0", "p"), ("u", "\0p"), ("", "p"), ("u", "")])
def test_plain_sends_no_value_that_it_cannot_carry(login: str, password: str) -> None:
    with pytest.raises(SaslError):
        PlainClient(login, password)


@pytest.mark.parametrize("line", [b"?", b"YQ", b"YQ==YQ==", b"YQ=\n=", b"Y Q==", b"*", b"====", b"\xff\xff\xff\xff"])
def test_base64_is_read_strictly(line: bytes) -> None:
    with pytest.raises(SaslError):
        from_base64(line)


def test_a_lone_equals_sign_is_the_empty_message() -> None:
    assert from_base64(b"=") == b""


def test_credentials_do_not_show_the_password() -> None:
    assert "hunter2" not in repr(Credentials("u", "hunter2"))
    assert server_stepper("CRAM-MD5") is None
