"""The pages of providers: refusals are judged as they say, commands are of this release, limits are the presets'."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from postroom.accounts.definition import parse_account
from postroom.accounts.fields import ACCOUNT_FIELDS
from postroom.accounts.filling import with_preset
from postroom.accounts.presets import presets
from postroom.cli import app
from postroom.model.account import Account
from postroom.model.outcome import Scope
from postroom.model.quantity import format_duration
from postroom.policy.classify import Action, Stage, Verdict, classify, classify_failure
from postroom.protocol.smtp.reply_reader import ReplyReader
from tests.meta.sources import ROOT
from tests.unit.accounts.examples import service_account

FOLDER = ROOT / "docs" / "providers"
PAGES = sorted(FOLDER.glob("*.md"))
#: The page that leads to the others has commands, too, and so have those about changing over to tokens.
INDEX = ROOT / "docs" / "providers.md"
CHANGING_OVER = [ROOT / "docs" / name for name in ("end-of-basic-authentication.md", "from-email-oauth2-proxy.md")]

HEAD = "| the relay says | at | what Postroom does | what you do |"

#: Kind and stage of a connection that could not be had, for what a table says instead of a stage of the dialogue.
FAILURES = {"login": ("no-mechanism", "auth"), "certificate": ("certificate", "tls"), "tls": ("tls", "tls")}

SAYS = {
    Action.BOUNCE: "bounces",
    Action.RETRY: "is tried again",
    Action.SPLIT: "the rest goes at once with the next transaction",
    Action.PLAIN: "goes once more without parameters",
    Action.FEWER: "the account goes on over fewer connections",
    Action.SLOWER: "the account goes slower",
    Action.SLEEP: "the account sleeps",
    Action.STOP: "the account needs attention",
}


def _rows(page: Path) -> list[tuple[str, str, str]]:
    """Reply, where it is given, and what follows, of each row of the page's table of refusals."""
    table = page.read_text("utf-8").partition(HEAD + "\n")[2].partition("\n\n")[0]
    rows = []
    for line in table.splitlines()[1:]:
        found = re.fullmatch(r"\| `([^`]+)` \| ([a-z, -]+) \| ([^|]+) \| [^|]+ \|", line)
        assert found, f"{page.name}: {line}"
        rows.append((found[1], found[2], found[3]))
    return rows


ROWS = [(page.stem, *row) for page in PAGES for row in _rows(page)]


def _in_words(verdict: Verdict) -> str:
    words = SAYS[verdict.action]
    if verdict.wait is not None and verdict.action in (Action.SLEEP, Action.RETRY):
        return f"{words} for {format_duration(verdict.wait)}"
    if verdict.scope is Scope.SENDER:
        return f"{words}, or goes by the next account that matches"
    return f"{words}: there is no such mailbox" if verdict.nobody else words


@pytest.mark.parametrize(("page", "text", "at", "says"), ROWS)
def test_each_refusal_is_judged_as_its_page_says(page: str, text: str, at: str, says: str) -> None:
    if at in FAILURES:
        rule = classify_failure(*FAILURES[at], text, host="mail.corp.example.org", port=587)
        assert rule is not None
        assert SAYS[rule.action] == says
        return
    for stage in (Stage(word.strip()) for word in at.split(",")):
        reader = ReplyReader()
        reader.receive(text.encode() + b"\r\n")
        reply = reader.next_reply("" if stage is Stage.GREETING else stage.upper())
        assert reply is not None
        assert _in_words(classify(stage, reply)) == says, f"at {stage}"


def test_every_page_has_refusals_and_is_led_to() -> None:
    assert len(PAGES) >= 8
    assert {page.stem for page in PAGES} == {name for name, *_ in ROWS}
    index = INDEX.read_text("utf-8")
    assert [page.name for page in PAGES if f"](providers/{page.name})" not in index] == []


@cache
def _root() -> Any:
    return typer.main.get_command(app)


def _parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of the command and what it is given, as the command line reads it, without running it."""
    command = _root()
    context = command.make_context("postroom", words)
    names = []
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        names.append(name)
    return " ".join(names), context.params


def _is_named(words: list[str]) -> bool:
    """Whether there is such a command, with such options; its arguments may be missing."""
    command = _root()
    while words and hasattr(command, "commands"):
        command, words = command.commands.get(words[0]), words[1:]
    options = {word for parameter in getattr(command, "params", ()) for word in parameter.opts}
    return bool(options) and {word for word in words if word.startswith("-")} <= options


def _account(given: dict[str, Any], current: Account | None) -> Account:
    """The account that a page's `accounts add` or `edit` makes, on a machine that has the files it names."""
    fields = {name: value for name, value in given.items() if name in ACCOUNT_FIELDS and value is not None}
    files = {
        name: "marked" for name, value in fields.items() if isinstance(value, Path) and ACCOUNT_FIELDS[name].secret
    }
    kept = {name: value for name, value in fields.items() if not isinstance(value, Path)}
    if "username" in kept and current is None and "authentication" not in kept:
        files["password"] = "marked"
    if "oauth_service_account" in files:
        files["oauth_service_account"] = service_account()
    return parse_account(with_preset(kept | files, current), current)


@pytest.mark.parametrize("page", [*PAGES, INDEX, *CHANGING_OVER], ids=lambda page: page.stem)
def test_each_command_is_one_of_this_release_and_makes_an_account(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?m)^ {4,8}(?:\$ )?postroom (.*)$", text)
    accounts: dict[str, Account] = {}
    for one in (one for one in commands if "..." not in one):
        try:
            name, given = _parsed(shlex.split(one.replace("$FINGERPRINT", ":".join(["9F"] * 32))))
            if name == "accounts add" and page != INDEX:
                accounts[given["name"]] = _account(given, None)
            elif name == "accounts edit" and page != INDEX:
                accounts[given["name"]] = _account(given, accounts[given["name"]])
        except Exception as error:
            pytest.fail(f"postroom {one}: {error!r}")
    assert accounts or page not in PAGES
    named = re.findall(r"`postroom ([a-z][^`.]*)`", text)
    assert [one for one in named if not _is_named(one.split())] == []


def test_limits_that_pages_name_are_those_of_a_preset() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        named = re.findall(r"(?m)^\|.*\| `(\w+) = (\d+)` \|$", text)
        own = [preset.fields for preset in presets() if f"--preset {preset.name}" in text]
        assert own, page.name
        assert [one for one in named if not any(str(fields.get(one[0])) == one[1] for fields in own)] == []
        limits = {name for fields in own for name in fields if name.startswith(("max_", "messages_", "recipients_"))}
        assert limits == {name for name, _ in named}, page.name
