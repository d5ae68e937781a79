"""A consent is asked for once, answered once, for the account as it was, and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from postroom.config import Settings
from postroom.errors import InvalidInput, NotRunning, Refused, StateConflict
from postroom.gateway import Gateway
from postroom.model.account import Account
from postroom.net.system_clock import SystemClock
from postroom.oauth.consent import Waiting
from postroom.oauth.requests import challenge_of
from tests.token_desk import TokenDesk
from tests.web_server import HANG_UP, answer

LOOPBACK = "http://127.0.0.1:4711/"
DEVICE = {"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://as.test/d", "interval": 7}


class Later(SystemClock):
    """The machine's clock, and so much later."""

    ahead = timedelta(0)

    def now(self) -> Any:
        """See `Clock.now`."""
        return super().now() + self.ahead


@pytest.fixture
async def desk() -> AsyncIterator[TokenDesk]:
    """Where tokens come from."""
    async with TokenDesk() as desk:
        yield desk


@pytest.fixture
def clock() -> Later:
    """Its time is the test's."""
    return Later()


@pytest.fixture
async def gateway(tmp_path: Path, desk: TokenDesk, clock: Later) -> AsyncIterator[Gateway]:
    """One with two accounts that nobody has consented to; it delivers nothing."""
    settings = Settings.load(tmp_path, smtp={"listeners": []}, public_url="https://mail.example.test/room")
    gateway = await Gateway.open(settings, clock=clock)
    for name in ("one", "two"):
        await gateway.accounts.add({"name": name, "host": "relay.test", **desk.account()})
    yield gateway
    await gateway.stop()


def one(gateway: Gateway) -> Account:
    """The account."""
    return gateway.accounts.get("one")


async def test_a_link_is_answered_once_with_what_it_was_made_of(gateway: Gateway, desk: TokenDesk) -> None:
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    query = {name: value for name, [value] in parse_qs(urlsplit(link.url).query).items()}
    assert query["redirect_uri"] == LOOPBACK and query["state"] == link.state
    given = await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c0de"})
    assert given.state == "given" and given.granted is not None
    [asked] = desk.asked
    assert (asked.form["code"], asked.form["redirect_uri"]) == ("c0de", LOOPBACK)
    assert challenge_of(asked.form["code_verifier"]) == query["code_challenge"]
    with pytest.raises(InvalidInput, match="was answered"):
        await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c0de"})
    assert len(desk.asked) == 1
    assert await gateway.tokens.token(one(gateway)) == "a1" and len(desk.asked) == 1


@pytest.mark.parametrize("answered", [{}, {"state": "guessed", "code": "c"}, {"code": "c"}])
async def test_what_answers_nothing(gateway: Gateway, desk: TokenDesk, answered: dict[str, str]) -> None:
    await gateway.consents.begin(one(gateway), LOOPBACK)
    with pytest.raises(InvalidInput, match="state"):
        await gateway.consents.complete(one(gateway), answered)
    assert not desk.asked


async def test_an_answer_is_for_its_account_alone(gateway: Gateway, desk: TokenDesk) -> None:
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    with pytest.raises(InvalidInput, match="for this account"):
        await gateway.consents.complete(gateway.accounts.get("two"), {"state": link.state, "code": "c"})
    assert not desk.asked


async def test_an_answer_comes_in_time(gateway: Gateway, clock: Later) -> None:
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    clock.ahead = timedelta(minutes=15)
    with pytest.raises(InvalidInput, match="expired"):
        await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c"})


async def test_the_account_is_still_what_was_consented_to(gateway: Gateway, desk: TokenDesk) -> None:
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    await gateway.accounts.edit("one", {"username": "bob@x.test"})
    with pytest.raises(StateConflict, match="was changed"):
        await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c"})
    assert not desk.asked


async def test_a_consent_goes_with_the_mailbox_that_gave_it(gateway: Gateway) -> None:
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c"})
    await gateway.accounts.edit("one", {"oauth_client_secret": "new", "oauth_secret_expires": "2031-05-01"})
    stands = await gateway.consents.of(one(gateway))
    assert stands is not None and stands.state == "given"
    assert stands.secret_expires is not None and stands.secret_expires.isoformat() == "2031-05-02T00:00:00+00:00"
    await gateway.accounts.edit("one", {"username": "bob@x.test"})
    stands = await gateway.consents.of(one(gateway))
    assert stands is not None and stands.state == "missing"


@pytest.mark.parametrize(("named", "fine"), [("https://as.test", True), ("https://elsewhere.test", False), ("", False)])
async def test_the_server_that_was_asked_must_answer(gateway: Gateway, desk: TokenDesk, named: str, fine: bool) -> None:
    """RFC 9207 section 2.4."""
    await gateway.accounts.edit("one", {"oauth_issuer": "https://as.test"})
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    given = {"state": link.state, "code": "c"} | ({"iss": named} if named else {})
    if fine:
        assert (await gateway.consents.complete(one(gateway), given)).state == "given"
    else:
        with pytest.raises(Refused, match="https://as.test was asked"):
            await gateway.consents.complete(one(gateway), given)
        assert not desk.asked


async def test_a_person_says_no(gateway: Gateway, desk: TokenDesk) -> None:
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    said = {"state": link.state, "error": "access_denied", "error_description": "not\r\ntoday"}
    with pytest.raises(Refused, match=r"said no: access_denied: not today \(authorize the account again"):
        await gateway.consents.complete(one(gateway), said)
    assert not desk.asked


async def test_without_a_refresh_token_nothing_is_kept(gateway: Gateway, desk: TokenDesk) -> None:
    desk.rotates = False
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    with pytest.raises(Refused, match="no refresh token.*offline_access"):
        await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c"})
    assert await gateway.store.tokens.grant(one(gateway).id) is None


async def test_the_token_endpoint_is_down(gateway: Gateway, desk: TokenDesk) -> None:
    desk.misbehaviours = [lambda asked: HANG_UP]
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    with pytest.raises(NotRunning, match="no answer that can be used"):
        await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c"})


@pytest.mark.parametrize(
    ("redirect", "fine"),
    [
        ("http://127.0.0.1:1/", True),
        ("http://[::1]:1/", True),
        ("http://localhost:1", True),
        ("https://mail.example.test/room/authorized", True),
        ("https://mail.example.test/roomy", False),
        ("https://elsewhere.test/", False),
        ("http://127.0.0.1.elsewhere.test/", False),
        ("http://127.0.0.1@elsewhere.test/", False),
        ("https://127.0.0.1/", False),
        ("http://[::1", False),
        ("", False),
    ],
)
async def test_where_the_browser_may_be_sent(gateway: Gateway, redirect: str, fine: bool) -> None:
    if fine:
        assert (await gateway.consents.begin(one(gateway), redirect)).url
        return
    with pytest.raises(InvalidInput, match="redirect_uri"):
        await gateway.consents.begin(one(gateway), redirect)


async def test_a_code_is_typed_on_another_device(gateway: Gateway, desk: TokenDesk) -> None:
    desk.misbehaviours = [
        lambda asked: answer(DEVICE),
        lambda asked: answer({"error": "authorization_pending"}, 400),
        lambda asked: answer({"error": "slow_down"}, 400),
        lambda asked: HANG_UP,
    ]
    begun = await gateway.consents.begin_device(one(gateway))
    assert (begun.user_code, begun.interval) == ("ABCD-EFGH", timedelta(seconds=7))
    found = [await gateway.consents.poll(one(gateway), begun.state) for _ in range(3)]
    assert found == [Waiting(), Waiting(slower=True), Waiting(slower=True)]
    given = await gateway.consents.poll(one(gateway), begun.state)
    assert not isinstance(given, Waiting) and given.state == "given"
    assert desk.asked[-1].form["device_code"] == "d" and desk.asked[0].path == "/device"
    with pytest.raises(InvalidInput, match="was answered"):
        await gateway.consents.poll(one(gateway), begun.state)


@pytest.mark.parametrize("error", ["expired_token", "access_denied"])
async def test_a_device_code_that_nobody_will_consent_to(gateway: Gateway, desk: TokenDesk, error: str) -> None:
    desk.misbehaviours = [lambda asked: answer(DEVICE), lambda asked: answer({"error": error}, 400)]
    begun = await gateway.consents.begin_device(one(gateway))
    with pytest.raises(Refused, match=error):
        await gateway.consents.poll(one(gateway), begun.state)
    with pytest.raises(InvalidInput):
        await gateway.consents.poll(one(gateway), begun.state)


async def test_accounts_that_nobody_needs_to_consent_to(gateway: Gateway) -> None:
    await gateway.accounts.edit("one", {"oauth_flow": "client-credentials", "oauth_client_secret": "s"})
    with pytest.raises(StateConflict, match="needs nobody's consent"):
        await gateway.consents.begin(one(gateway), LOOPBACK)
    await gateway.accounts.edit("one", {"authentication": "none"})
    with pytest.raises(StateConflict, match="does not log in by OAuth 2"):
        await gateway.consents.begin_device(one(gateway))
    assert await gateway.consents.of(one(gateway)) is None


async def test_what_was_given_goes_with_the_account_or_by_hand(gateway: Gateway) -> None:
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c"})
    await gateway.consents.forget(one(gateway))
    stands = await gateway.consents.of(one(gateway))
    assert stands is not None and stands.state == "missing"
    link = await gateway.consents.begin(one(gateway), LOOPBACK)
    await gateway.consents.complete(one(gateway), {"state": link.state, "code": "c"})
    await gateway.accounts.remove("one")
    assert await gateway.store.tokens.grants() == []


async def test_a_secret_in_use_expires(gateway: Gateway) -> None:
    from postroom.diagnosis.expiries import expiries

    await gateway.accounts.edit("one", {"oauth_client_secret": "s", "oauth_secret_expires": "2027-01-31"})
    [found] = await expiries(gateway.settings, gateway.accounts.snapshot())
    assert found.what == "the OAuth client secret of account one" and found.at.isoformat().startswith("2027-02-01")
    assert "--oauth-secret-expires" in found.mend
