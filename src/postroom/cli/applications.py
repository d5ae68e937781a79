"""`postroom applications`: who may submit."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from ..applications.fields import APPLICATION_FIELDS
from .connection import GatewayClient, ask, run
from .options import AsJson, Data, Reset, reset_to_default, with_fields
from .output import print_fields, print_json, print_table

app = typer.Typer(help="Applications: who may submit, as whom, and through which accounts.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The application.")]
Senders = Annotated[
    list[str] | None,
    typer.Option("--allow-sender", metavar="PATTERN", help="Whom it may send as: an address, *@example.org, *."),
]
Accounts = Annotated[
    list[str] | None, typer.Option("--account", metavar="NAME", help="An account that it may use, * or kind:sandbox.")
]
Networks = Annotated[
    list[str] | None, typer.Option("--network", metavar="CIDR", help="From where it may come, as in 10.1.0.0/16.")
]

_LISTS = {"senders", "accounts", "networks"}
_COLUMNS = ("name", "enabled", "passwordless", "networks", "senders", "accounts", "description")


@app.command("list")
def list_applications(data: Data = None, as_json: AsJson = False) -> None:
    """List the applications."""
    answer = ask(data, "GET", "/v1/applications")
    if as_json:
        print_json(answer)
    else:
        print_table(_COLUMNS, answer["applications"], empty="no applications")


@app.command("show")
def show_application(name: Name, data: Data = None, as_json: AsJson = False) -> None:
    """Show an application; its password is never shown again."""
    application = ask(data, "GET", _path(name))
    if as_json:
        print_json(application)
    else:
        print_fields(application)


@app.command("add")
@with_fields(APPLICATION_FIELDS, leave_out={"name", *_LISTS})
def add_application(
    name: Name,
    fields: dict[str, Any],
    allow_sender: Senders = None,
    account: Accounts = None,
    network: Networks = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Add an application; its generated password is shown this once."""
    given = {"senders": allow_sender, "accounts": account, "networks": network}
    fields |= {"name": name} | {field: values for field, values in given.items() if values}
    application = ask(data, "POST", "/v1/applications", fields)
    if as_json:
        print_json(application)
        return
    typer.echo(f"added {application['name']}")
    _show_password(application["name"], application["password"])
    if not application["senders"]:
        typer.echo(f"it may send as nobody yet: postroom applications edit {name} --allow-sender '*@example.org'")


@app.command("edit")
@with_fields(APPLICATION_FIELDS, leave_out={"name", *_LISTS})
def edit_application(
    name: Name,
    fields: dict[str, Any],
    new_name: Annotated[str, typer.Option("--name", metavar="NAME", help="Another name.")] = "",
    allow_sender: Senders = None,
    remove_sender: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Take an allowed sender away.")
    ] = None,
    account: Accounts = None,
    remove_account: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Take an account away.")] = None,
    network: Networks = None,
    remove_network: Annotated[list[str] | None, typer.Option(metavar="CIDR", help="Take a network away.")] = None,
    new_password: Annotated[
        bool, typer.Option("--new-password", help="Generate a new password; the old one ends at once.")
    ] = False,
    reset: Reset = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Change an application: --allow-sender, --account and --network add to what it has."""
    reset_to_default(fields, reset)
    if new_name:
        fields["name"] = new_name
    changes = {
        "senders": (allow_sender, remove_sender),
        "accounts": (account, remove_account),
        "networks": (network, remove_network),
    }

    async def work(client: GatewayClient) -> Any:
        current = await client.ask("GET", _path(name))
        for field, (added, removed) in changes.items():
            if added or removed:
                gone = {one.lower() for one in removed or ()}
                fields[field] = [one for one in current[field] if one.lower() not in gone] + (added or [])
        application = await client.ask("PATCH", _path(name), fields)
        if new_password:
            application |= await client.ask("POST", f"{_path(application['name'])}/rotate")
        return application

    application = run(data, work)
    if as_json:
        print_json(application)
        return
    password = application.pop("password", "")
    print_fields(application)
    _show_password(application["name"], password)


def _show_password(name: str, password: str) -> None:
    if password:
        typer.echo(f"user name  {name}")
        typer.echo(f"password   {password}   (shown this once; keep it)")


def _path(name: str) -> str:
    return f"/v1/applications/{quote(name, safe='')}"
