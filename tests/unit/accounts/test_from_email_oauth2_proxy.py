"""What is made of configurations of email-oauth2-proxy; its own code seals the tokens."""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.accounts.definition import parse_account
from postroom.accounts.emailproxy_file import ProxyFile
from postroom.accounts.filling import with_preset
from postroom.accounts.from_email_oauth2_proxy import Listener, Takeover, take_over, wanted
from postroom.applications.fields import parse_application
from postroom.errors import InvalidInput
from tests.email_oauth2_proxy import sealed
from tests.unit.accounts.examples import certificate_and_key, service_account

MICROSOFT = """
[SMTP-1587]
server_address = smtp.office365.com
server_port = 587
server_starttls = True
local_address = 127.0.0.1

[IMAP-1993]
server_address = outlook.office365.com
server_port = 993

[ann@contoso.com]
permission_url = https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/authorize
token_url = https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token
oauth2_scope = https://outlook.office365.com/IMAP.AccessAsUser.All
    https://outlook.office365.com/SMTP.Send offline_access
redirect_uri = http://localhost
client_id = 1111
client_secret = 5up%3Dr
"""


def made(
    text: str,
    passwords: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> Takeover:
    """What the configuration becomes; every account and application is one that can be saved."""
    file = ProxyFile(text)
    found = take_over(file, wanted(file, only), passwords or {}, lambda path: (files or {})[path])
    for account in found.accounts:
        parse_account(with_preset(account))
    for application in found.applications:
        parse_application({name: value for name, value in application.items() if name != "password"})
    return found


def notes(found: Takeover) -> dict[str, str]:
    return {note.where: note.what for note in found.notes}


def test_a_mailbox_becomes_an_account_and_an_application_of_its_name() -> None:
    found = made(MICROSOFT)
    assert found.accounts == [
        {
            "name": "ann-contoso.com", "description": "taken over from email-oauth2-proxy",
            "host": "smtp.office365.com", "port": 587, "security": "starttls", "preset": "microsoft-365",
            "authentication": "oauth2",
            "username": "ann@contoso.com", "sender_patterns": "ann@contoso.com", "oauth_provider": "microsoft",
            "oauth_flow": "authorization-code", "oauth_tenant": "contoso.onmicrosoft.com", "oauth_client_id": "1111",
            "oauth_client_secret": "5up%3Dr",
            "oauth_scopes": ["https://outlook.office365.com/SMTP.Send", "offline_access"],
        }
    ]  # fmt: skip
    (application,) = found.applications
    assert (application["name"], application["senders"]) == ("ann@contoso.com", ["ann@contoso.com"])
    assert (application["accounts"], "password" in application) == (["ann-contoso.com"], False)
    assert found.to_authorize == ["ann-contoso.com"]
    assert found.listeners == [Listener("SMTP-1587", "127.0.0.1", 1587, "none")]
    assert notes(found).keys() == {"[IMAP-1993]", "[ann@contoso.com] oauth2_scope"}


def with_tokens(password: str, **options: Any) -> str:
    return MICROSOFT + sealed("ann@contoso.com", password, **options)


@pytest.mark.parametrize("is_old", [False, True])
def test_with_its_password_the_consent_goes_along(is_old: bool) -> None:
    text = with_tokens("pass wörd%", iterations=None, is_old=is_old, refresh_token="0.AXr%3D", access_token="eyJ0")
    assert ("token_iterations" in text) is not is_old
    found = made(text, {"ann@contoso.com": "pass wörd%"})
    assert found.accounts[0]["oauth_refresh_token"] == "0.AXr%3D"
    assert (found.applications[0]["password"], found.to_authorize) == ("pass wörd%", [])
    assert "eyJ0" not in str(found.accounts)
    without = made(text)
    assert without.to_authorize == ["ann-contoso.com"]
    assert "consent again" in notes(without)["[ann@contoso.com] refresh_token"]


def test_a_wrong_password_names_the_mailbox_and_says_nothing_secret() -> None:
    text = with_tokens("right-one", refresh_token="0.AXr")
    with pytest.raises(
        InvalidInput, match=r"\[ann@contoso.com\] refresh_token: the password of ann@contoso.com"
    ) as told:
        made(text, {"ann@contoso.com": "wrong-one"})
    assert "wrong-one" not in str(told.value)
    with pytest.raises(InvalidInput, match="bob@contoso.com: is no mailbox of the file"):
        made(text, {"bob@contoso.com": "whatever"})


@pytest.mark.parametrize(
    "broken", ["token_salt = ***", "token_salt =", "token_iterations = 99999999999", f"token_iterations = {'9' * 5000}"]
)
def test_what_nobody_can_open_is_told(broken: str) -> None:
    text = with_tokens("right-one", refresh_token="0.AXr")
    name = broken.partition(" ")[0]
    text = "\n".join(broken if line.startswith(name) else line for line in text.splitlines())
    with pytest.raises(InvalidInput, match=name):
        made(text, {"ann@contoso.com": "right-one"})


def test_todays_number_of_iterations_is_tried_where_the_file_has_none() -> None:
    text = with_tokens("right-one", iterations=None, refresh_token="0.AXr")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("token_iterations"))
    assert made(text, {"ann@contoso.com": "right-one"}).accounts[0]["oauth_refresh_token"] == "0.AXr"


def test_a_sealed_client_secret_needs_the_password() -> None:
    text = MICROSOFT.replace("client_secret = 5up%3Dr\n", "")
    text += sealed("ann@contoso.com", "right-one", client_secret_encrypted="s3")
    assert made(text, {"ann@contoso.com": "right-one"}).accounts[0]["oauth_client_secret"] == "s3"
    with pytest.raises(InvalidInput, match="client_secret_encrypted: is sealed under the password"):
        made(text)


ROBOT = """
[SMTP-1025]
server_address = smtp.office365.com
server_port = 587
starttls = True
local_address = 0.0.0.0

[robot@contoso.com]
token_url = https://login.microsoftonline.com/0000-1111/oauth2/v2.0/token
oauth2_scope = https://outlook.office365.com/.default
oauth2_flow = client_credentials
redirect_uri = http://localhost
client_id = 2222
"""


def test_an_application_by_itself_needs_no_consent() -> None:
    found = made(ROBOT + "client_secret = s3cret\n")
    (account,) = found.accounts
    assert (account["oauth_flow"], account["oauth_tenant"]) == ("client-credentials", "0000-1111")
    assert "oauth_scopes" not in account
    assert (found.to_authorize, found.notes) == ([], [])
    assert (account["port"], account["security"]) == (587, "starttls")
    with pytest.raises(InvalidInput, match=r"\[robot@contoso.com\] client_secret: there is none"):
        made(ROBOT)


def test_a_certificate_is_read_from_its_files() -> None:
    certificate = certificate_and_key()
    paths = "jwt_certificate_path = c.pem\njwt_key_path = k.pem\n"
    files = dict(zip(("c.pem", "k.pem"), certificate, strict=True))
    (account,) = made(ROBOT + paths, files=files).accounts
    assert (account["oauth_certificate"], account["oauth_certificate_key"]) == certificate
    found = made(ROBOT + paths + "client_secret = s3\n", files=files)
    assert found.accounts[0]["oauth_client_secret"] == "s3"
    assert "the secret goes before it" in notes(found)["[robot@contoso.com] jwt_certificate_path"]


def test_the_login_may_be_the_secret() -> None:
    text = ROBOT + "[emailproxy]\nuse_login_password_as_client_credentials_secret = True\n"
    found = made(text, {"robot@contoso.com": "s3cret-of-entra"})
    assert found.accounts[0]["oauth_client_secret"] == "s3cret-of-entra"
    assert "--new-password" in notes(found)["[robot@contoso.com]"]
    with pytest.raises(InvalidInput, match="give it in --password-file"):
        made(text)


CATCH_ALL = ROBOT.replace("[robot@contoso.com]", "[@contoso.com]") + "client_secret = s3\n"


def test_a_catch_all_serves_the_mailboxes_that_are_named() -> None:
    text = CATCH_ALL + "[emailproxy]\nallow_catch_all_accounts = True\n[ann@contoso.com]\nclient_id = 3333\n"
    found = made(text, only=["robot@contoso.com", "ann@contoso.com"])
    assert [(one["username"], one["oauth_client_id"]) for one in found.accounts] == [
        ("robot@contoso.com", "2222"),
        ("ann@contoso.com", "3333"),
    ]
    assert "--mailbox" in notes(found)["[@contoso.com]"]
    with pytest.raises(InvalidInput, match=r"--mailbox: no section stands for x@fabrikam.com"):
        made(text, only=["x@fabrikam.com"])
    with pytest.raises(InvalidInput, match="no section stands for robot@contoso.com"):
        made(CATCH_ALL, only=["robot@contoso.com"])  # the switch is off
    with pytest.raises(InvalidInput, match="name mailboxes that it serves with --mailbox"):
        made(CATCH_ALL)


def test_an_option_without_a_value_takes_that_of_the_catch_all_away() -> None:
    text = CATCH_ALL + "[emailproxy]\nallow_catch_all_accounts = True\n[ann@contoso.com]\nclient_secret =\n"
    with pytest.raises(InvalidInput, match=r"\[ann@contoso.com\] client_secret: there is none"):
        made(text, only=["ann@contoso.com"])


def test_a_port_of_many_digits_is_none() -> None:
    with pytest.raises(InvalidInput, match="has no server_address or server_port"):
        made(MICROSOFT.replace("server_port = 587", f"server_port = {'9' * 5000}"))


@pytest.mark.parametrize(("mailbox", "name"), [("-ann@x.test", "ann-x.test"), (".@-", "mailbox")])
def test_names_that_the_command_would_take_for_options(mailbox: str, name: str) -> None:
    file = ProxyFile(MICROSOFT.replace("[ann@contoso.com]", f"[{mailbox}]"))
    assert [one["name"] for one in take_over(file, wanted(file, ()), {}, str).accounts] == [name]


OTHERS = """
[SMTP-2465]
server_address = smtp.gmail.com
server_port = 465
[SMTP-2466]
server_address = smtp.gmail.com
server_port = 465
local_certificate_path = /etc/ssl/a.pem
local_key_path = /etc/ssl/a.key
local_starttls = True
[SMTP-3465]
server_address = smtp.mail.yahoo.com
server_port = 465
[ann@example.org]
permission_url = https://accounts.google.com/o/oauth2/auth
token_url = https://oauth2.googleapis.com/token
oauth2_scope = https://mail.google.com/
redirect_uri = http://localhost:8080
client_id = 9.apps.googleusercontent.com
client_secret = G
[bob@yahoo.co.uk]
permission_url = https://api.login.yahoo.com/oauth2/request_auth
token_url = https://api.login.yahoo.com/oauth2/get_token
oauth2_scope = mail-w
redirect_uri = http://localhost
client_id = dj0y
client_secret = Y
"""


def test_each_mailbox_goes_by_the_relay_of_its_provider() -> None:
    found = made(OTHERS)
    assert [(one["name"], one["host"], one["oauth_provider"]) for one in found.accounts] == [
        ("ann-example.org", "smtp.gmail.com", "google"),
        ("bob-yahoo.co.uk", "smtp.mail.yahoo.com", "custom"),
    ]
    assert found.accounts[0]["preset"] == "google-workspace"
    assert found.accounts[1]["oauth_authorize_url"] == "https://api.login.yahoo.com/oauth2/request_auth"
    assert [(one.port, one.tls) for one in found.listeners] == [(2465, "none"), (2466, "starttls"), (3465, "none")]
    assert "http://127.0.0.1/" in notes(found)["[ann@example.org] redirect_uri"]


def test_two_relays_of_one_provider_are_two_accounts_of_one_application() -> None:
    found = made(MICROSOFT + "[SMTP-1465]\nserver_address = smtp.office365.com\nserver_port = 2587\nstarttls = yes\n")
    assert [one["name"] for one in found.accounts] == ["ann-contoso.com", "ann-contoso.com-2587"]
    assert found.applications[0]["accounts"] == ["ann-contoso.com", "ann-contoso.com-2587"]


def test_a_service_account_of_google() -> None:
    key = service_account()
    text = OTHERS.partition("[ann@example.org]")[0] + (
        "[ann@example.org]\ntoken_url = https://oauth2.googleapis.com/token\noauth2_scope = https://mail.google.com/\n"
        "oauth2_flow = service_account\nredirect_uri = http://localhost\nclient_id = file\nclient_secret = key.json\n"
    )
    (account,) = made(text, files={"key.json": key}).accounts
    assert (account["oauth_flow"], account["oauth_service_account"]) == ("service-account", key)
    inline = text.replace("= file", "= key").replace("key.json", json.dumps(json.loads(key)))
    assert json.loads(str(made(inline).accounts[0]["oauth_service_account"])) == json.loads(key)
    with pytest.raises(InvalidInput, match="write file or key"):
        made(text.replace("= file", "= other"))


def test_what_cannot_be_taken_over_is_told() -> None:
    text = MICROSOFT.replace("permission_url", "oauth2_flow = password\nnews") + (
        "plugins = {'SMTPBlackHole': {}}\noauth2_resource = https://outlook.office.com\nuse_pkce = True\n"
        "[emailproxy]\ndelete_account_token_on_password_error = False\nlog_level = 3\n[somebody]\nx = 1\n"
    )
    found = notes(made(text))
    assert "consent in a browser instead" in found["[ann@contoso.com] oauth2_flow"]
    assert "no counterpart" in found["[ann@contoso.com] plugins"]
    assert "no counterpart" in found["[emailproxy] log_level"]
    assert found.keys() >= {
        "[ann@contoso.com] oauth2_resource", "[ann@contoso.com] use_pkce", "[somebody]",
        "[emailproxy] delete_account_token_on_password_error",
    }  # fmt: skip
    with pytest.raises(InvalidInput, match="'magic' is not known"):
        made(ROBOT.replace("client_credentials", "magic"))
    with pytest.raises(InvalidInput, match="there is none, and no permission_url"):
        made(ROBOT.replace("oauth2_flow = client_credentials", ""))
    assert (
        "a person consents"
        in notes(made(MICROSOFT + "oauth2_flow = client_credentials\n"))["[ann@contoso.com] oauth2_flow"]
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("client_secret = s3cret\n", "line 1 stands in no section"),
        ("[a@b.c]\nclient_secret s3cret\n", "line 2 is no option"),
        ("[a@b.c]\nx = 1\n[a@b.c]\n", r"\[a@b.c\] stands twice, again in line 3"),
        ("[a@b.c]\nclient_id = 1\nclient_id = 2\n", "client_id stands twice"),
    ],
)
def test_what_is_no_configuration_is_refused_without_a_secret(text: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault) as told:
        ProxyFile(text)
    assert "s3cret" not in str(told.value)


def test_tokens_may_lie_in_a_store_of_their_own() -> None:
    cache = "[ann@contoso.com]\nclient_id = other\n" + sealed("ann@contoso.com", "right-one", refresh_token="r")
    file = ProxyFile(MICROSOFT, cache)
    found = take_over(file, wanted(file, ()), {"ann@contoso.com": "right-one"}, str)
    (account,) = found.accounts
    assert (account["oauth_refresh_token"], account["oauth_client_id"]) == ("r", "1111")


def test_examples_are_left_out() -> None:
    """What the proxy comes with names no client."""
    examples = OTHERS.replace("9.apps.googleusercontent.com", "*** your client id here ***")
    found = made(examples)
    assert [one["username"] for one in found.accounts] == ["bob@yahoo.co.uk"]
    assert "is an example" in notes(found)["[ann@example.org]"]
    with pytest.raises(InvalidInput, match="has no mailbox that sends"):
        made(examples, only=["ann@example.org"])


def test_passwords_that_are_too_short_are_not_kept() -> None:
    found = made(MICROSOFT, {"ann@contoso.com": "short"})
    assert "password" not in found.applications[0]
    assert "a new one is generated" in notes(found)["[ann@contoso.com]"]


_WHOLE = configparser.ConfigParser(interpolation=None)
_WHOLE.read_string(MICROSOFT + ROBOT + OTHERS)
_OPTIONS = sorted({name for section in _WHOLE.sections() for name in _WHOLE.options(section)})
_SECTIONS = [*_WHOLE.sections(), "SMTP-99999", "a@", "@", "@contoso.com", "emailproxy", "DEFAULT", "x"]
_MORE = [
    "allow_catch_all_accounts", "token_salt", "token_iterations", "refresh_token", "client_secret_encrypted",
    "jwt_certificate_path", "jwt_key_path", "use_login_password_as_client_credentials_secret", "local_certificate_path",
]  # fmt: skip
_VALUES = sorted({value for section in _WHOLE.sections() for value in _WHOLE[section].values() if "\n" not in value})
_ODD = [
    "yes",
    "\u00fc",
    "https://[",
    "\u0663",
    "device",
    "service_account",
    "file",
    "*** your",
    "password",
    "0",
    "99999",
]
_FILES = st.dictionaries(
    st.sampled_from(_SECTIONS),
    st.dictionaries(
        st.sampled_from(_OPTIONS + _MORE), st.sampled_from(_VALUES + _ODD) | st.text("a=%[#\u00e9 ", max_size=9)
    ),
)


@given(_FILES, st.booleans())
def test_whatever_the_file_holds_is_taken_over_or_refused(
    sections: dict[str, dict[str, str]], knows_passwords: bool
) -> None:
    lines = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in options.items()) for name, options in sections.items()]
    try:
        file = ProxyFile("".join(lines))
        mailboxes = wanted(file, ())
        passwords = {one.name: "a-password" for one in mailboxes} if knows_passwords else {}
        take_over(file, mailboxes, passwords, str)
    except InvalidInput as error:
        assert error.faults
