"""A command is built without the others, and is the same as beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from postroom.cli import app, part_named


def leaves(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Commands with their words, those of groups too."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
        return
    for word, one in inner.items():
        yield from leaves(one, *words, word)


def test_the_command_that_is_named_is_built_alone_and_as_it_is() -> None:
    every = dict(leaves(typer.main.get_command(app)))
    assert len(every) > 40
    for words, whole in every.items():
        part = typer.main.get_command(part_named(app, [*words, "--json", "send"]))
        ((found, one),) = leaves(part)
        assert found == words
        assert (part.name, part.help) == (app.info.name, app.info.help)
        assert (one.help, [p.opts for p in one.params]) == (whole.help, [p.opts for p in whole.params])


def test_what_names_no_command_meets_all_that_there_are() -> None:
    every = [words for words, _ in leaves(typer.main.get_command(app))]
    for words in ([], ["--help"], ["acounts", "list"]):
        assert [found for found, _ in leaves(typer.main.get_command(part_named(app, words)))] == every
    accounts = typer.main.get_command(part_named(app, ["accounts", "lst"]))
    assert [words for words, _ in leaves(accounts)] == [words for words in every if words[0] == "accounts"]
