"""What is known of providers: every preset makes an account, and what a person gives goes before it."""

from __future__ import annotations

from collections import Counter

import pytest

from postroom.accounts.definition import parse_account
from postroom.accounts.exchange import write
from postroom.accounts.fields import ACCOUNT_FIELDS
from postroom.accounts.filling import with_preset
from postroom.accounts.presets import Preset, find, presets
from postroom.accounts.service import AccountService
from postroom.errors import InvalidInput
from postroom.model.account import AccountKind, Authentication, Mechanism, Security

GRAPH = {"mailbox": "a@b.example", "oauth_flow": "client-credentials", "oauth_tenant": "b.example",
         "oauth_client_id": "id", "oauth_client_secret": "secret"}  # fmt: skip


def _whole(preset: Preset) -> dict[str, object]:
    """The preset, and what a person adds to it."""
    fields: dict[str, object] = {"name": "relay", "preset": preset.name}
    if preset.regions and not preset.region:
        fields["preset_region"] = next(iter(preset.regions))
    if preset.fields.get("kind") == "graph":
        return fields | GRAPH
    if "host" not in preset.fields:
        fields["host"] = "mail.example.org"
    if preset.fields.get("authentication") == "oauth2":
        return fields | {"username": "a@b.example", "oauth_client_id": "id"}
    if preset.user:
        fields["password"] = "marked"
    if preset.user and "username" not in preset.fields:
        fields["username"] = "a@b.example"
    return fields


def test_there_are_sixty_at_least_and_names_are_unique() -> None:
    assert len(presets()) >= 60
    names = Counter(name for preset in presets() for name in (preset.name, *preset.aliases))
    assert [name for name, count in names.items() if count > 1] == []
    assert all(preset.at.startswith("https://") and preset.title for preset in presets())


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_each_makes_an_account(preset: Preset) -> None:
    account = parse_account(with_preset(_whole(preset)))
    assert account.preset == preset.name
    assert account.host or account.kind is AccountKind.GRAPH
    assert set(preset.fields) <= set(ACCOUNT_FIELDS)
    if account.host and account.port == 465:
        assert account.security is Security.TLS
    elif account.host and account.host != "localhost":
        assert account.security is Security.STARTTLS


@pytest.mark.parametrize("preset", [one for one in presets() if one.regions], ids=lambda preset: preset.name)
def test_each_region_has_a_host(preset: Preset) -> None:
    hosts = {
        parse_account(with_preset(_whole(preset) | {"preset_region": region})).host for region in preset.regions or ()
    }
    assert len(hosts) == len(preset.regions or ()) and all("{" not in host for host in hosts)


def test_what_is_given_goes_before_what_is_known() -> None:
    account = parse_account(
        with_preset(
            {"name": "relay", "preset": "office365", "username": "a@b.example", "password": "marked", "port": "2587"}
        )
    )
    assert (account.preset, account.host, account.port) == ("microsoft-365", "smtp.office365.com", 2587)
    assert (account.max_connections, account.limits.messages_per_minute) == (3, 30)


def test_a_preset_may_know_the_user_name_and_the_mechanism() -> None:
    fields = {"name": "relay", "preset": "SendGrid", "password": "marked"}
    assert parse_account(with_preset(fields)).username == "apikey"
    fields = {"name": "relay", "preset": "acs", "username": "ann", "password": "marked"}
    assert parse_account(with_preset(fields)).mechanism is Mechanism.LOGIN


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"preset": "gmial"}, "there is none called 'gmial' (did you mean gmail"),
        ({"preset": "ses"}, "preset ses needs one (write one of us-east-1, "),
        ({"preset": "ses", "preset_region": "mars-1"}, "'mars-1' is none of preset ses"),
        ({"preset": "gmail", "preset_region": "eu"}, "preset gmail has no regions"),
        ({"preset": "xyzzy"}, "`postroom accounts presets` lists them"),
    ],
)
def test_what_is_not_known_is_refused_with_its_mend(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        with_preset(fields)
    assert said in str(refused.value)


async def test_another_region_changes_the_host_and_nothing_else(accounts: AccountService) -> None:
    await accounts.add(
        {"name": "relay", "preset": "ses", "preset_region": "eu-west-1", "username": "ann", "password": "marked"}
    )
    edited = await accounts.edit("relay", {"port": 587, "security": "starttls"})
    assert (edited.host, edited.port) == ("email-smtp.eu-west-1.amazonaws.com", 587)
    edited = await accounts.edit("relay", {"preset_region": "US-EAST-2"})
    assert (edited.host, edited.port, edited.preset_region) == ("email-smtp.us-east-2.amazonaws.com", 587, "us-east-2")


async def test_an_account_takes_a_preset_later(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "host": "old.example", "username": "a@b.example", "password": "marked"})
    edited = await accounts.edit("relay", {"preset": "microsoft-365"})
    assert (edited.host, edited.max_connections, edited.password) == ("smtp.office365.com", 3, "marked")
    plain = await accounts.edit("relay", {"preset": ""})
    assert (plain.preset, plain.host) == ("", "smtp.office365.com")


async def test_another_preset_takes_back_what_the_former_filled_in(accounts: AccountService) -> None:
    own = {"username": "a@b.example", "password": "marked"}
    await accounts.add({"name": "acs", "preset": "acs"} | own)
    edited = await accounts.edit("acs", {"preset": "mailjet"})
    assert (edited.host, edited.mechanism, edited.username) == ("in-v3.mailjet.com", Mechanism.AUTO, "a@b.example")

    await accounts.add({"name": "office", "preset": "microsoft-365", "recipients_per_day": 50} | own)
    edited = await accounts.edit("office", {"preset": "gmail"})
    plain = parse_account(with_preset({"name": "plain", "preset": "gmail"} | own))
    assert edited.max_connections == plain.max_connections
    assert (edited.limits.recipients_per_day, edited.limits.messages_per_minute) == (
        50,
        plain.limits.messages_per_minute,
    )

    await accounts.add({"name": "ses", "preset": "ses", "preset_region": "eu-west-1"} | own)
    edited = await accounts.edit("ses", {"preset": "gmail"})
    assert (edited.host, edited.preset_region) == ("smtp.gmail.com", "")
    with pytest.raises(InvalidInput, match="host: there is none"):
        await accounts.edit("ses", {"preset": "exchange"})


async def test_another_preset_takes_back_the_way_to_log_in(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "preset": "outlook", "username": "a@b.example", "oauth_client_id": "id"})
    with pytest.raises(InvalidInput, match="password: there is none"):
        await accounts.edit("relay", {"preset": "gmail"})
    edited = await accounts.edit("relay", {"preset": "gmail", "password": "marked"})
    assert (edited.authentication, edited.username) == (Authentication.PASSWORD, "a@b.example")
    assert edited.oauth.client_id == ""


async def test_the_user_name_of_one_preset_is_not_sent_to_another(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "preset": "sendgrid", "password": "marked"})
    with pytest.raises(InvalidInput, match="username: 'apikey' is that of preset sendgrid"):
        await accounts.edit("relay", {"preset": "gmail"})
    assert (await accounts.edit("relay", {"preset": "resend"})).username == "resend"
    assert (await accounts.edit("relay", {"preset": "gmail", "username": "a@b.example"})).username == "a@b.example"


async def test_the_same_preset_again_keeps_region_and_what_was_changed(accounts: AccountService) -> None:
    own = {"username": "ann", "password": "marked"}
    await accounts.add({"name": "relay", "preset": "ses", "preset_region": "eu-west-1", "port": 2465} | own)
    edited = await accounts.edit("relay", {"preset": "amazon-ses"})
    assert (edited.preset, edited.preset_region, edited.port) == ("ses", "eu-west-1", 2465)
    assert edited.host == "email-smtp.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("preset", [one for one in presets() if one.regions], ids=lambda preset: preset.name)
def test_each_domain_and_mx_of_a_preset_leads_to_one_of_its_regions(preset: Preset) -> None:
    assert {preset.region_by([name]) for name in (*preset.domains, *preset.mx)} <= {*(preset.regions or ())}
    assert {*preset.region_of.values()} <= {*(preset.regions or ())}


def test_certified_mail_of_aruba_has_hosts_of_its_own() -> None:
    fields = {"name": "pec", "preset": "aruba-pec", "username": "ann@pec.aruba.it", "password": "marked"}
    account = parse_account(with_preset(fields))
    assert (account.host, account.port, account.security) == ("smtps.pec.aruba.it", 465, Security.TLS)
    assert account.mechanism is Mechanism.LOGIN
    assert [one.name for one in presets() if one.takes("pec.aruba.it")] == ["aruba-pec"]


async def test_what_was_changed_after_the_preset_survives_export_and_import(accounts: AccountService) -> None:
    await accounts.add({"name": "relay", "preset": "gmail", "username": "a@gmail.com", "password": "marked"})
    await accounts.edit("relay", {"port": 587, "security": "auto"})
    before = accounts.get("relay")
    text = write(accounts.snapshot(), None)
    plan = await accounts.import_(text)
    assert [change.action for change in plan.changes] == ["unchanged"]
    assert accounts.get("relay") == before


async def test_a_file_written_by_hand_may_name_a_preset(accounts: AccountService) -> None:
    await accounts.import_('[[accounts]]\nname = "relay"\npreset = "resend"\npassword = "marked"\n')
    made = accounts.get("relay")
    assert (made.host, made.username) == (find("resend").fields["host"], "resend")
