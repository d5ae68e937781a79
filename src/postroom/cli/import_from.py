"""`postroom accounts import-from`: accounts and applications in the place of another product."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Fault, InvalidInput
from .connection import ask
from .options import AsJson, Data, read_text
from .output import plain, print_json

if TYPE_CHECKING:
    from ..accounts.emailproxy_file import Mailbox
    from ..accounts.from_email_oauth2_proxy import Listener, Takeover

#: Stands for the networks of a person's mail programs, which the other product did not ask for.
_WHO = "192.0.2.0/24"

app = typer.Typer(help="Accounts and applications in the place of another product.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    # Without it typer would take the one command for the whole.
    pass


@app.command("email-oauth2-proxy")
def import_from_email_oauth2_proxy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Its configuration, most often emailproxy.config.")],
    mailbox: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="This mailbox alone, also one that a catch-all section serves."),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Lines of a mailbox, a space, and the password that its mail program logs in to the proxy with.",
        ),
    ] = None,
    ask_passwords: Annotated[
        bool, typer.Option("--ask-passwords", help="Ask for these passwords; an empty one: leave its tokens.")
    ] = False,
    cache_store: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the proxy keeps its tokens, if it has a --cache-store.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would be made.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make accounts and applications of the configuration of email-oauth2-proxy, all of them or none.

    Each mailbox becomes an account for each SMTP server of its provider, and an application with its user name. With
    its password tokens go along, so that nobody consents again, and its mail program goes on as it is.
    """
    from ..accounts.emailproxy_file import ProxyFile
    from ..accounts.from_email_oauth2_proxy import take_over, wanted

    if [str(one) for one in (file, password_file, cache_store)].count("-") > 1:
        raise InvalidInput(Fault("-", "is standard input, which is read once", "give the other files by name"))
    read = ProxyFile(read_text(file, "FILE"), read_text(cache_store, "--cache-store") if cache_store else "")
    mailboxes = wanted(read, mailbox or ())
    passwords = _passwords(password_file, ask_passwords, mailboxes)
    made = take_over(read, mailboxes, passwords, lambda path: read_text(file.parent / path, path))
    together = {"accounts": made.accounts, "applications": made.applications, "dry_run": dry_run}
    try:
        answer = ask(data, "POST", "/v1/accounts/together", together)
    except InvalidInput as refused:
        raise InvalidInput([_as_of_an_import(fault) for fault in refused.faults]) from None
    if as_json:
        print_json(_as_json(answer, made))
    else:
        _tell(answer, made)


def _as_of_an_import(fault: Fault) -> Fault:
    """A name is nobody's to choose here, so that what is there makes room for it."""
    if not fault.field.endswith(".name"):
        return fault
    return replace(fault, mend="rename what is there, or leave the mailbox out: --mailbox names those that you want")


def _passwords(file: Path | None, asks: bool, mailboxes: Sequence[Mailbox]) -> dict[str, str]:
    if file is not None and asks:
        raise InvalidInput(Fault("--ask-passwords", "goes without --password-file", "leave one of them out"))
    if file is not None:
        return _passwords_of(read_text(file, "--password-file"))
    if not asks:
        return {}
    if not sys.stdin.isatty():
        raise InvalidInput(Fault("--ask-passwords", "needs a terminal", "use --password-file FILE"))
    given = {one.name: typer.prompt(f"Password of {one.name}", "", hide_input=True, show_default=False)
             for one in mailboxes}  # fmt: skip
    return {name: password for name, password in given.items() if password}


def _passwords_of(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        name, space, password = line.strip("\r").partition(" ")
        if not name or name.startswith("#"):
            continue
        if not space or not password or "@" not in name:
            # The name is not told: it may be the password, where both stand the other way round.
            fault = f"line {number} has no {'password' if '@' in name else 'mailbox'}"
            raise InvalidInput(Fault("--password-file", fault, "write a mailbox, one space, and its password"))
        if name in found:
            raise InvalidInput(Fault("--password-file", f"{name} stands there twice", "take one of the lines out"))
        found[name] = password
    return found


def _as_json(answer: Mapping[str, Any], made: Takeover) -> dict[str, Any]:
    notes = [{"where": note.where, "what": note.what} for note in made.notes]
    listeners = [
        {"section": one.section, "address": one.address, "port": one.port, "tls": one.tls,
         "certificate": one.certificate, "key": one.key}
        for one in made.listeners
    ]  # fmt: skip
    return {**answer, "notes": notes, "listeners": listeners, "to_authorize": made.to_authorize}


def _tell(answer: Mapping[str, Any], made: Takeover) -> None:
    would = "would add" if answer["dry_run"] else "added"
    own = {str(one["name"]) for one in made.applications if one.get("password")}
    tokens = {str(one["name"]) for one in made.accounts if one.get("oauth_refresh_token")}
    for one in answer["accounts"]:
        whose = f"{one['username']} at {one['host']}:{one['port']}, {one['oauth_provider']}, {one['oauth_flow']}"
        typer.echo(f"{would} account {one['name']}: {plain(whose)}{', with its consent' * (one['name'] in tokens)}")
    for one in answer["applications"]:
        typer.echo(f"{would} application {one['name']}: {_login(one['name'], own, answer['passwords'])}")
    if made.notes:
        typer.echo("\nnot as it was:")
        for note in made.notes:
            typer.echo(f"  {plain(note.where)}: {plain(note.what)}")
    if made.listeners:
        typer.echo(
            "\nthe ports that mail programs know; stop the proxy, write into postroom.toml, start Postroom anew:"
        )
        for one in made.listeners:
            _tell_listener(one)
    if made.to_authorize:
        typer.echo("\nlet somebody consent:")
        for name in made.to_authorize:
            typer.echo(f"  postroom accounts authorize {name}")
    if answer["dry_run"]:
        typer.echo("\nnothing was changed (--dry-run)")


def _login(name: str, own: set[str], passwords: Mapping[str, str]) -> str:
    if name in own:
        return "it logs in with the password that it has"
    if name in passwords:
        return f"password {passwords[name]}   (shown this once; keep it)"
    return "it gets a generated password"


def _tell_listener(one: Listener) -> None:
    from ..accounts import toml_text

    fields: dict[str, object] = {"address": one.address, "port": one.port}
    if one.tls != "none":
        fields |= {"tls": one.tls, "certificate": one.certificate, "key": one.key}
    elif not one.is_local:
        fields |= {"profile": "devices", "allow_clear_login": True, "networks": ["127.0.0.0/8", _WHO]}
    lines = [f"[[smtp.listeners]]  # {plain(one.section)}", *toml_text.table(fields).splitlines()]
    typer.echo()
    for line in lines:
        typer.echo(f"  {line}{'  # who may connect: name your own' * (_WHO in line)}")
