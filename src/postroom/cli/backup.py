"""`postroom backup`, `restore` and `keys`: the data folder copied while in use and brought back, its keys replaced."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from .connection import ask, run
from .options import AsJson, Data, settings
from .output import print_json, print_table

#: Copying and proving a large database takes its time.
PATIENCE_SECONDS = 3600.0

Folder = Annotated[Path, typer.Argument(help="The backup's folder.")]
_LISTED = ("message_id", "recipient", "reverse_path", "subject", "accepted")


keys = typer.Typer(help="The keys that seal stored secrets.", no_args_is_help=True)


@keys.callback()
def _keys() -> None:
    """The keys that seal stored secrets."""


@keys.command("rotate")
def rotate(data: Data = None, as_json: AsJson = False) -> None:
    """Add a new key above the others and seal every stored secret anew under it."""
    done = ask(data, "POST", "/v1/keys/rotate")
    if as_json:
        print_json(done)
        return
    added = "a new key was added" if done["added"] else "no key was added: they do not come from the keys file"
    typer.echo(f"{added}; the secrets of {done['resealed']} accounts are sealed under the first key")
    typer.echo("Older keys stay: generated passwords and older backups need them.")


def backup(
    folder: Folder,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Take the keys along, which open every stored secret.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Copy the data folder into a new folder, also while the gateway runs, and prove the copy."""
    order = {"folder": str(folder.absolute()), "with_keys": with_keys}
    made: dict[str, Any] = run(
        data, lambda client: client.ask("POST", "/v1/backup", order, patience_seconds=PATIENCE_SECONDS)
    )
    if as_json:
        print_json(made)
        return
    counts = ", ".join(f"{count} {state}" for state, count in made["deliveries"].items()) or "none"
    typer.echo(f"{made['folder']}: {made['messages']} messages (deliveries: {counts}), read back and sound")
    if not made["with_keys"]:
        typer.echo("The keys are not in it: keep a copy of the keys file elsewhere, or accounts can't be opened.")


def restore(
    folder: Folder,
    replace: Annotated[
        bool, typer.Option("--replace", help="Set a database that is there aside under another name.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Bring a backup into a data folder whose gateway is stopped; everything pending in it is held and listed."""
    from datetime import UTC, datetime

    from ..api.parts import to_json
    from ..backup import restore
    from ..config.folder import FolderLock, make_data_folder

    wanted = settings(data)
    make_data_folder(wanted.data)
    with FolderLock(wanted.data):
        done = asyncio.run(restore(wanted, folder, replace=replace, now=datetime.now(UTC)))
    first = to_json(done.first)
    if as_json:
        print_json(to_json(done) | {"first": first})
        return
    typer.echo(f"{wanted.data}: {done.messages} messages restored, {done.held} deliveries held")
    if done.set_aside:
        typer.echo(f"what was there before: {done.set_aside}")
    if not done.held:
        return
    typer.echo("These were pending; they may have been sent since the backup was made:")
    print_table(_LISTED, first)
    if done.held > len(first):
        typer.echo(f"... and {done.held - len(first)} more: postroom queue list --state held")
    typer.echo("Look, start the gateway, then: postroom queue release --all (or cancel)")
