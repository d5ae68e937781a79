"""`postroom accounts export` and `import`: the list as a TOML file, secrets sealed under a passphrase."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Fault, InvalidInput
from .connection import ask
from .options import AsJson, Data, read_text
from .output import plain, print_json

PassphraseFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read the passphrase from the first line of a file; - is standard input."),
]


def export_accounts(
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there, for its owner alone.")] = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Also the secrets, sealed under a passphrase.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Write the accounts as TOML, in their order; secrets only with --with-secrets."""
    if passphrase_file is not None and not with_secrets:
        raise InvalidInput(Fault("--passphrase-file", "goes with --with-secrets", "add it, or leave this out"))
    order: dict[str, Any] = {"with_secrets": with_secrets}
    if with_secrets:
        order["passphrase"] = _passphrase(passphrase_file, confirm=True)
    answer = ask(data, "POST", "/v1/accounts/export", order)
    if output is not None:
        write_file(output, answer["toml"])
        typer.echo(f"wrote {output}")
    elif as_json:
        print_json(answer)
    else:
        typer.echo(answer["toml"], nl=False)


def write_file(path: Path, text: str) -> None:
    """Write a file for its owner alone.

    Raises:
        InvalidInput: it can't be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        mend = "name a file in a folder that you may write to"
        raise InvalidInput(Fault("--output", f"{path} can't be written: {error.strerror}", mend)) from None


def import_accounts(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file; - is standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would change.")] = False,
    passphrase_file: PassphraseFile = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make the accounts of a file as it says, all of them or none; others stay as they are.

    A field that the file does not name goes back to its default; a secret that it does not name stays.
    """
    if str(file) == "-" and str(passphrase_file) == "-":
        raise InvalidInput(Fault("--passphrase-file", "is standard input, as the file is", "give one of them by name"))
    given: dict[str, Any] = {"toml": read_text(file, "FILE"), "dry_run": dry_run}
    if passphrase_file is not None or "\n[sealing]" in given["toml"]:
        given["passphrase"] = _passphrase(passphrase_file, confirm=False)
    answer = ask(data, "POST", "/v1/accounts/import", given)
    if as_json:
        print_json(answer)
        return
    for change in answer["changes"]:
        typer.echo(f"{_told(change['action'], dry_run)} {change['account']}")
        for one in change["fields"]:
            typer.echo(f"  {one['field']}: {_short(one['before'])} -> {_short(one['after'])}")
    typer.echo(f"order: {', '.join(answer['order'])}")
    if dry_run:
        typer.echo("nothing was changed (--dry-run)")


def _told(action: str, dry_run: bool) -> str:
    if action == "unchanged" or not dry_run:
        return action
    return {"added": "would add", "changed": "would change"}[action]


def _short(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        return f"({len(value.splitlines())} lines)"
    return plain(value) or "none"


def _passphrase(file: Path | None, *, confirm: bool) -> str:
    if file is not None:
        return read_text(file, "--passphrase-file").partition("\n")[0].rstrip("\r")
    if not sys.stdin.isatty():
        raise InvalidInput(Fault("passphrase", "there is none", "give it with --passphrase-file FILE"))
    passphrase: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    return passphrase
