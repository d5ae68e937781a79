"""`postroom accounts`: the ordered list of accounts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..accounts.fields import ACCOUNT_FIELDS
from ..errors import Fault, InvalidInput
from .connection import GatewayClient, ask, run
from .options import AsJson, Data, with_fields
from .output import print_fields, print_json, print_table

app = typer.Typer(help="The accounts through which mail leaves, the topmost first.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="Read the password from the first line of a file."),
]

_COLUMNS = ("name", "kind", "enabled", "relay", "security", "username", "description")


@app.command("list")
def list_accounts(data: Data = None, as_json: AsJson = False) -> None:
    """List the accounts in their order: the topmost match sends."""
    answer = ask(data, "GET", "/v1/accounts")
    if as_json:
        print_json(answer)
        return
    rows = [account | {"relay": _relay(account)} for account in answer["accounts"]]
    print_table(_COLUMNS, rows, empty="no accounts")


def _relay(account: dict[str, Any]) -> str:
    return f"{account['host']}:{account['port']}" if account["host"] else ""


@app.command("show")
def show_account(name: Name, data: Data = None, as_json: AsJson = False) -> None:
    """Show an account; its password is never shown."""
    account = ask(data, "GET", f"/v1/accounts/{_quoted(name)}")
    if as_json:
        print_json(account)
    else:
        print_fields(account)


@app.command("add")
@with_fields(ACCOUNT_FIELDS, leave_out={"name", "ca_bundle"})
def add_account(
    name: Name,
    fields: dict[str, Any],
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    ca_bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates (PEM) to trust beside the system's.")
    ] = None,
    granted_to: Annotated[
        str, typer.Option("--for", metavar="APPLICATION", help="Let this application use the account.")
    ] = "",
    allow_sender: Annotated[
        list[str] | None,
        typer.Option("--allow-sender", metavar="PATTERN", help="With --for: whom it may send as; may be repeated."),
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Add an account: above every sandbox, below the other real ones."""
    if allow_sender and not granted_to:
        raise InvalidInput(Fault("--allow-sender", "goes with --for", "name the application, as in --for local"))
    fields |= {"name": name} | _secret_and_file(fields.get("username", ""), password_stdin, password_file, ca_bundle)
    may_ask = sys.stdin.isatty() and not password_stdin

    async def work(client: GatewayClient) -> Any:
        if granted_to:
            senders = list(allow_sender or ())
            if not senders and may_ask:
                senders = await _asked_senders(client, granted_to)
            fields["grant"] = {"application": granted_to, "senders": senders}
        return await client.ask("POST", "/v1/accounts", fields)

    account = run(data, work)
    if as_json:
        print_json(account)
        return
    typer.echo(f"added {account['name']}" + (f"; application {granted_to} may use it" if granted_to else ""))
    if not granted_to:
        typer.echo(f"let an application use it: postroom applications edit local --account {account['name']}")


async def _asked_senders(client: GatewayClient, application: str) -> list[str]:
    """Whom the application may send as from now on, asked for unless that is narrowed down already."""
    current = (await client.ask("GET", f"/v1/applications/{_quoted(application)}"))["senders"]
    if current and "*" not in current:
        return []
    typer.echo(f"Whom may application {application} send as? Addresses, *@example.org or * (anybody), with commas.")
    answer: str = typer.prompt("Allowed senders")
    return [part.strip() for part in answer.split(",") if part.strip()]


@app.command("edit")
@with_fields(ACCOUNT_FIELDS, leave_out={"name", "kind", "ca_bundle"})
def edit_account(
    name: Name,
    fields: dict[str, Any],
    new_name: Annotated[str, typer.Option("--name", metavar="NAME", help="Another name.")] = "",
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    ca_bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates (PEM) to trust beside the system's.")
    ] = None,
    position: Annotated[int | None, typer.Option(metavar="NUMBER", help="Place in the list; 0 is the top.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Change an account; the next transaction uses it, one in progress ends as it began."""
    fields |= _secret_and_file("", password_stdin, password_file, ca_bundle)
    if fields.get("username") == "":
        fields["password"] = ""
    if new_name:
        fields["name"] = new_name

    async def work(client: GatewayClient) -> Any:
        path = f"/v1/accounts/{_quoted(name)}"
        account = await client.ask("PATCH", path, fields)
        if position is not None:
            account = await client.ask("POST", f"/v1/accounts/{_quoted(account['name'])}/move", {"position": position})
        return account

    account = run(data, work)
    if as_json:
        print_json(account)
    else:
        print_fields(account)


@app.command("remove")
def remove_account(name: Name, data: Data = None, as_json: AsJson = False) -> None:
    """Remove an account for which nothing waits."""
    ask(data, "DELETE", f"/v1/accounts/{_quoted(name)}")
    if as_json:
        print_json({"removed": name})
    else:
        typer.echo(f"removed {name}")


def _secret_and_file(
    username: str, password_stdin: bool, password_file: Path | None, ca_bundle: Path | None
) -> dict[str, str]:
    """The fields that come from files, standard input or a prompt; never from the command line, which others see."""
    found = {}
    if password_stdin:
        found["password"] = sys.stdin.readline().rstrip("\r\n")
    elif password_file is not None:
        found["password"] = _text(password_file, "--password-file").partition("\n")[0].rstrip("\r")
    elif username and sys.stdin.isatty():
        found["password"] = typer.prompt(f"Password of {username}", hide_input=True)
    elif username:
        raise InvalidInput(Fault("password", "there is none", "give it with --password-stdin or --password-file FILE"))
    if ca_bundle is not None:
        found["ca_bundle"] = _text(ca_bundle, "--ca-bundle")
    return found


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            Fault(option, f"{path} can't be read: {error}", "name a text file that you may read")
        ) from None


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
