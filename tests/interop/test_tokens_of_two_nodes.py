"""Two nodes on one PostgreSQL, and one account: one of them refreshes its tokens, whoever waits.

The server takes the second use of a refresh token for a theft.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import parse_qsl, urlsplit

import pytest

from postroom.model.account import Account, AccountKind, Authentication, OAuth, OAuthProvider
from postroom.model.clock import Timer
from postroom.model.token import Grant
from postroom.net.stream import ConnectFailed
from postroom.net.system_clock import SystemClock
from postroom.oauth import service
from postroom.oauth.answers import HttpAnswer
from postroom.oauth.consent import ConsentService
from postroom.oauth.requests import Form
from postroom.oauth.service import TokenService
from postroom.store.database import Database
from postroom.store.postgresql import ReadingConnection, WritingConnection
from postroom.store.readers import Readers
from postroom.store.writer import Writer
from tests.contract.store.examples import OpenKeyring
from tests.interop.authorization_server import AuthorizationServer, Browser, running_authorization_server
from tests.interop.conftest import Certificates
from tests.postgresql import Cluster
from tests.token_desk import TokenDesk
from tests.web_server import WebServer, answer

CONNECTIONS = 25
ROUNDS = 4


class ManyNodes(WritingConnection):
    """Of one node among others: no lock keeps them off, no mark of transactions makes them wait in line. Nothing but
    the statements for tokens stands between them."""

    def _lock(self) -> None:
        pass

    def begin(self, token: int = 0) -> None:
        """See `driver.WritingConnection.begin`."""
        self._begin(b"BEGIN")


class Clock(SystemClock):
    """The machine's, `ahead` of it; waits are a hundred times shorter, and counted."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self.waits = 0

    def now(self) -> datetime:
        """See `Clock.now`."""
        return super().now() + self.ahead

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        self.waits += 1
        return super().call_later(seconds / 100, callback)


class Node:
    """A process of its own, as far as the database can tell; `asked` are the forms that it has sent."""

    def __init__(self, url: str, clock: Clock) -> None:
        raw = ManyNodes(url, "SELECT 1", lambda: None)
        raw.open()
        writer = Writer(raw, {})
        writer.start()
        readers = Readers(partial(ReadingConnection, url))
        self.store = Database(writer, readers, OpenKeyring(), clock.now, None, [])
        self.asked: list[Form] = []
        self.tokens = TokenService(self.store.tokens, clock, self._post)

    async def _post(self, account: Account, form: Form) -> HttpAnswer:
        self.asked.append(form)
        return await service._post(account, form)


@pytest.fixture
def clock() -> Clock:
    """Of both nodes."""
    return Clock()


@pytest.fixture
async def nodes(cluster: Cluster, clock: Clock) -> AsyncIterator[list[Node]]:
    """Two, on one database with accounts of the numbers 1 to 120."""
    url = await asyncio.to_thread(cluster.new_store)
    found = [Node(url, clock) for _ in range(2)]
    names = [f"account{number}" for number in range(1, 121)]
    accounts = [Account(id=0, name=name, kind=AccountKind.SANDBOX) for name in names]
    await found[0].store.save_accounts(accounts, names)
    yield found
    for node in found:
        await node.tokens.close()
        await node.store.close()


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[AuthorizationServer]:
    """npm's oidc-provider, which rotates refresh tokens."""
    with running_authorization_server(certificates, "") as found:
        yield found


def account(url: str, refresh_token: str = "") -> Account:
    """One that a person consents for."""
    oauth = OAuth(
        provider=OAuthProvider.CUSTOM, client_id="public", token_url=f"{url}/token", authorize_url=f"{url}/auth",
        scopes=("openid", "offline_access", "mail.send"), issuer=url, refresh_token=refresh_token,
    )  # fmt: skip
    way = {"host": "relay.test", "authentication": Authentication.OAUTH2, "username": "mailbox"}
    return Account(id=1, name="person", kind=AccountKind.SMTP, oauth=oauth, **way)  # type: ignore[arg-type]


async def consent(node: Node, account: Account) -> None:
    """A person consents in a browser, at this node."""

    async def given(account: Account) -> None:
        pass

    consents = ConsentService(node.tokens, node.tokens.clock, lambda: "", given)
    async with WebServer(lambda asked: answer(b"thanks")) as redirected:
        link = await consents.begin_on_loopback(account, redirected.port)
        await asyncio.to_thread(Browser().open, link.url)
    await consents.complete(account, dict(parse_qsl(urlsplit(redirected.asked[-1].path).query)))


@pytest.mark.peer("oidc-provider")
async def test_many_connections_of_two_nodes_cause_one_refresh_each_time(
    nodes: list[Node], server: AuthorizationServer
) -> None:
    person = account(server.issuer)
    await consent(nodes[0], person)
    token = await nodes[0].tokens.token(person)
    seen = [token]
    for _ in range(ROUNDS):
        before = sum(len(node.asked) for node in nodes)
        wanted = [node.tokens.token(person, token) for _ in range(CONNECTIONS) for node in nodes]
        (token,) = set(await asyncio.gather(*wanted))
        assert sum(len(node.asked) for node in nodes) == before + 1
        seen.append(token)
    assert len(set(seen)) == ROUNDS + 1
    used = [form.fields["refresh_token"] for node in nodes for form in node.asked if "refresh_token" in form.fields]
    assert len(set(used)) == len(used) == ROUNDS, "no refresh token was used twice"


async def test_of_two_nodes_that_have_nothing_yet_one_asks(nodes: list[Node]) -> None:
    async with TokenDesk() as desk:
        person = account(desk.server.url, "r1")
        wanted = [node.tokens.token(person) for _ in range(CONNECTIONS) for node in nodes]
        assert set(await asyncio.gather(*wanted)) == {"a1"}
        assert [asked.form["refresh_token"] for asked in desk.asked] == ["r1"]


async def test_a_right_that_another_node_takes_meanwhile_is_refused_and_breaks_nothing(nodes: list[Node]) -> None:
    """Each round both nodes insert, and then change, one row at the same time."""
    now = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    for number in range(1, 21):
        grant = Grant(account_id=number, binding="b")
        rights = [
            node.store.tokens.claim(grant, bytes([n]) * 16, now, now + timedelta(minutes=1))
            for n, node in enumerate(nodes)
        ]
        assert sorted(await asyncio.gather(*rights)) == [False, True]
        saved = await asyncio.gather(*[node.store.tokens.save(grant) for node in nodes])
        assert sorted(one is not None for one in saved) == [False, True]
        consents = [node.store.tokens.save(grant, whatever_version=True) for node in nodes]
        versions = [one.version for one in await asyncio.gather(*consents) if one is not None]
        assert sorted(versions) == [2, 3]
        anew = Grant(account_id=number + 100, binding="b")
        consents = [node.store.tokens.save(anew, whatever_version=True) for node in nodes]
        versions = [one.version for one in await asyncio.gather(*consents) if one is not None]
        assert sorted(versions) == [1, 2]


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("keeps_the_former", [True, False])
async def test_a_node_that_dies_between_the_answer_and_the_commit_leaves_the_grant_to_the_other(
    nodes: list[Node], clock: Clock, monkeypatch: pytest.MonkeyPatch, keeps_the_former: bool
) -> None:
    def dies(point: str) -> None:
        raise Died

    async with TokenDesk() as desk:
        person = account(desk.server.url, "r1")
        with monkeypatch.context() as within:
            within.setattr(service, "reach", dies)
            with pytest.raises(Died):
                await nodes[0].tokens.token(person)
        waiting = asyncio.ensure_future(nodes[1].tokens.token(person))
        while clock.waits < 5:
            await asyncio.sleep(0)
        assert not waiting.done() and not nodes[1].asked, "it may be under way yet"
        if keeps_the_former:
            desk.refresh_token = "r1"
        clock.ahead += person.connect_timeout + person.command_timeout + timedelta(minutes=1)
        if keeps_the_former:
            assert await waiting == "a2"
        else:
            with pytest.raises(ConnectFailed, match="invalid_grant"):
                await waiting
            desk.refresh_token = "r1"  # as a person who consents would have it
        assert [form.fields["refresh_token"] for form in nodes[1].asked] == ["r1"]
        stored = await nodes[1].store.tokens.grant(1)
        assert stored is not None and stored.refresh_token == ("r3" if keeps_the_former else "r1")
        assert stored.refused == ("" if keeps_the_former else "invalid_grant: grant request is invalid")
        assert await nodes[1].tokens.token(person) == "a2"
