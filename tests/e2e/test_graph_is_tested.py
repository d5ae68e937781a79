"""The installed command tests an account of Graph before it is saved: at Microsoft's own names, over TLS."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import run_installed
from tests.microsoft import GRAPH, LOGIN, MAILBOX, TENANT, Microsoft
from tests.name_server import NameServer
from tests.token_desk import jwt
from tests.web_server import answer

ZONE = {
    "x.test TXT": ['"v=spf1 include:spf.protection.outlook.com -all"'],
    "spf.protection.outlook.com TXT": ['"v=spf1 ip4:192.0.2.0/24 -all"'],
}


@pytest.fixture
async def microsoft() -> AsyncIterator[Microsoft]:
    """Microsoft 365, behind a proxy."""
    async with Microsoft() as found:
        issuer = f"https://{LOGIN}/11111111-aaaa-bbbb-cccc-222222222222"
        found.desk.documents[f"/{TENANT}/v2.0/.well-known/openid-configuration"] = answer({
            "issuer": f"{issuer}/v2.0", "token_endpoint": f"{issuer}/oauth2/v2.0/token", "msgraph_host": GRAPH,
        })  # fmt: skip
        found.desk.made = lambda number: jwt(aud=f"https://{GRAPH}", roles=["Mail.Send", "Mail.ReadWrite"], n=number)
        found.graph.tokens = {found.desk.made(number) for number in range(1, 5)}
        yield found


async def test_every_stage_and_a_real_message(tmp_path: Path, microsoft: Microsoft) -> None:
    fields = microsoft.account()
    ca, secret = tmp_path / "ca.pem", tmp_path / "secret"
    ca.write_text(fields.pop("ca_bundle"))
    secret.write_text(fields.pop("oauth_client_secret"))
    own = {name: value for name, value in fields.items() if name not in ("name", "preset")}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in own.items()]
    options += [f"--ca-bundle={ca}", f"--oauth-client-secret-file={secret}"]
    with NameServer(ZONE) as names:
        environment = os.environ | {"POSTROOM_DATA": str(tmp_path / "data"), "POSTROOM_DNS__SERVERS": names.address}
        command = ["accounts", "test", "--kind", "graph", *options, "--to", "b@y.test", "--send", "--transcript"]
        ended = await asyncio.to_thread(run_installed, environment, *command)
    told = re.findall(r"(?m)^(\S+) +(\S+) ", ended.stdout)
    assert [stage for mark, stage in told if mark == "ok"][:8] == [
        "metadata", "token", "claims", "proxy", "tls", "mailbox", "send-as", "message"
    ]  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert ended.stdout.endswith("passed\n")
    [item] = microsoft.graph.sent
    assert (item.mailbox, item.recipients) == (MAILBOX, ["b@y.test"])
    assert "    >>> POST sendMail" in ended.stdout
    assert not any(token in ended.stdout for token in (*microsoft.graph.tokens, "s3cret"))
