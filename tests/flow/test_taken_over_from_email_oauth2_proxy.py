"""Whoever sent by email-oauth2-proxy goes on as before: user name and password stay, and nobody consents again."""

from __future__ import annotations

import smtplib
from asyncio import to_thread
from pathlib import Path

import trustme

from postroom.accounts.emailproxy_file import ProxyFile
from postroom.accounts.from_email_oauth2_proxy import take_over, wanted
from postroom.config import ListenerSettings, Settings, SmtpSettings
from postroom.gateway import Gateway
from postroom.submission.listener import Listener
from tests.email_oauth2_proxy import after_a_consent
from tests.smarthost import Behaviour, Smarthost
from tests.tls_relay import pem, served
from tests.token_desk import TokenDesk, xoauth2

MAIL = b"From: ann@x.test\r\nTo: bob@y.test\r\nSubject: hi\r\n\r\nhello\r\n"


async def test_a_mail_program_goes_on_as_before(tmp_path: Path) -> None:
    authority = trustme.CA()
    replies = {xoauth2("a2", "ann@x.test"): "235 2.7.0 welcome", "AUTH": "535 5.7.8 no"}
    behaviour = Behaviour(offers=("AUTH XOAUTH2", "ENHANCEDSTATUSCODES"), replies=replies)
    relay = Smarthost(behaviour, context=served(authority.issue_cert("localhost")))
    await relay.start()
    async with TokenDesk() as desk:
        configuration = tmp_path / "emailproxy.config"
        configuration.write_text(f"""
[SMTP-1025]
server_address = localhost
server_port = {relay.port}
[ann@x.test]
permission_url = {desk.server.url}/authorize
token_url = {desk.server.url}/token
oauth2_scope = mail
redirect_uri = http://localhost
client_id = client
client_secret = s3cret%3D
[emailproxy]
encrypt_client_secret_on_first_use = True
""")
        text = await to_thread(after_a_consent, configuration, "ann@x.test", "what she typed")
        assert "client_secret_encrypted" in text
        assert "s3cret" not in text
        file = ProxyFile(text)
        found = take_over(file, wanted(file, ()), {"ann@x.test": "what she typed"}, str)
        gateway = await Gateway.open(Settings.load(tmp_path, hostname="gateway.example.test"))
        await gateway.start()
        await gateway.add_together([one | {"ca_bundle": pem(authority)} for one in found.accounts], found.applications)
        listener = Listener(gateway, ListenerSettings(port=0), SmtpSettings(), hostname="gateway.example.test")
        await listener.start()
        try:
            await to_thread(_send, listener.address[1])
            await gateway.wait_drained()
        finally:
            await listener.stop()
            await gateway.stop()
            await relay.stop()
    assert [taken.recipients for taken in relay.taken] == [["bob@y.test"]]
    assert [asked.form["grant_type"] for asked in desk.asked] == ["authorization_code", "refresh_token"]
    assert desk.asked[1].form["refresh_token"] == "r2"


def _send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as program:
        program.login("ann@x.test", "what she typed")
        program.sendmail("ann@x.test", ["bob@y.test"], MAIL)
