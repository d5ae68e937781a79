"""What is asked of authorization servers: the fields of the standards, and the habits of Microsoft and Google."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import ssl
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from postroom.model.account import Account, AccountKind, Authentication, Cloud, OAuth, OAuthFlow, OAuthProvider
from postroom.oauth.binding import binding
from postroom.oauth.endpoints import endpoints
from postroom.oauth.requests import (
    Form,
    Moment,
    authorization_url,
    challenge_of,
    code_request,
    device_token_request,
    token_request,
)

NOW = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)
AT = Moment(NOW, "n0nce")
ISSUED = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("client.test", key_type=trustme.KeyType.RSA)
CERTIFICATE = ISSUED.cert_chain_pems[0].bytes().decode()
KEY = ISSUED.private_key_pem.bytes().decode()


def account(kind: AccountKind = AccountKind.SMTP, **oauth: Any) -> Account:
    """One that logs in by OAuth 2."""
    return Account(
        id=1, name="a", kind=kind, authentication=Authentication.OAUTH2, username="ann@x.test",
        oauth=OAuth(client_id="client", **oauth),
    )  # fmt: skip


def service_key(key: rsa.RSAPrivateKey) -> str:
    """The key file of a service account."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    file = {
        "type": "service_account", "client_email": "robot@p.iam.test", "private_key": pem, "private_key_id": "k1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }  # fmt: skip
    return json.dumps(file)


def test_the_challenge_of_rfc_7636_appendix_b() -> None:
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_where_a_person_consents() -> None:
    url = urlsplit(authorization_url(account(tenant="contoso.test"), "http://localhost:1234/", "s&t", "v" * 43))
    assert (url.netloc, url.path) == ("login.microsoftonline.com", "/contoso.test/oauth2/v2.0/authorize")
    assert {name: value for name, [value] in parse_qs(url.query).items()} == {
        "response_type": "code",
        "client_id": "client",
        "redirect_uri": "http://localhost:1234/",
        "scope": "https://outlook.office.com/SMTP.Send offline_access",
        "state": "s&t",
        "code_challenge": challenge_of("v" * 43),
        "code_challenge_method": "S256",
        "login_hint": "ann@x.test",
    }


def test_google_is_asked_for_a_refresh_token_each_time() -> None:
    query = parse_qs(
        urlsplit(authorization_url(account(provider=OAuthProvider.GOOGLE), "http://127.0.0.1:1/", "s", "v")).query
    )
    assert (query["access_type"], query["prompt"]) == (["offline"], ["consent"])
    assert query["scope"] == ["https://mail.google.com/"]


@pytest.mark.parametrize(
    ("cloud", "login", "scope", "own", "graph"),
    [
        (Cloud.GLOBAL, "login.microsoftonline.com", "outlook.office.com", "outlook.office365.com",
         "graph.microsoft.com"),
        (Cloud.US_GOVERNMENT, "login.microsoftonline.us", "outlook.office365.us", "outlook.office365.us",
         "graph.microsoft.us"),
        (Cloud.US_DOD, "login.microsoftonline.us", "outlook-dod.office365.us", "outlook-dod.office365.us",
         "dod-graph.microsoft.us"),
        (Cloud.CHINA, "login.partner.microsoftonline.cn", "partner.outlook.cn", "partner.outlook.cn",
         "microsoftgraph.chinacloudapi.cn"),
    ],
)  # fmt: skip
def test_the_clouds_of_microsoft(cloud: Cloud, login: str, scope: str, own: str, graph: str) -> None:
    robot = account(cloud=cloud, flow=OAuthFlow.CLIENT_CREDENTIALS, tenant="t")
    assert endpoints(account(cloud=cloud)).token == f"https://{login}/common/oauth2/v2.0/token"
    assert endpoints(account(cloud=cloud)).scope == f"https://{scope}/SMTP.Send offline_access"
    assert endpoints(robot).scope == f"https://{own}/.default"
    assert endpoints(replace(robot, kind=AccountKind.GRAPH)).scope == f"https://{graph}/.default"
    assert f"https://{graph}/Mail.Send" in endpoints(account(AccountKind.GRAPH, cloud=cloud)).scope


def test_scopes_of_the_account_go_before_the_providers() -> None:
    assert endpoints(account(scopes=("a", "b"))).scope == "a b"


CUSTOM: dict[str, Any] = {
    "provider": OAuthProvider.CUSTOM, "token_url": "https://as.test/token", "scopes": ("mail",),
    "device_url": "https://as.test/device", "authorize_url": "https://as.test/auth",
}  # fmt: skip


@pytest.mark.parametrize(
    ("oauth", "fields", "headers"),
    [
        ({"client_secret": "s"}, {"client_id": "client", "client_secret": "s"}, {}),
        ({}, {"client_id": "client"}, {}),
        # RFC 6749 section 2.3.1: encoded as in a form, then Basic.
        ({**CUSTOM, "client_secret": "a b:c"}, {},
         {"Authorization": "Basic " + base64.b64encode(b"client:a+b%3Ac").decode()}),
        (CUSTOM, {"client_id": "client"}, {}),
    ],
)  # fmt: skip
def test_how_the_application_shows_who_it_is(oauth: Any, fields: dict[str, str], headers: dict[str, str]) -> None:
    form = code_request(account(**oauth), "c0de", "http://127.0.0.1:1/", "verifier", AT)
    asked = {"grant_type": "authorization_code", "code": "c0de", "redirect_uri": "http://127.0.0.1:1/"}
    assert form.fields == asked | {"code_verifier": "verifier"} | fields
    assert form.headers == headers


def test_a_refresh_names_the_resource_at_microsoft_alone() -> None:
    assert token_request(account(), "r", AT).fields["scope"].startswith("https://outlook")
    assert "scope" not in token_request(account(**CUSTOM), "r", AT).fields
    assert token_request(account(**CUSTOM), "r", AT).fields["refresh_token"] == "r"


def test_a_device_code() -> None:
    form = device_token_request(account(**CUSTOM), "d", AT)
    asked = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "d", "client_id": "client"}
    assert form == Form("https://as.test/token", asked)


@pytest.mark.parametrize(("oauth", "algorithm"), [({"tenant": "t"}, "PS256"), (CUSTOM, "RS256")])
def test_a_certificate_signs_for_the_application(oauth: Any, algorithm: str) -> None:
    robot = account(
        **{**oauth, "flow": OAuthFlow.CLIENT_CREDENTIALS, "certificate": CERTIFICATE, "certificate_key": KEY}
    )
    form = token_request(robot, "", AT)
    assert form.fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in form.fields
    read = jwt.decode(form.fields["client_assertion"], RSAKey.import_key(KEY), [algorithm])
    thumbprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(CERTIFICATE)).digest()
    assert read.header["x5t#S256"] == base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    assert (read.claims["iss"], read.claims["sub"], read.claims["aud"]) == ("client", "client", form.url)
    assert read.claims["jti"] == "n0nce"
    assert read.claims["exp"] - read.claims["iat"] == 600 and read.claims["iat"] == int(NOW.timestamp())


def test_an_elliptic_key_signs_where_it_is_understood() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    own: dict[str, Any] = {"certificate": CERTIFICATE, "certificate_key": pem}
    own["flow"] = OAuthFlow.CLIENT_CREDENTIALS
    form = token_request(account(**CUSTOM, **own), "", AT)
    assert jwt.decode(form.fields["client_assertion"], ECKey.import_key(pem), ["ES256"]).claims["sub"] == "client"
    with pytest.raises(ValueError, match="give an RSA key"):
        token_request(account(tenant="t", **own), "", AT)


def test_a_service_account_asks_in_the_name_of_the_mailbox() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    robot = account(provider=OAuthProvider.GOOGLE, flow=OAuthFlow.SERVICE_ACCOUNT, service_account=service_key(key))
    form = token_request(robot, "", AT)
    assert form.url == "https://oauth2.googleapis.com/token"
    assert form.fields["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    read = jwt.decode(form.fields["assertion"], RSAKey.import_key(key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )), ["RS256"])  # fmt: skip
    assert read.header["kid"] == "k1"
    assert read.claims == {
        "iss": "robot@p.iam.test", "sub": "ann@x.test", "scope": "https://mail.google.com/", "aud": form.url,
        "iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 600,
    }  # fmt: skip


def test_what_was_given_goes_with_the_definition() -> None:
    first = binding(account())
    assert binding(account(client_secret="another", certificate=CERTIFICATE)) == first
    for other in (
        account(tenant="t"), account(scopes=("x",)), account(refresh_token="r"), account(cloud=Cloud.CHINA),
        replace(account(), username="bob@x.test"), account(flow=OAuthFlow.DEVICE_CODE),
    ):  # fmt: skip
        assert binding(other) != first


def test_no_secret_is_shown() -> None:
    form = code_request(account(client_secret="hunter2"), "c0de", "http://127.0.0.1:1/", "verifier", AT)
    assert "hunter2" not in repr(form) and "c0de" not in repr(form)
