"""npm's oidc-provider as the authorization server, and a browser without a head that consents there."""

from __future__ import annotations

import http.cookiejar
import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.traffic import free_port
from tests.conftest import find_peer
from tests.interop.conftest import Certificates

#: What a Dovecot offers that asks such a server about tokens.
MECHANISMS = "plain login xoauth2 oauthbearer"

#: RFC 7662: Dovecot asks whether a token is good, and whose.
_INTROSPECTION = """
introspection_mode = post
introspection_url = http://dovecot:dovecot@127.0.0.1:{port}/token/introspection
username_attribute = username
active_attribute = active
active_value = true
"""
_PASSDB = """
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {file}
}}
auth_verbose = yes
"""


@dataclass(frozen=True)
class AuthorizationServer:
    """A running one; `key` signs for its clients that have one."""

    issuer: str
    key: str
    certificate: str

    def options(self, client: str, flow: str, *more: str) -> list[str]:
        """The options of an account that comes here for tokens."""
        return [
            "--authentication", "oauth2", "--username", "mailbox", "--oauth-provider", "custom", "--oauth-flow", flow,
            "--oauth-client-id", client, "--oauth-token-url", f"{self.issuer}/token", "--oauth-issuer", self.issuer,
            "--oauth-authorize-url", f"{self.issuer}/auth", "--oauth-device-url", f"{self.issuer}/device/auth",
            *more,
        ]  # fmt: skip

    def passdb(self, folder: Path) -> str:
        """What a Dovecot is configured with that takes this server's tokens; `folder` is for a file of its own."""
        file = folder / "introspection.conf"
        file.write_text(_INTROSPECTION.format(port=self.issuer.rpartition(":")[2]))
        return _PASSDB.format(file=file)


@contextmanager
def running_authorization_server(
    certificates: Certificates, public_key: str, lifetime: int = 3600
) -> Iterator[AuthorizationServer]:
    """One whose access tokens last for `lifetime` seconds; `public_key` (PEM) is that of its service account."""
    find_peer("oidc-provider")
    port = free_port()
    certificate, key = certificates.certificate.read_text(), certificates.key.read_text()
    order = {"port": port, "certificate": certificate, "key": public_key, "lifetime": lifetime}
    script = Path(__file__).with_name("authorization_server.mjs")
    process = subprocess.Popen(
        [str(find_peer("node")), str(script), json.dumps(order)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any("listening" in line for line in iter(process.stdout.readline, ""))
        yield AuthorizationServer(f"http://127.0.0.1:{port}", key, certificate)
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Browser:
    """Follows redirects with cookies, and sends the forms of pages as they are."""

    def __init__(self) -> None:
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)

    def open(self, url: str, form: dict[str, str] | None = None) -> tuple[str, str]:
        """The address and the text of the page that it comes to."""
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        with self._opener.open(url, data, timeout=30) as page:
            return page.url, page.read().decode()

    def enter_code(self, url: str) -> str:
        """Send the form of a device code; the last page's text."""
        _, page = self.open(url)
        action = re.search(r'<form[^>]*action="([^"]+)"', page)
        assert action is not None
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page))
        return self.open(action[1], fields | {"confirm": "yes"})[1]
