"""What the package imports is what it declares, and the heavy parts are imported where they are used."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.meta.sources import ROOT, python_files, tree

#: Packages that are imported by their own name and always come with another.
COMES_WITH = {"httpcore2": "httpx2", "pydantic-core": "pydantic"}

#: What is imported by another that is declared, where it is there.
SPEEDS_UP = {"psycopg-binary"}


def _imported() -> set[str]:
    names = set()
    for path in python_files("src"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"postroom", "__future__"}


def _declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {line.split(">")[0].strip() for line in project["dependencies"]}


def test_dependencies_are_what_is_imported() -> None:
    distributions = packages_distributions()
    used = {distributions[name][0].lower().replace("_", "-") for name in _imported()}
    assert used - COMES_WITH.keys() == _declared() - SPEEDS_UP
    assert set(COMES_WITH.values()) <= _declared()


def test_every_dependency_is_in_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert [name for name in _declared() if f"\n{name}==" not in f"\n{lock}"] == []
