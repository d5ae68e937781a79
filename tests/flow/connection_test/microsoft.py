"""Microsoft's authorization server and Graph on the test's own loop, where accounts look for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from postroom.model.account import AccountKind, Authentication, Cloud, OAuth, OAuthFlow, Security
from postroom.net import graph
from postroom.oauth import endpoints
from tests.flow.connection_test.trying import Tried, to, tried
from tests.graph_peer import GraphPeer
from tests.graph_senders import MAILBOX
from tests.graph_senders import account as graph_account
from tests.token_desk import TokenDesk, jwt
from tests.web_server import answer

TENANT = "11111111-aaaa-bbbb-cccc-222222222222"
WELL_KNOWN = "/x.test/v2.0/.well-known/openid-configuration"

#: github.com/Azure/azure-cli/issues/22145
NO_SUCH_TENANT = {
    "error": "invalid_tenant",
    "error_description": "AADSTS90002: Tenant 'x.test' not found. Check to make sure you have the correct tenant ID "
    "and are signing into the correct cloud.\r\nTrace ID: c1806f4a\r\nCorrelation ID: 9d8aaacf\r\nTimestamp: 2026",
}


class Microsoft:
    """`desk` gives tokens, `peer` is Graph."""

    def __init__(self, desk: TokenDesk, peer: GraphPeer) -> None:
        self.desk = desk
        self.peer = peer
        self.publish()

    def publish(self, where: str = "", graph_host: str = "graph.microsoft.com") -> None:
        """What is published of the tenant x.test under `where`
        (learn.microsoft.com/entra/identity-platform/v2-protocols-oidc)."""
        url = self.desk.server.url
        self.desk.documents[where + WELL_KNOWN] = answer({
            "issuer": f"{url}{where}/{TENANT}/v2.0", "token_endpoint": f"{url}{where}/{TENANT}/oauth2/v2.0/token",
            "tenant_region_scope": "EU", "cloud_instance_name": "microsoftonline.com", "msgraph_host": graph_host,
        })  # fmt: skip

    def gives(self, **claims: Any) -> None:
        """From now on tokens say this of themselves; Graph takes them."""
        self.desk.made = lambda number: jwt(n=number, tid=TENANT, appid="app-1", exp=1800000000, **claims)
        self.peer.tokens |= {self.desk.made(number) for number in range(1, 9)}


@asynccontextmanager
async def microsoft(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Microsoft]:
    """All of it, in the global cloud; the others are at /us and /cn of the same desk."""
    async with TokenDesk() as desk, GraphPeer() as peer:
        peer.tokens = {f"a{number}" for number in range(1, 9)}
        url = desk.server.url
        for cloud, path in ((Cloud.US_GOVERNMENT, "/us"), (Cloud.US_DOD, "/us"), (Cloud.CHINA, "/cn")):
            monkeypatch.setitem(endpoints.LOGIN, cloud, url + path)
            desk.documents[path + WELL_KNOWN] = answer(NO_SUCH_TENANT, 400)
        monkeypatch.setitem(endpoints.LOGIN, Cloud.GLOBAL, url)
        monkeypatch.setitem(graph.ROOTS, Cloud.GLOBAL, peer.url)
        yield Microsoft(desk, peer)


async def by_graph(
    sender: str = MAILBOX,
    *,
    send: bool = False,
    order: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
    **fields: Any,
) -> Tried:
    """A test of an account that sends by Graph; `fields` are of its group, `changes` others."""
    made = graph_account(**fields)
    mailbox = made.graph.draft_mailbox if made.graph.draft_only else made.graph.mailbox
    given: dict[str, Any] = {"kind": AccountKind.GRAPH, "oauth": made.oauth, "graph": made.graph} | (changes or {})
    return await tried(to(1), sender=sender, send=send, order={"mailbox": mailbox} | (order or {}), **given)


def by_smtp(ca_bundle: str, **oauth: Any) -> dict[str, Any]:
    """The fields of an account that logs in at relay.test by a token of Microsoft."""
    own = {"flow": OAuthFlow.CLIENT_CREDENTIALS, "tenant": "x.test", "client_id": "app-1", "client_secret": "hunter2"}
    return {
        "authentication": Authentication.OAUTH2, "username": "ann@x.test", "oauth": OAuth(**own | oauth),
        "security": Security.TLS, "ca_bundle": ca_bundle,
    }  # fmt: skip
