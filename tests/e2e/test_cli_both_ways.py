"""Every command, against the running gateway and without one: what it prints, what it changes, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import Served, run_postroom
from tests.email_oauth2_proxy import sealed
from tests.name_server import NameServer
from tests.tls_relay import TlsRelay, pem, served


class Commands:
    """`postroom` on one data folder; `is_up` says whether a gateway runs there."""

    def __init__(self, environment: dict[str, str], data: Path, *, is_up: bool) -> None:
        self.environment = environment
        self.data = data
        self.is_up = is_up

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What it prints; it must end well."""
        return run_postroom(self.environment, *arguments, stdin=stdin).stdout

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """The same with --json, read."""
        return json.loads(self.run(*arguments, "--json", stdin=stdin))

    def fails(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Exit status and standard error of a command that must fail."""
        done = run_postroom(self.environment, *arguments, check=False, stdin=stdin)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr


@pytest.fixture(params=["up", "down"])
def postroom(request: pytest.FixtureRequest, tmp_path: Path, serve: Callable[..., Served]) -> Commands:
    """The commands with a gateway that runs, and with none."""
    if request.param == "up":
        running = serve()
        return Commands(running.environment, running.data, is_up=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    return Commands(environment | {"POSTROOM_DATA": str(tmp_path / "data")}, tmp_path / "data", is_up=False)


HOLD = ("accounts", "add", "relay", "--host", "127.0.0.1", "--port", "9", "--security", "none", "--no-enabled")


def test_dkim_keys(postroom: Commands) -> None:
    postroom.run(*HOLD)
    assert "mail of account relay is not signed" in postroom.run("accounts", "dkim", "relay")
    names = ("--domain", "example.org", "--selector", "s1")
    said = postroom.run("accounts", "dkim", "RELAY", *names)
    assert said.startswith("mail of account relay is signed for example.org; DNS must have:\n\n")
    assert 's1._domainkey.example.org. IN TXT ( "v=DKIM1; k=rsa; p=' in said
    assert postroom.run("accounts", "dkim", "relay") == said
    status, fault = postroom.fails("accounts", "dkim", "relay", *names)
    assert (status, "s1 is in use" in fault, "choose another for the new key" in fault) == (64, True, True)
    (key,) = postroom.json("accounts", "dkim", "relay", *names[:3], "s2", "--key", "ed25519")["keys"]
    assert (key["selector"], key["algorithm"]) == ("s2", "ed25519-sha256")
    assert "no longer signed" in postroom.run("accounts", "dkim", "relay", "--remove")
    assert postroom.json("accounts", "dkim", "relay") == {"account": "relay", "domain": "", "keys": []}
    assert "--selector: there is none" in postroom.fails("accounts", "dkim", "relay", "--domain", "example.org")[1]
    assert postroom.fails("accounts", "dkim", "nobody", *names)[0] == 66


def test_accounts(postroom: Commands) -> None:
    said = postroom.run(*HOLD, "--username", "ann", "--password-stdin", stdin="marked-secret\n")
    assert "added relay" in said
    assert "postroom applications edit local --account relay" in said
    listed = postroom.json("accounts", "list")["accounts"]
    assert [(one["name"], one["enabled"], one["secrets"]["password"]) for one in listed] == [
        ("relay", False, "set"),
        ("sandbox", True, "not set"),
    ]
    assert "127.0.0.1:9" in postroom.run("accounts", "list")
    changed = postroom.json("accounts", "edit", "RELAY", "--enabled", "--command-timeout", "90s", "--position", "1")
    assert (changed["enabled"], changed["command_timeout"], changed["position"]) == (True, "90s", 1)
    shown = postroom.run("accounts", "show", "relay")
    assert "command timeout" in shown
    assert "marked" not in shown + json.dumps(changed) + json.dumps(listed)
    assert postroom.run("accounts", "remove", "relay") == "removed relay\n"
    status, error = postroom.fails("accounts", "show", "relay")
    assert (status, error) == (66, "postroom: account: there is none called 'relay' (accounts are sandbox)\n")


PROXY = """
[SMTP-1587]
server_address = smtp.office365.com
server_port = 587
server_starttls = True
local_address = localhost
[IMAP-1993]
server_address = outlook.office365.com
server_port = 993
[ann@contoso.com]
permission_url = https://login.microsoftonline.com/common/oauth2/v2.0/authorize
token_url = https://login.microsoftonline.com/common/oauth2/v2.0/token
oauth2_scope = https://outlook.office.com/SMTP.Send offline_access
redirect_uri = http://localhost
client_id = 1111
"""


def test_accounts_come_from_email_oauth2_proxy(postroom: Commands, tmp_path: Path) -> None:
    file, passwords = tmp_path / "emailproxy.config", tmp_path / "passwords"
    file.write_text(PROXY + sealed("ann@contoso.com", "marked-secret", refresh_token="marked-token"))
    passwords.write_text("# user names and what they log in with\nann@contoso.com marked-secret\n")
    take = ("accounts", "import-from", "email-oauth2-proxy", str(file))
    said = postroom.run(*take, "--dry-run")
    assert "would add account ann-contoso.com: ann@contoso.com at smtp.office365.com:587" in said
    assert "[IMAP-1993]: IMAP is for reading mail" in said
    assert "postroom accounts authorize ann-contoso.com\n\nnothing was changed (--dry-run)\n" in said
    assert postroom.json("accounts", "list")["accounts"][0]["name"] == "sandbox"
    status, error = postroom.fails(*take, "--password-file", "-", stdin="ann@contoso.com another-one\n")
    assert (status, "[ann@contoso.com] refresh_token: the password of ann@contoso.com does not" in error) == (64, True)
    said = postroom.run(*take, "--password-file", str(passwords))
    assert "added application ann@contoso.com: it logs in with the password that it has\n" in said
    assert 'address = "127.0.0.1"\n  port = 1587\n' in said
    assert "marked" not in said
    (account, _) = postroom.json("accounts", "list")["accounts"]
    assert (account["secrets"]["oauth_refresh_token"], account["authorization"]["state"]) == ("set", "given")
    assert postroom.json("applications", "show", "ann@contoso.com")["accounts"] == ["ann-contoso.com"]
    assert "'ann-contoso.com' is taken (rename what is there, or leave the mailbox out" in postroom.fails(*take)[1]
    status, error = postroom.fails(*take)
    assert (status, "ann-contoso.com.name: 'ann-contoso.com' is taken" in error) == (64, True)
    status, error = postroom.fails(*take[:-1], "-", "--password-file", "-")
    assert (status, "-: is standard input, which is read once" in error) == (64, True)


def test_accounts_are_exported_and_imported(postroom: Commands, tmp_path: Path) -> None:
    postroom.run(*HOLD, "--username", "ann", "--password-stdin", "--send-interval", "500ms", stdin="marked-secret\n")
    plain, sealed = tmp_path / "plain.toml", tmp_path / "sealed.toml"
    plain.write_text(postroom.run("accounts", "export"))
    assert 'send_interval = "500ms"' in plain.read_text()
    status, error = postroom.fails("accounts", "export", "--with-secrets", "--passphrase-file", "-", stdin="short\n")
    assert (status, "write 12 to 1024" in error) == (64, True)
    passphrase = ("--passphrase-file", "-")
    words = "correct horse battery\n"
    postroom.run("accounts", "export", "--with-secrets", *passphrase, "--output", str(sealed), stdin=words)
    assert "marked" not in plain.read_text() + sealed.read_text()
    assert sealed.stat().st_mode & 0o777 == 0o600
    postroom.run("accounts", "edit", "relay", "--reset", "send-interval", "--port", "10")
    said = postroom.run("accounts", "import", str(plain), "--dry-run")
    assert "would change relay\n  port: 10 -> 9\n  send_interval: 0s -> 500ms" in said
    assert postroom.json("accounts", "show", "relay")["port"] == 10, "a dry run changes nothing"
    postroom.run("accounts", "remove", "relay")
    status, error = postroom.fails("accounts", "import", str(plain))
    assert (status, "relay.password: there is none for the user name" in error) == (64, True)
    status, error = postroom.fails("accounts", "import", str(sealed), *passphrase, stdin="another passphrase\n")
    assert (status, "postroom: passphrase: is another one" in error) == (64, True)
    said = postroom.run("accounts", "import", str(sealed), *passphrase, stdin=words)
    assert "added relay" in said
    assert said.endswith("unchanged sandbox\norder: relay, sandbox\n")
    (relay, _) = postroom.json("accounts", "list")["accounts"]
    assert (relay["port"], relay["send_interval"], relay["secrets"]["password"]) == (9, "500ms", "set")


def test_keys_are_rotated(postroom: Commands) -> None:
    postroom.run(*HOLD, "--username", "ann", "--password-stdin", stdin="marked-secret\n")
    old = (postroom.data / "keys").read_text()
    done = postroom.json("keys", "rotate")
    assert (done["added"], done["resealed"]) == (True, 1)
    new, kept = (postroom.data / "keys").read_text().split("\n", 1)
    assert kept == old
    (postroom.data / "keys").write_text(new)  # the secret no longer needs the old key
    if not postroom.is_up:
        assert postroom.json("accounts", "list")["accounts"][0]["secrets"]["password"] == "set"
    assert postroom.json("keys", "rotate")["resealed"] == 1


def test_bad_fields_are_named(postroom: Commands) -> None:
    status, error = postroom.fails("accounts", "add", "relay", "--host", "smtp://x", "--command-timeout", "2000")
    assert status == 64
    assert error.splitlines() == [
        "postroom: host: 'smtp://x' is not a host name (write a DNS name or an IP address, as in smtp.example.org)",
        "postroom: command_timeout: 2000 has no unit (write 2000ms or 2s)",
    ]
    status, error = postroom.fails("accounts", "add", "relay", "--host", "h.example", "--port", "0", "--json")
    assert (status, json.loads(error)["errors"][0]["field"]) == (64, "port")
    status, error = postroom.fails("accounts", "add", "relay", "--host", "h.example", "--username", "ann")
    assert "--password-stdin or --password-file" in error


def test_an_account_for_an_application(postroom: Commands) -> None:
    status, error = postroom.fails(*HOLD, "--for", "local")
    assert status == 64
    assert "--allow-sender" in error
    assert [one["name"] for one in postroom.json("accounts", "list")["accounts"]] == ["sandbox"]
    postroom.run(*HOLD, "--for", "local", "--allow-sender", "*@example.org", "--allow-sender", "bob@example.net")
    local = postroom.json("applications", "show", "local")
    assert local["accounts"] == ["kind:sandbox", "relay"]
    assert local["senders"] == ["*@example.org", "bob@example.net"]


def test_applications(postroom: Commands) -> None:
    added = postroom.json("applications", "add", "erp", "--network", "10.0.0.0/8", "--allow-sender", "erp@example.org")
    assert len(added["password"]) == 32
    edited = postroom.json(
        "applications", "edit", "erp", "--allow-sender", "*@example.net", "--remove-sender", "ERP@example.org",
        "--account", "sandbox", "--remove-account", "*", "--description", "the ERP",
    )  # fmt: skip
    assert (edited["senders"], edited["accounts"]) == (["*@example.net"], ["sandbox"])
    fresh = postroom.run("applications", "edit", "erp", "--new-password")
    assert "shown this once" in fresh
    assert added["password"] not in fresh
    listed = postroom.run("applications", "list")
    assert "the ERP" in listed
    assert "10.0.0.0/8" in listed
    assert postroom.json("applications", "list")["applications"][0]["has_password"] is True
    status, error = postroom.fails("accounts", "remove", "sandbox")
    assert status == 65
    assert "erp" in error


def test_settings(postroom: Commands) -> None:
    listed = {one["name"]: one for one in postroom.json("settings", "list")["settings"]}
    assert (listed["retention"]["value"], listed["retention"]["origin"]) == ("30d", "default")
    assert listed["data"] | {"origin": "environment", "is_locked": True} == listed["data"]
    assert postroom.json("settings", "set", "retention", "9d")["origin"] == "stored"
    row = next(line for line in postroom.run("settings", "list").splitlines() if line.startswith("retention "))
    assert row.split() == ["retention", "9d", "stored"]
    shown = postroom.run("settings", "show", "retention")
    assert "at once" in shown
    assert "POSTROOM_RETENTION" in shown
    assert postroom.json("settings", "reset", "retention")["value"] == "30d"
    status, error = postroom.fails("settings", "set", "retention", "9")
    assert (status, error) == (64, "postroom: retention: 9 has no unit (write 9ms or 9s)\n")
    status, error = postroom.fails("settings", "set", "data", "/elsewhere")
    assert (status, "comes from file or environment only" in error) == (64, True)
    status, error = postroom.fails("settings", "show", "retenton")
    assert (status, "did you mean retention or content_retention?" in error) == (66, True)
    postroom.run("settings", "set", "sending_enabled", "off")
    assert "sending is switched off: postroom settings set sending_enabled on" in postroom.run("status")
    assert "sending is switched off" in postroom.run("check")


def test_send_in_parts_and_the_queue(postroom: Commands, tmp_path: Path) -> None:
    postroom.run(*HOLD, "--for", "local", "--allow-sender", "*@example.org")
    picture, paper = tmp_path / "logo.png", tmp_path / "B\u00fccher list.pdf"
    picture.write_bytes(b"\x89PNG" * 1000)
    paper.write_bytes(b"%PDF" * 100_000)
    message_id = postroom.run(
        "send", "--from", "Ann <ann@example.org>", "--to", "Bob <bob@example.net>", "--cc", "cc@example.net",
        "--bcc", "bcc@example.net", "--subject", "Gr\u00fc\u00dfe", "--text", "-", "--html", "<img src=cid:logo.png>",
        "--inline", str(picture), "--attach", str(paper), stdin="from standard input\n",
    ).strip()  # fmt: skip
    rows = postroom.json("queue", "list")["deliveries"]
    assert [(one["message_id"], one["recipient"], one["state"], one["account"]) for one in rows] == [
        (message_id, "bob@example.net", "queued", "relay"),
        (message_id, "cc@example.net", "queued", "relay"),
        (message_id, "bcc@example.net", "queued", "relay"),
    ]
    shown = postroom.json("queue", "show", "last")
    assert (shown["subject"], shown["door"]) == ("Gr\u00fc\u00dfe", "cli")
    content = postroom.run("queue", "show", message_id, "--content")
    assert "bcc@" not in content
    assert "from standard input" in content
    assert "application/pdf" in content
    assert postroom.run("queue", "show", message_id, "--transcript") == "no attempt failed\n"
    because = "account relay is off" if postroom.is_up else "the gateway is not running"
    assert because in postroom.run("why", message_id)
    assert postroom.json("why", "last")["deliveries"][0]["command"].startswith("postroom ")

    assert postroom.json("queue", "hold", message_id, "-n", "1")["moved"] == 1
    assert postroom.json("queue", "list", "--state", "held")["deliveries"][0]["recipient"] == "cc@example.net"
    assert f"postroom queue release {message_id}" in postroom.run("why", message_id)
    assert postroom.run("queue", "release", "--account", "relay") == "1 delivery: release\n"
    assert postroom.json("queue", "cancel", "--all")["moved"] == 3
    status, error = postroom.fails("queue", "cancel", message_id)
    assert (status, error) == (65, "postroom: there is nothing to cancel: cancelled\n")
    again = postroom.json("queue", "retry", message_id)["results"][0]["resubmitted_as"]
    assert postroom.json("queue", "show", again)["resubmits"] == message_id
    status, error = postroom.fails("queue", "hold")
    assert (status, "--all" in error) == (64, True)


def test_send_raw(postroom: Commands, tmp_path: Path) -> None:
    raw = "From: ann@example.org\nTo: bob@example.net, carl@example.net\nSubject: Raw\n\nDots:\n.\n..\nend\n"
    postroom.run("send", "--raw", "-", stdin=raw)
    file = tmp_path / "raw.eml"
    file.write_text(raw)
    postroom.run("send", "--raw", str(file), "--from", "<>", "--to", "dora@example.net", "--account", "sandbox")
    newest, first, second = postroom.json("queue", "list")["deliveries"]
    assert (newest["recipient"], newest["reverse_path"]) == ("dora@example.net", "")
    assert (first["recipient"], second["recipient"]) == ("bob@example.net", "carl@example.net")
    assert first["reverse_path"] == "ann@example.org"
    postroom.run("send", "--raw", str(file), "--from", "ann@example.org", "--tag", "May 2026")
    tagged = postroom.json("queue", "list", "--tag", "May 2026", "--limit", "1")
    after = postroom.json("queue", "list", "--tag", "May 2026", "--after", tagged["next"])
    assert [page["deliveries"][0]["recipient"] for page in (tagged, after)] == ["bob@example.net", "carl@example.net"]
    for given in (
        ("--domain", "example.net", "--sender", "ann@", "--recipient", "carl@"),
        ("--message-id", first["message_id"], "--application", "local", "--since", "1h"),
    ):
        assert len(postroom.json("queue", "list", *given)["deliveries"]) == 2
    status, error = postroom.fails("queue", "list", "--subject", "raw")
    assert (status, "postroom settings set subject_search on" in error) == (64, True)
    assert postroom.run("queue", "show", "last", "--content").endswith("\n\nDots:\n.\n..\nend\n")


def test_composed_mail_is_from_the_application_or_the_account(postroom: Commands) -> None:
    postroom.run("accounts", "edit", "sandbox", "--full-name", "Büro", "--email-address", "office@example.org")
    postroom.run("send", "--to", "ann@example.net")
    content = postroom.run("queue", "show", "last", "--content")
    assert "From: =?utf-8?b?QsO8cm8=?= <office@example.org>\n" in content
    assert "Reply-To" not in content
    postroom.run("applications", "edit", "local", "--address", "app@example.org")
    postroom.run("send", "--to", "ann@example.net")
    content = postroom.run("queue", "show", "last", "--content")
    assert "From: app@example.org\nReply-To: =?utf-8?b?QsO8cm8=?= <office@example.org>\n" in content
    assert json.loads(postroom.run("queue", "show", "last", "--json"))["reverse_path"] == "app@example.org"
    postroom.run("accounts", "edit", "sandbox", "--reply-address", "help@example.org")
    postroom.run("send", "--to", "ann@example.net", "--from", "bob@example.org")
    content = postroom.run("queue", "show", "last", "--content")
    assert "From: bob@example.org\nReply-To: help@example.org\n" in content


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--to", "b@example.net"), 64, "from: there is no sender (name one, or give application local an --address"),
        (("--from", "nobody", "--to", "b@example.net"), 64, "'nobody' is not an address"),
        (("--from", "a@example.org"), 64, "--to"),
        (("--from", "a@example.org", "--to", "nobody"), 64, "'nobody' is not an address"),
        (("--from", "a@example.org", "--to", "b@example.net", "--subject", "x\ny"), 64, "Subject"),
        (("--from", "a@example.org", "--to", "b@example.net", "--attach", "/no/such/file"), 64, "/no/such/file"),
        (("--raw", "/no/such/file"), 64, "/no/such/file"),
        (("--raw", "-", "--subject", "x"), 64, "--raw"),
        (("--from", "a@example.org", "--to", "b@example.net", "--application", "none"), 66, "there is none called"),
        (("--from", "a@example.org", "--to", "b@example.net", "--account", "none"), 66, "there is none called"),
    ],
)
def test_a_send_that_is_refused(tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    postroom = Commands(environment | {"POSTROOM_DATA": str(tmp_path)}, tmp_path, is_up=False)
    found, error = postroom.fails("send", *arguments)
    assert (found, said in error) == (status, True), error


def test_send_and_wait(postroom: Commands) -> None:
    arguments = ("send", "--from", "ann@example.org", "--to", "bob@example.net", "--text", "x", "--wait")
    if postroom.is_up:
        assert "captured" in postroom.run(*arguments)
        sent = postroom.json(*arguments)
        assert [one["state"] for one in sent["deliveries"]] == ["captured"]
    else:
        status, error = postroom.fails(*arguments)
        assert (status, error) == (75, "it is kept, and waits until the gateway runs: postroom serve\n")
        assert [one["state"] for one in postroom.json("queue", "list")["deliveries"]] == ["queued"]


def test_check_and_status(postroom: Commands) -> None:
    said = postroom.run("check")
    assert "database: is sound" in said
    assert "nothing leaves" in said
    status = postroom.json("status")
    assert status["running"] is postroom.is_up
    assert [one["account"] for one in status["accounts"]] == ["sandbox"]
    assert "sandbox" in postroom.run("status")
    postroom.run("applications", "add", "silent")
    status, error = postroom.fails("check", "--json")
    assert (status, error) == (1, "")


def test_what_was_taken_without_a_gateway_is_delivered_by_the_next(
    tmp_path: Path, serve: Callable[..., Served]
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    environment["POSTROOM_DATA"] = str(tmp_path / "data")
    run_postroom(environment, "send", "--from", "a@example.org", "--to", "b@example.net", "--text", "x")
    served = serve()
    served.run("send", "--from", "a@example.org", "--to", "c@example.net", "--text", "x", "--wait")
    rows = json.loads(served.run("queue", "list", "--json").stdout)["deliveries"]
    assert [(one["recipient"], one["state"]) for one in rows] == [
        ("c@example.net", "captured"),
        ("b@example.net", "captured"),
    ]


def test_help_is_quick_because_it_loads_little() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "postroom", "--help"], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "postroom.cli" in loaded
    assert (
        loaded & {"pydantic", "fastapi", "uvicorn", "httpx2", "sqlalchemy", "cryptography", "postroom.gateway"} == set()
    )


@pytest.mark.parametrize("page", ["settings", "commands"])
def test_pages_are_printed_without_a_folder(page: str, tmp_path: Path) -> None:
    done = run_postroom(dict(os.environ) | {"POSTROOM_DATA": str(tmp_path / "none")}, "docs", page)
    assert done.stdout.startswith(f"# {page.title()}\n")
    assert not (tmp_path / "none").exists()


def test_an_account_sleeps_and_wakes_by_hand(postroom: Commands) -> None:
    postroom.run(*HOLD[:-1])
    asleep = postroom.json("accounts", "sleep", "relay", "--for", "2h")
    assert (asleep["health"], asleep["by_hand"]) == ("sleeping", True)
    shown = postroom.json("accounts", "show", "relay")["circuit"]
    assert shown == asleep
    assert f"sleeping until {asleep['until']}" in postroom.run("accounts", "list")
    assert "a person put it to sleep" in postroom.run("accounts", "show", "relay")
    assert "a person put it to sleep" in postroom.run("status")
    assert f"account relay: sleeps until {asleep['until'][:19]}" in postroom.run("check")
    status, error = postroom.fails("accounts", "sleep", "relay", "--for", "2")
    assert (status, error) == (64, "postroom: for: 2 has no unit (write 2ms or 2s)\n")
    awake = postroom.json("accounts", "wake", "relay")
    assert (awake["health"], awake["until"]) == ("healthy", None)
    assert "sleeping" not in postroom.run("accounts", "list")


def test_suppressions(postroom: Commands, tmp_path: Path) -> None:
    postroom.run("applications", "edit", "local", "--apply-suppressions")
    assert "no entries" in postroom.run("suppressions", "list")
    said = postroom.run("suppressions", "add", "Ann@example.org", "gone.test", "--reason", "left")
    assert said == "added address ann@example.org: left\nadded domain gone.test: left\n"
    send = ("send", "--from", "a@example.org", "--to", "ANN@example.org", "--to", "b@gone.test", "--text", "hi")
    postroom.run(*send)
    rows = postroom.json("queue", "show", "last")["deliveries"]
    assert [(row["state"], row["status"], row["reply"]) for row in rows] == [
        ("bounced", "5.7.1", "ann@example.org is on the suppression list: left"),
        ("bounced", "5.7.1", "gone.test is on the suppression list: left"),
    ]
    assert "postroom suppressions remove ann@example.org" in postroom.run("why", "last")
    status, told = postroom.fails("suppressions", "add", "x@example.org", "nobody")
    assert (status, "'nobody' is neither an address nor a domain" in told) == (64, True)
    assert postroom.fails("suppressions", "remove", "ann@example.org", "x@example.org")[0] == 66
    assert len(postroom.json("suppressions", "list")["suppressions"]) == 2, "neither was half done"
    assert postroom.run("suppressions", "remove", "ann@EXAMPLE.org") == "removed ann@EXAMPLE.org\n"
    status, told = postroom.fails("suppressions", "show", "ann@example.org")
    assert (status, "ann@example.org is not on the suppression list" in told) == (66, True)

    file = tmp_path / "list.csv"
    file.write_text('\ufeffemail,reason,expires\nann@example.org,"a, b",2030-01-31\n\nBob@example.org,,\n')
    assert postroom.run("suppressions", "import", str(file), "--reason", "May") == "imported 2 entries, 2 of them new\n"
    exported = postroom.run("suppressions", "export").splitlines()
    assert [line.split(",import,")[0] for line in exported[:3]] == [
        "entry,reason,expires,source,created",
        'ann@example.org,"a, b",2030-01-31T00:00:00.000Z',
        "bob@example.org,May,",
    ]
    copy = tmp_path / "list.jsonl"
    postroom.run("suppressions", "export", "--output", str(copy))
    assert copy.stat().st_mode & 0o777 == 0o600
    told = postroom.run("suppressions", "import", "-", "--format", "jsonl", stdin=copy.read_text())
    assert told == "imported 3 entries, 0 of them new\n"
    assert [one["reason"] for one in postroom.json("suppressions", "list", "--limit", "2")["suppressions"]] == [
        "a, b", "May",
    ]  # fmt: skip
    file.write_text("carol@example.org\nnobody\nx.test,r,soon\n")
    status, told = postroom.fails("suppressions", "import", str(file))
    assert status == 64
    assert "line 2, entry: 'nobody' is neither" in told
    assert "line 3, expires: 'soon' is no duration" in told
    assert postroom.fails("suppressions", "show", "carol@example.org")[0] == 66, "nothing was imported"


def test_a_connection_is_tested(postroom: Commands, tmp_path: Path) -> None:
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    bundle.write_text(pem(authority))
    with (
        NameServer({"x.test TXT": ['"v=spf1 mx -all"']}) as names,
        TlsRelay(served(authority.issue_cert("relay.test"))) as relay,
    ):
        postroom.run("settings", "set", "dns.servers", names.address)
        where = ("--host", "127.0.0.1", "--port", str(relay.port), "--security", "tls", "--email-address", "a@x.test")
        trusted = ("--ca-bundle", str(bundle), "--server-name", "relay.test")
        unsaved = postroom.run("accounts", "test", *where, *trusted, "--to", "b@y.test")
        assert "ok      tls" in unsaved and "version TLSv1.3" in unsaved
        assert "ok      recipient" in unsaved and unsaved.endswith("\nunsaved: passed\n")
        postroom.run("accounts", "add", "relay", *where, "--ca-bundle", str(bundle), "--no-enabled")
        status, _ = postroom.fails("accounts", "test", "relay")
        assert status == 1
        told = run_postroom(postroom.environment, "accounts", "test", "relay", check=False).stdout
        assert "FAILED  tls" in told
        assert "run:   postroom accounts edit relay --server-name relay.test" in told
        found = postroom.json("accounts", "test", "relay", "--server-name", "relay.test", "--to", "b@y.test")
        assert found["passed"] and [stage["stage"] for stage in found["stages"]][-3:] == ["spf", "dkim", "dmarc"]
        assert postroom.json("accounts", "show", "relay")["server_name"] == ""
        exported = tmp_path / "accounts.toml"
        exported.write_text(postroom.run("accounts", "export"))
        from_file = postroom.json("accounts", "test", "relay", "--file", str(exported), "--server-name", "relay.test")
        assert from_file["passed"]
    assert postroom.fails("accounts", "test")[0] == 64
    assert postroom.fails("accounts", "test", "nobody")[0] == 66
