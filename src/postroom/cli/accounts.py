"""`postroom accounts`: the ordered list of accounts."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..accounts.fields import ACCOUNT_FIELDS, DEFAULTS
from ..errors import Fault, InvalidInput
from ..model.account import KeyKind
from ..model.fields import FieldSpec
from .account_files import export_accounts, import_accounts
from .authorize import authorize, print_authorization
from .connection import GatewayClient, ask, run
from .connection_test import test
from .import_from import app as import_from
from .options import AsJson, Data, Reset, quoted, reset_to_default, with_fields
from .output import plain, print_fields, print_json, print_table
from .passwords import add_password
from .presets import list_presets, propose, proposed

app = typer.Typer(help="The accounts through which mail leaves, the topmost first.", no_args_is_help=True)

app.command("export")(export_accounts)
app.command("import")(import_accounts)
app.add_typer(import_from, name="import-from")
app.command("presets")(list_presets)
app.command("propose")(propose)
app.command("test")(test)
app.command("authorize")(authorize)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]

_COLUMNS = ("name", "kind", "enabled", "state", "relay", "security", "username", "description")


@app.command("list")
def list_accounts(data: Data = None, as_json: AsJson = False) -> None:
    """List the accounts in their order: the topmost match sends."""
    answer = ask(data, "GET", "/v1/accounts")
    if as_json:
        print_json(answer)
        return
    rows = [
        account | {"relay": _relay(account), "state": told(account["circuit"])["state"]}
        for account in answer["accounts"]
    ]
    print_table(_COLUMNS, rows, empty="no accounts")


def _relay(account: dict[str, Any]) -> str:
    return f"{account['host']}:{account['port']}" if account["host"] else ""


@app.command("show")
def show_account(
    name: Name,
    show_all: Annotated[bool, typer.Option("--all", help="Also the fields that stand at their default.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show an account: what differs from the defaults. Of secrets it says only whether they are set."""
    account = ask(data, "GET", f"/v1/accounts/{quoted(name)}")
    if as_json:
        print_json(account)
    else:
        _print_account(account, show_all=show_all)
        typer.echo()
        print_fields(told(account["circuit"]))
        print_authorization(account["authorization"])


def told(circuit: dict[str, Any]) -> dict[str, Any]:
    """How an account is, as tables and lists show it."""
    until = f" until {circuit['until']}" if circuit["until"] else ""
    told = {"state": f"{circuit['health']}{until}", "since": circuit["since"], "because": circuit["reason"]}
    return told | {"advice": circuit["advice"]}


def _print_account(account: dict[str, Any], *, show_all: bool = False) -> None:
    """The fields under the tabs of the form."""
    typer.echo(f"{account['name']}, position {account['position']}, revision {account['revision']}")
    tab = ""
    for spec in ACCOUNT_FIELDS.values():
        value = account["secrets"][spec.name] if spec.secret else account[spec.name]
        default = "not set" if spec.secret else spec.show(DEFAULTS.get(spec.name))
        if spec.name == "name" or (value == default and spec.name != "kind" and not show_all):
            continue
        if tab != spec.tab:
            tab = spec.tab
            typer.echo(f"\n{tab}")
        typer.echo(f"  {spec.name.replace('_', ' '):<28}  {_in_short(value, spec)}".rstrip())
    if account["not_built"]:
        typer.echo(f"\nit sends nothing: this release cannot obey {plain(account['not_built'])} yet")
    _print_warnings(account)


def _print_warnings(account: dict[str, Any]) -> None:
    for warning in account["warnings"]:
        typer.echo(f"warning: {account['name']} {warning}")


def _in_short(value: Any, spec: FieldSpec) -> str:
    """A value in one line; of a certificate only how long it is."""
    if value is None:
        return spec.form.rpartition(" or ")[2]
    if isinstance(value, str) and "\n" in value:
        return f"({len(value.splitlines())} lines)"
    return plain(value)


@app.command("add")
@with_fields(ACCOUNT_FIELDS, leave_out={"name"})
def add_account(
    name: Name,
    fields: dict[str, Any],
    password_stdin: PasswordStdin = False,
    for_address: Annotated[
        str,
        typer.Option("--for-address", metavar="ADDRESS", help="Take what is known of this mailbox's provider."),
    ] = "",
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
    may_ask = sys.stdin.isatty() and not password_stdin

    async def work(client: GatewayClient) -> Any:
        if for_address:
            fields.update(await proposed(client, for_address, may_ask=may_ask) | fields)
        fields["name"] = name
        add_password(fields, password_stdin, needed=True)
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
    _print_warnings(account)
    if not granted_to:
        typer.echo(f"let an application use it: postroom applications edit local --account {account['name']}")


async def _asked_senders(client: GatewayClient, application: str) -> list[str]:
    """Whom the application may send as from now on, asked for unless that is narrowed down already."""
    current = (await client.ask("GET", f"/v1/applications/{quoted(application)}"))["senders"]
    if current and "*" not in current:
        return []
    typer.echo(f"Whom may application {application} send as? Addresses, *@example.org or * (anybody), with commas.")
    answer: str = typer.prompt("Allowed senders")
    return [part.strip() for part in answer.split(",") if part.strip()]


@app.command("edit")
@with_fields(ACCOUNT_FIELDS, leave_out={"name", "kind"})
def edit_account(
    name: Name,
    fields: dict[str, Any],
    new_name: Annotated[str, typer.Option("--name", metavar="NAME", help="Another name.")] = "",
    password_stdin: PasswordStdin = False,
    reset: Reset = None,
    position: Annotated[int | None, typer.Option(metavar="NUMBER", help="Place in the list; 0 is the top.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Change an account; the next transaction uses it, one in progress ends as it began."""
    add_password(fields, password_stdin, needed=False)
    reset_to_default(fields, reset)
    if new_name:
        fields["name"] = new_name

    async def work(client: GatewayClient) -> Any:
        path = f"/v1/accounts/{quoted(name)}"
        account = await client.ask("PATCH", path, fields)
        if position is not None:
            account = await client.ask("POST", f"/v1/accounts/{quoted(account['name'])}/move", {"position": position})
        return account

    account = run(data, work)
    if as_json:
        print_json(account)
    else:
        _print_account(account)


@app.command("remove")
def remove_account(name: Name, data: Data = None, as_json: AsJson = False) -> None:
    """Remove an account for which nothing waits."""
    ask(data, "DELETE", f"/v1/accounts/{quoted(name)}")
    if as_json:
        print_json({"removed": name})
    else:
        typer.echo(f"removed {name}")


@app.command("dkim")
def dkim_keys(
    name: Name,
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="With --selector: make keys that sign for it.")] = "",
    selector: Annotated[
        str, typer.Option(metavar="NAME", help="Where DNS will have the public key: NAME._domainkey.DOMAIN.")
    ] = "",
    key: Annotated[
        KeyKind, typer.Option(help="Which to make: RSA of 2048 bits, Ed25519, or both (the second at NAME-ed25519).")
    ] = KeyKind.RSA,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the keys: mail is no longer signed here.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make the keys that sign the account's mail (DKIM) and print the DNS records to publish; alone: print them."""
    path = f"/v1/accounts/{quoted(name)}/dkim"
    if remove:
        if domain or selector:
            raise InvalidInput(Fault("--remove", "goes without --domain and --selector", "leave them out"))
        ask(data, "DELETE", path)
        print_json({"removed": name}) if as_json else typer.echo(f"mail of account {name} is no longer signed here")
        return
    if bool(domain) != bool(selector):
        missing = "--selector" if domain else "--domain"
        raise InvalidInput(Fault(missing, "there is none", "give both, as in --domain example.org --selector s1"))
    made = {"domain": domain, "selector": selector, "key": key.value}
    answer = ask(data, "POST", path, made) if domain else ask(data, "GET", path)
    if as_json:
        print_json(answer)
        return
    if not answer["keys"]:
        typer.echo(f"mail of account {name} is not signed; --domain and --selector make keys")
        return
    typer.echo(f"mail of account {answer['account']} is signed for {answer['domain']}; DNS must have:")
    for one in answer["keys"]:
        typer.echo(f"\n{one['zone_line']}")
