"""What authorization servers answer, as values: tokens, a refusal with its reason, or nothing that can be used."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import quote_plus

from ..model.reply import Reply
from ..net.transcript import HIDDEN

#: How long an access token is taken to be good where the server does not say (RFC 6749 section 5.1 leaves it open).
UNTOLD = timedelta(minutes=5)

#: An access token is not believed to last longer.
LONGEST = timedelta(days=1)

#: RFC 8628 section 3.2: between two questions, where the server names nothing.
DEVICE_INTERVAL = timedelta(seconds=5)

#: What is quoted of a server's words.
_MOST_CHARACTERS = 500

#: What is kept of the scopes that were granted: an application may have many.
_MOST_SCOPES = 16384

#: What is shorter is not looked for.
_SHORTEST_SECRET = 4

_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")
_MESSAGE_END = re.compile(r"(?:Trace ID|Correlation ID|Timestamp): .*", re.DOTALL)  # Microsoft's, of no use to anybody


class HttpAnswer(Protocol):
    """An HTTP answer, as `net.http` has it."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By names in small letters."""

    def json(self) -> dict[str, Any]:
        """The JSON object in it; ValueError where there is none."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """An answer whose words to people were made `clean`: servers like to repeat what they did not understand."""

    answer: HttpAnswer
    clean: Callable[[str], str]

    @property
    def status(self) -> int:
        """See `HttpAnswer.status`."""
        return self.answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """See `HttpAnswer.headers`."""
        return self.answer.headers

    def json(self) -> dict[str, Any]:
        """See `HttpAnswer.json`."""
        found = self.answer.json()
        words = [name for name in ("error", "error_description") if name in found]
        return found | {name: self.clean(_text(found[name])) for name in words}


@dataclass(frozen=True, slots=True)
class Tokens:
    """A token answer (RFC 6749 section 5.1); `scope` is "" where the server does not say."""

    access_token: str = field(repr=False)
    lifetime: timedelta
    refresh_token: str = field(default="", repr=False)
    refresh_lifetime: timedelta | None = None
    scope: str = ""


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person is told, and what is asked for tokens with (RFC 8628 section 3.2)."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    lifetime: timedelta
    interval: timedelta


class Refused(Exception):
    """The server refuses: `reply` says it as the rules of `policy.classify` read it, its code is HTTP's; `error` is the
    code of RFC 6749 section 5.2, "" where it gave none."""

    def __init__(self, reply: Reply, error: str) -> None:
        super().__init__(reply.text)
        self.reply = reply
        self.error = error


class Unusable(Exception):
    """The answer says yes and is none: an HTML page, a text that is cut, something without a token."""


def read_tokens(answer: HttpAnswer) -> Tokens:
    """The tokens of an answer.

    Raises:
        Refused: the server says no.
        Unusable: it can't be read.
    """
    found = read_object(answer)
    token, kind = found.get("access_token"), _text(found.get("token_type", "bearer"))
    if not isinstance(token, str) or not _TOKEN.match(token):
        raise Unusable("the token endpoint gave no access token")
    if kind.lower() != "bearer":
        raise Unusable(f"the token endpoint gave a token of another type ({plain(kind)}) than Bearer")
    refresh, scope = found.get("refresh_token"), found.get("scope")
    return Tokens(
        access_token=token,
        lifetime=min(_seconds(found.get("expires_in")) or UNTOLD, LONGEST),
        refresh_token=refresh if isinstance(refresh, str) and _TOKEN.match(refresh) else "",
        # Google's, of applications in testing; others of their own.
        refresh_lifetime=_seconds(found.get("refresh_token_expires_in") or found.get("refresh_expires_in")),
        scope=plain(scope, _MOST_SCOPES) if isinstance(scope, str) else "",
    )


def read_device_code(answer: HttpAnswer) -> DeviceCode:
    """The device code of an answer.

    Raises:
        Refused: the server says no.
        Unusable: it can't be read.
    """
    found = read_object(answer)
    # Google called it so before RFC 8628, and some do still.
    where = found.get("verification_uri") or found.get("verification_url")
    texts = {"device_code": found.get("device_code"), "user_code": found.get("user_code"), "verification_uri": where}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.isprintable() or not value:
            raise Unusable(f"the device endpoint gave no {name}")
    complete = found.get("verification_uri_complete")
    return DeviceCode(
        str(texts["device_code"]),
        str(texts["user_code"]),
        str(where),
        complete if isinstance(complete, str) and complete.isprintable() else "",
        _seconds(found.get("expires_in")) or timedelta(minutes=10),
        max(_seconds(found.get("interval")) or DEVICE_INTERVAL, timedelta(seconds=1)),
    )


def read_object(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON object of an answer that says yes. Raises as `read_tokens`."""
    try:
        found = answer.json()
    except ValueError:
        found = {}
    if answer.status == 200:
        if not found:
            raise Unusable("the endpoint answered with something else than JSON")
        if not found.get("error"):  # some say no with a 200
            return found
    error = plain(_text(found.get("error")))
    said = _MESSAGE_END.sub("", _text(found.get("error_description")))
    words = [part for part in (error, plain(said)) if part]
    text = ": ".join(words) if words else f"the endpoint answered {answer.status} and nothing that says why"
    after = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,6}", after):
        text += f" (Retry-After: {after})"
    code = answer.status if 300 <= answer.status <= 599 else 400
    raise Refused(Reply(code, (text,)), error)


def _seconds(value: object) -> timedelta | None:
    """A number of seconds, which some write as text."""
    text = _text(value).partition(".")[0]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return timedelta(seconds=int(text)) or None


def _text(value: object) -> str:
    """Text or a number as text; "" for all else, which may be nested."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value)


def without(secrets: Iterable[str]) -> Callable[[str], str]:
    """Hides each of `secrets` in a text, also as forms and Basic spell it. It takes no longer for a token that a server
    chose to be looked for slowly."""
    long = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
    spelt = {form for secret in long for form in (secret, quote_plus(secret), b64encode(secret.encode()).decode())}
    ordered = sorted(spelt, key=len, reverse=True)

    def clean(text: str) -> str:
        for form in ordered:
            text = text.replace(form, HIDDEN)
        return text

    return clean


def plain(text: str, most: int = _MOST_CHARACTERS) -> str:
    """One line of a server's words that can be shown."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:most]
