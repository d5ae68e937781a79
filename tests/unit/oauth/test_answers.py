"""Answers of token endpoints: what is taken for tokens, what for a refusal, and what for nothing at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from postroom.net import http
from postroom.oauth.answers import Cleaned, Refused, Unusable, read_device_code, read_tokens, without
from postroom.policy.classify import Action, Stage, classify


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """The JSON object; ValueError where there is none."""
        found = json.loads(self.body)
        if not isinstance(found, dict):
            raise ValueError
        return found


def test_the_answer_of_rfc_6749_section_5_1() -> None:
    found = read_tokens(
        Answer(
            200,
            """{"access_token":"2YotnFZFEjr1zCsicMWpAA", "token_type":"example", "expires_in":3600,
            "refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA", "example_parameter":"example_value"}""".replace(
                '"token_type":"example"', '"token_type":"bearer"'
            ),
        )
    )
    assert (found.access_token, found.refresh_token) == ("2YotnFZFEjr1zCsicMWpAA", "tGzv3JOkF0XG5Qx2TlKWIA")
    assert found.lifetime == timedelta(hours=1) and found.refresh_lifetime is None
    assert "2Yotn" not in repr(found) and "tGzv3" not in repr(found)


@pytest.mark.parametrize(
    ("said", "lifetime"),
    [("3599", 3599), (3599.5, 3599), (None, 300), ("soon", 300), (0, 300), (True, 300), (10**8, 86400)],
)
def test_lifetimes_as_they_are_written(said: object, lifetime: int) -> None:
    found = read_tokens(Answer(200, json.dumps({"access_token": "t", "expires_in": said})))
    assert found.lifetime == timedelta(seconds=lifetime)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>Sign in to the network</html>",
        '{"access_token":"abc","expires',
        "[]",
        "null",
        "{}",
        '{"access_token":""}',
        '{"access_token":"a b"}',
        '{"access_token":"a\\r\\nb"}',
        '{"access_token":7}',
        '{"access_token":"t","token_type":"mac"}',
    ],
)
def test_a_yes_that_is_none(body: str) -> None:
    with pytest.raises(Unusable):
        read_tokens(Answer(200, body))


GOOGLES = '{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}'
MICROSOFTS = json.dumps(
    {
        "error": "invalid_client",
        "error_description": "AADSTS7000222: The provided client secret keys for app 'x' are expired.\r\nTrace ID: 1f"
        "\r\nCorrelation ID: 2e\r\nTimestamp: 2026-11-27 12:00:00Z",
    }
)


@pytest.mark.parametrize(
    ("answer", "text", "action"),
    [
        (Answer(400, GOOGLES), "400 invalid_grant: Token has been expired or revoked.", Action.STOP),
        (Answer(401, MICROSOFTS),
         "401 invalid_client: AADSTS7000222: The provided client secret keys for app 'x' are expired.", Action.STOP),
        (Answer(200, GOOGLES), "400 invalid_grant: Token has been expired or revoked.", Action.STOP),
        (Answer(400, '{"error":"invalid_client"}'), "400 invalid_client", Action.STOP),
        (Answer(400, '{"error":"unauthorized_client"}'), "400 unauthorized_client", Action.STOP),
        (Answer(400, '{"error":"invalid_scope"}'), "400 invalid_scope", Action.STOP),
        # What says only that it does not work now is no reason to stop, whatever else it says.
        (Answer(500, GOOGLES), "500 invalid_grant: Token has been expired or revoked.", Action.SLEEP),
        (Answer(400, '{"error":"temporarily_unavailable"}'), "400 temporarily_unavailable", Action.SLEEP),
        (Answer(403, "<html>"), "403 the endpoint answered 403 and nothing that says why", Action.SLEEP),
        (Answer(302, ""), "302 the endpoint answered 302 and nothing that says why", Action.SLEEP),
    ],
)  # fmt: skip
def test_refusals(answer: Answer, text: str, action: Action) -> None:
    with pytest.raises(Refused) as refused:
        read_tokens(answer)
    assert refused.value.reply.text == text
    assert classify(Stage.TOKEN, refused.value.reply).action is action


def test_how_long_to_wait_is_heard() -> None:
    with pytest.raises(Refused) as refused:
        read_tokens(Answer(429, '{"error":"rate_limited"}', {"retry-after": "120"}))
    verdict = classify(Stage.TOKEN, refused.value.reply)
    assert (verdict.action, verdict.wait) == (Action.SLEEP, timedelta(minutes=2))


def test_words_of_a_server_are_one_line_without_controls() -> None:
    with pytest.raises(Refused) as refused:
        read_tokens(Answer(400, json.dumps({"error": "x\x1b[0m\r\n", "error_description": "y" * 9000})))
    assert refused.value.reply.text.isprintable() and len(refused.value.reply.text) < 600


def test_the_device_code_of_rfc_8628_section_3_2() -> None:
    found = read_device_code(
        Answer(
            200,
            """{"device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS", "user_code": "WDJB-MJHT",
            "verification_uri": "https://example.com/device",
            "verification_uri_complete": "https://example.com/device?user_code=WDJB-MJHT",
            "expires_in": 1800, "interval": 5}""",
        )
    )
    assert (found.user_code, found.verification_uri) == ("WDJB-MJHT", "https://example.com/device")
    assert (found.lifetime, found.interval) == (timedelta(minutes=30), timedelta(seconds=5))
    assert found.verification_uri_complete.endswith("WDJB-MJHT") and "GmRhm" not in repr(found)


def test_googles_device_code_has_another_name_for_the_address() -> None:
    body = '{"device_code":"d","user_code":"u","verification_url":"https://www.google.com/device","expires_in":1800}'
    assert read_device_code(Answer(200, body)).verification_uri == "https://www.google.com/device"


@pytest.mark.parametrize(
    "body", ['{"device_code":"d"}', '{"device_code":"d","user_code":"a\u001b","verification_uri":"v"}']
)
def test_a_device_code_that_is_none(body: str) -> None:
    with pytest.raises(Unusable):
        read_device_code(Answer(200, body))


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 40_000])
def test_what_is_nested_without_end_is_no_answer(body: bytes) -> None:
    with pytest.raises(Unusable):
        read_tokens(http.Answer(200, {}, body))
    with pytest.raises(Refused):
        read_tokens(http.Answer(500, {}, body))


def test_a_reason_that_is_nothing_but_space_is_read_at_once() -> None:
    """Where each space were tried as the beginning of the end, this would go on for a quarter of an hour."""
    said = f"no{' ' * 250_000}way\r\nTrace ID: 1"
    with pytest.raises(Refused) as refused:
        read_tokens(Answer(400, json.dumps({"error": "invalid_grant", "error_description": said})))
    assert refused.value.reply.text == "400 invalid_grant: no way"


def test_many_scopes_are_all_kept() -> None:
    scope = " ".join([*(f"https://graph.microsoft.com/Scope.{number}" for number in range(60)), "Mail.Send"])
    assert read_tokens(Answer(200, json.dumps({"access_token": "t", "scope": scope}))).scope == scope


def test_reasons_that_are_no_text() -> None:
    for said in (None, True, [["x"]], {"x": "y"}):
        with pytest.raises(Refused) as refused:
            read_tokens(Answer(400, json.dumps({"error": said, "error_description": said})))
        assert refused.value.reply.text == "400 the endpoint answered 400 and nothing that says why"
    assert read_tokens(Answer(200, json.dumps({"access_token": "t", "error": None}))).access_token == "t"


def test_a_token_that_its_server_chose_to_be_looked_for_slowly() -> None:
    """Were each place compared with all of it, this would go on for minutes."""
    said = f"{'a' * 59_999}b" * 4 + "a" * 60_000
    answer = Answer(400, json.dumps({"error": "x", "error_description": said}))
    with pytest.raises(Refused):
        read_tokens(Cleaned(answer, without(["a" * 60_000])))
    assert without(["", "abc", "s3cr+t"])("s3cr+t s3cr%2Bt czNjcit0 abc") == "[hidden] [hidden] [hidden] abc"
