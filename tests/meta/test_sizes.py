"""Functions and modules stay small enough to read (DESIGN section 1), and are named for what they are."""

from __future__ import annotations

import ast

import pytest

from tests.meta.sources import CODE, ROOT, python_files, tree

FUNCTION_LINES = 80
MODULE_LINES = 500
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc", "impl"}


def test_no_function_is_over_80_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in python_files(*CODE)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_no_module_is_over_500_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in python_files(*CODE)}
    assert {name: lines for name, lines in sizes.items() if lines > MODULE_LINES} == {}
    assert len(sizes) > 50


@pytest.mark.parametrize("folder", CODE)
def test_names_say_what_a_module_holds(folder: str) -> None:
    parts = {
        part for path in python_files(folder) for part in path.relative_to(ROOT).with_suffix("").as_posix().split("/")
    }
    assert {part for part in parts if EMPTY_NAMES & set(part.lower().split("_"))} == set()


def test_no_class_is_named_for_nothing() -> None:
    names = [
        node.name for path in python_files("src") for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)
    ]
    assert names
    assert [name for name in names if name.endswith(("Impl", "Manager", "Helper", "Utils"))] == []


def test_every_module_says_what_it_is() -> None:
    silent = [str(path.relative_to(ROOT)) for path in python_files(*CODE) if ast.get_docstring(tree(path)) is None]
    assert silent == []


def test_nothing_is_left_for_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3, "Not" + "ImplementedError")
    left = [
        f"{path.relative_to(ROOT)}: {mark}"
        for path in python_files(*CODE)
        for mark in marks
        if mark in path.read_text()
    ]
    assert left == []
